//! The facilitator as a role of its own: verifies and settles for gateways that hold no key.
//!
//! It speaks the facilitator API of x402 (both versions): `POST /verify`, `POST /settle`,
//! `GET /supported`. Everything that decides about money is [`SelfFacilitator`]'s.

mod answer;
mod http;
mod metrics;
mod request;

use std::{net::SocketAddr, sync::Arc};

use obol_chain::{SelfFacilitator, SigningKey};
use obol_settle::Secret;
use obol_stackdir::StackConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::metrics::Metrics;
use crate::{Addresses, NodeError, chains};

/// Environment variable with the key of networks whose `facilitatorKey` is not given.
pub const KEY_VARIABLE: &str = "OBOL_FACILITATOR_KEY";

/// How a [`FacilitatorRole`] works.
#[derive(Debug)]
pub struct FacilitatorConfig {
    /// Its `networks` are served: those with a `facilitatorKey`, and with `key` all of them.
    pub stack: StackConfig,
    /// The key of networks without one of their own.
    pub key: Option<SigningKey>,
    /// Where gateways are served.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
    /// What callers must send as `Authorization`; anybody may call when absent.
    pub credential: Option<Secret>,
}

/// A facilitator that holds its addresses, and is ready to run.
pub struct FacilitatorRole {
    shared: Arc<Shared>,
    public: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
}

/// What all connections share.
struct Shared {
    facilitators: Vec<SelfFacilitator>,
    credential: Option<Secret>,
    metrics: Metrics,
    ending: CancellationToken,
}

impl FacilitatorRole {
    /// Reads the keys and binds the addresses. No node is asked yet.
    ///
    /// # Errors
    /// [`NodeError`], also when there is no network to serve.
    pub async fn start(config: FacilitatorConfig) -> Result<Self, NodeError> {
        let facilitators = chains::facilitators(&config.stack, config.key.as_ref())?;
        if facilitators.is_empty() {
            return Err(NodeError::Stack(format!(
                "no network of stack.yaml has a key; write `facilitatorKey` below it, or set {KEY_VARIABLE}"
            )));
        }
        for facilitator in &facilitators {
            let (network, account) = (facilitator.chain().network().name, facilitator.address());
            tracing::info!(network, %account, "payments are settled here; the account pays for gas");
        }
        let bind = async |address| TcpListener::bind(address).await.map_err(|source| listen(address, source));
        let (public, admin) = (bind(config.listen).await?, bind(config.admin).await?);
        let at = |listener: &TcpListener, asked| listener.local_addr().map_err(|source| listen(asked, source));
        let addresses = Addresses { public: at(&public, config.listen)?, admin: at(&admin, config.admin)? };
        let (credential, ending) = (config.credential, CancellationToken::new());
        let shared = Arc::new(Shared { facilitators, credential, metrics: Metrics::new(), ending });
        Ok(Self { shared, public, admin, addresses })
    }

    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, then ends what is under way.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { shared, public, admin, .. } = self;
        let ended = CancellationToken::new();
        let operators = tokio::spawn(http::serve(Arc::clone(&shared), admin, http::operate, ended.clone()));
        let gateways = tokio::spawn(http::serve(Arc::clone(&shared), public, http::answer, shared.ending.clone()));
        shutdown.cancelled().await;
        shared.ending.cancel();
        let _ = gateways.await;
        ended.cancel();
        let _ = operators.await;
    }
}

fn listen(address: SocketAddr, source: std::io::Error) -> NodeError {
    NodeError::Listen { address, source, fix: "choose another with --listen or --admin" }
}
