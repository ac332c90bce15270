use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

use super::{LogFormat, ServeInferenceArgs};

/// `obol serve …`
#[derive(Debug, Subcommand)]
pub enum ServeCommand {
    /// Make the offers of a cluster reachable, and tell of them in their status
    Controller(ControllerArgs),
    /// Take payments for the offers of a cluster, and pass requests on
    Gateway(GatewayArgs),
    /// Stand before a model server: only the sold model, and usage counted
    Inference(ServeInferenceArgs),
    /// Verify and settle payments for gateways, which then hold no key
    Facilitator(FacilitatorArgs),
}

/// What every program of a cluster is told.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// File in the form of stack.yaml; defaults when absent
    #[arg(long, value_name = "FILE")]
    pub stack: Option<PathBuf>,
    /// Listen address for health and metrics
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:9402")]
    pub admin: SocketAddr,
    /// Namespace of this program and of its peers
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide_env = true, default_value = "x402")]
    pub namespace: String,
    /// Namespace of the offers that go by their plain name
    #[arg(long, value_name = "NAME", default_value = "obol-offers")]
    pub offers: String,
    /// Format of the log on stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "json")]
    pub log: LogFormat,
}

/// `obol serve controller`
#[derive(Debug, Args)]
#[command(after_help = "\
Talks to the API server of its Pod's service account, else to that of $KUBECONFIG.")]
pub struct ControllerArgs {
    #[command(flatten)]
    pub role: RoleArgs,
    /// Base URL of the x402 gateways' admin listeners, a name with the address of each; http://x402-gateway-admin.<namespace>.svc:9402 when absent
    #[arg(long, value_name = "URL")]
    pub gateway_admin: Option<String>,
    /// Name of this controller among its peers; the Pod's when absent
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env = true)]
    pub identity: Option<String>,
}

/// `obol serve gateway`
#[derive(Debug, Args)]
#[command(after_help = "\
Talks to the API server of its Pod's service account, else to that of $KUBECONFIG.")]
pub struct GatewayArgs {
    #[command(flatten)]
    pub role: RoleArgs,
    /// Public listen address
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8402")]
    pub listen: SocketAddr,
    /// Answer /verify on the admin listener: for Traefik's ForwardAuth and nginx's auth_request
    #[arg(long)]
    pub verify: bool,
    /// File with the secret that opens the inference gateways
    #[arg(long, value_name = "FILE")]
    pub gate_secret: Option<PathBuf>,
    /// Folder of the journal
    #[arg(long, value_name = "DIR", env = "OBOL_DATA_DIR", default_value = "/var/lib/obol")]
    pub data: PathBuf,
}

/// `obol serve facilitator`
#[derive(Debug, Args)]
#[command(after_help = "\
The key pays for gas and never holds what buyers pay. It is in the file that `facilitatorKey` of
each network names, or in the variable OBOL_FACILITATOR_KEY for all that name none.

Examples:
  obol serve facilitator --stack stack.yaml
  OBOL_FACILITATOR_CREDENTIAL=… obol serve facilitator --listen 0.0.0.0:8404 --admin 0.0.0.0:9404")]
pub struct FacilitatorArgs {
    /// The stack.yaml whose `networks` are served
    #[arg(long, value_name = "FILE", default_value = "/etc/obol/stack.yaml")]
    pub stack: PathBuf,
    /// Where gateways are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8404")]
    pub listen: SocketAddr,
    /// Where health and metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9404")]
    pub admin: SocketAddr,
    /// File with the bearer token that gateways must send; else the variable
    /// OBOL_FACILITATOR_CREDENTIAL; without both anybody may call
    #[arg(long, value_name = "FILE")]
    pub credential_file: Option<PathBuf>,
    /// How the log is written: text or json
    #[arg(long, value_enum, hide_possible_values = true, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
}
