use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Answers by path and records every request whose head arrives.
#[derive(Clone)]
pub struct Upstream {
    pub addr: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub heads: Arc<AtomicU32>,
    pub cancelled: Arc<AtomicU32>,
}

struct CountDrop(Option<Arc<AtomicU32>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream =
            Self { addr: listener.local_addr().unwrap(), seen: Arc::default(), heads: Arc::default(), cancelled: Arc::default() };
        let this = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| this.clone().answer(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        upstream
    }

    pub fn heads(&self) -> u32 {
        self.heads.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        let mut cancelled = CountDrop(Some(self.cancelled.clone()));
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let text = |text: &'static str| http_body_util::Full::from(text).map_err(|never| match never {}).boxed();
        if path.ends_with("/sink") {
            let mut body = body;
            let mut total = 0;
            while let Some(Ok(frame)) = body.frame().await {
                total += frame.data_ref().map_or(0, Bytes::len);
            }
            cancelled.0 = None;
            return Ok(Response::new(http_body_util::Full::from(total.to_string()).map_err(|never| match never {}).boxed()));
        }
        if path.ends_with("/echo") {
            cancelled.0 = None;
            return Ok(Response::new(body.boxed()));
        }
        let Ok(collected) = body.collect().await else {
            cancelled.0 = None;
            return Ok(Response::new(text("broken")));
        };
        let trailers = collected.trailers().cloned();
        let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        self.seen.lock().unwrap().push(Seen {
            method: parts.method.to_string(),
            target,
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        });
        let answer = Response::builder();
        let answer = match path.rsplit('/').next().unwrap_or_default() {
            "500" => answer.status(500).body(text("oops")),
            "404" => answer.status(404).body(text("nothing here")),
            "402" => answer.status(402).header("payment-required", "forged").body(text("pay me instead")),
            "304" => answer.status(StatusCode::NOT_MODIFIED).header("etag", "\"x\"").body(text("")),
            "204" => answer.status(204).body(text("")),
            "slow" => {
                tokio::time::sleep(Duration::from_millis(400)).await;
                answer.body(text("slow"))
            }
            "never" => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                answer.body(text("never"))
            }
            "big" => {
                let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
                let frames = stream::iter(0..1024).map(move |_| Ok(Frame::data(chunk.clone())));
                answer.body(BodyExt::boxed(StreamBody::new(frames)))
            }
            "trailers" => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("42"));
                trailers.insert("payment-response", HeaderValue::from_static("forged"));
                let frames = [Ok(Frame::data(Bytes::from("data"))), Ok(Frame::trailers(trailers))];
                answer.header("trailer", "x-sum, payment-response").body(BodyExt::boxed(StreamBody::new(stream::iter(frames))))
            }
            "headers" => answer
                .header("payment-response", "forged")
                .header("x-payment-response", "forged")
                .header("settlement-overrides", "{\"amount\":\"1\"}")
                .header("connection", "x-internal")
                .header("x-internal", "1")
                .header("cache-control", "public, max-age=3600")
                .header("cdn-cache-control", "max-age=3600")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2")
                .body(text("headers")),
            _ => answer.body(text("hello")),
        };
        cancelled.0 = None;
        Ok(answer.unwrap())
    }
}

/// Speaks as the closure says to the first bytes of each connection, then echoes.
pub async fn raw_upstream(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let recorded = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let recorded = recorded.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                recorded.lock().unwrap().extend_from_slice(&buffer[..count]);
                stream.write_all(answer.as_bytes()).await.unwrap();
                if !answer.starts_with("HTTP/1.1 101") {
                    return;
                }
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let echo = [b"echo:", &buffer[..count]].concat();
                    if stream.write_all(&echo).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (addr, seen)
}
