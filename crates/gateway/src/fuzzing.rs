//! What the fuzz targets reach of the gateway. Exists only under `--cfg fuzzing`.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use obol_offer::{CanonicalPath, Offer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use crate::framing::cut::Message;
use crate::framing::{Guard, Protocol, cut};

const MAX_HEAD: usize = 8 * 1024;

/// One request as the HTTP library saw it behind the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Target as in the request line.
    pub target: String,
    /// The body without its framing; `None` when it broke off.
    pub body: Option<Vec<u8>>,
}

/// Where the guard cuts `bytes`, and whether it refused what came behind.
pub fn cut_messages(bytes: &[u8]) -> (Vec<Message>, bool) {
    let (messages, refusal) = cut::cut(bytes, MAX_HEAD);
    (messages, refusal.is_some())
}

/// Where a request goes: path and query as the upstream gets them.
pub fn upstream_uri(offer: &Offer, path: &CanonicalPath, query: Option<&str>) -> Option<Uri> {
    crate::proxy::upstream_uri(offer, path, query).ok()
}

/// Serves one connection as the gateway does, guard and HTTP library, with `bytes` arriving `step` at
/// a time. What the service was asked, whether it was told of a refusal, and whether the library
/// refused nothing itself. `None` when it hangs, or speaks HTTP/2.
pub async fn serve(bytes: &[u8], step: usize) -> Option<(Vec<Seen>, bool, bool)> {
    let wire = Wire { bytes: bytes.to_vec(), at: 0, step: step.max(1) };
    let mut guard = Guard::new(wire, MAX_HEAD, Duration::from_secs(5));
    let Ok(protocol) = guard.sniff().await else { return Some((Vec::new(), false, false)) };
    if protocol == Protocol::Http2 {
        return None;
    }
    let (verdict, seen, refused) = (guard.verdict(), Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(false)));
    let count = Rc::new(RefCell::new(0_u64));
    let service = service_fn(|request: Request<Incoming>| {
        let index = *count.borrow();
        *count.borrow_mut() += 1;
        let refusal = verdict.of(index);
        let (seen, told) = (Rc::clone(&seen), Rc::clone(&refused));
        async move {
            let mut answer = Response::new(Empty::<Bytes>::new());
            if refusal.is_some() {
                *told.borrow_mut() = true;
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                return Ok::<_, Infallible>(answer);
            }
            let upgrade = request.headers().contains_key(header::UPGRADE);
            let (head, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            seen.borrow_mut().push(Seen { method: head.method.to_string(), target: head.uri.to_string(), body });
            if upgrade {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }
    });
    let serving = http1::Builder::new().half_close(true).max_buf_size(64 * 1024).serve_connection(TokioIo::new(guard), service);
    tokio::time::timeout(Duration::from_secs(5), serving).await.ok().map(|ended| (seen.take(), *refused.borrow(), ended.is_ok()))
}

/// Bytes that arrive in pieces, then the end; what is written is dropped.
struct Wire {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at + self.step.min(out.remaining()));
        out.put_slice(self.bytes.get(self.at..end).unwrap_or_default());
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
