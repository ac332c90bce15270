//! The listener of operators: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use obol_gateway::admin;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// Serves operators until `stop`.
pub async fn serve_admin(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    let answer = move |request: Request<Incoming>, _| std::future::ready(answer(&metrics, &request));
    admin::serve(listener, admin::MAX_CONNECTIONS, answer, stop).await;
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
    admin::reply(status, kind, body)
}
