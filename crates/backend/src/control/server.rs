use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use obol_offer::{Address, ConditionKind, ConditionStatus, OfferName};
use obol_sandbox::SandboxError;
use obol_settle::Cashier;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixListener, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{MintRequest, NodeStatus, OfferView, Problem, SandboxBalance, SyncRequest, SyncResult, payments};
use crate::{
    keeper::{Command, Event, Report},
    play::PlayMoney,
};

/// Largest request body.
const MAX_BODY: usize = 64 * 1024;
/// How long a sync of one offer waits for the first probe of its upstream.
const FIRST_PROBE: Duration = Duration::from_millis(1500);

/// What the control socket gives access to.
pub(crate) struct Control {
    pub(crate) keeper: std::sync::mpsc::Sender<Event>,
    pub(crate) play: Arc<PlayMoney>,
    pub(crate) cashier: Cashier,
    /// Ends the node.
    pub(crate) shutdown: CancellationToken,
    /// The parts of the status that do not change, and whether the node is ready.
    pub(crate) describe: Box<dyn Fn(Report) -> NodeStatus + Send + Sync>,
}

pub(super) struct Refused(pub(super) StatusCode, pub(super) Problem);

pub(super) type Answer = Result<Vec<u8>, Refused>;

impl Refused {
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self(status, Problem { code: code.to_owned(), message: message.into() })
    }
}

impl From<SandboxError> for Refused {
    fn from(error: SandboxError) -> Self {
        Self::new(StatusCode::CONFLICT, error.code(), error.to_string())
    }
}

impl Control {
    /// Answers until `end`, then finishes what is under way.
    pub(crate) async fn serve(self: Arc<Self>, listener: &UnixListener, end: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = end.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "control socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (this, end) = (self.clone(), end.clone());
            tasks.spawn(async move {
                let service = service_fn(move |request| {
                    let this = this.clone();
                    async move { Ok::<_, Infallible>(this.respond(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(5))
                    .serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = end.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        let _ = tokio::time::timeout(Duration::from_secs(2), connection).await;
                    }
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        respond(self.route(request).await)
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["v1", "status"]) => {
                let report = self.ask(Command::Report).await?;
                json(&(self.describe)(report))
            }
            (&Method::GET, ["v1", "plan"]) => json(&self.ask(Command::Plan).await?),
            (&Method::GET, ["v1", "observed"]) => json(&self.ask(Command::Observed).await?),
            (&Method::GET, ["v1", "offers", name]) => {
                let name: OfferName = name.parse().map_err(|_| unknown(name))?;
                let views = self.ask(|reply| Command::Offer(name.clone(), reply)).await?;
                json(views.first().ok_or_else(|| unknown(name.as_str()))?)
            }
            (&Method::POST, ["v1", "sync"]) => {
                let SyncRequest { name } = body(request).await?;
                json(&SyncResult { offers: self.sync(name).await? })
            }
            (&Method::POST, ["v1", "shutdown"]) => {
                self.shutdown.cancel();
                json(&serde_json::json!({}))
            }
            (_, ["v1", "payments", ..]) => payments::route(&self.cashier, request).await,
            (&Method::GET, ["v1", "sandbox", "balance", address]) => {
                let address = address.parse().map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "address", "no address"))?;
                json(&self.balance(address).await?)
            }
            (&Method::POST, ["v1", "sandbox", "mint"]) => {
                let mint: MintRequest = body(request).await?;
                self.play(move |sandbox| sandbox.mint(mint.address, mint.amount).map(|_| ())).await?;
                json(&self.balance(mint.address).await?)
            }
            _ => Err(no_such_call(&request)),
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refused> {
        let ending = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "ending", "the node is ending");
        let (reply, answer) = oneshot::channel();
        self.keeper.send(Event::Command(command(reply))).map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }

    /// Runs the pass. For one offer it also waits a little for the first word on its upstream, so
    /// that whoever has just put it on sale learns whether it works.
    async fn sync(&self, name: Option<OfferName>) -> Result<Vec<OfferView>, Refused> {
        let mut views = self.ask(|reply| Command::Sync(name.clone(), reply)).await?;
        let Some(name) = name else { return Ok(views) };
        let deadline = tokio::time::Instant::now() + FIRST_PROBE;
        while views.iter().any(awaits_probe) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            views = self.ask(|reply| Command::Offer(name.clone(), reply)).await?;
        }
        Ok(views)
    }

    async fn balance(&self, address: Address) -> Result<SandboxBalance, Refused> {
        let balance = self.play(move |sandbox| sandbox.balance_of(address)).await?;
        Ok(SandboxBalance { address, balance })
    }

    async fn play<T: Send + 'static>(
        &self,
        call: impl FnOnce(&obol_sandbox::Sandbox) -> Result<T, SandboxError> + Send + 'static,
    ) -> Result<T, Refused> {
        let play = self.play.clone();
        let done = tokio::task::spawn_blocking(move || play.sandbox().and_then(|sandbox| call(&sandbox))).await;
        let broken = |_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "sandbox_failed", "the sandbox failed");
        Ok(done.map_err(broken)??)
    }
}

/// An answer, as it is sent.
pub(super) fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(Refused(status, problem)) => (status, serde_json::to_vec(&problem).unwrap_or_default()),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

pub(super) fn no_such_call(request: &Request<Incoming>) -> Refused {
    let path: String = request.uri().path().chars().take(120).collect();
    Refused::new(StatusCode::NOT_FOUND, "no_such_call", format!("{} {path} is no call of this node", request.method()))
}

fn awaits_probe(view: &OfferView) -> bool {
    let holds = |kind| view.status.condition(kind).map(|condition| condition.status);
    holds(ConditionKind::RoutePublished) == Some(ConditionStatus::True)
        && holds(ConditionKind::UpstreamHealthy) == Some(ConditionStatus::Unknown)
}

fn unknown(name: &str) -> Refused {
    let name: String = name.chars().take(64).collect();
    Refused::new(StatusCode::NOT_FOUND, "offer_unknown", format!("there is no offer `{name}`"))
}

pub(super) fn json(value: &impl Serialize) -> Answer {
    serde_json::to_vec(value).map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding", error.to_string()))
}

pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    let bad = |message: String| Refused::new(StatusCode::BAD_REQUEST, "bad_body", message);
    let bytes = Limited::new(request.into_body(), MAX_BODY).collect().await.map_err(|error| bad(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
}
