//! From a matched payment to the upstream and back: admit, forward, capture, hand out.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body as _, Incoming},
    upgrade::OnUpgrade,
};
use obol_offer::{OfferKind, OnLost, Scheme, Terms, WhenUncounted};
use obol_settle::{Captured, Delivery, PaymentPermit, Receipt, Refusal, StoredAnswer};
use obol_x402::MatchedPayment;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    body::{Body, RequestBody, Source, UpstreamBody},
    fingerprint::fingerprint,
    headers::{self, Forwarded},
    keep,
    limits::InFlight,
    metered::{Meter, ReceiptWay, reported},
    metrics::NetworkLabel,
    permit::{Passage, Spent},
    problem::{self, Problem},
    proxy::{UpstreamError, inference_uri, upstream_uri},
    respond::{self, Answer, Reason},
    serve::{Shared, Visit},
    upgrade,
};

/// Longest body that is read and digested before the upstream is called, in bytes.
const MAX_DIGESTED: u64 = 1024 * 1024;
/// Memory for all such bodies together; when it is used up, bodies are streamed undigested.
pub(crate) const BODY_MEMORY_KIB: usize = 32 * 1024;
/// Bound on reading such a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Keeps an answer on a paid route out of shared caches: what was paid for, and errors that one
/// buyer provoked.
fn keep_private(answer: &mut HeaderMap) {
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    // Some caches believe these instead (RFC 9213).
    headers::remove_if(answer, |name| {
        let name = name.as_str();
        matches!(name, "expires" | "surrogate-control") || name.ends_with("cdn-cache-control")
    });
}

/// Milliseconds spent per step, for `Server-Timing`.
#[derive(Default)]
struct Timing(String);

impl Timing {
    fn add(&mut self, step: &str, since: Instant) {
        let micros = since.elapsed().as_micros();
        let comma = if self.0.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{comma}{step};dur={}.{:03}", micros / 1000, micros % 1000);
    }
}

/// What is carried past the upstream's answer.
struct Carried {
    terms: Option<Terms>,
    /// Whether the payment is bound to the whole request, body included.
    bound: bool,
    /// Whether the payment was captured before, and this is a second run for nothing.
    paid_already: bool,
    /// How it is charged, where that depends on what is used.
    meter: Option<Meter>,
    way: ReceiptWay,
    in_flight: InFlight,
    buyer: Option<OnUpgrade>,
    timing: Timing,
}

impl Shared {
    /// Forwards one request whose payment, if the route has a price, was matched.
    pub(crate) async fn forward(self: &Arc<Self>, mut visit: Visit, mut request: Request<RequestBody>) -> Answer {
        let offer = visit.entry.offer.clone();
        let limits = &offer.limits;
        if offer.kind == OfferKind::Inference && self.config.inference.is_none() {
            return respond::problem(&problem::upstream_unreachable());
        }
        let Some(in_flight) = visit.state.enter(limits.max_in_flight) else {
            let message = "as many requests as this offer takes are in progress";
            return respond::problem(&problem::too_many_requests("too_many_in_flight", message, Duration::from_secs(1)));
        };
        if let Some(rps) = limits.rps
            && let Err(wait) = visit.state.bucket.take(self.clock.nanos(), rps)
        {
            return respond::problem(&problem::too_many_requests("too_many_requests", "this offer's rate is used up", wait));
        }
        let max_body = limits.max_body_bytes.unwrap_or(u64::MAX);
        if request.body().size_hint().exact().is_some_and(|length| length > max_body) {
            return respond::problem(&problem::body_too_large());
        }
        let websocket = upgrade::wants_websocket(&request);
        let buyer = websocket.then(|| hyper::upgrade::on(&mut request));
        let mut carried = Carried {
            terms: None,
            bound: false,
            paid_already: false,
            meter: None,
            way: ReceiptWay::of(request.headers()),
            in_flight,
            buyer,
            timing: Timing::default(),
        };
        let (passage, request) = match visit.payment.take() {
            None => match Passage::free(&visit.entry) {
                Some(passage) => (passage, request),
                None => {
                    return self.answer_again(&visit, &Reason { code: "payment_missing", message: "no payment".into(), hint: "" }, None);
                }
            },
            Some(payment) => {
                carried.terms = Some(payment.terms.clone());
                carried.meter = meter(&visit, &payment);
                match self.admit(&visit, payment, request, &mut carried.timing).await {
                    Ok((permit, request)) => {
                        carried.bound = matches!(request.body(), RequestBody::Ready { .. });
                        carried.paid_already = permit.is_paid();
                        (Passage::paid(permit), request)
                    }
                    Err(answer) => return *answer,
                }
            }
        };
        let request = match self.outgoing(&visit, request, passage.permit(), websocket) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(request_id = ?visit.id, offer = %offer.name, %error, "no upstream request can be made");
                return respond::problem(&problem::upstream_unreachable());
            }
        };
        let mut request = request;
        if carried.meter.is_some() {
            // The report comes in one, whatever the buyer understands.
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let asked = Instant::now();
        let (spent, answer) = self.proxy.forward(passage, request, websocket).await;
        carried.timing.add("upstream", asked);
        match answer {
            Ok(answer) => self.answered(&visit, spent, answer, carried).await,
            Err(error) => self.upstream_failed(&visit, spent, error, &carried).await,
        }
    }

    /// Reads a short body, then has the payment admitted for exactly this request.
    async fn admit(
        &self,
        visit: &Visit,
        payment: MatchedPayment,
        request: Request<RequestBody>,
        timing: &mut Timing,
    ) -> Result<(PaymentPermit, Request<RequestBody>), Box<Answer>> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let body = match body {
            RequestBody::Stream { inner, left, progress } => match self.body_share(inner.size_hint().exact()) {
                Some(share) => match tokio::time::timeout(BODY_TIMEOUT, inner.collect()).await {
                    Ok(Ok(body)) => RequestBody::Ready { bytes: body.to_bytes(), _share: share },
                    Ok(Err(_)) => return Err(Box::new(respond::problem(&problem::body_broken()))),
                    Err(_) => return Err(Box::new(respond::problem(&problem::body_timeout()))),
                },
                None => RequestBody::Stream { inner, left, progress },
            },
            ready @ RequestBody::Ready { .. } => ready,
        };
        let request = Request::from_parts(parts, body);
        let fingerprint = fingerprint(&request, &visit.path);
        let terms = payment.terms.clone();
        let offer = &visit.entry.offer;
        // A body that was not digested may be another one by now, and is not run for nothing.
        let bound = matches!(request.body(), RequestBody::Ready { .. });
        let reruns = bound && offer.delivery.on_lost == OnLost::Rerun;
        let id = visit.purchase.as_ref();
        match self.cashier.admit_or_rerun(&offer.name, payment, &offer.facilitators, fingerprint, id, reruns).await {
            Ok(permit) => {
                timing.add("verify", started);
                Ok((permit, request))
            }
            Err(refusal) => Err(Box::new(self.refused(visit, &terms, refusal))),
        }
    }

    /// A share of the memory for digested bodies; `None` when the body is to be streamed.
    fn body_share(&self, length: Option<u64>) -> Option<Option<OwnedSemaphorePermit>> {
        let length = length.filter(|length| *length <= MAX_DIGESTED)?;
        let kib = u32::try_from(length.div_ceil(1024)).ok()?;
        match kib {
            0 => Some(None),
            kib => self.body_memory.clone().try_acquire_many_owned(kib).ok().map(Some),
        }
    }

    pub(crate) fn refused(&self, visit: &Visit, terms: &Terms, refusal: Refusal) -> Answer {
        let code = refusal.code();
        visit.state.count_payment(&self.metrics, Some(terms), code);
        tracing::info!(request_id = ?visit.id, offer = %visit.entry.offer.name, code, "payment not admitted");
        match refusal {
            Refusal::Invalid { reason } => {
                let hint = "sign a new payment; this one cannot be settled";
                self.answer_again(visit, &Reason { code, message: reason, hint }, Some(terms))
            }
            Refusal::Exposed => {
                let message = "this payer's earlier metered requests are not settled yet";
                respond::problem(&problem::too_many_requests(code, message, Duration::from_secs(5)))
            }
            Refusal::Answered { receipt, answer } => {
                let mut answer = keep::again(&answer);
                self.charged(answer.headers_mut(), terms, &receipt, &Timing::default());
                answer
            }
            refusal => not_again(refusal, Some(terms)),
        }
    }

    /// The price once more, with the reason why the payment did not do.
    pub(crate) fn answer_again(&self, visit: &Visit, reason: &Reason, terms: Option<&Terms>) -> Answer {
        let Some(quote) = visit.quote() else { return respond::problem(&problem::not_found()) };
        let mut answer = respond::challenge(&visit.entry, &quote, &visit.url, Some(reason), false);
        if let Some(terms) = terms {
            let why: String = reason.message.chars().take(120).collect();
            respond::receipts(answer.headers_mut(), terms, Err(&why));
        }
        answer
    }

    /// The request as the upstream gets it.
    fn outgoing(
        &self,
        visit: &Visit,
        request: Request<RequestBody>,
        permit: Option<&PaymentPermit>,
        websocket: bool,
    ) -> Result<Request<RequestBody>, http::Error> {
        let offer = &visit.entry.offer;
        let (mut parts, body) = request.into_parts();
        let inference = self.config.inference.as_ref().filter(|_| offer.kind == OfferKind::Inference);
        parts.uri = match inference {
            Some(inference) => inference_uri(offer, &visit.path, inference.place)?,
            None => upstream_uri(offer, &visit.path, parts.uri.query())?,
        };
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let prefix = offer.path.as_str().trim_end_matches('/');
        let about = Forwarded { peer: visit.peer, proto: visit.proto, host: &visit.host, prefix, request_id: &visit.id };
        headers::to_upstream(&mut parts.headers, &about);
        if let Some(inference) = inference {
            // The buyer's own is for the gateway, if for anybody, and never for a model server.
            parts.headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {}", inference.secret))?);
            // Usage is told in a trailer, which is sent only to whoever takes them.
            parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(permit) = permit {
            let payment = permit.payment();
            parts.headers.insert(headers::PAYER, HeaderValue::try_from(payment.authorization.from.to_string())?);
            parts.headers.insert(headers::PAYMENT, HeaderValue::try_from(payment.replay_key().to_string())?);
        }
        if websocket {
            upgrade::set_handshake(&mut parts.headers);
        }
        if body.size_hint().exact() == Some(0) && !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE) {
            // The client library leaves it out; some servers then answer 411.
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(Request::from_parts(parts, body))
    }

    async fn upstream_failed(&self, visit: &Visit, spent: Spent, error: UpstreamError, carried: &Carried) -> Answer {
        match error {
            UpstreamError::Unreachable => spent.unsent().await,
            _ => spent.release().await,
        }
        let problem = error.problem();
        self.uncharged(visit, carried, problem.code, error.is_upstreams());
        respond::problem(&problem)
    }

    fn uncharged(&self, visit: &Visit, carried: &Carried, code: &'static str, upstreams: bool) {
        if upstreams {
            visit.state.count_upstream_error(&self.metrics, code);
            tracing::warn!(request_id = ?visit.id, offer = %visit.entry.offer.name, code, "upstream failed");
        }
        if carried.terms.is_some() {
            visit.state.count_payment(&self.metrics, carried.terms.as_ref(), "released");
        }
    }

    /// The upstream answered: charge or release, then hand out.
    async fn answered(self: &Arc<Self>, visit: &Visit, spent: Spent, mut answer: Response<Incoming>, mut carried: Carried) -> Answer {
        let status = answer.status();
        let refused = match status {
            StatusCode::PAYMENT_REQUIRED => Some(problem::upstream_payment_required()),
            StatusCode::SWITCHING_PROTOCOLS if carried.buyer.is_none() || !upgrade::is_websocket(answer.headers()) => {
                Some(problem::upgrade_failed())
            }
            _ => None,
        };
        if let Some(problem) = refused {
            spent.release().await;
            self.uncharged(visit, &carried, problem.code, true);
            return respond::problem(&problem);
        }
        let upstream = (status == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
        let report = reported(answer.headers());
        headers::to_buyer(answer.headers_mut());
        if status.as_u16() >= 400 {
            spent.release().await;
            self.uncharged(visit, &carried, "upstream_status", false);
            if carried.terms.is_some() {
                keep_private(answer.headers_mut());
            }
            return self.hand_out(visit, answer.map(Source::Stream), carried, None, None);
        }
        let mut charge = None;
        if let Some(meter) = carried.meter.take() {
            // What is known before the answer leaves is settled before it leaves, as any other price is.
            charge = report.and_then(|usage| meter.charge(usage));
            if charge.is_none() && upstream.is_none() {
                return self.hand_out_metered(visit, spent, answer, meter, carried);
            }
        }
        let (mut answer, kept) = match self.keep(visit, answer, &carried).await {
            Ok(answer) => answer,
            Err(error) => return self.upstream_failed(visit, spent, error, &carried).await,
        };
        let asked = Instant::now();
        let captured = spent.capture(charge, kept).await;
        let Some(terms) = carried.terms.clone() else { return self.hand_out(visit, answer, carried, upstream, None) };
        let took = asked.elapsed();
        carried.timing.add("settle", asked);
        if !carried.paid_already {
            self.metrics.settle.get_or_create(&NetworkLabel { network: terms.network.name.to_owned() }).observe(took.as_secs_f64());
        }
        let outcome = |code: &str| visit.state.count_payment(&self.metrics, Some(&terms), code);
        match captured {
            Some(Captured::Settled(receipt, delivery)) => {
                if carried.paid_already {
                    outcome("rerun");
                } else {
                    outcome("settled");
                    visit.state.count_captured(&self.metrics, &terms, receipt.amount);
                }
                self.charged(answer.headers_mut(), &terms, &receipt, &carried.timing);
                self.hand_out(visit, answer, carried, upstream, Some(delivery))
            }
            Some(Captured::Nothing) => {
                outcome("nothing_used");
                keep_private(answer.headers_mut());
                self.hand_out(visit, answer, carried, upstream, None)
            }
            Some(Captured::Refused { reason }) => {
                outcome("settlement_refused");
                let hint = "nothing was charged; sign a new payment";
                self.answer_again(visit, &Reason { code: "settlement_refused", message: reason, hint }, Some(&terms))
            }
            Some(Captured::Unsettled { transaction }) => {
                outcome("settlement_unknown");
                respond::problem(&problem::settlement_unknown(transaction))
            }
            Some(Captured::NotAsked) | None => {
                outcome("settlement_not_asked");
                respond::problem(&problem::settlement_not_asked())
            }
        }
    }

    /// Reads a short answer in full where the offer keeps answers. One that breaks is not charged.
    async fn keep(
        &self,
        visit: &Visit,
        answer: Response<Incoming>,
        carried: &Carried,
    ) -> Result<(Response<Source>, Option<StoredAnswer>), UpstreamError> {
        let paid = carried.terms.is_some() && carried.bound;
        if !paid || !keep::is_wanted(visit.entry.offer.delivery.on_lost, &answer) {
            return Ok((answer.map(Source::Stream), None));
        }
        match tokio::time::timeout(BODY_TIMEOUT, keep::read(answer)).await {
            Ok(Ok((answer, kept))) => Ok((answer, Some(kept))),
            Ok(Err(_)) => Err(UpstreamError::Failed),
            Err(_) => Err(UpstreamError::Timeout),
        }
    }

    /// Headers of a paid answer.
    fn charged(&self, answer: &mut HeaderMap, terms: &Terms, receipt: &Receipt, timing: &Timing) {
        respond::receipts(answer, terms, Ok(receipt));
        self.private_to_payer(answer, timing);
    }

    fn private_to_payer(&self, answer: &mut HeaderMap, timing: &Timing) {
        keep_private(answer);
        answer.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, respond::EXPOSED);
        if !answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        if !timing.0.is_empty()
            && let Ok(value) = HeaderValue::from_str(&timing.0)
        {
            answer.append(HeaderName::from_static("server-timing"), value);
        }
    }

    /// Streams an answer that is charged at its end.
    fn hand_out_metered(
        self: &Arc<Self>,
        visit: &Visit,
        spent: Spent,
        answer: Response<Incoming>,
        meter: Meter,
        carried: Carried,
    ) -> Answer {
        let (mut parts, body) = answer.into_parts();
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        self.private_to_payer(&mut parts.headers, &carried.timing);
        self.meter(visit.state.clone(), spent, meter, Response::from_parts(parts, body), carried.way, carried.in_flight)
    }

    /// Streams the upstream's answer, or opens the tunnel.
    fn hand_out(
        &self,
        visit: &Visit,
        answer: Response<Source>,
        carried: Carried,
        upstream: Option<OnUpgrade>,
        delivery: Option<Delivery>,
    ) -> Answer {
        let (mut parts, body) = answer.into_parts();
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        if let (Some(buyer), Some(upstream)) = (carried.buyer, upstream) {
            tracing::debug!(request_id = ?visit.id, "websocket");
            upgrade::set_handshake(&mut parts.headers);
            upgrade::tunnel(&self.tasks, self.stop.clone(), buyer, upstream, delivery, carried.in_flight);
            return Response::from_parts(parts, Body::empty());
        }
        Response::from_parts(parts, Body::Upstream(Box::new(UpstreamBody::new(body, delivery, carried.in_flight))))
    }
}

/// What a buyer is told who must not sign anew: never a 402.
pub(crate) fn not_again(refusal: Refusal, terms: Option<&Terms>) -> Answer {
    let code = refusal.code();
    let conflict = |message, hint| Problem::new(StatusCode::CONFLICT, code, message, hint);
    match refusal {
        Refusal::InProgress => respond::problem(
            &conflict("this payment is being worked on", "wait for the answer of the first request, or send it again later").retry(1),
        ),
        Refusal::AlreadyUsed(receipt) => {
            let hint =
                "sign a new payment for a new answer; if the first one never reached you, ask the seller for a refund of this transaction";
            let problem = conflict("this payment has bought an answer already", hint);
            let mut answer = respond::problem(&problem.transaction(Some(receipt.transaction.clone())));
            if let Some(terms) = terms {
                respond::receipts(answer.headers_mut(), terms, Ok(&receipt));
            }
            answer
        }
        Refusal::OtherRequest => respond::problem(&conflict(
            "this payment was presented with another request",
            "repeat that request unchanged, or sign a new payment",
        )),
        Refusal::OtherPurchase => respond::problem(&conflict(
            "another purchase of yours has this payment identifier",
            "repeat that request unchanged, or sign a new payment with a new identifier",
        )),
        Refusal::Spent { transaction } => {
            let (message, hint) = match transaction {
                Some(_) => (
                    "the chain shows that this payment was made before it came here; nothing was served for it here",
                    "do not pay again for this; if nobody served you for this transaction, ask the seller for a refund of it",
                ),
                None => (
                    "this payment's nonce was used before it came here; nothing was charged or served for it here",
                    "see on chain what used the nonce before you sign another: a transfer to this seller is to be refunded, a cancellation is none",
                ),
            };
            respond::problem(&conflict(message, hint).transaction(transaction))
        }
        Refusal::Unsettled { transaction } => respond::problem(&problem::settlement_unknown(transaction)),
        _ => respond::problem(&unavailable(code)),
    }
}

fn unavailable(code: &'static str) -> Problem {
    let message = match code {
        "facilitator_unavailable" => "no facilitator can verify payments at the moment",
        "journal_unavailable" => "payments cannot be recorded at the moment",
        _ => "the payment cannot be taken at the moment",
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message, "nothing was charged; the same payment may be sent again later").retry(5)
}

/// How a payment is charged by what is used; `None` where all of it is taken.
fn meter(visit: &Visit, payment: &MatchedPayment) -> Option<Meter> {
    let rate = visit.entry.rate_of(&payment.terms, visit.demand).filter(|rate| rate.is_metered())?;
    let is_upto = payment.terms.scheme == Scheme::Upto;
    is_upto.then(|| Meter {
        terms: payment.terms.clone(),
        rate: rate.clone(),
        when_uncounted: visit.entry.offer.model.as_ref().map_or(WhenUncounted::Ceiling, |model| model.when_uncounted),
        prompt_bytes: visit.demand.map_or(0, |demand| demand.prompt_bytes),
    })
}
