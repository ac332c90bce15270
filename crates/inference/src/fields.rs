//! Which fields of a request are ours to look at, and which are not sold.

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Model,
    Stream,
    StreamOptions,
    /// Bounds the answer, in tokens.
    MaxTokens,
    /// How many answers: one.
    One,
    Prompt,
    /// What is looked through for addresses that the model server would fetch.
    Content,
    /// Must not be asked for; `false` and `null` say nothing.
    Flag,
    /// Must not be there.
    Refused(&'static str),
}

const OTHER: &str = "it would choose another model, server or credential than the one that is sold";
const STATE: &str = "it would bring in tokens that the request does not carry; send the whole conversation";
const ALIAS: &str = "it bounds the answer under another name; use `max_tokens`";
const SERVER: &str = "it is a matter of the model server";

/// Fields by their one spelling. Model servers that read JSON in Go match names in any case, and
/// some have names of their own for the same thing, so a look-alike is refused rather than passed on.
const FIELDS: &[(&str, Field)] = &[
    ("model", Field::Model),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxTokens),
    ("max_output_tokens", Field::MaxTokens),
    ("n", Field::One),
    ("best_of", Field::One),
    ("n_cmpl", Field::One),
    ("prompt", Field::Prompt),
    ("messages", Field::Content),
    ("input", Field::Content),
    ("background", Field::Flag),
    ("use_beam_search", Field::Flag),
    ("return_progress", Field::Flag),
    ("n_predict", Field::Refused(ALIAS)),
    ("num_predict", Field::Refused(ALIAS)),
    ("max_new_tokens", Field::Refused(ALIAS)),
    ("max_length", Field::Refused(ALIAS)),
    ("options", Field::Refused(ALIAS)),
    ("models", Field::Refused(OTHER)),
    ("fallbacks", Field::Refused(OTHER)),
    ("context_window_fallbacks", Field::Refused(OTHER)),
    ("route", Field::Refused(OTHER)),
    ("provider", Field::Refused(OTHER)),
    ("plugins", Field::Refused(OTHER)),
    ("lora", Field::Refused(OTHER)),
    ("api_base", Field::Refused(OTHER)),
    ("base_url", Field::Refused(OTHER)),
    ("api_key", Field::Refused(OTHER)),
    ("api_version", Field::Refused(OTHER)),
    ("organization", Field::Refused(OTHER)),
    ("custom_llm_provider", Field::Refused(OTHER)),
    ("litellm_params", Field::Refused(OTHER)),
    ("litellm_credential_name", Field::Refused(OTHER)),
    ("model_list", Field::Refused(OTHER)),
    ("user_config", Field::Refused(OTHER)),
    ("extra_headers", Field::Refused(OTHER)),
    ("extra_body", Field::Refused(OTHER)),
    ("mock_response", Field::Refused(OTHER)),
    ("service_tier", Field::Refused(OTHER)),
    ("previous_response_id", Field::Refused(STATE)),
    ("conversation", Field::Refused(STATE)),
    ("id_slot", Field::Refused(SERVER)),
    ("keep_alive", Field::Refused(SERVER)),
    ("_debug_render_only", Field::Refused(SERVER)),
    ("continuous_usage_stats", Field::Refused(SERVER)),
];

/// The field of this name.
///
/// # Errors
/// The field that the name could be taken for, though it is spelled otherwise.
pub(crate) fn find(name: &str) -> Result<Option<Field>, &'static str> {
    let folded = fold(name);
    match FIELDS.iter().find(|(known, _)| *known == folded) {
        Some((known, field)) if *known == name => Ok(Some(*field)),
        Some((known, _)) => Err(known),
        None => Ok(None),
    }
}

/// A name as the most lenient reader sees it: Go folds letters by Unicode, the long s and the sign
/// of Kelvin included; others take `-` for `_`.
pub(crate) fn fold(name: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '-' => '_',
        c => c,
    };
    name.chars().map(fold).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_are_known() {
        assert_eq!(find("model"), Ok(Some(Field::Model)));
        for name in ["Model", "MODEL", "max_toKens", "Max_Tokens", "max-tokens", "\u{17f}tream"] {
            assert!(find(name).is_err(), "{name}");
        }
        assert_eq!(find("temperature"), Ok(None));
        assert_eq!(find("models2"), Ok(None));
    }
}
