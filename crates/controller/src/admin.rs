//! The listener of operators: `/healthz`, `/readyz`, `/metrics`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// Operators are few.
const MAX_CONNECTIONS: usize = 64;

/// Serves operators until `stop`.
pub async fn serve_admin(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            _ = connections.join_next(), if connections.len() >= MAX_CONNECTIONS => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let metrics = metrics.clone();
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| std::future::ready(Ok::<_, Infallible>(answer(&metrics, &request))));
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

fn answer(metrics: &Metrics, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&(Method::GET | Method::HEAD), "/healthz") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&(Method::GET | Method::HEAD), "/readyz") if metrics.is_synced() => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        (&(Method::GET | Method::HEAD), "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, "the offers have not been listed yet\n".to_owned())
        }
        (&(Method::GET | Method::HEAD), "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.encode())
        }
        (_, "/healthz" | "/readyz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "see /healthz, /readyz, /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
