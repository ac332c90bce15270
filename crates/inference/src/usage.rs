//! What a call used, by the model server's own count.

use std::fmt;

use serde::Deserialize;

use crate::json::Members;

/// Name of the report, as header or trailer. RFC 8941 dictionary of integers.
pub const USAGE: http::HeaderName = http::HeaderName::from_static(obol_offer::USAGE_FIELD);

/// Tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer, reasoning included.
    pub output: u64,
    /// Of the prompt, those that were in the model server's cache. Informative.
    pub cached: u64,
}

/// What is reported to the x402 gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The model server counted.
    Counted(Usage),
    /// The answer broke off, and this much was delivered: every piece of the answer counts as one
    /// token, and four bytes of the request as one; nothing where no piece came.
    Cut(Usage),
    /// The answer is whole, and the model server did not count: the offer's rule holds.
    Uncounted,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counted(usage) | Self::Cut(usage) => {
                write!(f, "input={}, output={}", usage.input, usage.output)?;
                if usage.cached > 0 {
                    write!(f, ", cached={}", usage.cached)?;
                }
                if matches!(self, Self::Cut(_)) { f.write_str(", cut=1") } else { Ok(()) }
            }
            Self::Uncounted => f.write_str("uncounted=1"),
        }
    }
}

/// A `usage` object: of chat, completions and embeddings, or of responses.
#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

impl Usage {
    /// Reads a `usage` object.
    pub(crate) fn from_object(raw: &str) -> Option<Self> {
        let counts: Counts = serde_json::from_str(raw).ok()?;
        let input = counts.prompt_tokens.or(counts.input_tokens);
        let output = counts.completion_tokens.or(counts.output_tokens);
        let details = counts.prompt_tokens_details.or(counts.input_tokens_details);
        let cached = details.and_then(|details| details.cached_tokens).unwrap_or(0);
        match (input, output, counts.total_tokens) {
            (Some(input), Some(output), _) => Some(Self { input, output, cached }),
            // Embeddings have a prompt only.
            (Some(input), None, total) => Some(Self { input, output: total.unwrap_or(input).saturating_sub(input), cached }),
            (None, Some(output), Some(total)) => Some(Self { input: total.saturating_sub(output), output, cached }),
            (None, None, Some(total)) => Some(Self { input: total, output: 0, cached }),
            (None, _, None) => None,
        }
    }

    /// Reads Ollama's own fields. It leaves `prompt_eval_count` out where the whole prompt was in
    /// its cache, which is then not a count.
    pub(crate) fn from_ollama(members: &Members<'_>) -> Option<Self> {
        let number = |key| members.get(key).and_then(|raw| raw.parse().ok());
        Some(Self { input: number("prompt_eval_count")?, output: number("eval_count").unwrap_or(0), cached: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_read() {
        let read = |raw: &str| Usage::from_object(raw).map(|u| (u.input, u.output, u.cached));
        assert_eq!(read(r#"{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}"#), Some((12, 34, 0)));
        assert_eq!(
            read(r#"{"prompt_tokens":12,"completion_tokens":34,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0}}"#),
            Some((12, 34, 8))
        );
        assert_eq!(read(r#"{"input_tokens":1,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}}"#), Some((1, 2, 1)));
        assert_eq!(read(r#"{"prompt_tokens":7,"total_tokens":7}"#), Some((7, 0, 0)));
        assert_eq!(read(r#"{"total_tokens":7}"#), Some((7, 0, 0)));
        for none in ["null", "{}", r#"{"prompt_tokens":-1}"#, r#"{"prompt_tokens":"12"}"#, r#"{"prompt_tokens":1.5}"#, "[1]", "x"] {
            assert_eq!(read(none), None, "{none}");
        }
        let ollama = Members::parse(br#"{"model":"m","done":true,"prompt_eval_count":26,"eval_count":259}"#).unwrap();
        assert_eq!(Usage::from_ollama(&ollama), Some(Usage { input: 26, output: 259, cached: 0 }));
    }

    #[test]
    fn the_report_is_a_dictionary_of_integers() {
        let usage = Usage { input: 12, output: 34, cached: 0 };
        assert_eq!(Report::Counted(usage).to_string(), "input=12, output=34");
        assert_eq!(Report::Counted(Usage { cached: 8, ..usage }).to_string(), "input=12, output=34, cached=8");
        assert_eq!(Report::Cut(usage).to_string(), "input=12, output=34, cut=1");
        assert_eq!(Report::Uncounted.to_string(), "uncounted=1");
        let read = |report: Report| obol_offer::Usage::parse(&report.to_string());
        let told = Some(obol_offer::Usage::Tokens { input: 12, output: 34 });
        assert_eq!(
            (read(Report::Counted(Usage { cached: 8, ..usage })), read(Report::Cut(usage)), read(Report::Uncounted)),
            (told, told, None)
        );
    }
}
