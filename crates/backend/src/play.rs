//! The sandbox of this node, begun when an offer first needs it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use obol_sandbox::{Sandbox, SandboxError};
use obol_settle::{ChainFinding, ChainView, Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::MatchedPayment;

/// A chain of play money in a file, and the facilitator that settles on it.
pub(crate) struct PlayMoney {
    file: PathBuf,
    sandbox: Mutex<Option<Arc<Sandbox>>>,
}

impl PlayMoney {
    pub(crate) fn at(file: PathBuf) -> Self {
        Self { file, sandbox: Mutex::new(None) }
    }

    /// The sandbox; blocks for some milliseconds the first time.
    pub(crate) fn sandbox(&self) -> Result<Arc<Sandbox>, SandboxError> {
        let mut sandbox = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = &*sandbox {
            return Ok(sandbox.clone());
        }
        let opened = Sandbox::open(&self.file)?;
        *sandbox = Some(opened.clone());
        Ok(opened)
    }

    async fn opened(self: &Arc<Self>) -> Result<Arc<Sandbox>, String> {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || this.sandbox()).await {
            Ok(Ok(sandbox)) => Ok(sandbox),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// [`PlayMoney`] as a facilitator.
pub(crate) struct PlayFacilitator(pub(crate) Arc<PlayMoney>);

impl Facilitator for PlayFacilitator {
    fn id(&self) -> &str {
        "sandbox"
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        Box::pin(async move {
            match self.0.opened().await {
                Ok(sandbox) => sandbox.facilitator().verify(payment).await,
                Err(cause) => VerifyOutcome::Unavailable { cause },
            }
        })
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        Box::pin(async move {
            match self.0.opened().await {
                Ok(sandbox) => sandbox.facilitator().settle(payment).await,
                Err(cause) => SettleOutcome::NotAsked { cause },
            }
        })
    }
}

/// [`PlayMoney`] as the chain that recovery looks at.
pub(crate) struct PlayView(pub(crate) Arc<PlayMoney>);

impl ChainView for PlayView {
    fn look<'a>(&'a self, payment: &'a MatchedPayment, since: u64, transaction: Option<&'a str>) -> BoxFuture<'a, ChainFinding> {
        Box::pin(async move {
            match self.0.opened().await {
                Ok(sandbox) => sandbox.view().look(payment, since, transaction).await,
                Err(cause) => ChainFinding::Unavailable { cause },
            }
        })
    }
}
