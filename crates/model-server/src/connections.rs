//! Connections of gRPC and REST, so many at a time: one more is taken once another has ended.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, Join};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tracing::{debug, warn};

use crate::activity::{Activity, Stall};
use crate::authority::{Renamed, renamed};
use crate::held_pong::HeldPong;
use crate::lane::Client;
use crate::serving_threads::ServingThreads;
use crate::tls;
use crate::watched::{Counting, Watched};

/// How far the server is with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum End {
    NotYet,
    /// No new requests are taken.
    Draining,
    /// No more is waited for.
    Over,
}

pub type Ending = watch::Receiver<End>;

/// Until the server is so far.
async fn reached(mut ending: Ending, end: End) {
    let _ = ending.wait_for(|&now| now >= end).await;
}

/// Takes connections of one kind.
pub struct Connections<L> {
    listener: L,
    free: Arc<Semaphore>,
    threads: Arc<ServingThreads>,
}

/// What takes connections.
pub trait Accept: Send + Sync + 'static {
    /// A connection that no thread serves yet.
    type Raw: Send + 'static;
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// A connection, and the client's address.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Raw, Arc<str>)>> + Send;
    /// Has the calling thread's runtime look after it.
    fn adopt(raw: Self::Raw) -> io::Result<Self::Stream>;
}

impl Accept for TcpListener {
    type Raw = std::net::TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(Self::Raw, Arc<str>)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Answers are small, and waited for.
        stream.set_nodelay(true)?;
        keep_little_unsent(&stream)?;
        // Clients of IPv4 come to a listener of IPv6 as well.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Ok((stream.into_std()?, peer.to_string().into()))
    }

    fn adopt(raw: Self::Raw) -> io::Result<TcpStream> {
        TcpStream::from_std(raw)
    }
}

/// Has the system take no more than this before the client has room for it. Otherwise it takes megabytes, and what a
/// slow client reads would show only after many seconds.
fn keep_little_unsent(stream: &TcpStream) -> io::Result<()> {
    let bytes: libc::c_int = 128 << 10;
    // SAFETY: the socket is open, and the value has the size that is given.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Accept for UnixListener {
    type Raw = std::os::unix::net::UnixStream;
    type Stream = Join<Renamed, OwnedWriteHalf>;

    async fn accept(&self) -> io::Result<(Self::Raw, Arc<str>)> {
        Ok((UnixListener::accept(self).await?.0.into_std()?, "unix".into()))
    }

    fn adopt(raw: Self::Raw) -> io::Result<Self::Stream> {
        Ok(renamed(UnixStream::from_std(raw)?))
    }
}

/// Who is at the other end of a connection.
pub struct Other {
    client: Client,
    peer: Arc<str>,
}

/// Serves a connection of one protocol.
pub trait Serve<S>: Clone + Send + 'static {
    /// Until the client ends it, breaks a limit, or the server has answered its last request. Says how many requests
    /// were left without an answer because the server's end is over.
    fn serve(self, stream: S, other: Other, ending: Ending) -> impl Future<Output = usize> + Send;
}

/// After what time a connection ends; `None` for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// In which the client has to agree on TLS and HTTP/2, or to send the head of a REST request.
    pub handshake: Duration,
    /// Without a request.
    pub idle: Option<Duration>,
    /// In all. From then on it takes no more requests.
    pub age: Option<Duration>,
    /// That requests have from then on.
    pub grace: Option<Duration>,
}

/// How gRPC's connections are served.
#[derive(Clone)]
pub struct Grpc {
    pub routes: Routes,
    pub tls: Option<TlsAcceptor>,
    pub http2: http2::Builder<TokioExecutor>,
    pub times: Times,
}

/// Requests that a connection may have open. gRPC's C++ library has no limit; --max_waiting_requests is the one that
/// clients should meet.
const MOST_STREAMS: u32 = 100_000;
/// Requests that a client gives up before the server has looked at them: all that it may have open.
const MOST_RESETS: usize = MOST_STREAMS as usize;
/// Requests that the server gives up over the life of a connection, such as those that are answered before they are
/// complete. Each may take memory for as long as the client does not read.
const MOST_OWN_RESETS: usize = 100_000;

impl Grpc {
    pub fn new(routes: Routes, tls: Option<TlsAcceptor>, handshake: Duration) -> Self {
        // Room for the tensors of a request.
        const WINDOW: u32 = 8 << 20;
        // To find peers that are gone without a word within a minute. gRPC's libraries need 2 hours.
        const PING_AFTER: Duration = Duration::from_secs(30);
        const PING_TIMEOUT: Duration = Duration::from_secs(20);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_frame_size(1 << 20)
            .max_concurrent_streams(MOST_STREAMS)
            .max_pending_accept_reset_streams(MOST_RESETS)
            .max_local_error_reset_streams(MOST_OWN_RESETS)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT);
        let times = Times { handshake, idle: None, age: None, grace: None };
        Self { routes, tls, http2, times }
    }

    async fn serve_http2<S>(&self, stream: S, other: Other, until: Instant, ending: Ending) -> usize
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let activity = Activity::http2(until);
        let service = TowerToHyperService::new(self.routes.clone());
        let Other { client, peer } = other;
        let service = Counting::new(service, client, peer, activity.clone());
        let stream = HeldPong::new(Watched::new(stream, activity.clone()));
        let served = self.http2.serve_connection(TokioIo::new(stream), service);
        finish(served, http2::Connection::graceful_shutdown, &activity, &self.times, client, ending)
            .await
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Serve<S> for Grpc {
    async fn serve(self, stream: S, other: Other, ending: Ending) -> usize {
        let until = Instant::now() + self.times.handshake;
        let Some(tls) = &self.tls else {
            return self.serve_http2(stream, other, until, ending).await;
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout_at(until.into(), tls.accept(stream)) => accepted,
            () = reached(ending.clone(), End::Draining) => return 0,
        };
        match accepted {
            Ok(Ok(stream)) => return self.serve_http2(stream, other, until, ending).await,
            Ok(Err(error)) => tls::say_why(&error),
            Err(_) => debug!("a connection that does not come to an agreement on TLS"),
        }
        0
    }
}

/// How REST's connections are served.
#[derive(Clone)]
pub struct Http {
    pub routes: Router,
    pub times: Times,
    /// In which a request has to be answered.
    pub request_timeout: Option<Duration>,
}

impl Serve<TcpStream> for Http {
    async fn serve(self, stream: TcpStream, other: Other, ending: Ending) -> usize {
        let activity = Activity::http1(self.times.handshake, self.request_timeout);
        let service = TowerToHyperService::new(self.routes);
        let Other { client, peer } = other;
        let service = Counting::new(service, client, peer, activity.clone());
        let stream = TokioIo::new(Watched::new(stream, activity.clone()));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // An activity knows a connection that waits for a request from one that stalls in the middle of it.
            .header_read_timeout(None)
            .serve_connection(stream, service);
        finish(served, http1::Connection::graceful_shutdown, &activity, &self.times, client, ending)
            .await
    }
}

/// Serves a connection until it ends, or has to.
async fn finish<F, E>(
    served: F,
    shut_down: fn(Pin<&mut F>),
    activity: &Arc<Activity>,
    times: &Times,
    client: Client,
    ending: Ending,
) -> usize
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut served = pin!(served);
    let age = times.age.map(|age| varied(age, client));
    let mut grace = None;
    let result = tokio::select! {
        result = &mut served => Some(result),
        stalled = activity.stalled(times.idle) => match stalled {
            Stall::Halfway(why) => {
                debug!("a connection ends: {why}");
                return 0;
            }
            Stall::Idle => None,
        },
        () = after(age) => {
            grace = times.grace;
            None
        }
        () = reached(ending.clone(), End::Draining) => None,
    };
    let result = match result {
        Some(result) => result,
        None if !activity.has_begun() => return 0,
        None => {
            shut_down(served.as_mut());
            let spent = async {
                reached(ending.clone(), End::Draining).await;
                activity.spent().await;
            };
            tokio::select! {
                result = served => result,
                () = activity.without_requests() => return 0,
                () = after(grace) => {
                    debug!("a connection ends, with requests, after its age and grace");
                    return 0;
                }
                () = spent => {
                    debug!("a connection ends with the server: its client is silent");
                    return 0;
                }
                () = reached(ending.clone(), End::Over) => return activity.owed(),
            }
        }
    };
    if let Err(error) = result {
        debug!("a connection has failed: {error}");
    }
    0
}

/// Waits for so long; for ever where there is no time.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Up to 10 % more or less, as gRPC has it, so that connections that came together don't all go together.
fn varied(age: Duration, client: Client) -> Duration {
    let thousandths = 900 + client.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 201;
    age.mul_f64(thousandths as f64 / 1000.0)
}

impl<L: Accept> Connections<L> {
    pub fn new(listener: L, most: usize, threads: Arc<ServingThreads>) -> Self {
        let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { listener, free, threads }
    }

    /// The next connection with its client's address, and what counts it. Failures, such as of too many open files, are waited out.
    async fn next(&self) -> (L::Raw, Arc<str>, OwnedSemaphorePermit) {
        let counts = self.free.clone().acquire_owned().await.expect("it is never closed");
        loop {
            match self.listener.accept().await {
                Ok((raw, peer)) => return (raw, peer, counts),
                Err(error) => {
                    warn!("taking a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves them until the server ends and all requests are answered. Says how many were not.
    pub async fn serve(self, protocol: impl Serve<L::Stream>, ending: Ending) -> usize {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut served = JoinSet::new();
        let mut end = pin!(reached(ending.clone(), End::Draining));
        loop {
            tokio::select! {
                () = &mut end => break,
                (raw, peer, counts) = self.next() => {
                    let other = Other { client: Client(NUMBER.fetch_add(1, Relaxed)), peer };
                    let (protocol, ending) = (protocol.clone(), ending.clone());
                    let (thread, counted) = self.threads.least();
                    served.spawn_on(
                        async move {
                            let lost = match L::adopt(raw) {
                                Ok(stream) => protocol.serve(stream, other, ending).await,
                                Err(error) => {
                                    warn!("taking a connection failed: {error}");
                                    0
                                }
                            };
                            drop((counts, counted));
                            lost
                        },
                        thread,
                    );
                }
                // Those that have ended are forgotten.
                Some(_) = served.join_next() => {}
            }
        }
        drop(self);
        let mut lost = 0;
        while let Some(served) = served.join_next().await {
            lost += served.unwrap_or_default();
        }
        lost
    }
}
