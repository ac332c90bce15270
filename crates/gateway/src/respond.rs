//! The gateway's own answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use obol_offer::Terms;
use obol_reconcile::{Document, Entry};
use obol_settle::Receipt;
use obol_x402::{Quote, wire};

use crate::{
    body::Body,
    page,
    problem::{self, Problem},
};

pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// What scripts in browsers may read of an answer.
pub(crate) const EXPOSED: HeaderValue =
    HeaderValue::from_static("PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, X-Request-Id, Retry-After");
const CATALOG: HeaderValue = HeaderValue::from_static("</api/services.json>; rel=\"catalog\"");

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Ready(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.reserve(12);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    answer
}

/// A refusal.
pub(crate) fn problem(problem: &Problem) -> Answer {
    // Our own strings: serialisation cannot fail.
    let mut body = serde_json::to_vec(problem).unwrap_or_default();
    body.push(b'\n');
    let mut answer = answer(problem.status, JSON, body);
    answer.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    if let Some(seconds) = problem.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Why an offered payment does not do.
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    pub code: &'static str,
    pub message: String,
    pub hint: &'static str,
}

/// A `402` for clients of both versions, or for a person.
pub(crate) fn challenge(entry: &Entry, quote: &Quote, resource_url: &str, reason: Option<&Reason>, html: bool) -> Answer {
    if quote.terms().is_empty() {
        return problem(&problem::nobody_settles());
    }
    let error = reason.map(|reason| format!("{}: {}", reason.code, reason.message));
    let challenge = quote.challenge(resource_url, error.as_deref().unwrap_or("payment required"));
    let mut answer = if html {
        answer(StatusCode::PAYMENT_REQUIRED, HTML, page::render(&entry.offer, quote, resource_url, error.as_deref()))
    } else {
        let body = reason.map_or(challenge.body.clone(), |reason| with_reason(&challenge.body, reason));
        answer(StatusCode::PAYMENT_REQUIRED, JSON, body)
    };
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::try_from(challenge.header) {
        headers.insert(HeaderName::from_static(wire::PAYMENT_REQUIRED), value);
    }
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::LINK, CATALOG);
    answer
}

/// Adds `code`, `hint` and `retriable` to a v1 body; its clients pass over fields they do not know.
fn with_reason(body: &str, reason: &Reason) -> String {
    let Some(open) = body.trim_end().strip_suffix('}') else { return body.to_owned() };
    let extra = serde_json::json!({ "code": reason.code, "hint": reason.hint, "retriable": false }).to_string();
    format!("{open},{}", extra.trim_start_matches('{'))
}

/// A public document.
pub(crate) fn document(document: &Document) -> Answer {
    let body = Bytes::from_owner(document.body.clone());
    let mut answer = answer(StatusCode::OK, HeaderValue::from_static(document.content_type), body);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Whether a browser asks if its script may send a request (Fetch §3.2.2).
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// It may: an answer is only for who pays, and the payment is in a header and never ambient.
pub(crate) fn preflight(request: &HeaderMap) -> Answer {
    const DEFAULT: HeaderValue = HeaderValue::from_static("PAYMENT-SIGNATURE, X-PAYMENT, Content-Type, Access-Control-Expose-Headers");
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    let methods = request.get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.unwrap_or(HeaderValue::from_static("GET, HEAD, POST")));
    let allowed = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.unwrap_or(DEFAULT));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"));
    answer
}

/// Receipts for both versions: a client looks for its own and passes over the other.
pub(crate) fn receipts(headers: &mut HeaderMap, terms: &Terms, outcome: Result<&Receipt, &str>) {
    let v2 = receipt_v2(terms, outcome);
    let v1 = wire::SettleResponse { network: terms.network.name.to_owned(), amount: None, ..v2.clone() };
    for (name, receipt) in [(wire::PAYMENT_RESPONSE, v2), (wire::X_PAYMENT_RESPONSE, v1)] {
        if let Ok(value) = encode(&receipt) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A receipt, or why there is none.
pub(crate) fn receipt_v2(terms: &Terms, outcome: Result<&Receipt, &str>) -> wire::SettleResponse {
    let network = terms.network.caip2();
    match outcome {
        Ok(receipt) => wire::SettleResponse {
            success: true,
            payer: Some(receipt.payer.to_string()),
            transaction: receipt.transaction.clone(),
            network,
            amount: Some(receipt.amount),
            ..wire::SettleResponse::default()
        },
        Err(reason) => wire::SettleResponse { error_reason: Some(reason.to_owned()), network, ..wire::SettleResponse::default() },
    }
}

fn encode(receipt: &wire::SettleResponse) -> Result<HeaderValue, Box<dyn std::error::Error>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    Ok(HeaderValue::try_from(STANDARD.encode(serde_json::to_vec(receipt)?))?)
}

/// Whether a person with a browser is asking, rather than a program.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()) else { return false };
    if !accept.contains("text/html") {
        return false;
    }
    let browser = headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    let html = quality(accept, "text/html");
    browser && html > 0 && html >= quality(accept, "application/json")
}

/// Thousandths of `q` of a media type named in `Accept` (RFC 9110 §12.4.2); 0 when not named.
fn quality(accept: &str, media: &str) -> u16 {
    let named = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        (parts.next()?.eq_ignore_ascii_case(media)).then(|| parts.find_map(|p| p.strip_prefix("q=")).map_or(1000, thousandths))
    });
    named.max().unwrap_or(0)
}

fn thousandths(q: &str) -> u16 {
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u16>().unwrap_or(0).min(1) * 1000 + fraction.parse::<u16>().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(accept: &'static str, agent: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        wants_html(&headers)
    }

    #[test]
    fn only_browsers_get_a_page() {
        assert!(asks("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Mozilla/5.0 (X11)"));
        assert!(!asks("text/html", "curl/8"));
        assert!(!asks("*/*", "Mozilla/5.0"));
        assert!(!asks("application/json, text/html;q=0.9", "Mozilla/5.0"));
        assert!(!asks("text/html;q=0", "Mozilla/5.0"));
    }

    #[test]
    fn a_reason_is_added_to_the_v1_body() {
        let reason = Reason { code: "c", message: "m".into(), hint: "h\"" };
        let body: serde_json::Value =
            serde_json::from_str(&with_reason(r#"{"x402Version":1,"error":"c: m","accepts":[]}"#, &reason)).unwrap();
        assert_eq!(body, serde_json::json!({"x402Version":1,"error":"c: m","accepts":[],"code":"c","hint":"h\"","retriable":false}));
    }
}
