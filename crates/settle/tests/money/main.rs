//! The cashier against facilitators that behave, that fail, and that lie.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod cashier;
mod chain;
mod crash;
mod hostile;
mod ledger;
mod metered;
mod owed;
mod stored;
mod support;
