//! The x402 gateway: listeners, framing guard, routing, the permit layer and the streaming proxy.
//!
//! The way of a request: the framing guard (refuses ambiguous messages before the HTTP library
//! sees them) → routing on one canonical path → a `402`, or a payment that matches this route's
//! own terms → [`obol_settle::Cashier::admit`] → a [`Passage`] → the upstream → capture → answer.

pub mod admin;
mod body;
mod cashier_metrics;
mod connection;
mod demand;
mod fingerprint;
mod forward;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
pub mod health;
mod keep;
mod limits;
mod metered;
mod metrics;
mod offers;
mod page;
mod permit;
mod price;
mod problem;
mod proxy;
mod request_id;
mod respond;
mod serve;
mod tally;
mod upgrade;
mod verify;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use obol_reconcile::RouteTable;
use obol_settle::Cashier;
pub use permit::{Passage, Spent};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Bounds and addresses of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Base URL at which buyers see the gateway, when it is not simply the request's `Host`
    /// (tunnels, TLS in front): `https://shop.example`.
    pub public_url: Option<url::Url>,
    /// Largest request head in bytes.
    pub max_head_bytes: usize,
    /// How long a connection may take for a request head, and be idle between two.
    pub head_timeout: Duration,
    /// How long a buyer may take nothing of an answer before the connection is closed.
    pub stall_timeout: Duration,
    /// Connections served at once; more wait.
    pub max_connections: usize,
    /// Unpaid challenges per second and client address; more get 429. 0 means no bound.
    pub challenge_rate: u32,
    /// Bound on the upstream's time to response headers, counted from when the request's body
    /// last moved.
    pub upstream_timeout: Duration,
    /// How long a drain waits for requests in progress.
    pub drain_timeout: Duration,
    /// Whether the admin listener answers `/verify`, for proxies that ask before they forward.
    pub verify: bool,
    /// Where offers of models are served; none is, when absent.
    pub inference: Option<Inference>,
}

/// Where offers of models are served, each at `/<offer>/`: never at the model server itself.
#[derive(Clone)]
pub struct Inference {
    /// Which of its listeners.
    pub place: InferencePlace,
    /// What the gateway shows so that it is served.
    pub secret: String,
}

impl std::fmt::Debug for Inference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inference").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Where the inference service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InferencePlace {
    /// One listener for all offers.
    At(SocketAddr),
    /// In a cluster: port 8403 of the Service `<offer>-inference`, beside the offer.
    Services,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            max_head_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(120),
            max_connections: 10_000,
            challenge_rate: 0,
            upstream_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(30),
            verify: false,
            inference: None,
        }
    }
}

/// Where the node publishes route tables; empty until the first one, and not ready until then.
pub type TableHandle = Arc<ArcSwapOption<RouteTable>>;

/// A gateway, not yet listening. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    config: GatewayConfig,
    table: TableHandle,
    cashier: Cashier,
    report: Option<Report>,
    desk: Option<Desk>,
}

/// What is told on `/offers` of the admin listener, as JSON.
pub type Report = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers what operators ask below `/v1/` of the admin listener.
pub type Desk = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Full<Bytes>>> + Send + Sync>;

impl Gateway {
    /// A gateway that serves `table` and is paid through `cashier`.
    pub fn new(config: GatewayConfig, table: TableHandle, cashier: Cashier) -> Self {
        Self { config, table, cashier, report: None, desk: None }
    }

    /// Has operators told of what is loaded, on `/offers`.
    pub fn reporting(self, report: Report) -> Self {
        Self { report: Some(report), ..self }
    }

    /// Has operators answered below `/v1/`: those of this machine alone, which in a Pod are those whom the cluster
    /// lets forward a port.
    pub fn attended(self, desk: Desk) -> Self {
        Self { desk: Some(desk), ..self }
    }

    /// Serves buyers on `public` and `/healthz`, `/readyz`, `/metrics` on `admin` until `shutdown`,
    /// then drains: no new connections, requests in progress finish within `drain_timeout`, and
    /// every settlement that was begun has its outcome in the journal.
    ///
    /// # Errors
    /// When a listener fails for good.
    pub async fn run(self, public: TcpListener, admin: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let stop = CancellationToken::new();
        let metrics = metrics::Metrics::new(&self.cashier);
        let shared = Arc::new(serve::Shared {
            proxy: proxy::Proxy::new(self.config.upstream_timeout).map_err(std::io::Error::other)?,
            offers: offers::Offers::new(),
            unrouted: offers::Classes::new(&metrics, ""),
            metrics,
            ids: request_id::RequestIds::new(),
            clients: limits::ClientRate::new(self.config.challenge_rate),
            clock: limits::Clock::start(),
            body_memory: Arc::new(tokio::sync::Semaphore::new(forward::BODY_MEMORY_KIB)),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            draining: AtomicBool::new(false),
            config: self.config,
            table: self.table,
            cashier: self.cashier,
            report: self.report,
            desk: self.desk,
        });
        // Operators watch the drain, so their listener ends last.
        let operators = CancellationToken::new();
        let watch = tokio::spawn(admin::run(shared.clone(), admin, operators.clone()));
        let operators = operators.drop_guard();
        connection::accept(shared.clone(), public, shutdown).await;
        shared.draining.store(true, Ordering::Relaxed);
        shared.tasks.close();
        if tokio::time::timeout(shared.config.drain_timeout, shared.tasks.wait()).await.is_err() {
            tracing::warn!(left = shared.tasks.len(), "requests were still in progress at the end of the drain");
            stop.cancel();
            shared.tasks.wait().await;
        }
        shared.cashier.drain().await;
        drop(operators);
        watch.await.map_err(std::io::Error::other)
    }
}

/// For tests and the node: the address a listener is bound to.
///
/// # Errors
/// As [`TcpListener::local_addr`].
pub fn local_addr(listener: &TcpListener) -> std::io::Result<SocketAddr> {
    listener.local_addr()
}
