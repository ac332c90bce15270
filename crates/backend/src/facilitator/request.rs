//! What a gateway asks: a payment and the requirements it is to meet, both versions.

use std::time::{SystemTime, UNIX_EPOCH};

use obol_offer::{Address, Amount, Asset, Network, Scheme, Terms, TransferMethod};
use obol_x402::{
    MIN_VALIDITY_LEFT, MatchedPayment, Mismatch, Payment, Quote, QuoteInfo, UptoFacilitators, Version, decode_json, match_payment,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

/// A question that makes no sense: `400`.
pub(super) struct Senseless(pub String);

/// A question that makes sense.
pub(super) enum Asked {
    /// About this payment.
    Payment(Box<MatchedPayment>),
    /// About one that can never be settled; the word of x402 for why.
    Invalid(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    x402_version: u64,
    #[serde(borrow)]
    payment_payload: &'a RawValue,
    payment_requirements: Requirements,
}

/// Requirements of either version, as far as money depends on them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requirements {
    scheme: String,
    network: String,
    #[serde(alias = "maxAmountRequired")]
    amount: Amount,
    asset: String,
    pay_to: String,
    #[serde(default)]
    max_timeout_seconds: Option<u64>,
    #[serde(default)]
    extra: Option<Map<String, Value>>,
}

/// What is asked to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Verify,
    /// A payment whose time has passed may have been settled before, and then the chain has the answer.
    Settle,
}

/// Reads a question. `ours` says which account settles on a network here.
pub(super) fn read(body: &[u8], step: Step, ours: impl Fn(&Network) -> Option<Address>) -> Result<Asked, Senseless> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| Senseless(short(&error.to_string())))?;
    let payment = match decode_json(body.payment_payload.get().to_owned()) {
        Ok(payment) => payment,
        Err(error) => return Err(Senseless(short(&error.to_string()))),
    };
    if body.x402_version != u64::from(payment.version.number()) {
        return Ok(Asked::Invalid("invalid_x402_version"));
    }
    let terms = match terms(&body.payment_requirements) {
        Ok(terms) => terms,
        Err(reason) => return Ok(Asked::Invalid(reason)),
    };
    if payment.version == Version::V1 && !terms.network.in_v1 {
        return Ok(Asked::Invalid("invalid_network"));
    }
    let charge = terms.amount;
    let terms = match (terms.scheme, step) {
        // What was signed is the most that may be charged; the requirements say how much is.
        (Scheme::Upto, Step::Settle) => Terms { amount: ceiling(body.payment_payload).unwrap_or(charge), ..terms },
        _ => terms,
    };
    let mut facilitators = UptoFacilitators::default();
    ours(terms.network).into_iter().for_each(|account| facilitators.add(terms.network, account));
    let quote = Quote::new(vec![terms], QuoteInfo { facilitators, ..QuoteInfo::default() });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(match fit(&payment, &quote, now, step == Step::Settle) {
        Ok(matched) => match matched.charging(charge) {
            Ok(matched) => Asked::Payment(Box::new(matched)),
            Err(_) => Asked::Invalid("invalid_upto_evm_payload_settlement_exceeds_amount"),
        },
        Err(mismatch) => Asked::Invalid(reason(&mismatch)),
    })
}

/// The amount that the payer met.
fn ceiling(payload: &RawValue) -> Option<Amount> {
    #[derive(Deserialize)]
    struct Payload {
        accepted: Accepted,
    }
    #[derive(Deserialize)]
    struct Accepted {
        amount: Amount,
    }
    serde_json::from_str::<Payload>(payload.get()).ok().map(|payload| payload.accepted.amount)
}

fn fit(payment: &Payment, quote: &Quote, now: u64, late: bool) -> Result<MatchedPayment, Mismatch> {
    // Which resource it is for is the gateway's question; it has answered it.
    let at = |now| match_payment(payment, quote, "", now, |_| true);
    match (at(now), payment.valid_before()) {
        (Err(Mismatch::Expired), Some(end)) if late => at(end.saturating_sub(MIN_VALIDITY_LEFT)),
        (fitted, _) => fitted,
    }
}

fn terms(wanted: &Requirements) -> Result<Terms, &'static str> {
    let scheme = match wanted.scheme.as_str() {
        "exact" => Scheme::Exact,
        "upto" => Scheme::Upto,
        _ => return Err("unsupported_scheme"),
    };
    let network = Network::find(&wanted.network).ok_or("invalid_network")?;
    let address: Address = wanted.asset.parse().map_err(|_| "invalid_payment_requirements")?;
    let pay_to: Address = wanted.pay_to.parse().map_err(|_| "invalid_payment_requirements")?;
    let extra = |key: &str| wanted.extra.as_ref().and_then(|extra| extra.get(key)?.as_str());
    let transfer_method = match extra("assetTransferMethod") {
        None | Some("eip3009") => TransferMethod::Eip3009,
        Some("permit2") => TransferMethod::Permit2,
        Some(_) => return Err("unsupported_scheme"),
    };
    let known = Some(network.default_asset()).filter(|asset| asset.address == address);
    let asset = match (extra("name"), extra("version"), known) {
        (Some(name), Some(version), known) => Asset {
            address,
            domain_name: name.to_owned(),
            domain_version: version.to_owned(),
            transfer_method,
            // For people only; nothing here is shown to one.
            symbol: known.as_ref().map_or_else(String::new, |asset| asset.symbol.clone()),
            decimals: known.map_or(0, |asset| asset.decimals),
        },
        (_, _, Some(known)) => Asset { transfer_method, ..known },
        _ => return Err("missing_eip712_domain"),
    };
    let max_timeout_seconds = wanted.max_timeout_seconds.map_or(60, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    Ok(Terms { scheme, network, asset, pay_to, amount: wanted.amount, max_timeout_seconds })
}

/// A mismatch as the word that x402 facilitators have for it.
const fn reason(mismatch: &Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Expired => "invalid_exact_evm_payload_authorization_valid_before",
        Mismatch::NotYetValid => "invalid_exact_evm_payload_authorization_valid_after",
        Mismatch::Authorization(_) => "invalid_exact_evm_payload_authorization_value_mismatch",
        _ => "invalid_payment_requirements",
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYEE: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

    fn question(payment: Value, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let network = Network::find("base-sepolia").unwrap();
        let mut requirements = serde_json::json!({
            "scheme": "exact", "network": "eip155:84532", "amount": "1000", "payTo": PAYEE, "maxTimeoutSeconds": 300,
            "asset": network.default_asset().address.to_string(), "extra": { "name": "USDC", "version": "2" },
        });
        change(&mut requirements);
        serde_json::json!({ "x402Version": 2, "paymentPayload": payment, "paymentRequirements": requirements }).to_string().into_bytes()
    }

    fn payment(valid_before: u64) -> Value {
        let network = Network::find("base-sepolia").unwrap();
        serde_json::json!({
            "x402Version": 2,
            "accepted": {
                "scheme": "exact", "network": "eip155:84532", "amount": "1000", "payTo": PAYEE, "maxTimeoutSeconds": 300,
                "asset": network.default_asset().address.to_string(), "extra": { "name": "USDC", "version": "2" },
            },
            "payload": {
                "signature": format!("0x{}", "11".repeat(65)),
                "authorization": {
                    "from": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "to": PAYEE, "value": "1000", "validAfter": "0",
                    "validBefore": valid_before.to_string(), "nonce": format!("0x{}", "22".repeat(32)),
                },
            },
        })
    }

    fn says(body: &[u8], late: bool) -> String {
        match read(body, if late { Step::Settle } else { Step::Verify }, |_| None) {
            Ok(Asked::Payment(payment)) => format!("payment of {}", payment.terms.amount),
            Ok(Asked::Invalid(reason)) => reason.to_owned(),
            Err(Senseless(_)) => "senseless".to_owned(),
        }
    }

    #[test]
    fn a_payment_is_read_against_the_requirements() {
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
        assert_eq!(says(&question(payment(soon), |_| {}), false), "payment of 1000");
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 5] = [
            ("invalid_payment_requirements", |r| r["amount"] = "999".into()),
            ("invalid_network", |r| r["network"] = "eip155:7".into()),
            ("unsupported_scheme", |r| r["scheme"] = "deferred".into()),
            ("invalid_payment_requirements", |r| r["payTo"] = "nobody".into()),
            ("senseless", |r| r["amount"] = (-1).into()),
        ];
        for (expected, change) in cases {
            assert_eq!(says(&question(payment(soon), change), false), expected);
        }
        for garbage in ["", "{}", "[]", "null", r#"{"x402Version":2,"paymentPayload":{},"paymentRequirements":{}}"#] {
            assert_eq!(says(garbage.as_bytes(), false), "senseless", "{garbage}");
        }
    }

    #[test]
    fn a_payment_whose_time_has_passed_may_still_be_asked_about() {
        let late = question(payment(1_000_000), |_| {});
        assert_eq!(says(&late, false), "invalid_exact_evm_payload_authorization_valid_before");
        assert_eq!(says(&late, true), "payment of 1000");
    }
}
