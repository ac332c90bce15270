//! The kill -9 loop with as many rounds as one likes; the end-to-end tests run a few of them.

use clap::{Args, ValueEnum};

use crate::{
    places::Places,
    run::{Result, run},
};

/// Kill the node at random under load, then compare chain, journal and answers
#[derive(Args)]
pub struct Kill {
    /// How often it is killed
    #[arg(long, default_value_t = 1000)]
    rounds: u32,
    /// Whose facilitator settles
    #[arg(long, value_enum, default_value_t)]
    facilitator: Maker,
}

/// Whose facilitator settles.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Maker {
    /// npm @x402/core
    #[default]
    Typescript,
    /// PyPI x402
    Python,
    /// x402-rs
    Rust,
}

/// `cargo xtask kill`; what is not ours was provisioned before (`cargo xtask provision`).
pub fn kill(kill: &Kill) -> Result {
    let places = Places::find()?;
    run(&mut places.cargo(&["build", "--locked", "--release", "--bin", "obol"]))?;
    let facilitator = match kill.facilitator {
        Maker::Typescript => "typescript",
        Maker::Python => "python",
        Maker::Rust => "rust",
    };
    let mut cargo = places.cargo(&["test", "--locked", "-p", "obol-e2e", "--test", "e2e_kill", "--", "--nocapture"]);
    cargo.env("OBOL_TESTBED", &places.cache).env("OBOL_BIN", places.obol());
    run(cargo.env("OBOL_KILLS", kill.rounds.to_string()).env("OBOL_KILL_FACILITATOR", facilitator))
}
