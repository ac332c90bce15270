//! The standalone node: one process that keeps what is served equal to what is on disk.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use obol_gateway::{
    Gateway, GatewayConfig, TableHandle,
    health::{self, Prober},
};
use obol_offer::SANDBOX;
use obol_reconcile::Site;
use obol_settle::{Cashier, CashierConfig};
use obol_stackdir::{StackConfig, StackDir, StackLimits};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use url::{Host, Url};

use crate::{
    Addresses, NodeConfig, NodeError,
    chains::{self, Chains},
    control::{Control, FacilitatorView, NodeStatus, PaymentCounts},
    files::{ControlSocket, Lock, make_private},
    inference::{Door, Models},
    journal::shared_journal,
    keeper::{Event, Keeper, Report},
    play::{PlayFacilitator, PlayMoney, PlayView},
    watch::Watch,
};

/// A node that holds its lock and its addresses, and is ready to run.
pub struct Node {
    config: NodeConfig,
    stack: StackConfig,
    addresses: Addresses,
    public: TcpListener,
    admin: TcpListener,
    control: ControlSocket,
    cashier: Cashier,
    play: Arc<PlayMoney>,
    models: Door,
    // Last, so that it is given back when all else is gone.
    _lock: Lock,
}

impl Node {
    /// Takes the lock, binds the addresses and opens the journal.
    ///
    /// # Errors
    /// [`NodeError`], before anything is served.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let dirs = &config.dirs;
        make_private(&dirs.state)?;
        make_private(&dirs.data)?;
        let lock = Lock::take(&dirs.state)?;
        let stack = read_stack(&StackDir::at(&dirs.config))?;
        let public = bind(config.listen.unwrap_or(stack.listen), "choose another with --listen, or `listen` in stack.yaml").await?;
        let admin = bind(config.admin.unwrap_or(stack.admin), "choose another with --admin, or `admin` in stack.yaml").await?;
        let control = ControlSocket::bind(&dirs.state)?;
        let addresses = Addresses { public: local(&public)?, admin: local(&admin)? };
        let play = Arc::new(PlayMoney::at(dirs.state.join("sandbox.chain")));
        let (chains, credentials) = (Chains::open(&stack)?, chains::credentials(&stack)?);
        let shared = shared_journal(&stack.journal)?;
        let cashier = CashierConfig { shared, credentials, ..cashier_config(&config, &stack, &play, chains) };
        let cashier = Cashier::open(cashier).await?;
        let models = Door::open().await?;
        Ok(Self { config, stack, addresses, public, admin, control, cashier, play, models, _lock: lock })
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, or until `obol stack down` asks for it; then drains.
    ///
    /// # Errors
    /// [`NodeError::Gateway`] when the gateway ends by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let Self { config, stack, addresses, public, admin, control, cashier, play, models: door, _lock } = self;
        let ending = shutdown.child_token();
        let table = TableHandle::default();
        let prober = Prober::new();
        let site = site(&stack, addresses);
        let known = cashier.clone();
        let keeper = Keeper::new(StackDir::at(&config.dirs.config), site, addresses.public, table.clone(), prober.clone())
            .announcing(move |offer| known.watch_offer(offer));
        let models = Models::new(tokio::runtime::Handle::current(), stack.credentials.clone());
        let directory = models.directory();
        let keeper = keeper.serving(models);
        let (events, inbox) = std::sync::mpsc::channel();
        let telling = AbortOnDropHandle::new(tokio::spawn(tell_who_settles(cashier.clone(), events.clone())));
        let stop = StopOnDrop(events.clone());
        let following = follow(&config, events.clone(), keeper, inbox);
        let keeping = tokio::spawn(end_with(ending.clone(), tokio::task::spawn_blocking(following)));
        let probing = AbortOnDropHandle::new(tokio::spawn(prober.run(health::client().map_err(NodeError::Gateway)?)));
        let answers = Arc::new(Control {
            keeper: events.clone(),
            play,
            cashier: cashier.clone(),
            shutdown: ending.clone(),
            describe: describe(&config, addresses, table.clone(), cashier.clone(), ending.clone()),
        });
        // Questions are answered as long as requests are: `down` waits for the end of both.
        let served = CancellationToken::new();
        let answering = tokio::spawn({
            let served = served.clone();
            async move { answers.serve(&control.listener, served).await }
        });
        let gateway_config = GatewayConfig { inference: Some(door.key()), ..gateway_config(&stack) };
        // Models are served as long as the gateway may ask them.
        tokio::spawn(door.serve(directory, served.clone()));
        let served = served.drop_guard();
        let gateway = Gateway::new(gateway_config, table, cashier.clone());
        let ended = gateway.run(public, admin, ending.clone()).await;
        let early = !ending.is_cancelled();
        ending.cancel();
        cashier.drain().await;
        drop((stop, served, probing, telling));
        let (kept, _) = tokio::join!(keeping, answering);
        match ended {
            Ok(()) if !kept.unwrap_or(false) => Err(NodeError::Lost),
            Ok(()) if early => Err(NodeError::Gateway(std::io::Error::other("it ended by itself"))),
            Ok(()) => Ok(()),
            Err(error) => Err(NodeError::Gateway(error)),
        }
    }
}

/// Ends the keeper with the node, even one that is dropped half-way.
struct StopOnDrop(Sender<Event>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Stop);
    }
}

/// Tells the keeper who settles `upto` payments, whenever that changes.
async fn tell_who_settles(cashier: Cashier, events: Sender<Event>) {
    let mut changes = cashier.upto_changes();
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        if events.send(Event::Upto(cashier.upto_directory())).is_err() {
            return;
        }
    }
}

/// Ends the node when its keeper does, which would otherwise go on serving what is on disk no more.
async fn end_with(ending: CancellationToken, keeping: tokio::task::JoinHandle<()>) -> bool {
    let kept = keeping.await.is_ok();
    ending.cancel();
    kept
}

fn read_stack(dir: &StackDir) -> Result<StackConfig, NodeError> {
    let tell = |problems: Vec<obol_stackdir::Diagnostic>| {
        NodeError::Stack(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    dir.stack().map_err(tell)
}

pub(crate) async fn bind(address: SocketAddr, fix: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source, fix })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, NodeError> {
    listener.local_addr().map_err(NodeError::Gateway)
}

/// Play money stays on this machine: neither the address nor a tunnel may lead in from outside.
fn site(stack: &StackConfig, addresses: Addresses) -> Site {
    let inside = |url: &Url| match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let loopback = addresses.public.ip().is_loopback() && stack.public_url.as_ref().is_none_or(inside);
    Site { loopback, public_url: stack.public_url.clone(), ..Site::default() }
}

/// The keeper's whole life, with the watch on its files. The watch comes first: an edit during the
/// first reading is seen by one or the other.
fn follow(config: &NodeConfig, events: Sender<Event>, mut keeper: Keeper, inbox: Receiver<Event>) -> impl FnOnce() + Send + 'static {
    let (root, watched) = (config.dirs.config.clone(), config.watch);
    move || {
        let report = move |change| drop(events.send(Event::Change(change)));
        let _watch = match watched.then(|| Watch::start(&root, report)) {
            Some(Ok(watch)) => Some(watch),
            Some(Err(why)) => {
                keeper.go_blind(why);
                None
            }
            None => {
                keeper.sleep();
                None
            }
        };
        keeper.run(&inbox);
    }
}

fn cashier_config(config: &NodeConfig, stack: &StackConfig, play: &Arc<PlayMoney>, mut chains: Chains) -> CashierConfig {
    chains.facilitators.push((SANDBOX, Arc::new(PlayFacilitator(play.clone()))));
    chains.views.push((SANDBOX, Arc::new(PlayView(play.clone()))));
    CashierConfig {
        default_facilitators: stack.defaults.facilitators().into_iter().filter_map(|url| url.parse().ok()).collect(),
        local: chains.facilitators,
        own: chains.own,
        chains: chains.views,
        verify_transfers: chains.verified,
        ..bounded(CashierConfig::new(config.dirs.data.join("journal.redb")), &stack.limits)
    }
}

/// With the bounds of `stack.yaml`.
pub(crate) fn bounded(mut config: CashierConfig, limits: &StackLimits) -> CashierConfig {
    if let Some(units) = limits.max_exposure {
        config.max_exposure = units.into();
    }
    config
}

pub(crate) fn gateway_config(stack: &StackConfig) -> GatewayConfig {
    let default = GatewayConfig::default();
    let size = |value: Option<u32>, default| value.and_then(|v| usize::try_from(v).ok()).unwrap_or(default);
    GatewayConfig {
        public_url: stack.public_url.clone(),
        max_head_bytes: size(stack.limits.max_head_bytes, default.max_head_bytes),
        max_connections: size(stack.limits.max_connections, default.max_connections),
        challenge_rate: stack.limits.challenge_rate.unwrap_or(default.challenge_rate),
        ..default
    }
}

fn describe(
    config: &NodeConfig,
    addresses: Addresses,
    table: TableHandle,
    cashier: Cashier,
    ending: CancellationToken,
) -> Box<dyn Fn(Report) -> NodeStatus + Send + Sync> {
    let stack_directory = config.dirs.config.display().to_string();
    let started = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok()).unwrap_or_default();
    Box::new(move |report| NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        config: stack_directory.clone(),
        started: started.clone(),
        listen: addresses.public.to_string(),
        admin: addresses.admin.to_string(),
        ready: table.load().is_some() && cashier.is_recovered() && !ending.is_cancelled(),
        warnings: report.warnings,
        facilitators: cashier.facilitators().into_iter().map(FacilitatorView::from).collect(),
        payments: PaymentCounts::from(cashier.stats()),
        offers: report.offers,
        diagnostics: report.diagnostics,
        skipped: report.skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_payer_may_owe_is_what_the_stack_says() {
        let units =
            |max_exposure| bounded(CashierConfig::new("journal"), &StackLimits { max_exposure, ..StackLimits::default() }).max_exposure;
        assert_eq!((units(Some(3)), units(Some(0)), units(None)), (3, 0, 100));
    }

    #[test]
    fn play_money_stays_on_this_machine() {
        let loopback = |listen: &str, public_url: Option<&str>| {
            let public = listen.parse().unwrap();
            let stack = StackConfig { public_url: public_url.map(|url| url.parse().unwrap()), ..StackConfig::default() };
            site(&stack, Addresses { public, admin: public }).loopback
        };
        assert!(loopback("127.0.0.1:1", None) && loopback("[::1]:1", Some("http://localhost:1")));
        assert!(!loopback("0.0.0.0:1", None) && !loopback("192.168.1.2:1", Some("http://127.0.0.1:1")));
        assert!(!loopback("127.0.0.1:1", Some("https://shop.example")));
    }
}
