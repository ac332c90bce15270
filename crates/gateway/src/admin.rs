//! The separate listener for operators: `/healthz`, `/readyz`, `/metrics`.

use std::{convert::Infallible, future::Future, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{serve::Shared, verify};

/// Connections that are enough for operators, who are few.
pub const MAX_CONNECTIONS: usize = 64;
/// Proxies that ask about every request are not.
const MAX_CONNECTIONS_WITH_VERIFY: usize = 4096;

/// Serves the operators of a gateway until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    let most = if shared.config.verify { MAX_CONNECTIONS_WITH_VERIFY } else { MAX_CONNECTIONS };
    let answer = move |request: Request<Incoming>, peer| {
        let shared = shared.clone();
        async move {
            let path = request.uri().path();
            match &shared.desk {
                _ if shared.config.verify && path == "/verify" => verify::answer(&shared, &request, peer).await,
                Some(desk) if path.starts_with("/v1/") && peer.to_canonical().is_loopback() => desk(request).await,
                Some(_) if path.starts_with("/v1/") => not_local(),
                _ => answer(&shared, &request),
            }
        }
    };
    serve(listener, most, answer, stop).await;
}

/// Serves operators until `stop`, at most so many connections at once; `answer` is told who asks.
pub async fn serve<F>(
    listener: TcpListener,
    most: usize,
    answer: impl Fn(Request<Incoming>, IpAddr) -> F + Clone + Send + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            (slot, Ok((stream, peer))) = next => (slot, stream, peer.ip()),
            else => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let answer = answer.clone();
        connections.spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| answer(request, peer).map(Ok::<_, Infallible>));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

/// One short answer.
pub fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Payments are told to nobody who merely reaches the port.
fn not_local() -> Response<Full<Bytes>> {
    let body =
        r#"{"code":"not_local","message":"this is answered to the gateway's own machine; type `obol payments`, or forward the port"}"#;
    reply(StatusCode::FORBIDDEN, "application/json", body.to_owned())
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&(Method::GET | Method::HEAD), "/healthz") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&(Method::GET | Method::HEAD), "/readyz") => {
            let (status, word) = match () {
                () if shared.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
                () if shared.table.load().is_none() => (StatusCode::SERVICE_UNAVAILABLE, "no routes loaded yet\n"),
                () if !shared.cashier.is_recovered() => {
                    (StatusCode::SERVICE_UNAVAILABLE, "payments that an earlier run left open are looked at first\n")
                }
                () => (StatusCode::OK, "ready\n"),
            };
            (status, TEXT, word.to_owned())
        }
        (&(Method::GET | Method::HEAD), "/metrics") => {
            if let Some(table) = shared.table.load().as_ref() {
                shared.offers.prune(table, &shared.metrics);
            }
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", shared.metrics.encode())
        }
        (&(Method::GET | Method::HEAD), "/offers") if shared.report.is_some() => {
            (StatusCode::OK, "application/json", shared.report.as_ref().map(|report| report()).unwrap_or_default())
        }
        (_, "/healthz" | "/readyz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "see /healthz, /readyz, /metrics\n".to_owned()),
    };
    reply(status, content_type, body)
}
