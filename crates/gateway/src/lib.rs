//! The x402 gateway: listeners, framing guard, routing, the permit layer and the streaming proxy.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use obol_reconcile::RouteTable;
use obol_settle::Cashier;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Bounds and addresses of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Base URL at which buyers see the gateway, when it is not simply the request's `Host`
    /// (tunnels, TLS in front): `https://shop.example`.
    pub public_url: Option<url::Url>,
    /// Largest request head in bytes.
    pub max_head_bytes: usize,
    /// Connections served at once.
    pub max_connections: usize,
    /// Unpaid challenges per second and client address; more get 429. 0 means no bound.
    pub challenge_rate: u32,
    /// Bound on the upstream's time to response headers.
    pub upstream_timeout: Duration,
    /// How long a drain waits for requests in progress.
    pub drain_timeout: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            max_head_bytes: 64 * 1024,
            max_connections: 10_000,
            challenge_rate: 0,
            upstream_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Where the node publishes route tables; empty until the first one, and not ready until then.
pub type TableHandle = Arc<ArcSwapOption<RouteTable>>;

/// A gateway, not yet listening. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {}

impl Gateway {
    /// A gateway that serves `table` and is paid through `cashier`.
    pub fn new(config: GatewayConfig, table: TableHandle, cashier: Cashier) -> Self {
        let _ = (config, table, cashier);
        todo!()
    }

    /// Serves buyers on `public` and `/healthz`, `/readyz`, `/metrics` on `admin` until `shutdown`,
    /// then drains.
    ///
    /// # Errors
    /// When a listener fails for good.
    pub async fn run(self, public: TcpListener, admin: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let _ = (public, admin, shutdown);
        todo!()
    }
}

/// For tests and the node: the address a listener is bound to.
///
/// # Errors
/// As [`TcpListener::local_addr`].
pub fn local_addr(listener: &TcpListener) -> std::io::Result<SocketAddr> {
    listener.local_addr()
}
