//! `/verify` on the admin listener, for people who keep their own proxy: Traefik's ForwardAuth and nginx's
//! `auth_request` ask it whether a request may go on.
//!
//! It cannot see what the upstream answers, so it settles before it says yes: a buyer whose upstream then fails has
//! paid. See docs/verify.md.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use obol_settle::Captured;

use crate::{
    body::{Body, RequestBody},
    fingerprint::fingerprint,
    headers,
    permit::Passage,
    problem::{self, Problem},
    respond::{self, Answer, Reason},
    serve::{Decision, Shared, Visit},
};

/// What nginx passes on of a refusal is a 401 only; whoever asks with this gets one instead of a 402.
const DENY_AS_401: &str = "deny=401";

/// Answers a proxy. `peer` is the proxy.
pub(crate) async fn answer(shared: &Arc<Shared>, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
    let answer = match described(request.headers()) {
        Ok(described) => {
            let buyer = buyer(request.headers()).unwrap_or(peer);
            shared.verify(described, buyer).await
        }
        Err(problem) => respond::problem(&problem),
    };
    let (mut parts, body) = answer.into_parts();
    if parts.status == StatusCode::PAYMENT_REQUIRED && request.uri().query() == Some(DENY_AS_401) {
        parts.status = StatusCode::UNAUTHORIZED;
    }
    // Nothing here comes from an upstream.
    let bytes = if let Body::Ready(bytes) = body { bytes } else { Bytes::new() };
    Response::from_parts(parts, Full::from(bytes))
}

/// The request that the proxy has, as its headers describe it.
fn described(given: &HeaderMap) -> Result<Request<RequestBody>, Problem> {
    const BAD: Problem = Problem::new(
        StatusCode::BAD_REQUEST,
        "verify_headers",
        "X-Forwarded-Method, X-Forwarded-Uri and X-Forwarded-Host say which request this is about",
        "have your proxy send each of them once",
    );
    let one = |name: &str| {
        let mut all = given.get_all(name).into_iter();
        all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok()).ok_or(BAD)
    };
    let method: Method = one("x-forwarded-method")?.parse().map_err(|_| BAD)?;
    let uri: Uri = one("x-forwarded-uri")?.parse().map_err(|_| BAD)?;
    let host = HeaderValue::from_str(one("x-forwarded-host")?).map_err(|_| BAD)?;
    if uri.authority().is_some() {
        return Err(BAD);
    }
    let mut request = Request::new(RequestBody::Ready { bytes: Bytes::new(), _share: None });
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = given.clone();
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// Who asked the proxy: it appends its own view to the list, so the last one is its word.
fn buyer(given: &HeaderMap) -> Option<IpAddr> {
    given.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

impl Shared {
    async fn verify(self: &Arc<Self>, request: Request<RequestBody>, buyer: IpAddr) -> Answer {
        let id = self.ids.of(request.headers());
        match self.decide(&request, buyer, &id) {
            // A 2xx would let the request pass, and these are answers, not leave.
            Decision::Answer(answer, _) if answer.status().is_success() => respond::problem(&not_here()),
            Decision::Answer(answer, _) => answer,
            Decision::Price(_) => respond::problem(&metered()),
            Decision::Mismatch(visit, unmatched) => self.mismatched(&visit, &unmatched).await,
            Decision::Forward(visit) if visit.entry.offer.payments.iter().any(|tag| tag.rate.is_metered()) => respond::problem(&metered()),
            Decision::Forward(visit) => self.settle_up_front(*visit, request).await,
        }
    }

    async fn settle_up_front(self: &Arc<Self>, mut visit: Visit, request: Request<RequestBody>) -> Answer {
        let Some(payment) = visit.payment.take() else {
            return match Passage::free(&visit.entry) {
                Some(_) => yes(),
                None => respond::problem(&problem::not_found()),
            };
        };
        let (terms, payer) = (payment.terms.clone(), payment.authorization.from);
        let offer = visit.entry.offer.clone();
        let fingerprint = fingerprint(&request, &visit.path);
        let permit = match self.cashier.admit(&offer.name, payment, &offer.facilitators, fingerprint).await {
            Ok(permit) => permit,
            Err(refusal) => return not_yes(self.refused(&visit, &terms, refusal)),
        };
        let outcome = |code: &str| visit.state.count_payment(&self.metrics, Some(&terms), code);
        match Passage::paid(permit).spend().capture(None, None).await {
            Some(Captured::Settled(receipt, delivery)) => {
                outcome("settled");
                visit.state.count_captured(&self.metrics, &terms, terms.amount);
                // Whether the buyer gets an answer is up to the proxy from here on.
                delivery.complete();
                let mut answer = yes();
                respond::receipts(answer.headers_mut(), &terms, Ok(&receipt));
                if let Ok(payer) = HeaderValue::try_from(payer.to_string()) {
                    answer.headers_mut().insert(headers::PAYER, payer);
                }
                answer
            }
            Some(Captured::Refused { reason }) => {
                outcome("settlement_refused");
                let reason = Reason { code: "settlement_refused", message: reason, hint: "nothing was charged; sign a new payment" };
                self.answer_again(&visit, &reason, Some(&terms))
            }
            Some(Captured::Unsettled { transaction }) => {
                outcome("settlement_unknown");
                respond::problem(&problem::settlement_unknown(transaction))
            }
            Some(Captured::NotAsked | Captured::Nothing) | None => {
                outcome("settlement_not_asked");
                respond::problem(&problem::settlement_not_asked())
            }
        }
    }
}

fn yes() -> Answer {
    let mut answer = Response::new(Body::empty());
    let never = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(header::CACHE_CONTROL, never);
    answer.headers_mut().insert(HeaderName::from_static("x-obol-verified"), HeaderValue::from_static("1"));
    answer
}

/// A stored answer of another time is no leave for a new request.
fn not_yes(answer: Answer) -> Answer {
    if answer.status().is_success() { respond::problem(&not_here()) } else { answer }
}

const fn not_here() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "verify_not_here",
        "this is answered by the gateway itself, and cannot be let through",
        "send it to the gateway's public listener",
    )
}

const fn metered() -> Problem {
    Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        "verify_metered",
        "what is priced by its use cannot be settled before it is used",
        "send it to the gateway's public listener",
    )
}
