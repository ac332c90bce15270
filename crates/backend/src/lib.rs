//! Backends: what a pass is applied to. For now the standalone node.

pub mod control;

mod config;
mod node;

pub use config::{Addresses, NodeConfig, NodeError};
pub use node::Node;
