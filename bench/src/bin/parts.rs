//! What stands around the measured servers, one process each: `parts upstream`, `parts facilitator`,
//! `parts proxy UPSTREAM_URL`. Each prints its URL as one JSON line once it listens.

use std::{convert::Infallible, error::Error, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    header::{CONNECTION, HOST, HeaderValue},
    http::uri::Authority,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

type Body = BoxBody<Bytes, hyper::Error>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let role = words.next().unwrap_or_default();
    let proxy = match words.next() {
        Some(url) => Some(Arc::new(Proxy::to(url.parse()?)?)),
        None => None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({ "url": format!("http://{}", listener.local_addr()?) }));
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (role, proxy) = (role.clone(), proxy.clone());
        let service = service_fn(move |request| {
            let (role, proxy) = (role.clone(), proxy.clone());
            async move {
                Ok::<_, Infallible>(match (role.as_str(), proxy) {
                    ("facilitator", _) => facilitator(request).await,
                    ("proxy", Some(proxy)) => proxy.forward(request).await,
                    _ => text("hello".into()),
                })
            }
        });
        tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service));
    }
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::from(text).map_err(|never| match never {}).boxed())
}

/// A reverse proxy with nothing in it: the least that one hop costs.
struct Proxy {
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
}

impl Proxy {
    fn to(upstream: Uri) -> Result<Self, Box<dyn Error>> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, upstream: upstream.authority().cloned().ok_or("the upstream's URL has no host")? })
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = Uri::builder().scheme("http").authority(self.upstream.clone()).path_and_query(path).build() else {
            return failed("no such target");
        };
        *request.uri_mut() = uri;
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(HOST);
        match self.client.request(request).await {
            Ok(mut answer) => {
                answer.headers_mut().remove(CONNECTION);
                answer.map(BodyExt::boxed)
            }
            Err(_) => failed("the upstream does not answer"),
        }
    }
}

fn failed(reason: &str) -> Response<Body> {
    let mut answer = text(reason.into());
    *answer.status_mut() = hyper::StatusCode::BAD_GATEWAY;
    answer
}

/// Finds every payment valid and settles it at once, in no time and on no chain.
async fn facilitator(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let answer = if path == "/supported" {
        let kind = |version: u8, network: &str| json!({ "x402Version": version, "scheme": "exact", "network": network });
        json!({ "kinds": [kind(2, "eip155:84532"), kind(1, "base-sepolia")], "extensions": [], "signers": {} })
    } else {
        let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let authorization = &asked["paymentPayload"]["payload"]["authorization"];
        let (payer, nonce) = (&authorization["from"], &authorization["nonce"]);
        if path == "/verify" {
            json!({ "isValid": true, "payer": payer })
        } else {
            json!({ "success": true, "transaction": nonce, "network": asked["paymentRequirements"]["network"], "payer": payer })
        }
    };
    let mut answer = text(answer.to_string());
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    answer
}
