//! How one model is served.

use std::{fmt, time::Duration};

use obol_offer::{Offer, Runtime, Upstream};
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

impl ModelConfig {
    /// How a checked offer is served; `None` where it sells no model, or its server is nowhere that
    /// can be written as a URL.
    pub fn of(offer: &Offer, credential: Option<Secret>) -> Option<Self> {
        let model = offer.model.as_ref()?;
        let size = |bound: u32| usize::try_from(bound).unwrap_or(usize::MAX);
        Some(Self {
            offer: offer.name.to_string(),
            name: model.name.clone(),
            upstream_name: model.upstream_name.clone(),
            upstream: base(&offer.upstream)?,
            credential,
            runtime: model.runtime,
            max_tokens: model.max_tokens.into(),
            max_body_bytes: size(model.max_prompt_bytes),
            concurrency: model.concurrency.map_or(usize::MAX, size),
            queue: size(model.queue),
            first_token_timeout: model.first_token_timeout,
            token_timeout: model.token_timeout,
            pull: model.pull,
        })
    }
}

/// The model server's base URL. People write it with and without the `/v1` of its calls.
fn base(upstream: &Upstream) -> Option<Url> {
    let mut url = match upstream {
        Upstream::Url(url) => url.clone(),
        Upstream::Host { port } => Url::parse(&format!("http://127.0.0.1:{port}")).ok()?,
        Upstream::Service { name, namespace, port } => Url::parse(&format!("http://{name}.{namespace}.svc:{port}")).ok()?,
    };
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
    url.set_path(&path);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_read_with_and_without_v1() {
        let read = |url: &str| base(&Upstream::Url(url.parse().unwrap())).unwrap().to_string();
        assert_eq!(read("http://h:1/v1"), "http://h:1/");
        assert_eq!(read("http://h:1/v1/"), "http://h:1/");
        assert_eq!(read("https://h/openai/v1"), "https://h/openai");
        assert_eq!(read("https://h/openai"), "https://h/openai");
        assert_eq!(base(&Upstream::Host { port: 11434 }).unwrap().as_str(), "http://127.0.0.1:11434/");
    }

    #[test]
    fn secrets_are_compared_whole_and_never_shown() {
        let secret = Secret::new(" abc\n");
        assert!(secret.is(b"abc") && !secret.is(b"abd") && !secret.is(b"ab") && !secret.is(b"abcd") && !secret.is(b""));
        assert!(!Secret::new("\n").is(b"") && Secret::new("\n").is_empty());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
