//! One request: who asks, what for, and how the model server's answer goes back.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    body::{AnswerBody, Body, Patience},
    config::Secret,
    meter::Meter,
    model::{Model, add},
    problem::Problem,
    request::{self, Prepared},
    slots::Busy,
    surface::{self, Asked, Call},
    upstream::UpstreamError,
    usage::{Report, USAGE, Usage},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bound on the reading of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Least bound on an answer that is not streamed: it comes when its last token is there.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest error of a model server that is passed on.
const MAX_ERROR: usize = 64 * 1024;

/// Models by offer.
pub type Directory = Arc<ArcSwap<HashMap<String, Arc<Model>>>>;

/// The model of an offer, and the path below the offer's own: `/<offer>/v1/…`.
fn find<'a>(models: &Directory, path: &'a str) -> Option<(Arc<Model>, &'a str)> {
    let (offer, _) = path.strip_prefix('/')?.split_once('/')?;
    let model = models.load().get(offer)?.clone();
    Some((model, path.get(offer.len() + 1..)?))
}

/// Answers one request. `gate` is the secret of the x402 gateway: nobody else is served.
pub async fn answer(models: &Directory, gate: &Secret, request: Request<Incoming>) -> Response<Body> {
    if !is_gateway(gate, request.headers()) {
        let message = "requests come through the x402 gateway only";
        return refuse(&Problem::new(StatusCode::UNAUTHORIZED, "gate_secret", message));
    }
    let Some((model, path)) = find(models, request.uri().path()) else { return refuse(&Problem::not_served()) };
    let asked = match surface::read(request.method(), path) {
        Ok(asked) => asked,
        Err(problem) => {
            add(&model.counters.refused, 1);
            return refuse(&problem);
        }
    };
    match asked {
        Asked::Models => free(json!({ "object": "list", "data": [entry(&model)] })),
        Asked::Model(id) if surface::is_id(&id, &model.config.name) => free(entry(&model)),
        Asked::Model(_) => {
            let message = format!("the model that is sold here is `{}`", model.config.name);
            refuse(&Problem::new(StatusCode::NOT_FOUND, "model_not_found", message))
        }
        Asked::Call(call) => serve(&model, call, request).await.unwrap_or_else(|problem| {
            let counters = &model.counters;
            let counter = match problem.status.as_u16() {
                429 => &counters.busy,
                500.. => &counters.failed,
                _ => &counters.refused,
            };
            add(counter, 1);
            refuse(&problem)
        }),
    }
}

fn is_gateway(gate: &Secret, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    value.as_bytes().strip_prefix(b"Bearer ").is_some_and(|token| gate.is(token))
}

/// One model as `GET /v1/models` shows it: the public name and nothing of the server's.
fn entry(model: &Model) -> serde_json::Value {
    json!({ "id": model.config.name, "object": "model", "created": 0, "owned_by": model.config.offer })
}

/// An answer that no model was asked for.
fn free(body: serde_json::Value) -> Response<Body> {
    let mut response = json_response(StatusCode::OK, body.to_string());
    if let Ok(report) = HeaderValue::try_from(Report::Counted(Usage::default()).to_string()) {
        response.headers_mut().insert(USAGE, report);
    }
    response
}

async fn serve(model: &Arc<Model>, call: Call, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let request_id = request.headers().get(REQUEST_ID).cloned();
    check_type(request.headers())?;
    let body = read(request, model.config.max_body_bytes).await?;
    let prepared = request::prepare(call, &body, &model.config)?;
    drop(body);
    let config = &model.config;
    let slot = model.slots.enter(config.first_token_timeout).await.map_err(|busy| too_busy(model, busy))?;
    let first = if prepared.streamed { config.first_token_timeout } else { config.first_token_timeout.max(WHOLE_TIMEOUT) };
    let patience = Patience { first: Instant::now() + first, next: config.token_timeout };
    let sent = Bytes::from(prepared.body.clone());
    let answer = model.upstream.ask(http::Method::POST, call.path(), sent, request_id.as_ref(), first).await;
    let answer = answer.map_err(|error| failed(model, &error))?;
    if !answer.status().is_success() {
        return error_of(model, answer).await;
    }
    Ok(pass_on(model, &prepared, answer, request_id, patience, slot))
}

/// A body in another coding could hide from us what the model server reads.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |message| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", message);
    let essence =
        |value: &HeaderValue| value.to_str().ok().and_then(|text| text.split(';').next()).map(|text| text.trim().to_ascii_lowercase());
    match headers.get(header::CONTENT_TYPE).and_then(essence).as_deref() {
        Some("application/json") => {}
        _ => return Err(unsupported("send JSON, with `Content-Type: application/json`")),
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(unsupported("send the body without content coding"));
    }
    Ok(())
}

async fn read(request: Request<Incoming>, max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("the body may have {max} bytes"));
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max)) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "body_broken", "the body broke off")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body did not come in time")),
    }
}

fn too_busy(model: &Model, busy: Busy) -> Problem {
    let message = match busy {
        Busy::Full => "as many requests as the model takes are in progress and waiting; come back later",
        Busy::TooLong => "the model is busy, and no turn came in time; come back later",
    };
    // Half a minute for a whole queue is as good a guess as any.
    let seconds = 1 + u64::try_from(model.slots.waiting() * 30 / (model.config.queue + 1)).unwrap_or(30);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "model_busy", message).retry(Duration::from_secs(seconds))
}

fn failed(model: &Model, error: &UpstreamError) -> Problem {
    tracing::warn!(offer = model.config.offer, "the model server failed: {error}");
    match error {
        UpstreamError::Unreachable(_) => Problem::new(StatusCode::BAD_GATEWAY, "model_unreachable", "the model server cannot be reached"),
        UpstreamError::Broken(_) => Problem::new(StatusCode::BAD_GATEWAY, "model_broken", "the model server broke off"),
        UpstreamError::Timeout(_) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "first_token_timeout", "the model server gave no answer in time")
        }
    }
}

/// What the buyer can do something about is passed on; what is between seller and model server is not.
async fn error_of(model: &Model, answer: Response<Incoming>) -> Result<Response<Body>, Problem> {
    let status = answer.status();
    let retry = answer.headers().get(header::RETRY_AFTER).cloned();
    let body = Limited::new(answer.into_body(), MAX_ERROR).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body).await.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    tracing::warn!(offer = model.config.offer, %status, body = %String::from_utf8_lossy(body.get(..500).unwrap_or(&body)), "the model server refused");
    let code = match status.as_u16() {
        400 | 413 | 422 if serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|value| value.is_object()) => {
            return Ok(json_response(status, body));
        }
        400 | 413 | 422 => return Err(Problem::new(status, "model_refused", "the model server refused the request")),
        429 => {
            let mut response = refuse(&Problem::new(status, "model_busy", "the model server is busy; come back later"));
            if let Some(retry) = retry {
                response.headers_mut().insert(header::RETRY_AFTER, retry);
            }
            return Ok(response);
        }
        503 => "model_loading",
        404 => "model_missing",
        401 | 403 => "model_key",
        _ => "model_failed",
    };
    let message = format!("the model server answered {}", status.as_u16());
    Err(Problem::new(if code == "model_loading" { status } else { StatusCode::BAD_GATEWAY }, code, message))
}

fn pass_on(
    model: &Arc<Model>,
    prepared: &Prepared,
    answer: Response<Incoming>,
    request_id: Option<HeaderValue>,
    patience: Patience,
    slot: crate::slots::Slot,
) -> Response<Body> {
    let (head, inner) = answer.into_parts();
    let media_type = head.headers.get(header::CONTENT_TYPE).cloned();
    let meter = Meter::new(prepared, &model.config, media_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default());
    let stream = meter.is_stream();
    let body = AnswerBody::new(inner, meter, model.clone(), request_id, patience, slot);
    let mut response = Response::new(Body::Answer(Box::new(body)));
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    if let Some(media_type) = media_type {
        headers.insert(header::CONTENT_TYPE, media_type);
    }
    if stream {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // For proxies on the way that gather answers unless told not to.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    headers.insert(header::TRAILER, HeaderValue::from(USAGE));
    response
}

fn refuse(problem: &Problem) -> Response<Body> {
    let mut response = json_response(problem.status, problem.body());
    let headers = response.headers_mut();
    if let Some(after) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    if let Some(allow) = problem.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn json_response(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Ready(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
