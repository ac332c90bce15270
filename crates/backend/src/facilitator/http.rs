//! The two listeners of the role: one for gateways, one for operators.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use obol_chain::SelfFacilitator;
use obol_offer::Network;
use obol_settle::Facilitator as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Shared,
    answer::{self, Answer, error},
    metrics::Labels,
    request::{self, Asked, Senseless, Step},
};

/// Largest request body; a payment header has 16 KiB at most.
const MAX_BODY: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once, per listener.
const MAX_CONNECTIONS: usize = 1024;
/// How long the end waits for settlements under way.
const DRAIN: Duration = Duration::from_secs(60);

type Respond = for<'a> fn(&'a Shared, Request<Incoming>) -> BoxFuture<'a, Response<Full<Bytes>>>;

/// Serves a listener until `end`, then what is under way.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, respond: Respond, end: CancellationToken) {
    let (tasks, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, stream) = tokio::select! {
            () = end.cancelled() => break,
            (slot, accepted) = next => match accepted {
                Ok((stream, _)) => (slot, stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (shared, end) = (Arc::clone(&shared), end.clone());
        tasks.spawn(async move {
            let _slot = slot;
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(respond(&shared, request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                () = end.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(DRAIN, connection).await;
                }
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

/// Answers gateways.
pub(super) fn answer(shared: &Shared, request: Request<Incoming>) -> BoxFuture<'_, Response<Full<Bytes>>> {
    Box::pin(async move {
        let (status, body) = shared.route(request).await;
        response(status, "application/json", body.to_string())
    })
}

/// Answers operators.
pub(super) fn operate(shared: &Shared, request: Request<Incoming>) -> BoxFuture<'_, Response<Full<Bytes>>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let answer = match (request.method(), request.uri().path()) {
        (&(Method::GET | Method::HEAD), "/healthz") => response(StatusCode::OK, TEXT, "ok\n"),
        (&(Method::GET | Method::HEAD), "/readyz") if shared.ending.is_cancelled() => {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n")
        }
        (&(Method::GET | Method::HEAD), "/readyz") => response(StatusCode::OK, TEXT, "ready\n"),
        (&(Method::GET | Method::HEAD), "/metrics") => {
            response(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", shared.metrics.encode())
        }
        (_, "/healthz" | "/readyz" | "/metrics") => response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n"),
        _ => response(StatusCode::NOT_FOUND, TEXT, "see /healthz, /readyz, /metrics\n"),
    };
    Box::pin(std::future::ready(answer))
}

impl Shared {
    async fn route(&self, request: Request<Incoming>) -> (StatusCode, Value) {
        if !self.admits(&request) {
            return error(StatusCode::UNAUTHORIZED, "this facilitator serves those it gave a credential");
        }
        let (method, path) = (request.method().clone(), request.uri().path().trim_end_matches('/').to_owned());
        match (method, path.as_str()) {
            (Method::GET | Method::HEAD, "/supported") => (StatusCode::OK, self.supported()),
            (Method::POST, "/verify") => self.step(Step::Verify, request).await,
            (Method::POST, "/settle") => self.step(Step::Settle, request).await,
            (_, "/supported") => error(StatusCode::METHOD_NOT_ALLOWED, "use GET"),
            (_, "/verify" | "/settle") => error(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
            _ => error(StatusCode::NOT_FOUND, "see /verify, /settle, /supported"),
        }
    }

    fn admits(&self, request: &Request<Incoming>) -> bool {
        let Some(credential) = &self.credential else { return true };
        request.headers().get(header::AUTHORIZATION).is_some_and(|given| credential.is(given.as_bytes()))
    }

    fn supported(&self) -> Value {
        let mut kinds = Vec::new();
        let mut signers = serde_json::Map::new();
        for facilitator in &self.facilitators {
            let network = facilitator.chain().network();
            kinds.push(json!({ "x402Version": 2, "scheme": "exact", "network": network.caip2() }));
            if network.in_v1 {
                kinds.push(json!({ "x402Version": 1, "scheme": "exact", "network": network.name }));
            }
            if let Some(address) = facilitator.upto(network) {
                let extra = json!({ "facilitatorAddress": address.to_string() });
                kinds.push(json!({ "x402Version": 2, "scheme": "upto", "network": network.caip2(), "extra": extra }));
            }
            signers.insert(network.caip2(), json!([facilitator.address().to_string()]));
        }
        json!({ "kinds": kinds, "extensions": [], "signers": signers })
    }

    async fn step(&self, step: Step, request: Request<Incoming>) -> (StatusCode, Value) {
        let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), MAX_BODY).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return error(StatusCode::BAD_REQUEST, "a body of at most 64 KiB is expected"),
            Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        };
        let settle = step == Step::Settle;
        let asked = match request::read(&body, step, |network| self.on(network)?.upto(network)) {
            Ok(asked) => asked,
            Err(Senseless(why)) => {
                self.count(step, "", "malformed");
                return error(StatusCode::BAD_REQUEST, &why);
            }
        };
        let no = |reason: &str, network: &str| if settle { answer::refused(reason, network, None) } else { answer::invalid(reason, None) };
        let (network, (status, body, outcome)) = match asked {
            Asked::Invalid(reason) => ("", no(reason, "")),
            Asked::Payment(payment) => {
                let network = payment.terms.network;
                match self.on(network) {
                    Some(facilitator) => (network.name, self.ask(facilitator, &payment, settle).await),
                    None => ("", no("invalid_network", network.name)),
                }
            }
        };
        self.count(step, network, outcome);
        (status, body)
    }

    fn on(&self, network: &Network) -> Option<&SelfFacilitator> {
        self.facilitators.iter().find(|facilitator| facilitator.chain().network() == network)
    }

    async fn ask(&self, facilitator: &SelfFacilitator, payment: &obol_x402::MatchedPayment, settle: bool) -> Answer {
        if !settle {
            return answer::verified(facilitator.verify(payment).await, payment);
        }
        let started = Instant::now();
        let outcome = facilitator.settle(payment).await;
        self.metrics.settle.observe(started.elapsed().as_secs_f64());
        tracing::info!(payment = %payment.replay_key(), ?outcome, "settle");
        answer::settled(outcome, payment)
    }

    fn count(&self, step: Step, network: &'static str, outcome: &'static str) {
        let step = if step == Step::Settle { "settle" } else { "verify" };
        self.metrics.requests.get_or_create(&Labels { step, network, outcome }).inc();
    }
}
