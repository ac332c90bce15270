use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use obol_offer::{B256, Terms};
use obol_reconcile::Entry;
use obol_x402::eip3009;
use secp256k1::SecretKey;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Shop;

#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The JSON in a base64 header.
    pub fn decoded(&self, name: &str) -> Value {
        serde_json::from_slice(&STANDARD.decode(self.header(name)).unwrap()).unwrap()
    }

    /// The JSON in a base64 trailer.
    pub fn trailer(&self, name: &str) -> Value {
        let value = self.trailers.as_ref().and_then(|trailers| trailers.get(name)).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        serde_json::from_slice(&STANDARD.decode(value).unwrap()).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub fn client(http2: bool) -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build_http()
}

pub async fn collect<B>(response: Response<B>) -> Got
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Got { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
}

pub const KEY: [u8; 32] = [7; 32];

pub fn key() -> SecretKey {
    SecretKey::from_byte_array(KEY).unwrap()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub fn nonce() -> B256 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    B256::from(nonce)
}

fn payload(terms: &Terms) -> Value {
    let signed = eip3009::sign(&key(), terms, nonce(), 0, now() + 300);
    json!({
        "signature": format!("0x{}", signed.signature.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        "authorization": {
            "from": signed.from.to_string(), "to": signed.to.to_string(), "value": signed.value.to_string(),
            "validAfter": signed.valid_after.to_string(), "validBefore": signed.valid_before.to_string(), "nonce": signed.nonce.to_string(),
        },
    })
}

/// Value of `PAYMENT-SIGNATURE` for terms.
pub fn pay_v2(terms: &Terms) -> String {
    pay_v2_with(terms, &Value::Null)
}

/// The same with extensions.
pub fn pay_v2_with(terms: &Terms, extensions: &Value) -> String {
    let accepted = json!({
        "scheme": "exact", "network": terms.network.caip2(), "amount": terms.amount.to_string(), "asset": terms.asset.address.to_string(),
        "payTo": terms.pay_to.to_string(), "maxTimeoutSeconds": terms.max_timeout_seconds,
        "extra": { "name": terms.asset.domain_name, "version": terms.asset.domain_version },
    });
    STANDARD.encode(json!({ "x402Version": 2, "accepted": accepted, "payload": payload(terms), "extensions": extensions }).to_string())
}

/// Value of `X-PAYMENT` for terms.
pub fn pay_v1(terms: &Terms) -> String {
    STANDARD.encode(json!({ "x402Version": 1, "scheme": "exact", "network": terms.network.name, "payload": payload(terms) }).to_string())
}

impl Shop {
    pub fn entry(&self) -> std::sync::Arc<Entry> {
        let path = obol_offer::CanonicalPath::parse("/services/a").unwrap();
        self.table.load().as_ref().unwrap().find(None, &path).unwrap().clone()
    }

    pub fn terms(&self) -> Terms {
        self.entry().offer.payments[0].terms.clone()
    }

    /// A fresh payment.
    pub fn payment(&self) -> String {
        pay_v2(&self.terms())
    }

    pub fn request(&self, method: &str, path: &str) -> Builder {
        Request::builder().method(method).uri(self.url(path))
    }

    pub async fn send(&self, request: Builder, body: impl Into<Bytes>) -> Got {
        let response = client(false).request(request.body(Full::from(body.into())).unwrap()).await.unwrap();
        collect(response).await
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(self.request("GET", path), "").await
    }

    pub async fn get_paid(&self, path: &str, payment: &str) -> Got {
        self.send(self.request("GET", path).header("payment-signature", payment), "").await
    }

    /// Pays as a patient buyer does: a payment that counts as in progress is sent again. The journal
    /// takes a moment to have a release on disk.
    pub async fn get_paid_patiently(&self, path: &str, payment: &str) -> Got {
        loop {
            let got = self.get_paid(path, payment).await;
            if got.status != StatusCode::CONFLICT || got.json()["retriable"] == false {
                return got;
            }
        }
    }

    /// Sends bytes as they are; everything that comes back until the gateway closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "not closed after: {}", String::from_utf8_lossy(&answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn metrics(&self) -> String {
        let response = client(false).get(format!("http://{}/metrics", self.admin).parse().unwrap()).await.unwrap();
        collect(response).await.text().to_owned()
    }

    pub async fn admin_status(&self, path: &str) -> StatusCode {
        client(false).get(format!("http://{}{path}", self.admin).parse().unwrap()).await.unwrap().status()
    }
}

/// An HTTP/1.1 connection of one's own.
pub async fn connect(shop: &Shop) -> TcpStream {
    TcpStream::connect(shop.addr).await.unwrap()
}

/// Sends a body as a stream of unknown length.
pub async fn send_stream<B>(shop: &Shop, mut request: Request<B>) -> Result<Got, hyper::Error>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connect(shop).await)).await?;
    let driver = tokio::spawn(connection);
    *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
    let response = sender.send_request(request).await?;
    let got = collect(response).await;
    driver.abort();
    Ok(got)
}
