use std::net::SocketAddr;

use clap::{Args, Subcommand, ValueEnum};
use obol_stackdir::BackendKind;

/// `obol stack …`
#[derive(Debug, Subcommand)]
pub enum StackCommand {
    /// Make a stack directory
    Init(InitArgs),
    /// Make what runs agree with what is on disk
    Up(UpArgs),
    /// Show the node or the cluster, its offers and broken slices
    Status,
    /// Stop selling; journal, keys and offers on disk stay
    Down,
    /// Delete what is kept for running; offers, journal and keys stay unless asked
    Purge(PurgeArgs),
    /// Run the node under systemd, also after a reboot
    InstallService(InstallServiceArgs),
}

/// `obol stack init`
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  obol stack init --network base-sepolia --pay-to 0x…
  obol stack init --listen 0.0.0.0:8402 --public-url https://api.example.com
  obol stack init --backend kubernetes --context prod")]
pub struct InitArgs {
    /// Where it runs: standalone, kubernetes, k3s or k3d
    #[arg(long, value_name = "BACKEND", value_parser = backend)]
    pub backend: Option<BackendKind>,
    /// Kubeconfig context of backend kubernetes; the current one when absent
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Public listen address
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address that is paid when an offer names none; $X402_WALLET when absent
    #[arg(long, short = 'w', visible_aliases = ["wallet", "recipient"], value_name = "ADDRESS")]
    pub pay_to: Option<String>,
    /// Network when an offer names none
    #[arg(long, visible_alias = "chain", value_name = "NETWORK")]
    pub network: Option<String>,
    /// Facilitator for offers that name none, in order of preference
    #[arg(long, value_name = "URL")]
    pub facilitator: Vec<String>,
    /// URL at which buyers reach the node, when it is not the listen address
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn backend(word: &str) -> Result<BackendKind, String> {
    BackendKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == word)
        .ok_or_else(|| format!("write one of {}", BackendKind::ALL.map(BackendKind::as_str).join(", ")))
}

/// `obol stack up`
#[derive(Debug, Args)]
#[command(after_help = "\
The standalone node serves what is on disk and follows every edit; Ctrl-C or SIGTERM lets requests
in progress end. In a cluster one helmfile pass makes it agree with the files. OBOL_LOG sets the log's level, e.g. debug.

Examples:
  obol stack up
  obol stack up --listen 0.0.0.0:8402")]
pub struct UpArgs {
    /// Public listen address; stack.yaml's when absent
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Listen address for health and metrics; stack.yaml's when absent
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// Format of the log on stderr; text on a terminal, json otherwise
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub log: Option<LogFormat>,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object per line
    Json,
}

/// `obol stack purge`
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Delete journal and keys too; unfinished payments are lost
    #[arg(long)]
    pub with_data: bool,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `obol stack install-service`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol stack install-service
  obol stack install-service --dry-run
  sudo obol stack install-service --system")]
pub struct InstallServiceArgs {
    /// A service of the machine instead of one of your user
    #[arg(long)]
    pub system: bool,
    /// Show the unit, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove the service
    #[arg(long)]
    pub uninstall: bool,
}
