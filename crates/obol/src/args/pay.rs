use std::path::PathBuf;

use clap::{Args, ValueEnum};
use obol_offer::Scheme;

/// `obol pay`
#[derive(Debug, Args)]
#[command(after_help = "\
The body goes to stdout, the receipt to stderr. Nothing above --max is ever signed, and one answer
is paid at most once.

Examples:
  OBOL_PAY_KEY=0x… obol pay http://localhost:8402/services/weather --max 0.01
  obol pay https://api.example.com/services/echo --data @body.json --key-file key -H 'x-a: b'")]
pub struct PayArgs {
    /// What to ask for
    pub url: String,
    /// Most that is paid, in whole units of the token
    #[arg(long, value_name = "DECIMAL", default_value = "0.01")]
    pub max: String,
    /// Method; GET, or POST when there is data
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub method: Option<String>,
    /// A header, `name: value`
    #[arg(long, short = 'H', value_name = "HEADER")]
    pub header: Vec<String>,
    /// Body: text, `@file`, or `@-` for stdin
    #[arg(long, short = 'd', value_name = "DATA")]
    pub data: Option<String>,
    /// File with the payer's private key, hex; env OBOL_PAY_KEY holds the key itself
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Pay on this network only
    #[arg(long, visible_alias = "chain", value_name = "NETWORK")]
    pub network: Option<String>,
    /// Pay by this scheme only: exact or upto
    #[arg(long, value_enum, hide_possible_values = true)]
    pub scheme: Option<PayScheme>,
    /// Node that is asked first whether Permit2 may spend what is asked for
    #[arg(long, value_name = "URL")]
    pub rpc: Option<String>,
    /// Print status and headers of the answer too
    #[arg(long, short)]
    pub include: bool,
    /// Show what would be paid, and pay nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `--scheme`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PayScheme {
    /// What is asked for
    Exact,
    /// What is used, at most what is asked for
    Upto,
}

impl From<PayScheme> for Scheme {
    fn from(scheme: PayScheme) -> Self {
        match scheme {
            PayScheme::Exact => Self::Exact,
            PayScheme::Upto => Self::Upto,
        }
    }
}
