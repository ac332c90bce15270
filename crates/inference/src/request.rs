//! A buyer's request, checked and brought into the form in which the model server gets it.

use std::collections::HashSet;

use obol_offer::Runtime;
use serde_json::{Value, value::RawValue};

use crate::{
    config::ModelConfig,
    fields::{self, Field},
    json::{self, Members, Writer},
    problem::Problem,
    surface::Call,
};

/// A request as the model server gets it, and what must be known of it to read the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// JSON.
    pub body: String,
    /// Whether the answer comes as events.
    pub streamed: bool,
    /// Whether the buyer asked for the usage at the end of the stream.
    pub usage_wanted: bool,
    /// Length of the buyer's body in bytes.
    pub prompt_bytes: u64,
}

/// Checks a request and rewrites it: the model's own name, bounds filled in and lowered, usage
/// asked for. What is not ours to look at stays byte by byte.
///
/// # Errors
/// 400 with the field, where the request is malformed, asks for what is not sold, or could be read
/// in two ways.
pub fn prepare(call: Call, body: &[u8], model: &ModelConfig) -> Result<Prepared, Problem> {
    let malformed = |error: serde_json::Error| {
        Problem::new(http::StatusCode::BAD_REQUEST, "body_malformed", format!("the body is no JSON object: {error}"))
    };
    let members = Members::parse(body).map_err(malformed)?;
    let mut seen = HashSet::new();
    let mut asked = Request { call, model, streamed: false, usage_wanted: false, options: None, bounds: Vec::new() };
    let mut out = Writer::new(body.len() + 128);
    out.member("model", &json::quote(&model.upstream_name));
    for (key, raw) in &members.0 {
        if !seen.insert(fields::fold(key)) {
            return Err(Problem::field("field_twice", key, "the field is there twice; model servers differ in which one they read"));
        }
        let field = fields::find(key).map_err(|known| {
            Problem::field("field_spelling", key, format!("the field could be taken for `{known}`; write it that way, or leave it out"))
        })?;
        match field {
            None => out.member(key, raw),
            Some(field) => asked.take(field, key, raw, &mut out)?,
        }
    }
    asked.write_bounds(&mut out);
    asked.write_options(&mut out)?;
    let prompt_bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    Ok(Prepared { streamed: asked.streamed, usage_wanted: asked.usage_wanted, body: out.finish(), prompt_bytes })
}

struct Request<'a> {
    call: Call,
    model: &'a ModelConfig,
    streamed: bool,
    usage_wanted: bool,
    options: Option<&'a str>,
    /// The bounds that the buyer gave: field, tokens.
    bounds: Vec<(String, u64)>,
}

impl<'a> Request<'a> {
    fn take(&mut self, field: Field, key: &str, raw: &'a str, out: &mut Writer) -> Result<(), Problem> {
        match field {
            Field::Model => self.named(raw),
            Field::Stream => {
                self.streamed = match raw {
                    "true" if self.call != Call::Embeddings => true,
                    "false" | "null" => false,
                    "true" => return Err(Problem::field("stream", key, "embeddings are not streamed")),
                    _ => return Err(Problem::field("stream", key, "write true or false")),
                };
                out.member(key, if self.streamed { "true" } else { "false" });
                Ok(())
            }
            Field::StreamOptions => {
                self.options = (raw != "null").then_some(raw);
                Ok(())
            }
            Field::MaxTokens => self.bound(key, raw),
            Field::One => match raw {
                "1" | "null" => Ok(()),
                _ => Err(Problem::field("one_answer", key, "one answer is sold per request; leave the field out, or write 1")),
            },
            Field::Prompt => {
                if self.call != Call::Completions {
                    return Err(Problem::field("field_not_sold", key, format!("the field does not belong to {}", self.call.path())));
                }
                if !is_one_prompt(raw) {
                    return Err(Problem::field("one_answer", key, "one prompt is sold per request: a string, or one list of tokens"));
                }
                out.member(key, raw);
                Ok(())
            }
            Field::Content => {
                // What is nested too deeply for us is too deep for the model server.
                let value: Value = serde_json::from_str(raw).map_err(|error| Problem::field("body_malformed", key, error.to_string()))?;
                if fetches(&value) {
                    let message = "the model server does not fetch addresses for buyers; send the content itself as a data: URL";
                    return Err(Problem::field("remote_content", key, message));
                }
                out.member(key, raw);
                Ok(())
            }
            Field::Flag => match raw {
                "false" | "null" => Ok(()),
                _ => Err(Problem::field("field_not_sold", key, "it is not sold here; leave it out")),
            },
            Field::Refused(why) => match raw {
                "null" => Ok(()),
                _ => Err(Problem::field("field_not_sold", key, format!("the field is not passed on: {why}"))),
            },
        }
    }

    fn named(&self, raw: &str) -> Result<(), Problem> {
        match serde_json::from_str::<Option<String>>(raw) {
            Ok(None) => Ok(()),
            Ok(Some(name)) if name == self.model.name => Ok(()),
            Ok(Some(_)) | Err(_) => {
                let message = format!("the model that is sold here is `{}`", self.model.name);
                Err(Problem { status: http::StatusCode::NOT_FOUND, ..Problem::field("model_not_found", "model", message) })
            }
        }
    }

    /// A bound in tokens. Zero and less mean "no bound" to some servers.
    fn bound(&mut self, key: &str, raw: &str) -> Result<(), Problem> {
        if raw == "null" {
            return Ok(());
        }
        let own = match self.call {
            Call::Chat => matches!(key, "max_tokens" | "max_completion_tokens"),
            Call::Completions => key == "max_tokens",
            Call::Responses => key == "max_output_tokens",
            Call::Embeddings => false,
        };
        if !own {
            return Err(Problem::field("field_not_sold", key, format!("the field does not belong to {}", self.call.path())));
        }
        let tokens = raw.parse::<u64>().ok().filter(|tokens| *tokens > 0 && raw.bytes().all(|b| b.is_ascii_digit()));
        let Some(tokens) = tokens else { return Err(Problem::field("max_tokens", key, "write a whole number of tokens, 1 or more")) };
        let tokens = tokens.min(self.model.max_tokens);
        if self.bounds.iter().any(|(_, other)| *other != tokens) {
            return Err(Problem::field("max_tokens", key, "`max_tokens` and `max_completion_tokens` differ; keep one of them"));
        }
        self.bounds.push((key.to_owned(), tokens));
        Ok(())
    }

    fn write_bounds(&self, out: &mut Writer) {
        let tokens = self.bounds.first().map_or(self.model.max_tokens, |(_, tokens)| *tokens).to_string();
        let always = match (self.call, self.model.runtime) {
            (Call::Embeddings, _) => return,
            (Call::Responses, _) => "max_output_tokens",
            (Call::Chat, Some(Runtime::OpenAi)) => "max_completion_tokens",
            // Not every server knows the newer name; one that does not must not be left unbounded.
            (Call::Chat | Call::Completions, _) => "max_tokens",
        };
        out.member(always, &tokens);
        if self.model.runtime != Some(Runtime::OpenAi) {
            self.bounds.iter().filter(|(key, _)| key != always).for_each(|(key, _)| out.member(key, &tokens));
        }
    }

    /// Has the usage told at the end of a stream. `responses` tells it always.
    fn write_options(&mut self, out: &mut Writer) -> Result<(), Problem> {
        const KEY: &str = "stream_options";
        if !self.streamed {
            return Ok(());
        }
        let given = match self.options.map(|raw| Members::parse(raw.as_bytes())) {
            None => Members(Vec::new()),
            Some(Ok(members)) => members,
            Some(Err(_)) => return Err(Problem::field(KEY, KEY, "write an object, such as {\"include_usage\": true}")),
        };
        let mut seen = HashSet::new();
        let ours = matches!(self.call, Call::Chat | Call::Completions);
        let mut options = Writer::new(64);
        for (key, raw) in &given.0 {
            let folded = fields::fold(key);
            let known = matches!(folded.as_str(), "include_usage" | "continuous_usage_stats");
            if known && folded != *key || !seen.insert(folded) {
                return Err(Problem::field(KEY, key, "the option is there twice, or could be taken for another one"));
            }
            match (known && ours, *raw) {
                (false, raw) => options.member(key, raw),
                (true, "true" | "false" | "null") => self.usage_wanted |= key == "include_usage" && *raw == "true",
                (true, _) => return Err(Problem::field(KEY, key, "write true or false")),
            }
        }
        if ours {
            options.member("include_usage", "true");
            if self.model.runtime == Some(Runtime::Vllm) {
                // Then even a stream that breaks off is counted.
                options.member("continuous_usage_stats", "true");
            }
        }
        if ours || !given.0.is_empty() {
            out.member(KEY, &options.finish());
        }
        Ok(())
    }
}

/// Whether a `prompt` is what one answer is made from: a string, or one list of tokens.
fn is_one_prompt(raw: &str) -> bool {
    let digits = |item: &&RawValue| item.get().bytes().all(|b| b.is_ascii_digit());
    raw.starts_with('"') || serde_json::from_str::<Vec<&RawValue>>(raw).is_ok_and(|list| list.iter().all(digits))
}

/// Whether some part of a message is an address instead of the content itself. A model server that
/// fetches it would do so from within the seller's network.
fn fetches(value: &Value) -> bool {
    let inline = |text: &str| text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    match value {
        Value::Array(items) => items.iter().any(fetches),
        Value::Object(members) => members.iter().any(|(key, value)| {
            let media = matches!(fields::fold(key).as_str(), "image_url" | "video_url" | "audio_url" | "file_url");
            let address = value.as_str().or_else(|| value.get("url").and_then(Value::as_str));
            media && address.is_some_and(|text| !inline(text)) || fetches(value)
        }),
        _ => false,
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
