//! A model server that records what it sees, and the service before it.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use obol_inference::{Directory, Model, ModelConfig, Secret, serve};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

pub const GATE: &str = "gate-secret";

/// One request as the model server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub body: String,
}

#[derive(Clone, Default)]
pub struct ModelServer {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Answers whose stream the service let go of before its end.
    pub cancelled: Arc<AtomicUsize>,
}

struct Gone(Arc<AtomicUsize>, bool);

impl Drop for Gone {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl ModelServer {
    pub async fn start() -> (Self, SocketAddr) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = shared.clone();
                        async move { Ok::<_, Infallible>(shared.answer(request).await) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (server, address)
    }

    /// The requests that were not our own probes.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `seed` of a request: how many tokens to stream, and `wait` ms between them; `cut` breaks off.
    async fn answer(&self, request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, std::io::Error>> {
        let (head, body) = request.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        self.seen.lock().unwrap().push(Seen {
            method: head.method.to_string(),
            path: head.uri.to_string(),
            authorization: head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned()),
            body: body.clone(),
        });
        let asked: Value = serde_json::from_str(&body).unwrap_or_default();
        let number = |key: &str| asked[key].as_u64();
        let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
        let streamed = asked["stream"] == true;
        let gone = Gone(self.cancelled.clone(), false);
        let (count, wait, cut) = (number("tokens").unwrap_or(3), number("wait").unwrap_or(0), number("cut").unwrap_or(u64::MAX));
        let status = number("status").unwrap_or(200);
        tokio::spawn(async move {
            let mut gone = gone;
            let mut texts = Vec::new();
            if streamed {
                for token in 0..count {
                    texts.push(format!(
                        "data: {}\n\n",
                        json!({ "model": "own", "choices": [{ "delta": { "content": format!("t{token} ") } }] })
                    ));
                }
                texts.push(format!(
                    "data: {}\n\n",
                    json!({ "model": "own", "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": count } })
                ));
                texts.push("data: [DONE]\n\n".to_owned());
            } else {
                let usage = (asked["nousage"] != true).then(|| json!({ "prompt_tokens": 5, "completion_tokens": count }));
                texts.push(json!({ "model": "own", "choices": [{ "message": { "content": "hi" } }], "usage": usage }).to_string());
            }
            for (index, text) in texts.into_iter().enumerate() {
                if index as u64 >= cut {
                    let _ = send.send(Err(std::io::Error::other("cut"))).await;
                    return;
                }
                tokio::time::sleep(Duration::from_millis(wait)).await;
                if send.send(Ok(Frame::data(Bytes::from(text)))).await.is_err() {
                    return;
                }
            }
            gone.1 = true;
        });
        let stream = futures_util::stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|frame| (frame, receive)) });
        let kind = if streamed { "text/event-stream" } else { "application/json" };
        let builder = Response::builder().status(status as u16).header(header::CONTENT_TYPE, kind).header("x-internal", "secret");
        builder.body(StreamBody::new(stream).boxed_unsync()).unwrap()
    }
}

/// The service before a model server.
pub struct Service {
    pub address: SocketAddr,
    pub server: ModelServer,
    pub model: Arc<Model>,
    _stop: tokio_util::sync::DropGuard,
}

impl Service {
    pub async fn start(change: impl FnOnce(&mut ModelConfig)) -> Self {
        let (server, upstream) = ModelServer::start().await;
        let mut config = ModelConfig {
            offer: "chat".into(),
            name: "pub".into(),
            upstream_name: "own".into(),
            upstream: format!("http://{upstream}").parse().unwrap(),
            credential: Some(Secret::new("upstream-key\n")),
            runtime: None,
            max_tokens: 100,
            max_body_bytes: 4096,
            concurrency: 4,
            queue: 4,
            first_token_timeout: Duration::from_secs(10),
            token_timeout: Duration::from_secs(10),
            pull: false,
        };
        change(&mut config);
        let model = Arc::new(Model::new(config).unwrap());
        let models: Directory = Arc::default();
        models.store(Arc::new(HashMap::from([("chat".to_owned(), model.clone())])));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve::serve(listener, models, Secret::new(GATE), stop.clone()));
        Self { address, server, model, _stop: stop.drop_guard() }
    }

    /// Sends a request as it stands and gives all that comes back.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request line with the gate's secret.
    pub async fn line(&self, method: &str, target: &str) -> String {
        self.raw(&format!("{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {GATE}\r\nconnection: close\r\n\r\n")).await
    }

    pub fn post_text(path: &str, body: &Value) -> String {
        let body = body.to_string();
        format!(
            "POST /chat{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {GATE}\r\nte: trailers\r\nx-request-id: id-1\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    pub async fn post(&self, path: &str, body: &Value) -> String {
        self.raw(&Self::post_text(path, body)).await
    }
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
