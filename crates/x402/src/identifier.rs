//! The extension `payment-identifier`: a buyer's own name for one purchase, so that a request that is
//! signed anew is known for the same purchase. v2 only. Source: x402 extension `payment-identifier`.

use std::{fmt, str::FromStr};

use obol_offer::PaymentIdentifier;
use serde_json::{Value, json};

/// Key of the extension in `extensions`.
pub const PAYMENT_IDENTIFIER: &str = "payment-identifier";

/// A buyer's name for one purchase: 16 to 128 of `[A-Za-z0-9_-]`. It means nothing without a
/// payment of the same payer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PaymentId(String);

/// An identifier that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment identifier has 16 to 128 letters, digits, hyphens and underscores")]
pub struct BadPaymentId;

impl FromStr for PaymentId {
    type Err = BadPaymentId;

    fn from_str(text: &str) -> Result<Self, BadPaymentId> {
        let fits = (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if fits { Ok(Self(text.to_owned())) } else { Err(BadPaymentId) }
    }
}

impl PaymentId {
    /// As the buyer wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identifier in a payment's `extensions`; one that is not a string counts as a bad one.
pub(crate) fn of(extensions: &Value) -> Result<Option<PaymentId>, BadPaymentId> {
    match extensions.get(PAYMENT_IDENTIFIER).and_then(|extension| extension.get("info")?.get("id")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => id.parse().map(Some),
        Some(_) => Err(BadPaymentId),
    }
}

/// What a challenge says of it; `None` where an offer does not take identifiers.
pub(crate) fn advertised(policy: PaymentIdentifier) -> Option<Value> {
    let required = match policy {
        PaymentIdentifier::Ignored => return None,
        PaymentIdentifier::Optional => false,
        PaymentIdentifier::Required => true,
    };
    let id = json!({ "type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[a-zA-Z0-9_-]+$" });
    let schema = json!({ "type": "object", "properties": { "required": { "type": "boolean" }, "id": id }, "required": ["required"] });
    Some(json!({ PAYMENT_IDENTIFIER: { "info": { "required": required }, "schema": schema } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_bounded_and_plain() {
        for good in ["a".repeat(16), "Z_-9".repeat(32)] {
            assert_eq!(good.parse::<PaymentId>().unwrap().as_str(), good);
        }
        for bad in ["a".repeat(15), "a".repeat(129), "a b".repeat(8), "é".repeat(16), "a\n".repeat(16), String::new()] {
            assert_eq!(bad.parse::<PaymentId>(), Err(BadPaymentId), "{bad}");
        }
    }

    #[test]
    fn an_echo_without_an_identifier_has_none() {
        let of = |info: Value| super::of(&json!({ PAYMENT_IDENTIFIER: { "info": info } }));
        assert_eq!(of(json!({ "required": false })), Ok(None));
        assert_eq!(super::of(&json!({ "bazaar": {} })), Ok(None));
        assert_eq!(super::of(&json!({ PAYMENT_IDENTIFIER: 7 })), Ok(None));
        assert_eq!(of(json!({ "required": true, "id": "pay_0123456789abcdef" })).unwrap().unwrap().as_str(), "pay_0123456789abcdef");
        for bad in [json!("short"), json!(7), json!(["pay_0123456789abcdef"])] {
            assert_eq!(of(json!({ "required": true, "id": bad })), Err(BadPaymentId));
        }
    }
}
