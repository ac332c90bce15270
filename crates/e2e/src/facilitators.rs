//! Facilitators that we did not write.

use std::{fmt, process::Command};

use crate::{anvil::KEYS, part, process::Process};

/// Whose facilitator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// npm `@x402/core` with `@x402/evm`.
    TypeScript,
    /// PyPI `x402`.
    Python,
    /// `x402-facilitator-local` of x402-rs.
    Rust,
}

impl Maker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TypeScript, Self::Python, Self::Rust];

    fn command(self) -> Command {
        match self {
            Self::TypeScript => {
                let mut command = Command::new("node");
                command.arg(part("node/facilitator.mjs"));
                command
            }
            Self::Python => {
                let mut command = Command::new(part("python-x402/bin/python"));
                command.arg(part("python/facilitator.py"));
                command
            }
            Self::Rust => Command::new(part("testbed-target/debug/facilitator")),
        }
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TypeScript => "@x402/core 2.27",
            Self::Python => "PyPI x402 2.25",
            Self::Rust => "x402-rs 2.0.2",
        })
    }
}

/// A running facilitator.
#[derive(Debug)]
pub struct Facilitator {
    /// Base URL.
    pub url: String,
    /// Its process.
    pub process: Process,
}

impl Facilitator {
    /// Starts one that settles on the chain behind `rpc`, with an account of its own: two of them
    /// with one account would take each other's transaction numbers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(maker: Maker, rpc: &str) -> Self {
        let key = KEYS[maker as usize];
        let mut process = Process::start(&maker.to_string(), maker.command().env("RPC_URL", rpc).env("FACILITATOR_KEY", key));
        Self { url: process.wait_for_url(), process }
    }
}
