//! EVM nodes over JSON-RPC: what became of a payment ([`Chain`] is the `ChainView` of recovery), and
//! a facilitator in the process ([`SelfFacilitator`]) that verifies and settles with nobody between.
//!
//! Nodes are outside: every answer is bounded, checked against what was asked, and believed only
//! where the token's own events say so.

mod account;
mod config;
mod erc6492;
mod error;
mod facilitator;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod hostile_tests;
mod job;
mod key;
mod permit2;
mod proof;
mod reads;
mod rehearsal;
mod rpc;
mod token;
mod transaction;
mod view;
mod wire;

pub use config::SettleConfig;
pub use error::RpcError;
pub use facilitator::SelfFacilitator;
pub use key::{KeyError, SigningKey};
pub use proof::Expected;
pub use reads::{Chain, ChainConfig, Use};
pub use rpc::Rpc;
