//! What a request to a model may use at most, read from its body before it is paid for: the same for the challenge
//! and for the paid repeat.

use std::fmt;

use obol_offer::{CanonicalPath, Demand, Model};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The fields of OpenAI's requests that bound what is generated. Others are the model server's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    best_of: Option<u64>,
    prompt: Prompts,
}

/// How many completions `prompt` of `/v1/completions` asks for: a list of strings, or of lists of tokens, is that many.
struct Prompts(u64);

impl Default for Prompts {
    fn default() -> Self {
        Self(1)
    }
}

/// What a request may use. A body that is no JSON object, or says one of the fields twice or in another type than
/// OpenAI does, gets the offer's maximum.
pub(crate) fn demand(model: &Model, path: &CanonicalPath, body: &[u8]) -> Demand {
    let cap = u64::from(model.max_tokens);
    // A list would be read as the fields in their order.
    let object = body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice::<Asked>(body));
    let Some(Ok(asked)) = object else {
        return Demand { prompt_bytes: model.max_prompt_bytes.into(), output_tokens: cap };
    };
    let prompt_bytes = body.len() as u64;
    if path.as_str().trim_end_matches('/').ends_with("/embeddings") {
        return Demand { prompt_bytes, output_tokens: 0 };
    }
    let bounds = [asked.max_tokens, asked.max_completion_tokens, asked.max_output_tokens];
    // Zero means "no bound" to some servers.
    let each = bounds.into_iter().flatten().map(|bound| if bound == 0 { cap } else { bound.min(cap) }).max().unwrap_or(cap);
    let completions = asked.n.unwrap_or(1).max(asked.best_of.unwrap_or(1)).max(1);
    Demand { prompt_bytes, output_tokens: each.saturating_mul(completions).saturating_mul(asked.prompt.0.max(1)) }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountPrompts)
    }
}

struct CountPrompts;

impl<'de> Visitor<'de> for CountPrompts {
    type Value = Prompts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt, or a list of prompts")
    }

    fn visit_str<E>(self, _: &str) -> Result<Prompts, E> {
        Ok(Prompts(1))
    }

    fn visit_unit<E>(self) -> Result<Prompts, E> {
        Ok(Prompts(1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Prompts, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Prompts(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
        let mut prompts = 0;
        let mut tokens = false;
        while let Some(item) = list.next_element::<Item>()? {
            match item {
                Item::Token => tokens = true,
                Item::Prompt => prompts += 1,
            }
        }
        Ok(Prompts(prompts + u64::from(tokens)))
    }
}

enum Item {
    Token,
    Prompt,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kind;
        impl<'de> Visitor<'de> for Kind {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token or a prompt")
            }

            fn visit_u64<E>(self, _: u64) -> Result<Item, E> {
                Ok(Item::Token)
            }

            fn visit_str<E>(self, _: &str) -> Result<Item, E> {
                Ok(Item::Prompt)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Item::Prompt)
            }
        }
        deserializer.deserialize_any(Kind)
    }
}

#[cfg(test)]
mod tests {
    use obol_offer::{Model, WhenUncounted};
    use proptest::prelude::*;

    use super::*;

    fn model() -> Model {
        Model {
            name: "m".into(),
            upstream_name: "m".into(),
            max_tokens: 1000,
            max_prompt_bytes: 4096,
            runtime: None,
            concurrency: None,
            queue: 0,
            first_token_timeout: std::time::Duration::from_secs(1),
            token_timeout: std::time::Duration::from_secs(1),
            pull: false,
            credential: None,
            when_uncounted: WhenUncounted::Ceiling,
        }
    }

    fn of(path: &str, body: &str) -> (u64, u64) {
        let demand = demand(&model(), &CanonicalPath::parse(path).unwrap(), body.as_bytes());
        (demand.prompt_bytes, demand.output_tokens)
    }

    #[test]
    fn the_bound_on_tokens_is_the_requests_own_capped_by_the_offers() {
        let tokens = |body: &str| of("/v1/chat/completions", body).1;
        assert_eq!(of("/v1/chat/completions", "{}"), (2, 1000));
        assert_eq!(tokens(r#"{"max_tokens":16}"#), 16);
        assert_eq!(tokens(r#"{"max_completion_tokens":17,"messages":[{"max_tokens":1}]}"#), 17);
        assert_eq!(tokens(r#"{"max_output_tokens":18}"#), 18);
        assert_eq!(tokens(r#"{"max_tokens":5000}"#), 1000);
        assert_eq!(tokens(r#"{"max_tokens":0}"#), 1000, "no bound, to some servers");
        assert_eq!(tokens(r#"{"max_tokens":null}"#), 1000);
        assert_eq!(tokens(r#"{"max_tokens":10,"max_completion_tokens":20}"#), 20, "whichever the server obeys");
        assert_eq!(tokens(r#"{"max_tokens":10,"n":3}"#), 30);
        assert_eq!(tokens(r#"{"max_tokens":10,"n":2,"best_of":4}"#), 40);
        assert_eq!(tokens(r#"{"max_tokens":10,"n":0}"#), 10);
        assert_eq!(tokens(r#"{"max_tokens":10,"n":18446744073709551615}"#), u64::MAX);
    }

    #[test]
    fn each_prompt_of_a_list_is_completed() {
        let tokens = |prompt: &str| of("/v1/completions", &format!(r#"{{"max_tokens":10,"prompt":{prompt}}}"#)).1;
        for one in [r#""hi""#, "[1,2,3]", "null", r#"{"a":[1]}"#, "[]"] {
            assert_eq!(tokens(one), 10, "{one}");
        }
        assert_eq!(tokens(r#"["a","b","c"]"#), 30);
        assert_eq!(tokens("[[1,2],[3]]"), 20);
    }

    #[test]
    fn embeddings_generate_nothing() {
        assert_eq!(of("/services/m/v1/embeddings", r#"{"input":"hi"}"#), (14, 0));
        assert_eq!(of("/services/m/v1/embeddings/", r#"{"input":"hi"}"#), (14, 0));
    }

    #[test]
    fn what_is_no_such_object_costs_the_maximum() {
        let odd = [
            "",
            "x",
            "[]",
            "7",
            "{",
            r#"{"max_tokens":-1}"#,
            r#"{"max_tokens":1.5}"#,
            r#"{"max_tokens":"1"}"#,
            r#"{"max_tokens":1,"max_tokens":900}"#,
            r#"{"n":1,"n":9}"#,
            r#"{"prompt":7}"#,
            "\u{feff}{}",
            r#"{"max_tokens":1}x"#,
        ];
        for body in odd {
            assert_eq!(of("/v1/chat/completions", body), (4096, 1000), "{body}");
        }
        assert_eq!(demand(&model(), &CanonicalPath::root(), b"\xff{}").output_tokens, 1000);
    }

    proptest! {
        /// Whatever a buyer sends, no panic and no demand of nothing.
        #[test]
        fn any_body_has_a_demand(body: Vec<u8>) {
            prop_assert!(demand(&model(), &CanonicalPath::root(), &body).output_tokens > 0);
        }
    }
}
