//! Keys that two JSON readers could take for one another.
//!
//! A payment's JSON goes to a facilitator as the buyer wrote it. Some facilitators are written in
//! languages whose JSON readers ignore case (Go) or take the last of two equal keys: beside the
//! `payload` that we check, a `Payload` would be the one that is settled. Many requests could then
//! share one hidden payment. Such texts are refused.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::DecodeError;

/// Every key that some reader of payments knows.
const KNOWN: [&str; 30] = [
    "x402Version",
    "scheme",
    "network",
    "accepted",
    "resource",
    "extensions",
    "payload",
    "signature",
    "authorization",
    "permit2Authorization",
    "permissionContext",
    "transaction",
    "from",
    "to",
    "value",
    "validAfter",
    "validBefore",
    "nonce",
    "permitted",
    "token",
    "spender",
    "deadline",
    "witness",
    "facilitator",
    "amount",
    "asset",
    "payTo",
    "maxTimeoutSeconds",
    "maxAmountRequired",
    "extra",
];
/// Below these, anybody may name fields; only two alike are refused.
const FREE: [&str; 3] = ["extensions", "extra", "resource"];

/// Refuses a text in which a key stands twice in an object, or in another spelling than it has.
/// The text is nested no deeper than may be recursed into.
pub(crate) fn check(text: &str) -> Result<(), DecodeError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Keys { free: false }.deserialize(&mut reader).map_err(DecodeError::malformed)
}

/// As readers that ignore case compare: Go folds `ſ` and the Kelvin sign too.
fn fold(key: &str) -> String {
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// A value whose keys are looked at.
#[derive(Clone, Copy)]
struct Keys {
    free: bool,
}

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let folded = fold(&key);
            let known = KNOWN.iter().find(|known| folded.eq_ignore_ascii_case(known));
            if !self.free && known.is_some_and(|known| *known != key) {
                return Err(A::Error::custom(format_args!("unknown spelling of a field: `{key}`")));
            }
            if !seen.insert(folded) {
                return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
            }
            map.next_value_seed(Self { free: self.free || FREE.contains(&key.as_str()) })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_payments_pass() {
        for good in [
            r#"{"x402Version":2,"accepted":{"extra":{"name":"USDC"}},"payload":{"authorization":{"from":"0x"}},"more":[{"a":1},{"a":2.5}]}"#,
            r#"{"extensions":{"Value":1,"payload":{"FROM":true}},"resource":{"URL":null}}"#,
            r#"{"nonce":"1","nonces":2,"κ":-1}"#,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn hostile_keys_that_another_reader_takes_for_ours_are_refused() {
        for bad in [
            r#"{"payload":{},"Payload":{}}"#,
            r#"{"payload":{},"PAYLOAD":{}}"#,
            r#"{"payload":{"authorization":{},"Permit2Authorization":{}}}"#,
            r#"{"payload":{"signature":"0x","\u017fignature":"0x"}}"#,
            r#"{"payload":{"permit2Authorization":{"witness":{"to":"0x","To":"0x"}}}}"#,
            r#"{"payload":{"permit2Authorization":{"permitted":{},"Permitted":{}}}}"#,
            r#"{"payload":{"permit2Authorization":{"Spender":"0x"}}}"#,
            r#"{"accepted":{"networ\u212a":1}}"#,
            r#"{"payload":{},"pay\u006coad":{}}"#,
            r#"{"extensions":{"a":1,"A":2}}"#,
            r#"[{"x":[{"b":1,"b":2}]}]"#,
        ] {
            assert!(matches!(check(bad), Err(DecodeError::NotAPayment(_))), "{bad}");
        }
    }
}
