//! The sandbox of this node, begun when an offer first needs it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::BoxFuture;
use obol_sandbox::{Sandbox, SandboxError};
use obol_settle::{Facilitator, SettleOutcome, VerifyOutcome};
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

    async fn facilitator(self: &Arc<Self>) -> Result<Arc<dyn Facilitator>, String> {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || this.sandbox()).await {
            Ok(Ok(sandbox)) => Ok(sandbox.facilitator()),
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
            match self.0.facilitator().await {
                Ok(facilitator) => facilitator.verify(payment).await,
                Err(cause) => VerifyOutcome::Unavailable { cause },
            }
        })
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        Box::pin(async move {
            match self.0.facilitator().await {
                Ok(facilitator) => facilitator.settle(payment).await,
                Err(cause) => SettleOutcome::NotAsked { cause },
            }
        })
    }
}
