//! Answers that are kept for buyers who do not get them, and handed out again.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use obol_offer::OnLost;
use obol_settle::StoredAnswer;

use crate::{
    body::{Body, Source},
    respond::Answer,
};

/// Says that this answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Whether an answer is to be read in full before its payment is captured. The bodies of those
/// that only look like one (to `HEAD`, without a length) are not kept.
pub(crate) fn is_wanted(policy: OnLost, answer: &Response<Incoming>) -> bool {
    let told = answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let small = told.is_some_and(|length| length <= StoredAnswer::MAX_BODY) && told == answer.body().size_hint().exact();
    policy == OnLost::StoredAnswer && small && answer.status() != StatusCode::SWITCHING_PROTOCOLS
}

/// Reads it, and says what is kept of it.
pub(crate) async fn read(answer: Response<Incoming>) -> Result<(Response<Source>, StoredAnswer), hyper::Error> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let kept = StoredAnswer { status: parts.status.as_u16(), headers, body: body.to_vec() };
    Ok((Response::from_parts(parts, Source::Whole(body)), kept))
}

/// The answer again; the receipt is added by the caller.
pub(crate) fn again(kept: &StoredAnswer) -> Answer {
    let mut answer = Response::new(Body::Ready(kept.body.clone().into()));
    *answer.status_mut() = StatusCode::from_u16(kept.status).unwrap_or_default();
    let mut headers = HeaderMap::with_capacity(kept.headers.len());
    for (name, value) in &kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    *answer.headers_mut() = headers;
    answer
}
