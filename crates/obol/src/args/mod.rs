//! The command line's surface: structs only, no behaviour.

mod inference;
mod more;
mod pay;
mod payments;
mod sell;
mod serve;
mod stack;

use clap::{Parser, Subcommand, ValueEnum};

pub use inference::{RuntimeArg, SellInferenceArgs, ServeInferenceArgs};
pub use more::{CompletionsArgs, DiffArgs, QuickstartArgs, SandboxCommand, SchemaArgs, SchemaWhat};
pub use pay::PayArgs;
pub use payments::{ExportArgs, ExportFormat, PaymentsCommand, PaymentsListArgs, PaymentsShowArgs, RefundArgs};
pub use sell::{DeleteArgs, EditArgs, SellCommand, SellHttpArgs, StartArgs, StatusArgs, StopArgs, TestArgs};
pub use serve::{ControllerArgs, FacilitatorArgs, GatewayArgs, RoleArgs, ServeCommand};
pub use stack::{InitArgs, InstallServiceArgs, LogFormat, PurgeArgs, StackCommand, UpArgs};

/// Sell an HTTP service per request over x402, from your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "obol",
    version,
    max_term_width = 100,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  obol quickstart
  obol stack init --network base-sepolia --pay-to 0x…
  obol sell http weather --upstream http://localhost:9000 --price 0.001
  obol sell inference chat --model llama3 --upstream http://localhost:11434 --per-mtok 0.2
  obol stack up

Files: $OBOL_CONFIG_DIR, else $XDG_CONFIG_HOME/obol; also $OBOL_DATA_DIR and $OBOL_STATE_DIR.
Exit codes: 0 done, 1 failed, 2 wrong usage or refused value, 3 change pending,
4 node unreachable."
)]
pub struct Cli {
    /// How results are printed: table, json or yaml
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub output: Output,
    /// Print results, warnings and errors only
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Log more of what happens
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// From nothing to a paid request, without any network
    Quickstart(QuickstartArgs),
    /// Set up, run and inspect the node
    #[command(subcommand)]
    Stack(StackCommand),
    /// Sell a service, and look after what you sell
    #[command(subcommand)]
    Sell(SellCommand),
    /// Show what a pass would change
    Diff(DiffArgs),
    /// Do a paid request, like curl with a wallet
    Pay(PayArgs),
    /// Look up what was paid, what is unknown, and what is owed
    #[command(subcommand)]
    Payments(PaymentsCommand),
    /// Play money for trying things out
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Run one program of a stack by itself; for Pods
    #[command(subcommand)]
    Serve(ServeCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the JSON schema of values-offer.yaml, or the command tree
    Schema(SchemaArgs),
    /// Print the version
    Version,
}
