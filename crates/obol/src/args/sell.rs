use clap::{Args, Subcommand};

use super::SellInferenceArgs;

/// `obol sell …`
#[derive(Debug, Subcommand)]
pub enum SellCommand {
    /// Sell an HTTP service per request
    Http(Box<SellHttpArgs>),
    /// Sell a model, per request or per token
    #[command(after_help = "\
Run it again to change an offer: only what you name changes; comments and order in the file stay.

Examples:
  obol sell inference chat --model llama3 --upstream http://localhost:11434 --per-mtok 0.2
  obol sell inference chat --upstream https://gpu.example/v1 --credential ref+file:///etc/obol/key
  obol sell inference chat --per-mtok 0.1 --per-mtok-output 0.4 --max-tokens 1024")]
    Inference(Box<SellInferenceArgs>),
    /// List all offers
    List,
    /// Show how offers are doing
    Status(StatusArgs),
    /// Check that an offer asks for its payment
    Test(TestArgs),
    /// Edit an offer's file, checked before it is written
    Edit(EditArgs),
    /// Stop selling; requests are served until the grace period ends
    Stop(StopArgs),
    /// Sell a stopped offer again
    Start(StartArgs),
    /// Delete an offer and its files
    Delete(DeleteArgs),
}

/// `obol sell http`
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Run it again to change an offer: only what you name changes; comments and order in the file stay.

Examples:
  obol sell http weather --upstream http://localhost:9000 --price 0.001
  obol sell http weather --price 0.002
  obol sell http ocr --upstream http://localhost:9000 --per-unit 0.002 --unit page --max-units 50
  obol sell http weather --route 'path=/health,gate=free' --route 'path=/deep/*,price=0.01'
  obol sell http --from-json offer.json --dry-run")]
pub struct SellHttpArgs {
    /// The offer's name: a-z, 0-9 and `-`, at most 53 characters; taken from --from-json when absent
    #[arg(required_unless_present = "from_json")]
    pub name: Option<String>,
    /// Base URL of the service that does the work
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Price per request in whole units, e.g. 0.001
    #[arg(long, visible_alias = "per-request", value_name = "DECIMAL", allow_hyphen_values = true)]
    pub price: Option<String>,
    /// Price per unit that the service reports in `x-obol-usage: units=N`; needs --max-units
    #[arg(long, value_name = "DECIMAL", allow_hyphen_values = true, conflicts_with_all = ["price", "accept"])]
    pub per_unit: Option<String>,
    /// What a unit is, one word
    #[arg(long, value_name = "WORD", conflicts_with_all = ["price", "accept"])]
    pub unit: Option<String>,
    /// Most units of one request: buyers authorise that many
    #[arg(long, value_name = "N", conflicts_with_all = ["price", "accept"])]
    pub max_units: Option<u32>,
    /// Address that is paid; $X402_WALLET, else stack.yaml's, when absent
    #[arg(long, short = 'w', visible_aliases = ["wallet", "recipient"], value_name = "ADDRESS")]
    pub pay_to: Option<String>,
    /// Network of the payment, e.g. base-sepolia; stack.yaml's when absent
    #[arg(long, visible_alias = "chain", value_name = "NETWORK")]
    pub network: Option<String>,
    /// Public path, /services/NAME when absent
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Public host name; any host when absent
    #[arg(long, value_name = "HOST")]
    pub hostname: Option<String>,
    /// Facilitator, in order of preference; stack.yaml's when absent
    #[arg(long, value_name = "URL")]
    pub facilitator: Vec<String>,
    /// One or two sentences for buyers
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Path that answers 2xx while the service is well, /health when absent
    #[arg(long, value_name = "PATH")]
    pub health_path: Option<String>,
    /// How long a buyer's signature stays valid, 10 to 86400
    #[arg(long, value_name = "SECONDS")]
    pub max_timeout: Option<u32>,
    /// Requests in progress at once
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<u32>,
    /// Requests per second
    #[arg(long, value_name = "N")]
    pub rps: Option<u32>,
    /// Largest request body
    #[arg(long, value_name = "BYTES")]
    pub max_body: Option<u64>,
    /// An exception below the path: path=/x[,gate=paid|free][,price=0.01]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub route: Vec<String>,
    /// One of several accepted payments: network=…,price=…[,pay-to=…][,max-timeout=…][,method=permit2]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub accept: Vec<String>,
    /// Leave the offer out of discovery documents
    #[arg(long, overrides_with = "register")]
    pub no_register: bool,
    /// List the offer in discovery documents again
    #[arg(long, overrides_with = "no_register")]
    pub register: bool,
    /// Read a spec or a whole ServiceOffer manifest; `-` is stdin. Flags beside it win
    #[arg(long, value_name = "FILE")]
    pub from_json: Option<String>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `obol sell status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One offer, with all its conditions
    pub name: Option<String>,
}

/// `obol sell test`
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the running node for the offer without paying, and expects a 402 whose v2 header and v1 body agree.

Examples:
  obol sell test weather
  obol sell test weather --output json")]
pub struct TestArgs {
    /// The offer
    pub name: String,
}

/// `obol sell edit`
#[derive(Debug, Args)]
#[command(after_help = "The editor is $VISUAL, else $EDITOR, else vi.")]
pub struct EditArgs {
    /// The offer
    pub name: String,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `obol sell stop`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  obol sell stop weather --grace 10m
  obol sell stop weather --now")]
pub struct StopArgs {
    /// The offer
    pub name: String,
    /// How long it still serves, e.g. 1h, 90s; one hour when absent
    #[arg(long, value_name = "DURATION", conflicts_with = "now")]
    pub grace: Option<String>,
    /// No grace period
    #[arg(long)]
    pub now: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `obol sell start`
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The offer
    pub name: String,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `obol sell delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The offer
    pub name: String,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}
