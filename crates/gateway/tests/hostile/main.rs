//! The published attacks on x402 sellers, tried on a running gateway. `docs/attacks.md` says which
//! test shows what; what is tried elsewhere is not repeated here.
// Helpers outside `#[test]` functions are test code too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod documented;
mod hostile_money;
mod hostile_resources;
mod hostile_web;
mod ledger;
#[path = "../support/mod.rs"]
mod support;
