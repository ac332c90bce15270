//! The way to upstreams. Nothing else in the gateway can reach one.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use obol_offer::{CanonicalPath, Offer, Upstream};

use crate::{
    InferencePlace,
    body::{Progress, RequestBody, RequestBodyError},
    permit::{Passage, Spent},
    problem::{self, Problem},
};

/// Where offers live in a cluster, and the port of the service before a model.
const OFFERS_NAMESPACE: &str = "obol-offers";
const INFERENCE_PORT: u16 = 8403;

type HttpClient = Client<HttpsConnector<HttpConnector>, RequestBody>;

/// Bound on one TCP (and TLS) connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the keep-alive of common servers (Node and uvicorn: 5 s), so that we rarely write into a
/// connection that the upstream is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why an upstream gave no answer. None of these is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamError {
    Unreachable,
    Failed,
    Timeout,
    BodyTooLarge,
    BodyBroken,
}

impl UpstreamError {
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Unreachable => problem::upstream_unreachable(),
            Self::Failed => problem::upstream_failed(),
            Self::Timeout => problem::upstream_timeout(),
            Self::BodyTooLarge => problem::body_too_large(),
            Self::BodyBroken => problem::body_broken(),
        }
    }

    /// Whether it was the upstream's doing.
    pub(crate) const fn is_upstreams(self) -> bool {
        matches!(self, Self::Unreachable | Self::Failed | Self::Timeout)
    }
}

/// Pooled clients of all upstreams.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    any: HttpClient,
    /// Upgrades exist in HTTP/1.1 only.
    http1: HttpClient,
    timeout: Duration,
}

impl Proxy {
    pub(crate) fn new(timeout: Duration) -> Result<Self, rustls::Error> {
        Ok(Self { any: client(true)?, http1: client(false)?, timeout })
    }

    /// Calls the upstream once. What is left of the passage comes back with the answer.
    pub(crate) async fn forward(
        &self,
        passage: Passage,
        request: Request<RequestBody>,
        upgrade: bool,
    ) -> (Spent, Result<Response<Incoming>, UpstreamError>) {
        let progress = match request.body() {
            RequestBody::Stream { progress, .. } => Some(progress.clone()),
            RequestBody::Ready { .. } => None,
        };
        let spent = passage.spend();
        let client = if upgrade { &self.http1 } else { &self.any };
        (spent, self.wait(client.request(request), progress).await)
    }

    /// Waits for the answer's head. A body that still moves towards the upstream is no silence.
    async fn wait(
        &self,
        answer: hyper_util::client::legacy::ResponseFuture,
        progress: Option<Arc<Progress>>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let start = Instant::now();
        let idle = || progress.as_ref().map_or_else(|| start.elapsed(), |progress| progress.idle());
        let mut answer = std::pin::pin!(answer);
        loop {
            let patience = self.timeout.saturating_sub(idle());
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(cause(&error, progress.as_deref())),
                Err(_) if idle() >= self.timeout => return Err(UpstreamError::Timeout),
                Err(_) => {}
            }
        }
    }
}

fn client(http2: bool) -> Result<HttpClient, rustls::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let ring = rustls::crypto::ring::default_provider();
    let tls = HttpsConnectorBuilder::new().with_provider_and_webpki_roots(ring)?.https_or_http();
    let connector = if http2 { tls.enable_all_versions().wrap_connector(tcp) } else { tls.enable_http1().wrap_connector(tcp) };
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_idle_timeout(IDLE_TIMEOUT).pool_max_idle_per_host(256);
    builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    // Only requests of which no byte was written are sent again, on another connection: the one
    // they were meant for had just been closed. The upstream never sees one twice.
    builder.retry_canceled_requests(true);
    Ok(builder.build(connector))
}

fn cause(error: &hyper_util::client::legacy::Error, progress: Option<&Progress>) -> UpstreamError {
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = source {
        match inner.downcast_ref::<RequestBodyError>() {
            Some(RequestBodyError::TooLarge) => return UpstreamError::BodyTooLarge,
            Some(RequestBodyError::Broken(_)) => return UpstreamError::BodyBroken,
            None => source = inner.source(),
        }
    }
    match progress {
        Some(progress) if progress.is_over() => UpstreamError::BodyTooLarge,
        Some(progress) if progress.is_broken() => UpstreamError::BodyBroken,
        _ if error.is_connect() => UpstreamError::Unreachable,
        _ => UpstreamError::Failed,
    }
}

/// Where a request for a model goes: the service that stands before the model server.
pub(crate) fn inference_uri(offer: &Offer, path: &CanonicalPath, place: InferencePlace) -> Result<Uri, http::Error> {
    let authority = match place {
        InferencePlace::At(address) => address.to_string(),
        InferencePlace::Services => {
            let namespace = offer.name.namespace().unwrap_or(OFFERS_NAMESPACE);
            format!("{}-inference.{namespace}.svc:{INFERENCE_PORT}", offer.name.plain())
        }
    };
    let prefix = offer.path.as_str().trim_end_matches('/');
    let rest = path.as_str().strip_prefix(prefix).unwrap_or(path.as_str());
    Uri::builder().scheme("http").authority(authority).path_and_query(format!("/{}{rest}", offer.name.plain())).build()
}

/// Where a request goes: the upstream's base, the path behind the offer's own, the buyer's query.
pub(crate) fn upstream_uri(offer: &Offer, path: &CanonicalPath, query: Option<&str>) -> Result<Uri, http::Error> {
    let prefix = offer.path.as_str().trim_end_matches('/');
    let rest = path.as_str().strip_prefix(prefix).unwrap_or(path.as_str());
    let (scheme, authority, base) = match &offer.upstream {
        Upstream::Url(url) => {
            let host = url.host_str().unwrap_or_default();
            let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            (url.scheme(), authority, url.path().trim_end_matches('/'))
        }
        Upstream::Host { port } => ("http", format!("127.0.0.1:{port}"), ""),
        Upstream::Service { name, namespace, port } => ("http", format!("{name}.{namespace}.svc:{port}"), ""),
    };
    let mut target = String::with_capacity(base.len() + rest.len() + 1 + query.map_or(0, |q| q.len() + 1));
    target.push_str(base);
    target.push_str(rest);
    if target.is_empty() {
        target.push('/');
    }
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use obol_offer::{OfferSpec, PaymentSpec, PriceSpec, UpstreamSpec};

    fn uri(base: &str, offer_path: &str, path: &str, query: Option<&str>) -> String {
        let spec = OfferSpec {
            upstream: UpstreamSpec { url: Some(base.into()), ..UpstreamSpec::default() },
            path: Some(offer_path.into()),
            hostname: (offer_path == "/").then(|| "own.example".into()),
            payment: Some(PaymentSpec {
                network: "base-sepolia".into(),
                pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
                price: PriceSpec { per_request: Some("0.001".into()), ..Default::default() },
                ..PaymentSpec::default()
            }),
            ..OfferSpec::default()
        };
        let offer = Offer::validate(&"a".parse().unwrap(), &spec).unwrap();
        upstream_uri(&offer, &CanonicalPath::parse(path).unwrap(), query).unwrap().to_string()
    }

    #[test]
    fn the_offers_prefix_is_replaced_by_the_upstreams_base() {
        assert_eq!(uri("http://h:9000", "/services/a", "/services/a", None), "http://h:9000/");
        assert_eq!(uri("http://h:9000", "/services/a", "/services/a/", None), "http://h:9000/");
        assert_eq!(uri("http://h:9000/", "/services/a", "/services/a/x%20y", Some("q=1&r=%2f")), "http://h:9000/x%20y?q=1&r=%2f");
        assert_eq!(uri("https://h/base", "/services/a", "/services/a", None), "https://h/base");
        assert_eq!(uri("https://h/base/", "/services/a", "/services/a/x", None), "https://h/base/x");
        assert_eq!(uri("http://h", "/", "/x", None), "http://h/x");
        assert_eq!(uri("http://[::1]:1", "/services/a", "/services/a//x/../y", None), "http://[::1]:1/y");
    }
}
