//! Clients that we did not write.

use std::{fmt, process::Command};

use alloy_primitives::{Address, B256};
use serde::Deserialize;

use crate::{anvil::KEYS, forge, part};

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buyer {
    /// npm `@x402/fetch`, protocol version 2.
    FetchV2,
    /// npm `x402-fetch`, protocol version 1.
    FetchV1,
    /// PyPI `x402` 2.x over httpx, protocol version 2.
    PythonV2,
    /// PyPI `x402` 1.0.0 over httpx, protocol version 1.
    PythonV1,
    /// `x402-reqwest`, protocol version 2.
    Reqwest,
    /// npm `@x402/fetch` that pays by `upto` alone.
    FetchUpto,
    /// PyPI `x402` 2.x that pays by `upto` alone.
    PythonUpto,
}

/// What a client got.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// HTTP status, 0 when the client itself gave up.
    pub status: u16,
    /// Body.
    pub body: String,
    /// Decoded receipt header.
    pub receipt: Option<Receipt>,
    /// Why the client gave up.
    #[serde(default)]
    pub error: String,
}

/// Receipt header, as far as the tests look into it.
#[derive(Clone, Debug, Deserialize)]
pub struct Receipt {
    /// Whether money moved.
    pub success: bool,
    /// Transaction hash.
    pub transaction: B256,
    /// Name or CAIP-2 id of the chain.
    pub network: String,
    /// Who paid.
    pub payer: Option<Address>,
    /// Atomic units that moved, if it says so.
    #[serde(default)]
    pub amount: Option<String>,
}

impl Buyer {
    /// All that pay by `exact`.
    pub const ALL: [Self; 5] = [Self::FetchV2, Self::FetchV1, Self::PythonV2, Self::PythonV1, Self::Reqwest];

    /// Its account's key; none is a facilitator's.
    pub const fn key(self) -> &'static str {
        let own = match self {
            Self::FetchUpto => Self::FetchV2,
            Self::PythonUpto => Self::PythonV2,
            other => other,
        };
        KEYS[3 + own as usize]
    }

    /// Its account.
    pub fn address(self) -> Address {
        forge::address(self.key())
    }

    fn command(self) -> Command {
        let (program, script) = match self {
            Self::FetchV2 => ("node".into(), Some("node/buyer-v2.mjs")),
            Self::FetchV1 => ("node".into(), Some("node/buyer-v1.mjs")),
            Self::PythonV2 => (part("python-x402/bin/python"), Some("python/buyer_v2.py")),
            Self::PythonV1 => (part("python-x402-v1/bin/python"), Some("python/buyer_v1.py")),
            Self::Reqwest => (part("testbed-target/debug/buyer"), None),
            Self::FetchUpto => ("node".into(), Some("node/buyer-upto.mjs")),
            Self::PythonUpto => (part("python-x402/bin/python"), Some("python/buyer_upto.py")),
        };
        let mut command = Command::new(program);
        command.args(script.map(part));
        command
    }

    /// Buys `url`.
    ///
    /// # Panics
    /// When the client does not start.
    pub fn buy(self, url: &str) -> Answer {
        run(self.command().arg(url).env("X402_KEY", self.key()))
    }
}

/// What a client printed: one line of JSON.
///
/// # Panics
/// When it does not start.
pub fn run(client: &mut Command) -> Answer {
    let output = client.output().expect("the client starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|_| Answer {
        status: 0,
        body: text.to_string(),
        receipt: None,
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl fmt::Display for Buyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FetchV2 => "@x402/fetch 2.27 (v2)",
            Self::FetchV1 => "x402-fetch 1.2 (v1)",
            Self::PythonV2 => "PyPI x402 2.25 (v2)",
            Self::PythonV1 => "PyPI x402 1.0.0 (v1)",
            Self::Reqwest => "x402-reqwest 2.0.2 (v2)",
            Self::FetchUpto => "@x402/fetch 2.27 (upto)",
            Self::PythonUpto => "PyPI x402 2.25 (upto)",
        })
    }
}
