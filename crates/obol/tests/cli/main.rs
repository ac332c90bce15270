//! The program as people and scripts meet it: the real binary in directories of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test says so by failing")]

mod files;
mod help;
mod inference;
mod kill;
mod node;
mod payments;
mod refusals;
mod support;
mod terminal;
