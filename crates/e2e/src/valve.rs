//! A relay before a model server. Of a stream of events it lets so many bytes through, then holds it or breaks it off.

use std::{convert::Infallible, io, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::http;

/// What becomes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// All of it goes through.
    Open,
    /// So many bytes go through, and nothing more: not its end either, if it has fewer.
    Hold(usize),
    /// So many bytes go through, then the connection is closed.
    Break(usize),
}

#[derive(Debug)]
struct Shared {
    server: String,
    flow: watch::Sender<Flow>,
    /// What had gone through when the last stream was stopped.
    stopped: watch::Sender<Option<Vec<u8>>>,
}

/// The relay, running.
#[derive(Debug)]
pub struct Valve {
    /// Base URL.
    pub url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Valve {
    /// Starts one before `server`; it is open.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let (flow, stopped) = (watch::Sender::new(Flow::Open), watch::Sender::new(None));
        let shared = Arc::new(Shared { server: server.to_owned(), flow, stopped });
        let relay = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let relay = Arc::clone(&relay);
                let service = service_fn(move |request| {
                    let relay = Arc::clone(&relay);
                    async move { Ok::<_, Infallible>(answer(request, relay).await) }
                });
                tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { url, shared, serving }
    }

    /// Sets what becomes of streams, a held one included.
    pub fn set(&self, flow: Flow) {
        self.shared.stopped.send_replace(None);
        self.shared.flow.send_replace(flow);
    }

    /// What has gone through, once a stream is stopped.
    pub async fn stopped(&self) -> Vec<u8> {
        let mut stopped = self.shared.stopped.subscribe();
        let stopped = stopped.wait_for(Option::is_some).await;
        stopped.ok().and_then(|passed| passed.clone()).unwrap_or_default()
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let ask = http().request(head.method, format!("{}{}", shared.server, head.uri.path())).header("content-type", "application/json");
    let Ok(answer) = ask.body(body).send().await else {
        let mut failed = Response::new(Full::default().map_err(|never: Infallible| match never {}).boxed_unsync());
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        return failed;
    };
    let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
    let is_stream = kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let bytes = answer.bytes_stream().map(|bytes| bytes.map_err(io::Error::other)).boxed();
    let bytes = if is_stream { through(bytes, shared).boxed() } else { bytes };
    let mut response = Response::new(StreamBody::new(bytes.map(|bytes| bytes.map(Frame::data))).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().extend(kind.map(|kind| (hyper::header::CONTENT_TYPE, kind)));
    response
}

type Source = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

struct Through {
    source: Source,
    next: Bytes,
    ended: bool,
    passed: Vec<u8>,
    flow: watch::Receiver<Flow>,
    shared: Arc<Shared>,
}

fn through(source: Source, shared: Arc<Shared>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (next, flow) = (Bytes::new(), shared.flow.subscribe());
    let start = Through { source, next, ended: false, passed: Vec::new(), flow, shared };
    stream::unfold(start, |mut it| async move {
        loop {
            let flow = *it.flow.borrow_and_update();
            let left = match flow {
                Flow::Open => usize::MAX,
                Flow::Hold(most) | Flow::Break(most) => most.saturating_sub(it.passed.len()),
            };
            if left > 0 && it.next.is_empty() && !it.ended {
                match it.source.next().await {
                    Some(Ok(bytes)) => it.next = bytes,
                    Some(Err(error)) => return Some((Err(error), it)),
                    None => it.ended = true,
                }
                continue;
            }
            if left > 0 && !it.next.is_empty() {
                let part = it.next.split_to(left.min(it.next.len()));
                it.passed.extend_from_slice(&part);
                return Some((Ok(part), it));
            }
            if flow == Flow::Open {
                return None;
            }
            it.shared.stopped.send_replace(Some(it.passed.clone()));
            if matches!(flow, Flow::Break(_)) {
                // The server writes out what it has when there is nothing more, and drops it when there is an error.
                tokio::task::yield_now().await;
                return Some((Err(io::Error::other("broken off")), it));
            }
            // The test is over when nobody can change it any more.
            it.flow.changed().await.ok()?;
        }
    })
}
