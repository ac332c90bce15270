//! A facilitator that answers success again for a settlement that it has made, as some do: it stands
//! before one that we did not write, and can be made slow.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::http;

/// What the tests may look at and change while it runs.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Milliseconds that it waits before it settles; a shorter wish holds for who waits already.
    pub delay: AtomicU64,
    /// Settlements asked for.
    pub asked: AtomicU64,
    /// Settlements that were made.
    pub made: AtomicU64,
    answers: Mutex<HashMap<Bytes, Bytes>>,
}

/// The facilitator, running.
#[derive(Debug)]
pub struct Generous {
    /// Base URL.
    pub url: String,
    /// How it behaves, and what it did.
    pub wishes: Arc<Wishes>,
    serving: JoinHandle<()>,
}

impl Generous {
    /// Starts one before the facilitator at `inner`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(inner: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let wishes = Arc::new(Wishes::default());
        let (client, inner, shared) = (http(), inner.trim_end_matches('/').to_owned(), Arc::clone(&wishes));
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (client, inner, wishes) = (client.clone(), inner.clone(), Arc::clone(&shared));
                let service = service_fn(move |request| {
                    let (client, inner, wishes) = (client.clone(), inner.clone(), Arc::clone(&wishes));
                    async move { Ok::<_, Infallible>(answer(request, &client, &inner, &wishes).await) }
                });
                tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { url, wishes, serving }
    }
}

impl Drop for Generous {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(request: Request<Incoming>, client: &reqwest::Client, inner: &str, wishes: &Arc<Wishes>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let url = format!("{inner}{}", head.uri.path());
    if head.uri.path() == "/settle" {
        let (client, wishes) = (client.clone(), Arc::clone(wishes));
        // It goes on when the one that asked is killed.
        let settled = tokio::spawn(async move { settle(&client, url, body, &wishes).await });
        return settled.await.unwrap_or_else(|_| failed());
    }
    let ask = client.request(head.method, url).header("content-type", "application/json").body(body);
    pass_on(ask.send().await).await.0
}

async fn settle(client: &reqwest::Client, url: String, body: Bytes, wishes: &Wishes) -> Response<Full<Bytes>> {
    wishes.asked.fetch_add(1, SeqCst);
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(wishes.delay.load(SeqCst)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let known = wishes.answers.lock().expect("nothing panics under the lock").get(&body).cloned();
    if let Some(known) = known {
        return json(known);
    }
    let (response, text) = pass_on(client.post(url).header("content-type", "application/json").body(body.clone()).send().await).await;
    let success = serde_json::from_slice::<Value>(&text).is_ok_and(|answer| answer["success"] == true);
    if success {
        wishes.made.fetch_add(1, SeqCst);
        wishes.answers.lock().expect("nothing panics under the lock").insert(body, text);
    }
    response
}

async fn pass_on(answer: reqwest::Result<reqwest::Response>) -> (Response<Full<Bytes>>, Bytes) {
    let Ok(answer) = answer else { return (failed(), Bytes::new()) };
    let status = answer.status();
    let text = answer.bytes().await.unwrap_or_default();
    let mut response = json(text.clone());
    *response.status_mut() = status;
    (response, text)
}

fn json(text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

fn failed() -> Response<Full<Bytes>> {
    let mut response = json(Bytes::new());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
