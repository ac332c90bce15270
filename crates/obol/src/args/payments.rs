use clap::{Args, Subcommand, ValueEnum};

/// `obol payments …`
#[derive(Debug, Subcommand)]
pub enum PaymentsCommand {
    /// List payments, the newest first
    List(PaymentsListArgs),
    /// Show one payment
    Show(PaymentsShowArgs),
    /// Print all payments, archived ones too, as CSV or JSON
    Export(ExportArgs),
    /// List what was paid for and not delivered, to be refunded by hand
    Owed,
    /// Note that you have sent the money of an owed payment back; this pays nothing itself
    Refund(RefundArgs),
}

/// `obol payments refund`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol payments refund 0x5f8b2c --transaction 0x…
  obol payments refund 0x5f8b2c --note 'sent another answer by mail'")]
pub struct RefundArgs {
    /// The payment's key, or the first digits of its nonce or transaction
    pub key: String,
    /// The transaction that sent the money back
    #[arg(long, value_name = "HASH")]
    pub transaction: Option<String>,
    /// For your books, at most 500 characters
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Show the payment and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `obol payments list`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol payments list --offer weather --since 24h
  obol payments list --state unknown --state pending")]
pub struct PaymentsListArgs {
    /// Only in this state: reserved, settling, pending, unknown, settled, delivered, owed,
    /// rerunning, lost, refunded, released, refused or expired; may be repeated
    #[arg(long, value_name = "STATE")]
    pub state: Vec<String>,
    /// Only for this offer
    #[arg(long, value_name = "NAME")]
    pub offer: Option<String>,
    /// Only by this payer
    #[arg(long, value_name = "ADDRESS")]
    pub payer: Option<String>,
    /// Only since then: a date (2026-11-01), a moment (2026-11-01T12:00:00Z), or an age (90m, 24h, 7d)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// At most this many, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Go on where an earlier list ended (its `next`)
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// `obol payments show`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol payments show 0x5f8b2c
  obol payments show eip155:84532/0x…/0x…/0x…")]
pub struct PaymentsShowArgs {
    /// Its key, or the first digits of its nonce or transaction
    pub key: String,
}

/// `obol payments export`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol payments export --since 2026-10-01 --until 2026-11-01 > october.csv
  obol payments export --format json")]
pub struct ExportArgs {
    /// csv, or json for one array
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, hide_default_value = true)]
    pub format: ExportFormat,
    /// Only since then, as for `list`
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only before then
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A header and one line per payment
    #[default]
    Csv,
    /// One array
    Json,
}
