//! Listeners and connections.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use crate::{
    framing::{Guard, Protocol, Verdict},
    respond::Answer,
    serve::{Served, Shared},
};

/// Accepts buyers until `drain`. Above the bound of connections, new ones wait in the backlog.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, drain: CancellationToken) {
    let slots = Arc::new(Semaphore::new(shared.config.max_connections.min(Semaphore::MAX_PERMITS)));
    loop {
        let next = async {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = drain.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                // A token of its own: a shared one would be a lock that all connections meet at.
                let connection = serve(shared.clone(), stream, peer.ip().to_canonical(), drain.child_token(), slot);
                shared.tasks.spawn(connection);
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                // Out of file descriptors, most likely: others will close.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: IpAddr, drain: CancellationToken, slot: Option<OwnedSemaphorePermit>) {
    let _slot = slot;
    let open = Open::new(&shared);
    let mut guard = Guard::new(stream, shared.config.max_head_bytes, shared.config.stall_timeout);
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(shared.config.head_timeout, guard.sniff()) => sniffed,
        () = drain.cancelled() => return,
    };
    let Ok(Ok(protocol)) = sniffed else { return };
    let service = Buyer { shared: shared.clone(), verdict: guard.verdict(), peer, index: AtomicU64::new(0) };
    let io = TokioIo::new(guard);
    let ended = match protocol {
        Protocol::Http1 => {
            let connection = http1_builder(&shared).serve_connection(io, service).with_upgrades();
            drive(connection, |c| c.graceful_shutdown(), &drain, &shared.stop).await
        }
        Protocol::Http2 => {
            let connection = http2_builder(&shared).serve_connection(io, service);
            drive(connection, |c| c.graceful_shutdown(), &drain, &shared.stop).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
    drop(open);
}

/// Runs a connection; asks it to finish once `drain`, and leaves it at `stop`.
async fn drive<C>(connection: C, finish: impl FnOnce(Pin<&mut C>), drain: &CancellationToken, stop: &CancellationToken) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = &mut connection => return ended,
        () = drain.cancelled() => finish(connection.as_mut()),
    }
    tokio::select! {
        ended = connection => ended,
        () = stop.cancelled() => Ok(()),
    }
}

fn http1_builder(shared: &Shared) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.head_timeout)
        .max_buf_size((shared.config.max_head_bytes + 16 * 1024).max(64 * 1024));
    builder
}

fn http2_builder(shared: &Shared) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(shared.config.max_head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(shared.config.head_timeout))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Counts open connections.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.metrics.connections.inc();
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

/// The service of one connection.
struct Buyer {
    shared: Arc<Shared>,
    verdict: Arc<Verdict>,
    peer: IpAddr,
    index: AtomicU64,
}

impl Service<Request<Incoming>> for Buyer {
    type Response = Answer;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let index = self.index.fetch_add(1, Ordering::Relaxed);
        let asked_upgrade = request.headers().contains_key(header::UPGRADE);
        Answering { served: Some(self.shared.serve(request, self.peer, self.verdict.of(index))), close: asked_upgrade }
    }
}

/// The answer to come.
struct Answering {
    served: Option<Served>,
    /// The guard has stopped parsing behind a request for an upgrade, so unless the protocol is
    /// switched nothing more may be read from this connection.
    close: bool,
}

impl Future for Answering {
    type Output = Result<Answer, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = match self.served.take() {
            Some(Served::Now(answer)) => answer,
            Some(Served::Later(mut future)) => match future.as_mut().poll(cx) {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    self.served = Some(Served::Later(future));
                    return Poll::Pending;
                }
            },
            None => return Poll::Pending,
        };
        if self.close && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}
