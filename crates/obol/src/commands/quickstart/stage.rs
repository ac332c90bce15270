//! What the quickstart sets up: a folder with an offer in it, a node that serves it, and a buyer.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use obol_backend::{
    Addresses, Node, NodeConfig, NodeError,
    control::{Client, OfferView},
};
use obol_buyer::Wallet;
use obol_offer::{Address, B256, Offer, OfferKind, OfferName, SANDBOX};
use obol_stackdir::{DEFAULT_ADMIN_PORT, DEFAULT_PORT, Dirs, SellerDefaults, StackConfig, StackDir};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    args::SellHttpArgs,
    commands::outcome,
    error::{Error, Problem},
    sell::{Defaults, merge},
};

/// How long the node may take to serve the offer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder with one offer of play money in it.
pub struct Shop {
    /// `config`, `data` and `state` below the folder.
    pub dirs: Dirs,
    /// What is sold.
    pub offer: Offer,
    /// `values-offer.yaml`.
    pub file: PathBuf,
}

/// Writes the offer, into a new folder or one that an earlier quickstart left.
///
/// # Errors
/// When something else is in the way: nothing is overwritten.
pub async fn write_shop(
    root: Option<&Path>,
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    demo: SocketAddr,
) -> Result<Shop, Error> {
    if let Some(address) = [listen, admin].into_iter().flatten().find(|address| !address.ip().is_loopback()) {
        let message = format!("{address} can be reached from outside, and play money is for this machine only");
        return Err(Error::Refused(vec![
            Problem::new("quickstart_loopback", message, "write --listen 127.0.0.1:8402, or leave it out").at("--listen"),
        ]));
    }
    let root = match root {
        Some(root) => std::path::absolute(root).map_err(|source| Error::io(root, source))?,
        None => new_folder().map_err(|source| Error::io(std::env::temp_dir(), source))?,
    };
    let dirs = Dirs::under(&root);
    let stack = StackDir::at(&dirs.config);
    let name: OfferName = "weather".parse().map_err(|cause: obol_offer::NameError| failed(cause.to_string()))?;
    let base = look_for_obstacles(&root, &stack, &name)?;

    let fresh = base.is_none();
    let args = SellHttpArgs {
        upstream: Some(format!("http://{demo}")),
        // What somebody changed since the last quickstart stays as it is.
        price: fresh.then(|| "0.001".to_owned()),
        description: fresh.then(|| "The weather in Lisbon".to_owned()),
        ..SellHttpArgs::default()
    };
    let defaults =
        Defaults { pay_to: Some(Address::from_slice(&rand::random::<[u8; 20]>()).to_string()), network: Some(SANDBOX.to_owned()) };
    let spec = merge(base, &args, &defaults).map_err(Error::Refused)?;

    if !stack.exists() {
        let seller = SellerDefaults { pay_to: defaults.pay_to, network: defaults.network, ..SellerDefaults::default() };
        let (listen, admin) = (free(listen, DEFAULT_PORT).await?, free(admin, DEFAULT_ADMIN_PORT).await?);
        stack.init(&StackConfig { listen, admin, defaults: seller, ..StackConfig::default() })?;
    }
    let lock = stack.lock()?;
    stack.put(&lock, OfferKind::Http, &name, &spec)?;
    drop(lock);
    let offer = Offer::validate(&name, &spec).map_err(|violations| Error::Refused(violations.into_iter().map(Problem::from).collect()))?;
    let file = dirs.config.join(outcome::file(OfferKind::Http, &name));
    Ok(Shop { dirs, offer, file })
}

fn new_folder() -> io::Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("obol-quickstart-").tempdir()?.keep())
}

/// The spec of an earlier quickstart, or nothing for a folder that is new.
fn look_for_obstacles(root: &Path, stack: &StackDir, name: &OfferName) -> Result<Option<obol_offer::OfferSpec>, Error> {
    let in_the_way = |what: String| {
        let fix = "choose an empty folder with --dir, or leave --dir out";
        Error::Refused(vec![Problem::new("quickstart_in_the_way", what, fix).at(root.display().to_string())])
    };
    if !stack.exists() {
        return match fs_err::read_dir(root).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(None),
            Ok(false) => Err(in_the_way("the folder is not empty".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io(root, source)),
        };
    }
    let walk = stack.walk();
    if let Some(other) = walk.slices.iter().find(|slice| slice.name != *name || slice.kind != OfferKind::Http) {
        return Err(in_the_way(format!("the folder has an offer of its own, {}", other.name)));
    }
    match walk.slices.into_iter().next().map(|slice| slice.offer) {
        None => Ok(None),
        Some(Ok((spec, offer))) if offer.payments.iter().all(|tag| tag.terms.network.is_sandbox()) => Ok(Some(spec)),
        Some(Ok(_)) => Err(in_the_way(format!("its offer {name} is sold for more than play money"))),
        Some(Err(diagnostics)) => Err(Error::Broken(diagnostics)),
    }
}

/// The address asked for, else the usual port, else any free one; always with a real port, for it
/// is written down.
async fn free(wanted: Option<SocketAddr>, usual: u16) -> Result<SocketAddr, Error> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, usual));
    let bound = match (wanted, TcpListener::bind(wanted.unwrap_or(usual)).await) {
        (None, Err(_)) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
        (_, bound) => bound,
    };
    let address = wanted.unwrap_or(usual);
    bound.and_then(|listener| listener.local_addr()).map_err(|cause| {
        Error::failed("listen", format!("cannot listen on {address}: {cause}"), "choose another --listen address, or leave it out")
    })
}

/// A running node.
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    /// Its control socket.
    pub client: Client,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), NodeError>>,
}

impl Running {
    /// Starts a node and waits until it serves the offer.
    ///
    /// # Errors
    /// Why the node or the offer is not ready.
    pub async fn start(shop: &Shop, listen: Option<SocketAddr>, admin: Option<SocketAddr>) -> Result<Self, Error> {
        let pinned = |address: Option<SocketAddr>| address.filter(|address| address.port() != 0);
        let config = NodeConfig { listen: pinned(listen), admin: pinned(admin), ..NodeConfig::new(shop.dirs.clone()) };
        let node = Node::start(config).await.map_err(|error| node_failed(&error))?;
        let addresses = node.addresses();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(node.run(shutdown.clone()));
        let client = Client::connect(&shop.dirs).await;
        let running = match client {
            Ok(client) => Self { addresses, client, shutdown, task },
            Err(error) => {
                shutdown.cancel();
                return Err(error.into());
            }
        };
        match running.wait_for(&shop.offer.name).await {
            Ok(()) => Ok(running),
            Err(error) => {
                running.stop().await?;
                Err(error)
            }
        }
    }

    async fn wait_for(&self, name: &OfferName) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let offer = self.client.offer(name).await;
            if offer.as_ref().is_ok_and(|view| view.status.is_ready()) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE || self.task.is_finished() {
                return Err(not_ready(offer?));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets the node run until `signal`, or until it ends by itself (`obol stack down`), and finish
    /// what it has begun.
    ///
    /// # Errors
    /// Why the node ended badly.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), Error> {
        let early = tokio::select! {
            () = signal => None,
            ended = &mut self.task => Some(ended),
        };
        let ended = match early {
            Some(ended) => ended,
            None => {
                self.shutdown.cancel();
                self.task.await
            }
        };
        match ended {
            Ok(ended) => ended.map_err(|error| node_failed(&error)),
            Err(cause) => Err(failed(cause.to_string())),
        }
    }

    /// Ends it now.
    ///
    /// # Errors
    /// As [`Running::run_until`].
    pub async fn stop(self) -> Result<(), Error> {
        self.run_until(std::future::ready(())).await
    }
}

fn not_ready(view: OfferView) -> Error {
    let why = view.status.conditions.iter().map(|c| format!("{:?} {:?} ({})", c.kind, c.status, c.reason)).collect::<Vec<_>>().join(", ");
    Error::failed("quickstart_not_ready", format!("the node does not serve {}: {why}", view.name), "type `obol quickstart --verbose`")
}

fn node_failed(error: &NodeError) -> Error {
    Error::failed(error.code(), error.to_string(), "mend that, or choose another --dir or --listen")
}

fn failed(message: String) -> Error {
    Error::failed("quickstart_failed", message, "type `obol quickstart` again")
}

/// The buyer's wallet, made when there is none, and the file with its key.
///
/// # Errors
/// When the file cannot be written or read.
pub fn wallet(dirs: &Dirs) -> Result<(Wallet, PathBuf), Error> {
    let folder = dirs.data.join("secrets");
    let file = folder.join("quickstart-buyer.key");
    if !file.exists() {
        fs_err::create_dir_all(&folder).map_err(|source| Error::io(&folder, source))?;
        let key = B256::from(rand::random::<[u8; 32]>());
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
        created.and_then(|mut file| writeln!(file, "{key}")).map_err(|source| Error::io(&file, source))?;
    }
    let wallet = Wallet::from_file(&file);
    wallet.map(|wallet| (wallet, file)).map_err(|error| Error::failed(error.code(), error.to_string(), "move the key file away"))
}
