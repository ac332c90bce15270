//! How one model is served.

use std::{fmt, time::Duration};

use url::Url;

/// A secret: never printed, compared without telling where it differs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From its text, without the line break that files end with.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text, for the header that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the same. Takes the same time wherever they differ.
    pub fn is(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(other).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
        !own.is_empty() && own.len() == other.len() && differing == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One model as it is sold, and the server that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// The offer.
    pub offer: String,
    /// Name that buyers use.
    pub name: String,
    /// Name at the model server.
    pub upstream_name: String,
    /// Base URL of the model server, without `/v1`.
    pub upstream: Url,
    /// Key for the model server.
    pub credential: Option<Secret>,
    /// What kind of server it is, where the offer says.
    pub runtime: Option<Runtime>,
    /// Bound on the answer of one request, in tokens.
    pub max_tokens: u64,
    /// Bound on a request's body.
    pub max_body_bytes: usize,
    /// Requests at the model server at once.
    pub concurrency: usize,
    /// Requests that may wait for their turn; more get 429.
    pub queue: usize,
    /// Bound on the wait for a turn, and then for the first token.
    pub first_token_timeout: Duration,
    /// Bound on the wait for each further token.
    pub token_timeout: Duration,
    /// Whether an Ollama server is told to fetch the model when it does not have it.
    pub pull: bool,
}

/// Kinds of model servers that need something of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Ollama: loads models on demand and can fetch them.
    Ollama,
    /// vLLM: counts usage in every event.
    Vllm,
    /// A service that knows `max_completion_tokens` only.
    OpenAi,
    /// Any other.
    Other,
}
