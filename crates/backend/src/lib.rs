//! Backends: what a pass is applied to: the standalone node ([`Node`]), or a [`cluster`].
//!
//! [`Node`] is one process: a lock, the gateway, a thread that keeps the route table equal to the
//! files, health probes, and the control socket through which the command line asks ([`control`]).
//! There is nothing to resume: a node that was killed starts from the files, like any other.

pub mod cluster;
pub mod control;
pub mod systemd;

mod chains;
mod config;
mod facilitator;
mod files;
mod inference;
mod journal;
mod keeper;
mod node;
mod play;
mod pod;
mod tree;
mod view;
mod watch;

pub use config::{Addresses, NodeConfig, NodeError};
pub use facilitator::{FacilitatorConfig, FacilitatorRole, KEY_VARIABLE};
pub use journal::{JOURNAL_URL, shared_journal};
pub use node::Node;
pub use pod::{GatewayPod, PodConfig};
pub use tree::plan_items;
