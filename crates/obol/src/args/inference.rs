use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use obol_offer::{Runtime, WhenUncounted};

use super::{LogFormat, SellHttpArgs};

/// `obol sell inference`
#[derive(Debug, Default, Args)]
pub struct SellInferenceArgs {
    /// What every offer has.
    #[command(flatten)]
    pub offer: SellHttpArgs,
    /// The model, as buyers name it; looked for on this machine when absent
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub model: Option<String>,
    /// Its name at the model server, if that is another
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub upstream_model: Option<String>,
    /// Price per million tokens in whole units, e.g. 0.15
    #[arg(long, value_name = "DECIMAL", conflicts_with_all = ["price", "accept"], allow_hyphen_values = true, help_heading = "Model")]
    pub per_mtok: Option<String>,
    /// Price per million tokens of the answer, if that is another
    #[arg(long, value_name = "DECIMAL", conflicts_with_all = ["price", "accept"], allow_hyphen_values = true, help_heading = "Model")]
    pub per_mtok_output: Option<String>,
    /// Most tokens of one answer
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub max_tokens: Option<u32>,
    /// Largest request
    #[arg(long, value_name = "BYTES", help_heading = "Model")]
    pub max_prompt_bytes: Option<u32>,
    /// What serves the model: ollama, vllm, tgi, llamacpp, lmstudio, litellm, openai
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = true, help_heading = "Model")]
    pub runtime: Option<RuntimeArg>,
    /// Requests at the model server at once
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub concurrency: Option<u32>,
    /// Requests that may wait for their turn
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub queue: Option<u32>,
    /// Longest wait for the first token, e.g. 90s
    #[arg(long, value_name = "DURATION", help_heading = "Model")]
    pub first_token_timeout: Option<String>,
    /// Longest wait for each further token, e.g. 30s
    #[arg(long, value_name = "DURATION", help_heading = "Model")]
    pub token_timeout: Option<String>,
    /// Where the model server's key is: ref+file:///path, or a variable of the node's environment
    #[arg(long, value_name = "REFERENCE", help_heading = "Model")]
    pub credential: Option<String>,
    /// What is charged where the model server does not count: ceiling or bytes
    #[arg(long, value_enum, value_name = "RULE", hide_possible_values = true, help_heading = "Model")]
    pub when_uncounted: Option<WhenUncountedArg>,
    /// Have an Ollama server fetch the model when it does not have it
    #[arg(long, overrides_with = "no_pull", help_heading = "Model")]
    pub pull: bool,
    /// Fetch nothing
    #[arg(long, overrides_with = "pull", help_heading = "Model")]
    pub no_pull: bool,
}

/// [`Runtime`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum RuntimeArg {
    Ollama,
    Vllm,
    Tgi,
    LlamaCpp,
    LmStudio,
    LiteLlm,
    OpenAi,
}

impl From<RuntimeArg> for Runtime {
    fn from(runtime: RuntimeArg) -> Self {
        match runtime {
            RuntimeArg::Ollama => Self::Ollama,
            RuntimeArg::Vllm => Self::Vllm,
            RuntimeArg::Tgi => Self::Tgi,
            RuntimeArg::LlamaCpp => Self::LlamaCpp,
            RuntimeArg::LmStudio => Self::LmStudio,
            RuntimeArg::LiteLlm => Self::LiteLlm,
            RuntimeArg::OpenAi => Self::OpenAi,
        }
    }
}

/// [`WhenUncounted`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum WhenUncountedArg {
    Ceiling,
    Bytes,
}

impl From<WhenUncountedArg> for WhenUncounted {
    fn from(rule: WhenUncountedArg) -> Self {
        match rule {
            WhenUncountedArg::Ceiling => Self::Ceiling,
            WhenUncountedArg::Bytes => Self::Bytes,
        }
    }
}

/// `obol serve inference`
#[derive(Debug, Args)]
#[command(after_help = "\
The model server's key is taken from $OBOL_CREDENTIAL.

Examples:
  obol serve inference --offer values-offer.yaml --gate-secret gate.txt")]
pub struct ServeInferenceArgs {
    /// The offer: its values-offer.yaml
    #[arg(long, value_name = "FILE", default_value = "/etc/obol/offer/values-offer.yaml")]
    pub offer: PathBuf,
    /// File with the secret that the x402 gateway shows; else $OBOL_GATE_SECRET
    #[arg(long, value_name = "FILE")]
    pub gate_secret: Option<PathBuf>,
    /// Where the x402 gateway is served
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8403")]
    pub listen: SocketAddr,
    /// Where health, metrics and the model's state are served
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:9403")]
    pub admin: SocketAddr,
    /// Format of the log on stderr
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub log: Option<LogFormat>,
}
