//! A sandbox that needs nothing outside: a real EVM in the process, a play token that refuses what
//! USDC refuses, and an x402 facilitator that settles on it.
//!
//! The chain is called `obol-sandbox`, its id belongs to no public chain and its token is `PLAY`,
//! so that nothing signed here can move money anywhere else.

mod chain;
mod facilitator;
mod log;
mod token;
mod transaction;
mod view;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_sol_types::SolCall;
use obol_offer::{Address, Amount, Asset, B256, Network, SANDBOX};
use obol_settle::{ChainView, Facilitator};

pub use transaction::Transaction;

use crate::{chain::Chain, facilitator::SandboxFacilitator, log::ChainLog, token::TestUsd, view::SandboxView};

/// Why the sandbox could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The token refused; nothing changed.
    #[error("the token refused: {reason}")]
    Reverted {
        /// The contract's own words.
        reason: String,
    },
    /// The machine could not run the call; nothing changed.
    #[error("the sandbox's EVM failed: {cause}")]
    Evm {
        /// What it said.
        cause: String,
    },
    /// The chain's file could not be read or written.
    #[error("the sandbox's chain {path} cannot be read or written: {cause}")]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The chain's file is not one that this program wrote.
    #[error("the sandbox's chain {path} is damaged at line {line}: {cause}; it holds play money only, move it away to start afresh")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong there.
        cause: String,
    },
}

impl SandboxError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Reverted { .. } => "sandbox_reverted",
            Self::Evm { .. } => "sandbox_evm",
            Self::Log { .. } => "sandbox_log",
            Self::Corrupt { .. } => "sandbox_corrupt",
        }
    }
}

/// A chain with its play token. Thread-safe. Calls block for about a tenth of a millisecond, and
/// those that change something also for a synced write when the sandbox has a file.
pub struct Sandbox {
    network: &'static Network,
    asset: Asset,
    state: Mutex<State>,
}

struct State {
    chain: Chain,
    log: Option<ChainLog>,
}

impl Sandbox {
    /// A sandbox in memory only.
    ///
    /// # Errors
    /// [`SandboxError::Evm`].
    pub fn new() -> Result<Arc<Self>, SandboxError> {
        Self::start(None)
    }

    /// A sandbox whose balances, used nonces and transactions survive a restart: each transaction
    /// is a line of `file`, durable before it counts, and executed again at the next start (about
    /// ten thousand in a second). One process at a time: the node's lock sees to that.
    ///
    /// # Errors
    /// [`SandboxError::Log`] or [`SandboxError::Corrupt`] when the file cannot be used.
    pub fn open(file: &Path) -> Result<Arc<Self>, SandboxError> {
        Self::start(Some(file))
    }

    fn start(file: Option<&Path>) -> Result<Arc<Self>, SandboxError> {
        let network = Network::find(SANDBOX).ok_or_else(|| SandboxError::Evm { cause: format!("no network {SANDBOX}") })?;
        let asset = network.default_asset();
        let mut chain = Chain::new(network, &asset)?;
        let log = file.map(|file| ChainLog::open(file, &mut chain)).transpose()?;
        Ok(Arc::new(Self { network, asset, state: Mutex::new(State { chain, log }) }))
    }

    /// The sandbox's network.
    pub fn network(&self) -> &'static Network {
        self.network
    }

    /// The play token.
    pub fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Makes play money; returns the transaction's hash.
    ///
    /// # Errors
    /// [`SandboxError::Reverted`] for the zero address or more than 2²⁵⁶−1 in all.
    pub fn mint(&self, to: Address, amount: Amount) -> Result<B256, SandboxError> {
        self.send(&TestUsd::mintCall { to, value: amount.0 }).map(|transaction| transaction.hash)
    }

    /// What an account holds, in atomic units (millionths of a PLAY).
    ///
    /// # Errors
    /// [`SandboxError::Evm`].
    pub fn balance_of(&self, owner: Address) -> Result<Amount, SandboxError> {
        self.call(&TestUsd::balanceOfCall { owner }).map(Amount)
    }

    /// Whether a payer's nonce has been used.
    ///
    /// # Errors
    /// [`SandboxError::Evm`].
    pub fn authorization_used(&self, payer: Address, nonce: B256) -> Result<bool, SandboxError> {
        self.call(&TestUsd::authorizationStateCall { authorizer: payer, nonce })
    }

    /// A transaction by its hash, with its events.
    pub fn transaction(&self, hash: B256) -> Option<Transaction> {
        self.state().chain.transaction(&hash).cloned()
    }

    /// This sandbox as a facilitator, id `sandbox`. It runs calls on tokio's blocking threads.
    pub fn facilitator(self: &Arc<Self>) -> Arc<dyn Facilitator> {
        Arc::new(SandboxFacilitator(self.clone()))
    }

    /// This sandbox as the chain that recovery looks at. Every block is final.
    pub fn view(self: &Arc<Self>) -> Arc<dyn ChainView> {
        Arc::new(SandboxView(self.clone()))
    }

    /// A read at the present time.
    fn call<C: SolCall>(&self, call: &C) -> Result<C::Return, SandboxError> {
        self.state().chain.call(call, unix_now())
    }

    /// A transaction in a block of its own.
    fn send(&self, call: &impl SolCall) -> Result<Transaction, SandboxError> {
        let mut state = self.state();
        let prepared = state.chain.prepare(call.abi_encode().into(), unix_now())?;
        let transaction = prepared.transaction.clone();
        if let Some(log) = &mut state.log {
            log.append(&transaction)?;
        }
        state.chain.commit(prepared);
        Ok(transaction)
    }

    /// Nothing that runs under the lock leaves the chain half changed, so a panic elsewhere is no
    /// reason to refuse it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
