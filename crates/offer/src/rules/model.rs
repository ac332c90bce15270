//! What model is sold, and within which bounds.

use std::time::Duration;

use super::{
    Checker,
    bounds::parse_duration,
    shape::{CREDENTIAL, MODEL_NAME},
};
use crate::{Model, ModelSpec, OfferKind, OfferSpec};

/// Completion tokens of one request when the offer says nothing.
pub const DEFAULT_MAX_TOKENS: u32 = 4096;

/// Bytes of a priced request body when the offer says nothing.
pub const DEFAULT_MAX_PROMPT_BYTES: u32 = 256 * 1024;

/// A body is priced before it is paid for, so it is held in memory: 8 MiB is some pictures.
pub(crate) const MAX_PROMPT_BYTES: u32 = 8 * 1024 * 1024;

/// No model writes ten million tokens at once.
pub(crate) const MAX_TOKENS: u32 = 10_000_000;

/// How the keys of well-known services begin; they would pass for names.
pub(crate) const KEYS: [&str; 6] = ["sk-", "sk_", "hf_", "gsk_", "xai-", "nvapi-"];

impl Checker {
    pub(super) fn model(&mut self, spec: &OfferSpec) -> Option<Model> {
        let Some(model) = spec.model.as_ref() else {
            if spec.kind == OfferKind::Inference {
                let fix = "write `model:` with the `name` of the model, or `type: http`";
                self.refuse("model_missing", "spec.model", "an inference offer sells one model, and none is named", fix);
            }
            return None;
        };
        if spec.kind != OfferKind::Inference {
            self.refuse("model_kind", "spec.model", "an http offer sells no model", "write `type: inference`, or remove `model`");
        }
        let upstream_name = model.upstream_name.as_ref().unwrap_or(&model.name);
        for (field, name) in [("name", &model.name), ("upstreamName", upstream_name)] {
            if name.chars().count() > 256 || !MODEL_NAME.fits(name) {
                self.refuse("model_name", format!("spec.model.{field}"), "is no model name", "write it as the model server lists it");
            }
        }
        let checked = Model {
            name: model.name.clone(),
            upstream_name: upstream_name.clone(),
            max_tokens: self.bound("maxTokens", model.max_tokens, DEFAULT_MAX_TOKENS, MAX_TOKENS),
            max_prompt_bytes: self.bound("maxPromptBytes", model.max_prompt_bytes, DEFAULT_MAX_PROMPT_BYTES, MAX_PROMPT_BYTES),
            runtime: model.runtime,
            concurrency: model.concurrency,
            queue: model.queue.unwrap_or(0),
            first_token_timeout: self.wait("firstTokenTimeout", model.first_token_timeout.as_deref(), Duration::from_secs(120)),
            token_timeout: self.wait("tokenTimeout", model.token_timeout.as_deref(), Duration::from_secs(60)),
            pull: model.pull,
            credential: model.credential.clone(),
            when_uncounted: model.when_uncounted.unwrap_or_default(),
        };
        if model.concurrency == Some(0) {
            self.refuse("limit_zero", "spec.model.concurrency", "0 lets nobody in", "write 1 or more, or use `obol sell stop`");
        }
        self.credential(model);
        Some(checked)
    }

    fn bound(&mut self, field: &str, given: Option<u32>, default: u32, max: u32) -> u32 {
        let value = given.unwrap_or(default);
        if !(1..=max).contains(&value) {
            self.refuse("model_bound", format!("spec.model.{field}"), format!("{value} is out of bounds"), format!("write 1 to {max}"));
        }
        value
    }

    fn wait(&mut self, field: &str, given: Option<&str>, default: Duration) -> Duration {
        let Some(text) = given else { return default };
        match parse_duration(text).filter(|wait| !wait.is_zero()) {
            Some(wait) => wait,
            None => {
                let text: String = text.chars().take(40).collect();
                self.refuse("model_timeout", format!("spec.model.{field}"), format!("`{text}` is no time to wait"), "write e.g. 90s or 2m");
                default
            }
        }
    }

    /// Slices are kept in git, so a key in one is a key lost. Never repeats what was written.
    fn credential(&mut self, model: &ModelSpec) {
        let Some(text) = &model.credential else { return };
        if KEYS.iter().any(|prefix| text.starts_with(prefix)) || !CREDENTIAL.fits(text) {
            self.refuse(
                "model_credential",
                "spec.model.credential",
                "this is no reference to a key, but perhaps a key",
                "write `ref+file://` and the path of a file that holds the key, or the name of an environment variable or Secret key",
            );
        }
    }
}
