//! Connections of gRPC and REST, so many at a time: one more is taken once another has ended.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tracing::{debug, warn};

use crate::authority::{Renamed, renamed};

/// Whether the server is ending.
pub type Ending = watch::Receiver<bool>;

/// Until the server ends.
pub async fn ended(mut ending: Ending) {
    let _ = ending.wait_for(|&ending| ending).await;
}

/// Takes connections of one kind.
pub struct Connections<L> {
    listener: L,
    free: Arc<Semaphore>,
}

/// What takes connections.
pub trait Accept: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Answers are small, and waited for.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = Join<Renamed, OwnedWriteHalf>;

    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(renamed(UnixListener::accept(self).await?.0))
    }
}

/// How gRPC's connections are served.
#[derive(Clone)]
pub struct Grpc {
    pub routes: Routes,
    pub tls: Option<TlsAcceptor>,
    pub http2: http2::Builder<TokioExecutor>,
}

impl Grpc {
    pub fn new(routes: Routes, tls: Option<TlsAcceptor>) -> Self {
        // Room for the tensors of a request.
        const WINDOW: u32 = 8 << 20;
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_frame_size(1 << 20);
        Self { routes, tls, http2 }
    }

    /// Until the client ends it, or the server has answered its last request.
    async fn serve<S>(&self, stream: S, ending: Ending)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        const HANDSHAKE: Duration = Duration::from_secs(10);
        let Some(tls) = &self.tls else {
            return self.serve_http2(stream, ending).await;
        };
        match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http2(stream, ending).await,
            Ok(Err(error)) => debug!("a connection without TLS: {error}"),
            Err(_) => debug!("a connection that does not come to an agreement on TLS"),
        }
    }

    async fn serve_http2<S>(&self, stream: S, ending: Ending)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = TowerToHyperService::new(self.routes.clone());
        let mut served = pin!(self.http2.serve_connection(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = &mut served => result,
            () = ended(ending) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            debug!("a connection has failed: {error}");
        }
    }
}

impl<L: Accept> Connections<L> {
    pub fn new(listener: L, most: usize) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))) }
    }

    /// The next connection, and what counts it. Failures, such as of too many open files, are waited out.
    async fn next(&self) -> (L::Stream, OwnedSemaphorePermit) {
        let counts = self.free.clone().acquire_owned().await.expect("it is never closed");
        loop {
            match self.listener.accept().await {
                Ok(stream) => return (stream, counts),
                Err(error) => {
                    warn!("taking a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves gRPC until the server ends and all requests are answered.
    pub async fn serve_grpc(self, grpc: Grpc, ending: Ending) {
        let mut served = JoinSet::new();
        let mut end = pin!(ended(ending.clone()));
        loop {
            tokio::select! {
                () = &mut end => break,
                (stream, counts) = self.next() => {
                    let (grpc, ending) = (grpc.clone(), ending.clone());
                    served.spawn(async move {
                        grpc.serve(stream, ending).await;
                        drop(counts);
                    });
                }
                // Those that have ended are forgotten.
                Some(_) = served.join_next() => {}
            }
        }
        drop(self);
        while served.join_next().await.is_some() {}
    }
}

/// A connection of REST.
pub struct Counted {
    stream: TcpStream,
    _counts: OwnedSemaphorePermit,
}

impl axum::serve::Listener for Connections<TcpListener> {
    type Io = Counted;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Counted, Self::Addr) {
        let (stream, counts) = self.next().await;
        let unknown = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let peer = stream.peer_addr().unwrap_or(unknown);
        (Counted { stream, _counts: counts }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
