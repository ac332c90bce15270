//! The control socket: how the command line talks to a running node. HTTP/1.1 with JSON bodies
//! over a Unix socket that only its owner can open.

mod client;
mod payments;
mod server;

pub use client::{Client, ControlError};
use obol_offer::{OfferKind, OfferName, OfferStatus};
use obol_settle::{CashierStats, FacilitatorHealth};
pub use obol_settle::{PaymentPage, PaymentQuery, PaymentRecord, PaymentState, Refund};
use obol_stackdir::Diagnostic;
use serde::{Deserialize, Serialize};

pub(crate) use payments::attend;
pub(crate) use server::Control;

/// File name of the socket in the state directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Answer to `GET /v1/status`: the whole node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Product version.
    pub version: String,
    /// Process id, for people; nothing depends on it.
    pub pid: u32,
    /// The stack directory that is served.
    pub config: String,
    /// Since when it runs (RFC 3339).
    pub started: String,
    /// Public listen address.
    pub listen: String,
    /// Admin listen address (health and metrics).
    pub admin: String,
    /// Whether requests are served.
    pub ready: bool,
    /// What does not stop the node, but its owner should know.
    pub warnings: Vec<String>,
    /// Facilitators in use, by id.
    #[serde(default)]
    pub facilitators: Vec<FacilitatorView>,
    /// Payments since the start.
    #[serde(default)]
    pub payments: PaymentCounts,
    /// Every slice of the tree, by name.
    pub offers: Vec<OfferView>,
    /// What is wrong with files that are no slice, e.g. `stack.yaml`.
    pub diagnostics: Vec<Diagnostic>,
    /// Slices that this backend cannot run, e.g. `infrastructure` (reason `NeedsCluster`).
    pub skipped: Vec<Skipped>,
}

/// How a facilitator does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FacilitatorView {
    /// Base URL, or the name of one inside the node.
    pub id: String,
    /// Whether it is asked freely: its circuit breaker is closed.
    pub healthy: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Kinds of payment of its last answer to `/supported`; absent when there was none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<usize>,
}

impl From<FacilitatorHealth> for FacilitatorView {
    fn from(health: FacilitatorHealth) -> Self {
        Self { id: health.id, healthy: health.healthy, failures: health.failures, kinds: health.kinds }
    }
}

/// Payments since the node started, and how many are open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentCounts {
    /// Money moved.
    pub settled: u64,
    /// The answer was handed over in full.
    pub delivered: u64,
    /// Money moved and the answer did not reach the buyer.
    pub owed: u64,
    /// Of unknown outcome now, of earlier runs too.
    pub unknown: u64,
}

impl From<CashierStats> for PaymentCounts {
    fn from(stats: CashierStats) -> Self {
        Self { settled: stats.settled, delivered: stats.delivered, owed: stats.owed, unknown: stats.unknown_now }
    }
}

/// One offer as the node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferView {
    /// Name.
    pub name: OfferName,
    /// Kind.
    pub kind: OfferKind,
    /// Price for people, e.g. `0.001 USDC`.
    pub price: String,
    /// Network names, comma separated.
    pub network: String,
    /// URL for buyers.
    pub url: String,
    /// Conditions of the version that is served.
    pub status: OfferStatus,
    /// Whether the served version is the one on disk.
    pub current: bool,
    /// What is wrong with the version on disk.
    pub diagnostics: Vec<Diagnostic>,
}

/// A slice that was left out, visibly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Folder, relative to the stack directory.
    pub path: String,
    /// One CamelCase word.
    pub reason: String,
}

/// Body of `POST /v1/sync`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// The slice to run the pass for; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<OfferName>,
}

/// Answer to `POST /v1/sync`, after publication.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncResult {
    /// The offers that were asked for, as they are now; none if the slice is gone.
    pub offers: Vec<OfferView>,
}

/// Answer to `GET /v1/sandbox/balance/{address}` and `POST /v1/sandbox/mint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxBalance {
    /// Whose.
    pub address: obol_offer::Address,
    /// Atomic units of play money.
    pub balance: obol_offer::Amount,
}

/// Body of `POST /v1/sandbox/mint`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// Who receives.
    pub address: obol_offer::Address,
    /// Atomic units of play money.
    pub amount: obol_offer::Amount,
}

/// Body of `POST /v1/payments/refund`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundRequest {
    /// [`PaymentRecord::key`].
    pub key: String,
    /// What the seller says of it.
    pub refund: Refund,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable identifier.
    pub code: String,
    /// A sentence.
    pub message: String,
}
