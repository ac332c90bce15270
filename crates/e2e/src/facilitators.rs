//! Facilitators that we did not write, and ours as a role of its own.

use std::{fmt, process::Command, sync::Arc, time::Duration};

use alloy_primitives::Address;
use obol_chain::{Chain, ChainConfig, SelfFacilitator, SettleConfig, SigningKey};
use tempfile::TempDir;

use crate::{
    anvil::{Anvil, KEYS, WALLET_FACTORY},
    forge, obol_binary, part,
    process::Process,
};

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
        let mut command = maker.command();
        command.env("RPC_URL", rpc).env("FACILITATOR_KEY", key).env("FACTORIES", WALLET_FACTORY.to_string());
        let mut process = Process::start(&maker.to_string(), &mut command);
        Self { url: process.wait_for_url(), process }
    }
}

/// `obol serve facilitator`, running.
#[derive(Debug)]
pub struct Role {
    /// Base URL.
    pub url: String,
    /// Address of health and metrics.
    pub admin: String,
    key: String,
    credential: Option<String>,
    folder: TempDir,
    process: Process,
}

impl Role {
    /// Starts one for Base Sepolia behind `rpc`, with the key in its environment.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(rpc: &str, key: &str, credential: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let stack = format!("id: role\nnetworks:\n  base-sepolia:\n    rpc: [\"{rpc}\"]\n");
        fs_err::write(folder.path().join("stack.yaml"), stack).expect("a file");
        let (process, url, admin) = run(&folder, key, credential, ["127.0.0.1:0"; 2]);
        let (key, credential) = (key.to_owned(), credential.map(str::to_owned));
        Self { url: format!("http://{url}"), admin, key, credential, folder, process }
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.process.kill();
        let at = [self.url.trim_start_matches("http://"), self.admin.as_str()];
        self.process = run(&self.folder, &self.key, self.credential.as_deref(), at).0;
    }
}

fn run(folder: &TempDir, key: &str, credential: Option<&str>, at: [&str; 2]) -> (Process, String, String) {
    let mut command = Command::new(obol_binary());
    command.env_clear().env("OBOL_FACILITATOR_KEY", key).args(["serve", "facilitator", "--output", "json", "--log", "json"]);
    command.arg("--stack").arg(folder.path().join("stack.yaml")).args(["--listen", at[0], "--admin", at[1]]);
    if let Some(credential) = credential {
        command.env("OBOL_FACILITATOR_CREDENTIAL", credential);
    }
    let mut process = Process::start("obol serve facilitator", &mut command);
    let mut told = |name: &str| {
        let field = format!("\"{name}\":");
        process.wait_for(Duration::from_secs(30), |line| {
            let value = line.split_once(&field)?.1.trim().trim_start_matches('"');
            value.split('"').next().map(str::to_owned)
        })
    };
    let (listen, admin) = (told("listen"), told("admin"));
    (process, listen, admin)
}

/// Our own reading of a chain.
///
/// # Panics
/// When its URL is none.
pub fn chain(anvil: &Anvil) -> Arc<Chain> {
    let network = forge::terms(Address::ZERO, 1).network;
    Arc::new(Chain::new(ChainConfig::new(network, vec![anvil.url.parse().expect("a URL")])).expect("a node"))
}

/// Our own facilitator in this process, with a key for gas; it looks often, for blocks come at once.
///
/// # Panics
/// When the key is none.
pub fn in_process(anvil: &Anvil, key: &str) -> SelfFacilitator {
    let config = SettleConfig {
        patience: Duration::from_secs(20),
        poll_first: Duration::from_millis(50),
        poll_longest: Duration::from_millis(200),
        ..SettleConfig::default()
    };
    SelfFacilitator::new(chain(anvil), SigningKey::parse(key).expect("a key"), config)
}
