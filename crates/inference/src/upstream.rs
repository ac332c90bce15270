//! The way to a model server. Nothing of a buyer's request goes along but the prepared body.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use url::Url;

use crate::config::Secret;

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Bound on one TCP (and TLS) connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the keep-alive of common servers (Node and uvicorn: 5 s), so that we rarely write into a
/// connection that the server is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest answer to a question of our own, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Why a model server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke before an answer came, or the answer is malformed.
    #[error("it broke off: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("it did not answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
}

/// A model server and the key for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: HttpClient,
    base: String,
    authorization: Option<HeaderValue>,
}

impl Upstream {
    /// A client for the server at `base`, which is without `/v1`.
    ///
    /// # Errors
    /// When no TLS can be set up, or the key is no header value.
    pub fn new(base: &Url, credential: Option<&Secret>) -> Result<Self, std::io::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let ring = rustls::crypto::ring::default_provider();
        let tls = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(ring).map_err(std::io::Error::other)?;
        let connector = tls.https_or_http().enable_all_versions().wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE_TIMEOUT).pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        let authorization = credential.filter(|key| !key.is_empty()).map(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose())).map_err(std::io::Error::other)?;
            value.set_sensitive(true);
            Ok::<_, std::io::Error>(value)
        });
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client: builder.build(connector), base, authorization: authorization.transpose()? })
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends one request and waits for the head of the answer. Dropped before it, or with the answer's
    /// body unread, the request is cancelled: its connection is closed.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        request_id: Option<&HeaderValue>,
        patience: Duration,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("obol/", env!("CARGO_PKG_VERSION"))));
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
            if !body.is_empty() {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            if let Some(value) = &self.authorization {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            if let Some(id) = request_id {
                headers.insert("x-request-id", id.clone());
            }
        }
        let request = request.body(Full::new(body)).map_err(|error| UpstreamError::Unreachable(error.to_string()))?;
        match tokio::time::timeout(patience, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_connect() => Err(UpstreamError::Unreachable(root_cause(&error))),
            Ok(Err(error)) => Err(UpstreamError::Broken(root_cause(&error))),
            Err(_) => Err(UpstreamError::Timeout(patience)),
        }
    }

    /// Asks a question of our own and reads the whole answer.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn question(&self, method: Method, path: &str, body: Bytes, patience: Duration) -> Result<(u16, Bytes), UpstreamError> {
        let whole = async {
            let answer = self.ask(method, path, body, None, patience).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| UpstreamError::Broken(error.to_string()))?.to_bytes()))
        };
        tokio::time::timeout(patience, whole).await.unwrap_or(Err(UpstreamError::Timeout(patience)))
    }
}

/// The innermost error: "client error (Connect)" helps nobody.
fn root_cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().chars().take(200).collect()
}
