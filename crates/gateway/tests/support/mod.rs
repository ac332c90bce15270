//! A shop for tests: a real gateway and cashier, an upstream that records what it sees, and a
//! facilitator that does as told.
#![allow(dead_code)]

mod buyer;
mod facilitator;
mod meter;
mod upstream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
pub use buyer::*;
pub use facilitator::*;
#[allow(unused_imports)]
pub use meter::*;
use obol_gateway::{Gateway, GatewayConfig, TableHandle};
use obol_offer::{HostUpstream, Offer, OfferSpec, PaymentSpec, PriceSpec, UpstreamSpec};
use obol_reconcile::{Document, RouteTable};
use obol_settle::{Cashier, CashierConfig, Recovery};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
pub use upstream::*;

/// Where the metered offer is bought.
pub const HOST_PATH: &str = "/services/a/v1/chat/completions";

pub const PAYEE: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

pub fn spec(port: u16) -> OfferSpec {
    OfferSpec {
        upstream: UpstreamSpec { host: Some(HostUpstream { port }), ..UpstreamSpec::default() },
        payment: Some(PaymentSpec {
            network: "base-sepolia".into(),
            pay_to: PAYEE.into(),
            price: PriceSpec { per_request: Some("0.001".into()), ..Default::default() },
            ..PaymentSpec::default()
        }),
        ..OfferSpec::default()
    }
}

pub fn offer(name: &str, spec: &OfferSpec) -> Arc<Offer> {
    Arc::new(Offer::validate(&name.parse().unwrap(), spec).unwrap())
}

pub fn table(offers: &[&Arc<Offer>]) -> Arc<RouteTable> {
    let mut builder = RouteTable::builder();
    for offer in offers {
        builder.offer(offer);
    }
    let body: Arc<[u8]> = Arc::from(&b"{\"services\":[]}"[..]);
    builder.document("/api/services.json", Document { content_type: "application/json", body });
    Arc::new(builder.build())
}

pub struct Shop {
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    pub table: TableHandle,
    pub cashier: Cashier,
    pub facilitator: Arc<Fake>,
    pub upstream: Upstream,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<std::io::Result<()>>,
    _journal: tempfile::TempDir,
}

impl Shop {
    /// One offer, `a`, at `/services/a`, with a free route `/free`.
    pub async fn open() -> Self {
        Self::with(GatewayConfig::default(), |_| {}).await
    }

    pub async fn with(config: GatewayConfig, change: impl FnOnce(&mut OfferSpec)) -> Self {
        let upstream = Upstream::start().await;
        let mut spec = spec(upstream.addr.port());
        spec.routes.push(obol_offer::RouteSpec { path: "/free/*".into(), gate: obol_offer::Gate::Free, price: None });
        change(&mut spec);
        let shop = Self::empty(config, upstream).await;
        shop.table.store(Some(table(&[&offer("a", &spec)])));
        shop
    }

    /// Without a table.
    pub async fn empty(config: GatewayConfig, upstream: Upstream) -> Self {
        let journal = tempfile::tempdir().unwrap();
        let facilitator = Arc::new(Fake::default());
        let mut cashier = CashierConfig::new(journal.path().join("journal"));
        cashier.local = vec![("base-sepolia", facilitator.clone())];
        cashier.recovery = Recovery { first: Duration::from_secs(3600), longest: Duration::from_secs(3600), tries: 1 };
        cashier.hold = Duration::from_millis(300);
        let cashier = Cashier::open(cashier).await.unwrap();
        let table: TableHandle = Arc::new(ArcSwapOption::empty());
        let (public, admin) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (addr, admin_addr) = (public.local_addr().unwrap(), admin.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let gateway = Gateway::new(config, table.clone(), cashier.clone());
        let running = tokio::spawn(gateway.run(public, admin, shutdown.clone()));
        Self { addr, admin: admin_addr, table, cashier, facilitator, upstream, shutdown, running, _journal: journal }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

/// Waits until something is so; a state, not a time.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
