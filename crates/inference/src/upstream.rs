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
        let asked = async {
            match self.client.request(request.clone()).await {
                // Servers close a connection that was kept (llama.cpp: after 100 requests), at times in the very
                // moment in which it is used again. No byte of an answer came, and to ask again leaves no trace.
                Err(error) if is_cut(&error) => self.client.request(request).await,
                answer => answer,
            }
        };
        match tokio::time::timeout(patience, asked).await {
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

/// Whether the connection was closed before any answer.
fn is_cut(error: &hyper_util::client::legacy::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_incomplete_message)
}

/// The innermost error: "client error (Connect)" helps nobody.
fn root_cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers so many requests on each connection in turn, and closes it when the next one is there;
    /// how many requests came is told at the end.
    async fn server(answers: &'static [usize]) -> (Upstream, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let served = tokio::spawn(async move {
            let mut came = 0;
            for &left in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                for number in 0..=left {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n{}") {
                        head.push(connection.read_u8().await.unwrap());
                    }
                    came += 1;
                    if number < left {
                        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                    }
                }
            }
            came
        });
        (Upstream::new(&url, None).unwrap(), served)
    }

    async fn ask(upstream: &Upstream) -> Result<u16, UpstreamError> {
        let body = Bytes::from_static(b"{}");
        upstream.question(Method::POST, "/v1/completions", body, Duration::from_secs(10)).await.map(|(status, _)| status)
    }

    #[tokio::test]
    async fn a_kept_connection_that_is_closed_when_it_is_used_costs_nobody_an_answer() {
        let (upstream, served) = server(&[1, 1]).await;
        assert_eq!((ask(&upstream).await, ask(&upstream).await), (Ok(200), Ok(200)));
        drop(upstream);
        served.abort();
    }

    #[tokio::test]
    async fn a_server_that_always_breaks_off_is_asked_twice() {
        let (upstream, served) = server(&[0, 0]).await;
        assert!(matches!(ask(&upstream).await, Err(UpstreamError::Broken(_))));
        assert_eq!(served.await.unwrap(), 2);
    }
}
