//! What a connection does: whether it has begun, stalls in the middle of a request's head, has no request, or is
//! worth waiting for when the server ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;

use crate::arrival::grpc_deadline;

/// Seen by the stream, by the requests, and by whoever ends the connection.
pub struct Activity {
    protocol: Protocol,
    state: Mutex<State>,
}

enum Protocol {
    Http2,
    /// Where requests come one after the other.
    Http1 {
        /// In which the head of a request has to be complete.
        head: Duration,
        /// In which a request has to be answered.
        request: Option<Duration>,
    },
}

struct State {
    head: Head,
    /// When the first byte of the next request came, in HTTP/1.
    first_byte: Option<Instant>,
    requests: BTreeMap<u64, Phase>,
    next: u64,
    /// Since when there are no requests.
    idle_since: Instant,
    /// When something was received last, and sent.
    received: Instant,
    sent: Instant,
    /// Since when the client takes nothing of what is to be sent.
    unsent_since: Option<Instant>,
}

enum Head {
    /// HTTP/2's preface and settings, of which these bytes have come, are complete until then.
    Settings(Vec<u8>, Instant),
    /// That of a request of HTTP/1 is complete until then.
    Begun(Instant),
    None,
}

/// How far a request is.
#[derive(Clone, Copy)]
enum Phase {
    /// Its body is not complete; until its own deadline, if it has one.
    Coming(Option<Instant>),
    Computing,
    /// Since then the client can read the answer.
    Answering(Instant),
}

/// Why a connection ends.
pub enum Stall {
    /// The client has begun something, and does not go on.
    Halfway(&'static str),
    /// The client does not begin anything.
    Idle,
}

/// What a request is that has begun.
pub struct Begun {
    pub number: u64,
    pub deadline: Option<Instant>,
}

/// When the server ends, for a client that is silent in the middle of a request, or of reading an answer.
const SILENT: Duration = Duration::from_secs(5);
/// For one without a request, to hear of the end.
const ROUND_TRIP: Duration = Duration::from_secs(2);
/// Between looks at what goes on.
const LOOK: Duration = Duration::from_secs(1);

impl Activity {
    /// Of a connection of HTTP/2, which must have begun by then.
    pub fn http2(until: Instant) -> Arc<Self> {
        Self::new(Protocol::Http2, Head::Settings(Vec::new(), until))
    }

    /// Of a connection of HTTP/1. The first request's head must be complete after the first time, and those of others
    /// after that time from their first byte; each must be answered after the second time from its first byte.
    pub fn http1(head: Duration, request: Option<Duration>) -> Arc<Self> {
        Self::new(Protocol::Http1 { head, request }, Head::Begun(Instant::now() + head))
    }

    fn new(protocol: Protocol, head: Head) -> Arc<Self> {
        let now = Instant::now();
        let state = Mutex::new(State {
            head,
            first_byte: None,
            requests: BTreeMap::new(),
            next: 0,
            idle_since: now,
            received: now,
            sent: now,
            unsent_since: None,
        });
        Arc::new(Self { protocol, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client speaks HTTP/2, if it is to.
    pub fn has_begun(&self) -> bool {
        !matches!(self.lock().head, Head::Settings(..))
    }

    /// How many requests have come and are not answered.
    pub fn owed(&self) -> usize {
        let state = self.lock();
        let is_owed = |phase: &&Phase| !matches!(phase, Phase::Coming(_));
        let owed = state.requests.values().filter(is_owed).count();
        // In HTTP/1 an answer may be made, but not sent.
        owed.max(state.unsent_since.is_some().into())
    }

    /// Until the client stalls, or has had no request for so long.
    pub async fn stalled(&self, idle: Option<Duration>) -> Stall {
        loop {
            let now = Instant::now();
            let (until, stall) = self.next_stall(now, idle);
            if until.is_some_and(|until| until <= now) {
                return stall;
            }
            // No sooner than that may a head stall that begins after this look.
            let next = match self.protocol {
                Protocol::Http2 => None,
                Protocol::Http1 { head, .. } => Some(now + head),
            };
            match until.into_iter().chain(next).min() {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// When the client has stalled if nothing changes; `None` for never.
    fn next_stall(&self, now: Instant, idle: Option<Duration>) -> (Option<Instant>, Stall) {
        let state = self.lock();
        let until = match (&state.head, &self.protocol) {
            (Head::Settings(_, until), _) => {
                return (Some(*until), Stall::Halfway("HTTP/2's settings are not there in time"));
            }
            (Head::Begun(until), _) => {
                return (Some(*until), Stall::Halfway("a request's head is not there in time"));
            }
            (Head::None, _) if !state.requests.is_empty() => now,
            // HTTP/2 sends pings even if nothing is asked of it.
            (Head::None, Protocol::Http2) => state.idle_since,
            (Head::None, Protocol::Http1 { .. }) => state.idle_since.max(state.sent),
        };
        (idle.map(|idle| until + idle), Stall::Idle)
    }

    /// Once no more requests are taken: until there is none, and the client had the time to hear of it.
    pub async fn without_requests(&self) {
        let begun = Instant::now();
        self.until_past(|state, now| match state.requests.is_empty() {
            true => state.idle_since.max(state.sent).max(begun) + SILENT,
            false => now + LOOK,
        })
        .await;
    }

    /// Once the server ends: until nothing is left that is worth waiting for. That is a request that has come, the rest
    /// of the time of one that comes, and a client that reads.
    pub async fn spent(&self) {
        let begun = Instant::now();
        let is_http2 = matches!(self.protocol, Protocol::Http2);
        self.until_past(|state, now| {
            let of_request = |phase: &Phase| match *phase {
                // What the server says then has to be sent.
                Phase::Coming(Some(until)) => until + LOOK,
                Phase::Coming(None) => state.received.max(begun) + SILENT,
                Phase::Computing => now + LOOK,
                Phase::Answering(since) => since.max(state.sent) + SILENT,
            };
            let head = match state.head {
                Head::Begun(until) => state.first_byte.map(|_| until),
                _ => None,
            };
            let unsent = state.unsent_since.map(|since| since + SILENT);
            let hears = is_http2.then(|| state.received.max(begun) + ROUND_TRIP);
            let requests = state.requests.values().map(of_request);
            requests.chain(head).chain(unsent).chain(hears).max().unwrap_or(now)
        })
        .await;
    }

    /// Until a time is past that may change meanwhile.
    async fn until_past(&self, time: impl Fn(&State, Instant) -> Instant) {
        loop {
            let now = Instant::now();
            let until = time(&self.lock(), now);
            if until <= now {
                return;
            }
            tokio::time::sleep_until(until.min(now + LOOK).into()).await;
        }
    }

    pub fn received(&self, bytes: &[u8]) {
        const PREFACE: usize = 24;
        const FRAME_HEAD: usize = 9;
        let now = Instant::now();
        let mut state = self.lock();
        state.received = now;
        let is_idle = state.requests.is_empty();
        match (&mut state.head, &self.protocol) {
            (Head::Settings(begin, _), _) => {
                begin.extend(bytes);
                let settings = begin.get(PREFACE..PREFACE + FRAME_HEAD).map(|head| {
                    let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    PREFACE + FRAME_HEAD + size as usize
                });
                if settings.is_some_and(|all| begin.len() >= all) {
                    state.head = Head::None;
                    state.idle_since = now;
                }
            }
            (_, Protocol::Http2) => {}
            (begun, Protocol::Http1 { head, .. }) => {
                if is_idle && matches!(begun, Head::None) {
                    *begun = Head::Begun(now + *head);
                }
                state.first_byte.get_or_insert(now);
            }
        }
    }

    pub fn sent(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        state.sent = now;
        state.unsent_since = Some(now);
    }

    pub fn sends_nothing(&self) {
        self.lock().unsent_since.get_or_insert_with(Instant::now);
    }

    pub fn has_sent_all(&self) {
        self.lock().unsent_since = None;
    }

    /// A request whose head is there.
    pub fn begin(&self, headers: &HeaderMap) -> Begun {
        let now = Instant::now();
        let mut state = self.lock();
        let deadline = match self.protocol {
            Protocol::Http2 => grpc_deadline(headers, now),
            Protocol::Http1 { request, .. } => {
                let begun = state.first_byte.take().unwrap_or(now);
                request.and_then(|time| begun.checked_add(time))
            }
        };
        state.head = Head::None;
        let number = state.next;
        state.next += 1;
        state.requests.insert(number, Phase::Coming(deadline));
        Begun { number, deadline }
    }

    /// A request is there in full.
    pub fn has_come(&self, number: u64) {
        self.turn(number, Phase::Computing, |phase| matches!(phase, Phase::Coming(_)));
    }

    /// A request has an answer. It may be answered before it has come.
    pub fn is_answered(&self, number: u64) {
        let answering = Phase::Answering(Instant::now());
        self.turn(number, answering, |phase| matches!(phase, Phase::Computing));
    }

    fn turn(&self, number: u64, to: Phase, is_from: fn(Phase) -> bool) {
        let mut state = self.lock();
        let Some(phase) = state.requests.get_mut(&number).filter(|phase| is_from(**phase)) else {
            return;
        };
        let was_coming = matches!(phase, Phase::Coming(_));
        *phase = to;
        if was_coming {
            // What has come so far was this one's.
            state.first_byte = None;
        }
    }

    /// A request's answer was taken, or it is given up.
    pub fn end(&self, number: u64) {
        let mut state = self.lock();
        if let Some(Phase::Coming(_)) = state.requests.remove(&number) {
            state.first_byte = None;
        }
        state.idle_since = Instant::now();
    }
}
