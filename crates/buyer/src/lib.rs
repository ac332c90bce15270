//! The buyer's side of x402 over HTTP: ask, see the price, sign once, send, keep the receipt.
//!
//! What this crate promises: it never signs more than `max`, never signs twice for one answer, and
//! never sends a payment anywhere but to the URL it was asked to pay.

mod allowance;
mod answer;
mod choice;
mod client;
mod error;
mod pay;
mod probe;
mod wallet;

pub use allowance::Approval;
pub use answer::{Answer, Body, Paid};
pub use error::PayError;
pub use pay::{PayRequest, pay};
pub use probe::{Probe, quote};
pub use wallet::{Wallet, WalletError};
