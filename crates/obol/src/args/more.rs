use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

/// `obol quickstart`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol quickstart
  obol quickstart --keep")]
pub struct QuickstartArgs {
    /// Leave everything running until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Folder for stack, data and state; a fresh temporary one when absent
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Public listen address, on loopback; a free port when absent
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
}

/// `obol diff`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol diff
  obol diff --exit-code || echo 'something would change'")]
pub struct DiffArgs {
    /// End with 3 when something would change
    #[arg(long)]
    pub exit_code: bool,
}

/// `obol sandbox …`
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Give play money to an address on the running node's sandbox
    Fund {
        /// Who gets it
        address: String,
        /// How much, in whole PLAY
        amount: String,
    },
    /// Show how much play money an address has
    Balance {
        /// Whose
        address: String,
    },
}

/// `obol completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol completions bash > ~/.local/share/bash-completion/completions/obol")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// `obol schema`
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// `offer` (when absent) or `cli`
    #[arg(value_enum, default_value_t, hide_possible_values = true, hide_default_value = true)]
    pub what: SchemaWhat,
}

/// What `obol schema` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaWhat {
    /// JSON schema of values-offer.yaml
    #[default]
    Offer,
    /// The command tree with all flags
    Cli,
}
