//! Payment headers: decoded, matched, and told to a facilitator.
//!
//! First byte: bit 0 puts the header in `PAYMENT-SIGNATURE` rather than `X-PAYMENT`, bit 1 says that
//! JSON follows, to be put in base64 here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_x402::{AuthorizationKind, match_payment};
use serde_json::Value;

use crate::{FACILITATOR, NOW, URL, one, quote};

pub fn target(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let encoded;
    let header = if mode & 2 == 0 {
        rest
    } else {
        encoded = STANDARD.encode(rest);
        encoded.as_bytes()
    };
    let v2 = mode & 1 == 1;
    let (Some(payment), quote) = (one(v2, header), quote()) else { return };
    let Ok(matched) = match_payment(&payment, &quote, URL, NOW, |_| true) else { return };

    assert!(quote.terms().contains(&matched.terms), "the terms are ours");
    assert_eq!((matched.authorization.value, matched.authorization.to), (matched.terms.amount, matched.terms.pay_to));

    let kind = matched.authorization.kind;
    assert_eq!(Some(kind), AuthorizationKind::of(&matched.terms, FACILITATOR.parse().ok()), "and so is how it is moved");

    // What a facilitator reads is what was matched.
    let body: Value = serde_json::from_slice(&matched.facilitator_body).expect("the facilitator's body is JSON");
    let told = STANDARD.encode(serde_json::to_string(&body["paymentPayload"]).expect("JSON again"));
    let again = one(v2, told.as_bytes()).expect("the payload is still a payment");
    let again = match_payment(&again, &quote, URL, NOW, |_| true).expect("and still matches");
    assert_eq!(again.replay_key(), matched.replay_key());
    assert_eq!(again.authorization, matched.authorization);
    if let Ok(less) = matched.clone().charging(7.into()) {
        let less: Value = serde_json::from_slice(&less.facilitator_body).expect("the facilitator's body is JSON");
        assert_eq!(less["paymentPayload"], body["paymentPayload"]);
        assert_eq!(less["paymentRequirements"]["amount"], "7");
    }
    let known = ["x402Version", "accepted", "payload", "scheme", "network", "signature", "authorization", "value", "nonce", "witness"];
    assert!(distinct(&body["paymentPayload"], &known), "readers that ignore case read the same: {body}");
}

/// Whether no key is another spelling of a known one.
fn distinct(value: &Value, known: &[&str]) -> bool {
    let Value::Object(fields) = value else { return true };
    fields.iter().all(|(key, value)| {
        let exact = known.contains(&key.as_str()) || !known.iter().any(|known| known.eq_ignore_ascii_case(key));
        exact && (matches!(key.as_str(), "extensions" | "extra" | "resource") || distinct(value, known))
    })
}
