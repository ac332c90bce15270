//! The way of a request up to the point where an upstream is needed: nothing here waits.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::{Instant, SystemTime},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use obol_offer::{CanonicalPath, Demand, PaymentIdentifier};
use obol_reconcile::{Entry, RouteTable};
use obol_settle::Cashier;
use obol_x402::{MatchedPayment, Mismatch, Payment, PaymentHeaders, PaymentId, Quote, ReplayKey, match_payment, wire};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GatewayConfig, TableHandle,
    body::{Body, RequestBody},
    forward::not_again,
    framing::{FramingRefusal, valid_host},
    headers::REQUEST_ID,
    limits::{ClientRate, Clock},
    metrics::{CodeLabel, Metrics},
    offers::{Classes, OfferState, Offers},
    problem,
    proxy::Proxy,
    request_id::RequestIds,
    respond::{self, Answer, Reason},
};

/// What all connections share.
pub(crate) struct Shared {
    pub config: GatewayConfig,
    pub table: TableHandle,
    pub cashier: Cashier,
    pub report: Option<crate::Report>,
    pub desk: Option<crate::Desk>,
    pub proxy: Proxy,
    pub metrics: Metrics,
    pub offers: Offers,
    /// Requests that met no offer.
    pub unrouted: Classes,
    pub ids: RequestIds,
    pub clients: ClientRate,
    pub clock: Clock,
    /// Memory for request bodies that are read before they are forwarded, in KiB.
    pub body_memory: Arc<Semaphore>,
    /// Connections and tunnels, for the drain.
    pub tasks: TaskTracker,
    /// Ends what the drain did not.
    pub stop: CancellationToken,
    pub draining: AtomicBool,
}

/// An answer, now or later. Most answers need no waiting, and so no boxed future.
pub(crate) enum Served {
    Now(Answer),
    Later(BoxFuture<'static, Answer>),
}

/// A request that may go on to its upstream once its payment, if any, is admitted.
pub(crate) struct Visit {
    pub entry: Arc<Entry>,
    pub state: Arc<OfferState>,
    pub path: CanonicalPath,
    /// As the buyer wrote it, with port.
    pub host: String,
    pub proto: &'static str,
    /// What is bought, as told to buyers and facilitators.
    pub url: String,
    pub peer: IpAddr,
    pub id: HeaderValue,
    /// What the request may use, where its price depends on its body.
    pub demand: Option<Demand>,
    /// `None` on a free route.
    pub payment: Option<MatchedPayment>,
    /// The buyer's own name for the purchase, where the offer takes one.
    pub purchase: Option<PaymentId>,
}

/// A matched payment, and its buyer's own name for the purchase where the offer takes one.
pub(crate) type Found = (MatchedPayment, Option<PaymentId>);

impl Visit {
    /// Takes what [`Shared::payment`] found.
    pub(crate) fn set_payment(&mut self, found: Option<Found>) {
        if let Some((payment, purchase)) = found {
            (self.payment, self.purchase) = (Some(payment), purchase);
        }
    }

    /// What this request costs at most.
    pub(crate) fn quote(&self) -> Option<Cow<'_, Quote>> {
        self.entry.quote_at(self.demand)
    }
}

/// What becomes of a request.
pub(crate) enum Decision {
    Answer(Answer, Option<Arc<OfferState>>),
    Forward(Box<Visit>),
    /// The body is to be read first: the price depends on it.
    Price(Box<Visit>),
    /// Its payment is not what is asked for now. The journal may know it, and is asked first.
    Mismatch(Box<Visit>, Box<Unmatched>),
}

/// What the journal is asked about such a payment.
pub(crate) struct Unmatched {
    keys: Vec<ReplayKey>,
    digest: [u8; 32],
    mismatch: Mismatch,
    html: bool,
}

/// Why a request has no payment that could be admitted.
pub(crate) enum NoPayment {
    Answered(Box<Answer>),
    Mismatch(Box<Unmatched>),
}

impl From<Answer> for NoPayment {
    fn from(answer: Answer) -> Self {
        Self::Answered(Box::new(answer))
    }
}

impl From<problem::Problem> for Decision {
    fn from(problem: problem::Problem) -> Self {
        Self::Answer(respond::problem(&problem), None)
    }
}

impl Shared {
    /// Serves one request.
    pub(crate) fn serve(self: &Arc<Self>, request: Request<Incoming>, peer: IpAddr, refusal: Option<FramingRefusal>) -> Served {
        let log = Log { id: self.ids.of(request.headers()), started: Instant::now(), head: request.method() == Method::HEAD };
        if let Some(refusal) = refusal {
            self.metrics.framing_refused.get_or_create(&CodeLabel { code: refusal.code() }).inc();
            let mut answer = respond::problem(&problem::framing(refusal));
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            tracing::info!(request_id = ?log.id, %peer, code = refusal.code(), "framing refused");
            return Served::Now(log.finish(answer));
        }
        match self.decide(&request, peer, &log.id) {
            Decision::Answer(answer, state) => {
                match state {
                    Some(state) => state.count(answer.status()),
                    None => self.unrouted.count(answer.status()),
                }
                tracing::debug!(request_id = ?log.id, %peer, method = %request.method(), path = request.uri().path(), status = answer.status().as_u16());
                Served::Now(log.finish(answer))
            }
            Decision::Price(visit) => {
                let shared = self.clone();
                let method = request.method().clone();
                Served::Later(Box::pin(async move {
                    match shared.price(visit, request).await {
                        Ok((visit, request)) => shared.run(visit, request, log).await,
                        Err((answer, visit)) => {
                            visit.state.count(answer.status());
                            tracing::debug!(request_id = ?log.id, %peer, %method, path = %visit.path, status = answer.status().as_u16());
                            log.finish(answer)
                        }
                    }
                }))
            }
            Decision::Mismatch(visit, unmatched) => {
                let shared = self.clone();
                let method = request.method().clone();
                Served::Later(Box::pin(async move {
                    let answer = shared.mismatched(&visit, &unmatched).await;
                    visit.state.count(answer.status());
                    tracing::debug!(request_id = ?log.id, %peer, %method, path = %visit.path, status = answer.status().as_u16());
                    log.finish(answer)
                }))
            }
            Decision::Forward(visit) => {
                let shared = self.clone();
                let max = visit.entry.offer.limits.max_body_bytes.unwrap_or(u64::MAX);
                let request = request.map(|body| RequestBody::stream(body, max));
                Served::Later(Box::pin(async move { shared.run(visit, request, log).await }))
            }
        }
    }

    async fn run(self: &Arc<Self>, visit: Box<Visit>, request: Request<RequestBody>, log: Log) -> Answer {
        let (state, offer, path, peer) = (visit.state.clone(), visit.entry.offer.clone(), visit.path.clone(), visit.peer);
        let (method, is_paid) = (request.method().clone(), visit.payment.is_some());
        let answer = self.forward(*visit, request).await;
        state.count(answer.status());
        let status = answer.status().as_u16();
        let milliseconds = u64::try_from(log.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // An access log is for who asks for it, as with other proxies. What was paid for is always told.
        if is_paid {
            tracing::info!(request_id = ?log.id, offer = %offer.name, %peer, %method, %path, status, milliseconds, "served");
        } else {
            tracing::debug!(request_id = ?log.id, offer = %offer.name, %peer, %method, %path, status, milliseconds, "served");
        }
        log.finish(answer)
    }

    pub(crate) fn decide<B: hyper::body::Body>(&self, request: &Request<B>, peer: IpAddr, id: &HeaderValue) -> Decision {
        let table = self.table.load();
        let Some(table) = table.as_ref() else { return problem::not_ready().into() };
        if request.method() == Method::CONNECT {
            return problem::connect_refused().into();
        }
        if request.version() == Version::HTTP_2 && !has_plain_length(request.headers()) {
            return problem::ambiguous_length().into();
        }
        let Some(host) = host_of(request) else { return problem::bad_host().into() };
        let path = match CanonicalPath::parse(request.uri().path()) {
            Ok(path) => path,
            Err(error) => return problem::path_ambiguous(error).into(),
        };
        if let Some(document) = table.document(path.as_str()) {
            return match *request.method() {
                Method::GET | Method::HEAD => Decision::Answer(respond::document(document), None),
                Method::OPTIONS if respond::is_preflight(request.method(), request.headers()) => {
                    Decision::Answer(respond::preflight(request.headers()), None)
                }
                _ => {
                    let mut answer = respond::problem(&problem::method_not_allowed());
                    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                    Decision::Answer(answer, None)
                }
            };
        }
        let Some(entry) = table.find(routing_host(host).as_deref(), &path) else { return problem::not_found().into() };
        let state = self.offers.of(&entry.offer, &self.metrics);
        if entry.offer.drain_until.is_some() && entry.offer.is_drained(OffsetDateTime::now_utc()) {
            return Decision::Answer(respond::problem(&problem::offer_stopped()), Some(state));
        }
        let proto = self.proto(request.headers(), peer);
        let url = self.resource_url(proto, host, &path, request.uri().query());
        let (entry, host, id) = (entry.clone(), host.to_owned(), id.clone());
        let mut visit = Visit { entry, state, path, host, proto, url, peer, id, demand: None, payment: None, purchase: None };
        if visit.entry.is_priced_by_body() && !request.body().is_end_stream() {
            return Decision::Price(Box::new(visit));
        }
        match self.payment(table, &visit, request.method(), request.headers()) {
            Ok(found) => visit.set_payment(found),
            Err(NoPayment::Answered(answer)) => return Decision::Answer(*answer, Some(visit.state)),
            Err(NoPayment::Mismatch(unmatched)) => return Decision::Mismatch(Box::new(visit), unmatched),
        }
        Decision::Forward(Box::new(visit))
    }

    /// The payment of a request, already matched; `None` on a free route; else what is answered.
    pub(crate) fn payment(
        &self,
        table: &RouteTable,
        visit: &Visit,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Found>, NoPayment> {
        let Visit { entry, state, url, .. } = visit;
        let Some(quote) = visit.quote() else { return Ok(None) };
        let quote = quote.as_ref();
        if respond::is_preflight(method, headers) {
            return Err(respond::preflight(headers).into());
        }
        let raw = |name| headers.get_all(name).into_iter().map(HeaderValue::as_bytes).collect();
        let decoded = match obol_x402::decode(&PaymentHeaders { v2: raw(wire::PAYMENT_SIGNATURE), v1: raw(wire::X_PAYMENT) }) {
            Ok(decoded) => decoded,
            Err(error) => {
                state.count_payment(&self.metrics, None, error.code());
                return Err(respond::problem(&problem::payment_header(&error)).into());
            }
        };
        let Some(payment) = decoded else {
            // One whose body was read was counted before that.
            if visit.demand.is_none() {
                self.count_unpaid(visit.peer).map_err(NoPayment::Answered)?;
            }
            state.challenges.inc();
            return Err(respond::challenge(entry, quote, url, None, respond::wants_html(headers)).into());
        };
        let purchase = purchase(entry.offer.delivery.payment_identifier, &payment).map_err(|problem| {
            state.count_payment(&self.metrics, None, problem.code);
            NoPayment::from(respond::problem(&problem))
        })?;
        match_any(table, visit, quote, &payment).map(|matched| Some((matched, purchase))).map_err(|mismatch| {
            let html = respond::wants_html(headers);
            NoPayment::Mismatch(Box::new(Unmatched { keys: payment.replay_keys(quote), digest: payment.digest(), mismatch, html }))
        })
    }

    /// A 402 invites a second signature, so it is said only of a payment that moved nothing.
    pub(crate) async fn mismatched(&self, visit: &Visit, unmatched: &Unmatched) -> Answer {
        let Visit { entry, state, url, .. } = visit;
        let Unmatched { keys, digest, mismatch, html } = unmatched;
        let Some(quote) = visit.quote() else { return respond::problem(&problem::not_found()) };
        if let Some(refusal) = self.cashier.what_became_of(keys, *digest).await {
            state.count_payment(&self.metrics, None, refusal.code());
            let terms = quote.terms().iter().find(|terms| keys.iter().any(|key| key.chain_id == terms.network.chain_id));
            return not_again(refusal, terms);
        }
        state.count_payment(&self.metrics, None, mismatch.code());
        let reason = Reason { code: mismatch.code(), message: mismatch.to_string(), hint: hint(mismatch) };
        respond::challenge(entry, &quote, url, Some(&reason), *html)
    }

    /// Counts a request without a payment against the allowance of its address.
    pub(crate) fn count_unpaid(&self, peer: IpAddr) -> Result<(), Box<Answer>> {
        self.clients.take(peer, self.clock).map_err(|wait| {
            let message = "too many requests without a payment from this address";
            Box::new(respond::problem(&problem::too_many_requests("challenge_rate", message, wait)))
        })
    }

    /// How buyers reach us. A tunnel on the same machine may say that it speaks TLS to them.
    fn proto(&self, headers: &HeaderMap, peer: IpAddr) -> &'static str {
        let tls = match &self.config.public_url {
            Some(url) => url.scheme() == "https",
            None => peer.is_loopback() && headers.get("x-forwarded-proto").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"https")),
        };
        if tls { "https" } else { "http" }
    }

    fn resource_url(&self, proto: &str, host: &str, path: &CanonicalPath, query: Option<&str>) -> String {
        /// A header has to carry it; a longer query is left out.
        const MAX_QUERY: usize = 1024;
        let query = query.filter(|query| query.len() <= MAX_QUERY);
        let mut url = String::with_capacity(proto.len() + host.len() + path.as_str().len() + query.map_or(4, |q| q.len() + 4));
        match &self.config.public_url {
            Some(public) => url.push_str(public.as_str().trim_end_matches('/')),
            None => url.extend([proto, "://", host]),
        }
        url.push_str(path.as_str());
        if let Some(query) = query {
            url.push('?');
            url.push_str(query);
        }
        url
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// The buyer's own name for the purchase, as far as the offer takes one.
fn purchase(policy: PaymentIdentifier, payment: &Payment) -> Result<Option<PaymentId>, problem::Problem> {
    if policy == PaymentIdentifier::Ignored {
        return Ok(None);
    }
    match payment.identifier().map_err(problem::payment_identifier_invalid)? {
        None if policy == PaymentIdentifier::Required => Err(problem::payment_identifier_missing()),
        id => Ok(id.cloned()),
    }
}

/// Against the price of now, else against the one before, while it is good.
fn match_any(table: &RouteTable, visit: &Visit, quote: &Quote, payment: &Payment) -> Result<MatchedPayment, Mismatch> {
    let Visit { entry, url, demand, .. } = visit;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let offer = &entry.offer;
    let is_ours = |resource: &str| {
        let Ok(resource) = url::Url::parse(resource) else { return false };
        let Ok(path) = CanonicalPath::parse(resource.path()) else { return false };
        table.find(offer.hostname.as_ref().map(AsRef::as_ref), &path).is_some_and(|found| found.offer.name == offer.name)
    };
    let mismatch = match match_payment(payment, quote, url, now, is_ours) {
        Ok(matched) => return Ok(matched),
        Err(mismatch) => mismatch,
    };
    match &entry.previous {
        Some((previous, until)) if *until > OffsetDateTime::now_utc() => match previous.quote_at(*demand) {
            Some(previous) => match_payment(payment, &previous, url, now, is_ours).map_err(|_| mismatch),
            None => Err(mismatch),
        },
        _ => Err(mismatch),
    }
}

fn hint(mismatch: &Mismatch) -> &'static str {
    match mismatch {
        Mismatch::NoSuchTerms => "sign exactly one of the accepted payments in this answer",
        Mismatch::Authorization(_) => "sign the amount, payee and asset of this answer",
        Mismatch::Expired => "sign again with a later validBefore",
        Mismatch::NotYetValid => "check the clock, or sign with validAfter in the past",
        Mismatch::OtherResource => "pay with the resource URL of this answer",
        _ => "sign one of the accepted payments in this answer",
    }
}

/// The one host a request is for, as written; empty for HTTP/1.0 without `Host`. `None` when it
/// is for two, or for none that could be one.
fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).into_iter();
    let given = hosts.next().map(|host| host.to_str().unwrap_or_default());
    if hosts.next().is_some() {
        return None;
    }
    match (request.uri().authority().map(http::uri::Authority::as_str), given) {
        (None, None) => Some("").filter(|_| request.version() == Version::HTTP_10),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => None,
        (Some(host), _) | (None, Some(host)) => valid_host(host.as_bytes()).then_some(host),
    }
}

/// Lower case, without port and final dot.
fn routing_host(host: &str) -> Option<Cow<'_, str>> {
    let end = if host.starts_with('[') { host.find(']').map_or(host.len(), |i| i + 1) } else { host.find(':').unwrap_or(host.len()) };
    let name = host.get(..end).unwrap_or_default().trim_end_matches('.');
    match name {
        "" => None,
        name if name.bytes().any(|b| b.is_ascii_uppercase()) => Some(Cow::Owned(name.to_ascii_lowercase())),
        name => Some(Cow::Borrowed(name)),
    }
}

/// HTTP/2 has framing of its own, but an upstream over HTTP/1.1 must not see two lengths.
fn has_plain_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).into_iter();
    let plain = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(plain) && lengths.next().is_none()
}

struct Log {
    id: HeaderValue,
    started: Instant,
    head: bool,
}

impl Log {
    fn finish(self, mut answer: Answer) -> Answer {
        if self.head
            && answer.status() != StatusCode::NO_CONTENT
            && let Body::Ready(body) = answer.body_mut()
        {
            let length = std::mem::take(body).len();
            answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        answer.headers_mut().insert(REQUEST_ID, self.id);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(uri: &str, host: Option<&str>, version: Version) -> Option<String> {
        let mut request = Request::builder().uri(uri).version(version);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        host_of(&request.body(()).unwrap()).map(str::to_owned)
    }

    #[test]
    fn a_request_has_one_host() {
        assert_eq!(host("/", Some("A:1"), Version::HTTP_11).as_deref(), Some("A:1"));
        assert_eq!(host("http://a/", Some("A"), Version::HTTP_2).as_deref(), Some("a"));
        assert_eq!(host("http://a/", Some("b"), Version::HTTP_2), None);
        assert_eq!(host("/", None, Version::HTTP_10).as_deref(), Some(""));
        assert_eq!(host("/", None, Version::HTTP_11), None);
        assert_eq!(host("http://u@a/", None, Version::HTTP_2), None);
        assert_eq!(routing_host("A.Example.:80").as_deref(), Some("a.example"));
        assert_eq!(routing_host("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(routing_host(""), None);
    }
}
