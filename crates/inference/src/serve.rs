//! Listeners.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Secret,
    metrics,
    model::Model,
    service::{self, Directory},
};

/// How long requests in progress may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(30);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves the x402 gateway until `shutdown`; then requests in progress may end.
pub async fn serve(listener: TcpListener, models: Directory, gate: Secret, shutdown: CancellationToken) {
    let shared = Arc::new((models, gate));
    let answer = move |request| {
        let shared = shared.clone();
        async move { service::answer(&shared.0, &shared.1, request).await }
    };
    run(listener, answer, shutdown).await;
}

/// Serves `/healthz`, `/readyz`, `/metrics` and `/model` until `shutdown`; not ready once `ending`.
pub async fn serve_admin(listener: TcpListener, model: Arc<Model>, ending: CancellationToken, shutdown: CancellationToken) {
    let answer = move |request: Request<Incoming>| {
        let answer = admin(&model, &request, ending.is_cancelled());
        async move { answer }
    };
    run(listener, answer, shutdown).await;
}

fn admin(model: &Model, request: &Request<Incoming>, ending: bool) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let state = model.state();
    let (status, media_type, body) = match request.uri().path() {
        "/healthz" | "/readyz" | "/metrics" | "/model" if !get => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".to_owned()),
        "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" if ending => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".to_owned()),
        "/readyz" if state.is_ready() => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}: {}\n", state.reason(), state.message())),
        "/metrics" => (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics::encode(&[model])),
        "/model" => (StatusCode::OK, "application/json", serde_json::to_string(&state).unwrap_or_default()),
        _ => (StatusCode::NOT_FOUND, TEXT, "see /healthz, /readyz, /metrics, /model\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Accepts until `shutdown`, then waits for what is in progress.
async fn run<F, B>(listener: TcpListener, answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static, shutdown: CancellationToken)
where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: others will close.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let (drain, stop) = (shutdown.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! { ended = connection => ended, () = stop.cancelled() => Ok(()) }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        stop.cancel();
        tasks.wait().await;
    }
}
