//! The x402 gateway in a cluster: the same gateway as the node's, fed by a watch instead of files.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use kube::{Api, Client, runtime::watcher};
use obol_controller::{Home, Loaded, Mirror, Reader, Report, ServiceOffer};
use obol_gateway::{Desk, Gateway, GatewayConfig, Inference, InferencePlace, TableHandle};
use obol_reconcile::{Site, State, reconcile};
use obol_settle::{Cashier, CashierConfig};
use obol_stackdir::StackConfig;
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Addresses, NodeError,
    chains::{self, Chains},
    control,
    journal::shared_journal,
    node::{bind, bounded, gateway_config},
};

/// From the first sign of an edit to the pass: a burst of edits is one.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// How a gateway in a cluster works.
#[derive(Clone)]
pub struct PodConfig {
    /// What is true for every offer.
    pub stack: StackConfig,
    /// Public listen address.
    pub listen: SocketAddr,
    /// Health, metrics, and what is loaded.
    pub admin: SocketAddr,
    /// Folder of the journal, where that is a file.
    pub data: PathBuf,
    /// Where offers are at home.
    pub home: Home,
    /// Whether `/verify` is answered on the admin listener.
    pub verify: bool,
    /// What opens the inference gateways; without it no model is served.
    pub gate_secret: Option<String>,
}

/// A gateway that has opened its journal and its addresses, and is ready to run.
pub struct GatewayPod {
    config: PodConfig,
    client: Client,
    cashier: Cashier,
    public: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
}

impl GatewayPod {
    /// Opens the journal and binds the addresses. The API server is not asked yet: one that is away must
    /// not keep payments from being recovered.
    ///
    /// # Errors
    /// [`NodeError`], before anything is served.
    pub async fn start(config: PodConfig, client: Client) -> Result<Self, NodeError> {
        let public = bind(config.listen, "choose another with --listen").await?;
        let admin = bind(config.admin, "choose another with --admin").await?;
        let local = |listener: &TcpListener| listener.local_addr().map_err(NodeError::Gateway);
        let addresses = Addresses { public: local(&public)?, admin: local(&admin)? };
        let (chains, credentials) = (Chains::open(&config.stack)?, chains::credentials(&config.stack)?);
        let cashier = Cashier::open(CashierConfig {
            default_facilitators: config.stack.defaults.facilitators().into_iter().filter_map(|url| url.parse().ok()).collect(),
            local: chains.facilitators,
            own: chains.own,
            credentials,
            chains: chains.views,
            verify_transfers: chains.verified,
            shared: shared_journal(&config.stack.journal)?,
            ..bounded(CashierConfig::new(config.data.join("journal.redb")), &config.stack.limits)
        })
        .await?;
        Ok(Self { config, client, cashier, public, admin, addresses })
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// [`NodeError::Gateway`] when a listener fails for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let Self { config, client, cashier, public, admin, .. } = self;
        let table = TableHandle::default();
        let report = Arc::new(ArcSwap::from_pointee(Report::default()));
        let site = Site { cluster: true, loopback: false, public_url: config.stack.public_url.clone(), ..Site::default() };
        let follow = Follow {
            reader: Reader::new(config.home.clone()),
            site,
            state: State::default(),
            table: table.clone(),
            report: report.clone(),
            cashier: cashier.clone(),
        };
        let _following = AbortOnDropHandle::new(tokio::spawn(follow.run(client)));
        let told = Arc::new(move || serde_json::to_string(report.load().as_ref()).unwrap_or_default());
        let inference = config.gate_secret.map(|secret| Inference { place: InferencePlace::Services, secret });
        let gateway = GatewayConfig { inference, verify: config.verify, ..gateway_config(&config.stack) };
        let books = cashier.clone();
        let desk: Desk = Arc::new(move |request| Box::pin(control::attend(books.clone(), request)));
        let gateway = Gateway::new(gateway, table, cashier.clone()).reporting(told).attended(desk);
        let ended = gateway.run(public, admin, shutdown).await;
        cashier.drain().await;
        ended.map_err(NodeError::Gateway)
    }
}

/// Keeps the route table equal to the offers of the cluster.
struct Follow {
    reader: Reader,
    site: Site,
    state: State,
    table: TableHandle,
    report: Arc<ArcSwap<Report>>,
    cashier: Cashier,
}

impl Follow {
    async fn run(mut self, client: Client) {
        let changed = Arc::new(Notify::new());
        let offers: Mirror<ServiceOffer> = Mirror::start(Api::all(client), watcher::Config::default(), changed.clone());
        let mut upto = self.cashier.upto_changes();
        loop {
            tokio::select! {
                Ok(()) = upto.changed() => {}
                () = changed.notified() => tokio::time::sleep(DEBOUNCE).await,
                () = self.wake() => {}
            }
            self.site.upto = self.cashier.upto_directory();
            if let Some(objects) = offers.objects() {
                self.pass(&objects);
            }
        }
    }

    /// Ends when the state changes by itself: a drain ends, an old quote expires.
    async fn wake(&self) {
        match self.state.wake {
            // Never at once: a clock that steps must not make us spin.
            Some(at) => {
                let left = Duration::try_from(at - OffsetDateTime::now_utc()).unwrap_or_default();
                tokio::time::sleep(left.clamp(Duration::from_millis(5), Duration::from_secs(3600))).await;
            }
            None => std::future::pending().await,
        }
    }

    fn pass(&mut self, objects: &obol_controller::Objects<ServiceOffer>) {
        let begun = Instant::now();
        let read = self.reader.read(objects);
        let slices = read.values().filter_map(|read| read.slice.as_ref());
        let state = reconcile(slices, &self.state, &self.site, OffsetDateTime::now_utc());
        for (key, offer) in &state.offers {
            let is_new = self.state.offers.get(key).is_none_or(|old| !Arc::ptr_eq(old, offer));
            if let Some(version) = offer.served.as_ref().filter(|_| is_new && offer.is_routed()) {
                self.cashier.watch_offer(&version.offer);
            }
        }
        let loaded = read.iter().filter_map(|(id, read)| {
            let meta = &objects.get(id)?.metadata;
            let state = read.key().and_then(|key| state.offers.get(&key));
            Some(Loaded {
                namespace: id.0.clone(),
                name: id.1.clone(),
                uid: meta.uid.clone().unwrap_or_default(),
                generation: meta.generation.unwrap_or_default(),
                routed: state.is_some_and(|state| state.is_routed()),
            })
        });
        let report = Report { offers: loaded.collect() };
        self.table.store(Some(state.table.clone()));
        // After the table: what is reported is served.
        self.report.store(Arc::new(report));
        self.state = state;
        tracing::info!(offers = read.len(), micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), "published");
    }
}
