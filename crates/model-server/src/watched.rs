//! A connection's stream, requests and answers, as its activity sees them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::activity::Activity;
use crate::arrival::Arrival;
use crate::lane::Client;

/// A service whose requests count as activity, and know where they come from.
pub struct Counting<S> {
    service: S,
    client: Client,
    peer: Arc<str>,
    activity: Arc<Activity>,
}

impl<S> Counting<S> {
    pub fn new(service: S, client: Client, peer: Arc<str>, activity: Arc<Activity>) -> Self {
        Self { service, client, peer, activity }
    }
}

impl<S, B> Service<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Coming>, Response = Response<B>, Future: Send + 'static>,
{
    type Response = Response<Answer<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let begun = self.activity.begin(request.headers());
        let counts = Counts { number: begun.number, activity: self.activity.clone() };
        request.extensions_mut().insert(Arrival {
            client: self.client,
            peer: self.peer.clone(),
            deadline: begun.deadline,
        });
        let (number, activity) = (begun.number, self.activity.clone());
        let request = request.map(|body| Coming::new(body, number, activity));
        let answered = self.service.call(request);
        Box::pin(async move {
            let answer = answered.await?;
            counts.activity.is_answered(counts.number);
            Ok(answer.map(|body| Answer { body, _counts: counts }))
        })
    }
}

/// Counts a request until its answer has been taken or it is given up.
struct Counts {
    number: u64,
    activity: Arc<Activity>,
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.activity.end(self.number);
    }
}

/// The body of a request.
pub struct Coming {
    body: Incoming,
    number: u64,
    activity: Arc<Activity>,
}

impl Coming {
    fn new(body: Incoming, number: u64, activity: Arc<Activity>) -> Self {
        if body.is_end_stream() {
            activity.has_come(number);
        }
        Self { body, number, activity }
    }
}

impl Body for Coming {
    type Data = <Incoming as Body>::Data;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.activity.has_come(self.number);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, whose request counts until it ends.
pub struct Answer<B> {
    body: B,
    _counts: Counts,
}

impl<B: Body + Unpin> Body for Answer<B> {
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
    /// Until when the client may end the connection once the server has.
    lingers: Option<Pin<Box<Sleep>>>,
}

/// For the client's end to come.
const LINGERS: Duration = Duration::from_secs(2);

impl<S> Watched<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, lingers: None }
    }

    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(1..)) => self.activity.sent(),
            Poll::Pending => self.activity.sends_nothing(),
            Poll::Ready(_) => {}
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(result)
    }

    /// HTTP flushes the stream once it has nothing more to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.activity.has_sent_all();
        }
        flushed
    }

    /// Until the client has ended the connection, too: closing it while something is unread would reset it, and with
    /// that drop what the client has yet to get.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        let lingers = self.lingers.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGERS)));
        if lingers.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unread = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut unread);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
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
