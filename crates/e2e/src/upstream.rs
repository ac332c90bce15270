//! The seller's service: answers anything, and remembers what it was asked.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinHandle};

/// Chunk of a streamed body.
const CHUNK: usize = 64 * 1024;

/// A request as the service saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Length of the body in bytes.
    pub received: u64,
}

/// A running service. `/download/N` answers with N bytes, `/status/N` with that status, `/units/N` reports N
/// units of use, `/health` is not remembered, everything else tells what was received.
#[derive(Debug)]
pub struct Upstream {
    /// Base URL.
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn(serve(listener, Arc::clone(&seen)));
        Self { url, seen, serving }
    }

    /// Takes what it was asked since the last call.
    ///
    /// # Panics
    /// When the service has panicked.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().expect("the service has not panicked"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
        tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service));
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Vec<Seen>>>) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    let path = head.uri.path().to_owned();
    if path == "/health" {
        return Ok(Response::new(text("well")));
    }
    let line = format!("{} {target} with {received} bytes", head.method);
    seen.lock().expect("nothing panics under the lock").push(Seen { method: head.method, target, headers: head.headers, received });

    let mut response = Response::new(text(&line));
    if let Some(length) = number_after(&path, "/download/") {
        *response.body_mut() = download(length);
    } else if let Some(units) = number_after(&path, "/units/") {
        response.headers_mut().insert("x-obol-usage", format!("units={units}").parse().expect("a header"));
    } else if let Some(status) = number_after(&path, "/status/") {
        *response.status_mut() = u16::try_from(status).ok().and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    }
    Ok(response)
}

fn number_after(path: &str, prefix: &str) -> Option<u64> {
    path.split_once(prefix)?.1.parse().ok()
}

fn text(line: &str) -> BoxBody<Bytes, Infallible> {
    Full::new(Bytes::copy_from_slice(line.as_bytes())).boxed()
}

fn download(length: u64) -> BoxBody<Bytes, Infallible> {
    let chunk = Bytes::from(vec![b'o'; CHUNK]);
    let frames = stream::unfold(length, move |left| {
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let next = (size > 0).then(|| (Ok(Frame::data(chunk.slice(..size))), left - size as u64));
        std::future::ready(next)
    });
    StreamBody::new(frames).boxed()
}
