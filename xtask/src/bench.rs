//! Benchmarks.

use clap::Subcommand;

use crate::run::{Error, Result};

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// The gateway beside a bare proxy and two other x402 servers
    Gateway,
}

/// `cargo xtask bench …`
pub fn run(_bench: &Bench) -> Result {
    Err(Error::Check("not measured yet".into()))
}
