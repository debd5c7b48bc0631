//! What a connection does: whether it has begun, stalls in the middle of a request's head, or has no request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::lane::Client;

/// Seen by the stream, by the requests, and by whoever ends the connection.
pub struct Activity {
    /// In which heads of requests have to be complete, where they come one after the other.
    head_timeout: Option<Duration>,
    state: Mutex<State>,
}

struct State {
    head: Head,
    requests: usize,
    /// Since when there are none.
    idle_since: Instant,
    /// When something was sent last.
    sent: Instant,
}

enum Head {
    /// HTTP/2's preface and settings, of which these bytes have come, are complete until then.
    Settings(Vec<u8>, Instant),
    /// That of a request of HTTP/1 is complete until then.
    Begun(Instant),
    None,
}

/// Why a connection ends.
pub enum Stall {
    /// The client has begun something, and does not go on.
    Halfway(&'static str),
    /// The client does not begin anything.
    Idle,
}

impl Activity {
    /// Of a connection of HTTP/2, which must have begun by then.
    pub fn http2(until: Instant) -> Arc<Self> {
        Self::new(None, Head::Settings(Vec::new(), until))
    }

    /// Of a connection of HTTP/1. The first request's head must be complete after that time, and those of others after
    /// that time from their first byte.
    pub fn http1(head_timeout: Duration) -> Arc<Self> {
        Self::new(Some(head_timeout), Head::Begun(Instant::now() + head_timeout))
    }

    fn new(head_timeout: Option<Duration>, head: Head) -> Arc<Self> {
        let now = Instant::now();
        let state = Mutex::new(State { head, requests: 0, idle_since: now, sent: now });
        Arc::new(Self { head_timeout, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client speaks HTTP/2, if it is to.
    pub fn has_begun(&self) -> bool {
        !matches!(self.lock().head, Head::Settings(..))
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
            let next = self.head_timeout.map(|timeout| now + timeout);
            match until.into_iter().chain(next).min() {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// When the client has stalled if nothing changes; `None` for never.
    fn next_stall(&self, now: Instant, idle: Option<Duration>) -> (Option<Instant>, Stall) {
        let state = self.lock();
        let until = match state.head {
            Head::Settings(_, until) => {
                return (Some(until), Stall::Halfway("HTTP/2's settings are not there in time"));
            }
            Head::Begun(until) => {
                return (Some(until), Stall::Halfway("a request's head is not there in time"));
            }
            Head::None if state.requests > 0 => now,
            // HTTP/2 sends pings even if nothing is asked of it.
            Head::None if self.head_timeout.is_none() => state.idle_since,
            Head::None => state.idle_since.max(state.sent),
        };
        (idle.map(|idle| until + idle), Stall::Idle)
    }

    /// Until there was no request, and nothing was sent, for so long, from now on.
    pub async fn quiet(&self, time: Duration) {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            let until = {
                let state = self.lock();
                let since = if state.requests > 0 { now } else { state.idle_since.max(state.sent) };
                since.max(begun) + time
            };
            if until <= now {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn received(&self, bytes: &[u8]) {
        const PREFACE: usize = 24;
        const FRAME_HEAD: usize = 9;
        let mut state = self.lock();
        let is_idle = state.requests == 0;
        match (&mut state.head, self.head_timeout) {
            (Head::Settings(begin, _), _) => {
                begin.extend(bytes);
                let settings = begin.get(PREFACE..PREFACE + FRAME_HEAD).map(|head| {
                    let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    PREFACE + FRAME_HEAD + size as usize
                });
                if settings.is_some_and(|all| begin.len() >= all) {
                    state.head = Head::None;
                    state.idle_since = Instant::now();
                }
            }
            (Head::None, Some(timeout)) if is_idle => {
                state.head = Head::Begun(Instant::now() + timeout);
            }
            _ => {}
        }
    }

    fn begin_request(self: &Arc<Self>) -> Answering {
        let mut state = self.lock();
        state.requests += 1;
        state.head = Head::None;
        Answering(self.clone())
    }
}

/// A request, until its answer has been taken or it is given up.
struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        state.idle_since = Instant::now();
    }
}

/// A service whose requests count as activity, and know their client.
pub struct Counting<S> {
    service: S,
    client: Client,
    activity: Arc<Activity>,
}

impl<S> Counting<S> {
    pub fn new(service: S, client: Client, activity: Arc<Activity>) -> Self {
        Self { service, client, activity }
    }
}

impl<S, B> Service<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Future: Send + 'static>,
{
    type Response = Response<Counted<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.client);
        let counts = self.activity.begin_request();
        let answered = self.service.call(request);
        Box::pin(async move { Ok(answered.await?.map(|body| Counted { body, _counts: counts })) })
    }
}

/// The body of an answer, whose request counts until it ends.
pub struct Counted<B> {
    body: B,
    _counts: Answering,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose bytes count as activity.
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = result {
            self.activity.lock().sent = Instant::now();
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.activity.received(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.sent(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
