//! The control socket: how the command line talks to a running node. HTTP/1.1 with JSON bodies
//! over a Unix socket that only its owner can open.

use obol_offer::{OfferKind, OfferName, OfferStatus};
use obol_stackdir::Diagnostic;
use serde::{Deserialize, Serialize};

/// Answer to `GET /v1/status`: the whole node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Product version.
    pub version: String,
    /// Process id, for people; nothing depends on it.
    pub pid: u32,
    /// Public listen address.
    pub listen: String,
    /// Admin listen address (health and metrics).
    pub admin: String,
    /// Whether requests are served.
    pub ready: bool,
    /// Every slice of the tree, by name.
    pub offers: Vec<OfferView>,
    /// Slices that this backend cannot run, e.g. `infrastructure` (reason `NeedsCluster`).
    pub skipped: Vec<Skipped>,
}

/// One offer as the node sees it.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Folder, relative to the stack directory.
    pub path: String,
    /// One CamelCase word.
    pub reason: String,
}
