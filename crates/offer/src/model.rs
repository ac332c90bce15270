//! The model that an inference offer sells: as written, and as checked.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The model that is sold, and how it is asked for at the model server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSpec {
    /// Public name, as buyers write it in `model`.
    pub name: String,
    /// Name at the model server; `name` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_name: Option<String>,
    /// Most completion tokens of one request, 4096 when absent. Requests that ask for more get this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Largest request body in bytes that is priced, 262144 (256 KiB) when absent; larger gets 413.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompt_bytes: Option<u32>,
    /// What serves the model; for people and readiness checks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Requests at the model server at once; unbounded when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests that wait when `concurrency` is reached; more get 429. None wait when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Longest wait for the first token, e.g. `90s`; two minutes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_timeout: Option<String>,
    /// Longest pause between tokens, e.g. `30s`; one minute when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_timeout: Option<String>,
    /// Whether an Ollama server is asked to fetch a missing model.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
    /// Where the model server's API key is: `ref+file://…`, or the name of an environment variable or Secret key.
    /// Never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What is charged where the model server does not say what was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_uncounted: Option<WhenUncounted>,
}

/// Programs that serve models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// Text Generation Inference.
    Tgi,
    /// llama.cpp's server.
    LlamaCpp,
    /// LM Studio.
    LmStudio,
    /// The LiteLLM proxy.
    LiteLlm,
    /// Any other server of OpenAI's API.
    OpenAi,
}

/// What is charged where the model server does not say what was used; never nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenUncounted {
    /// All that the buyer authorised.
    #[default]
    Ceiling,
    /// Every byte of the request as a prompt token, and every byte of the answer as a completion token, up to the ceiling.
    Bytes,
}

/// A model that can be sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Public name.
    pub name: String,
    /// Name at the model server.
    pub upstream_name: String,
    /// Most completion tokens of one request.
    pub max_tokens: u32,
    /// Largest request body that is priced, in bytes.
    pub max_prompt_bytes: u32,
    /// What serves the model.
    pub runtime: Option<Runtime>,
    /// Requests at the model server at once.
    pub concurrency: Option<u32>,
    /// Requests that wait beyond those.
    pub queue: u32,
    /// Longest wait for the first token.
    pub first_token_timeout: Duration,
    /// Longest pause between tokens.
    pub token_timeout: Duration,
    /// Whether an Ollama server is asked to fetch a missing model.
    pub pull: bool,
    /// Where the model server's API key is.
    pub credential: Option<String>,
    /// What is charged where the model server does not say what was used.
    pub when_uncounted: WhenUncounted,
}
