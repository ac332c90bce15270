use obol_offer::{Amount, Network, Scheme, TransferMethod};
use serde_json::json;

use super::*;
use crate::{Received, wire::PaymentRequiredV1};

fn terms(network: &str, amount: u64) -> Terms {
    let network = Network::find(network).unwrap();
    let pay_to = "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc".parse().unwrap();
    Terms { scheme: Scheme::Exact, network, asset: network.default_asset(), pay_to, amount: Amount::from(amount), max_timeout_seconds: 60 }
}

fn info() -> QuoteInfo {
    QuoteInfo { description: "dual".into(), mime_type: "application/json".into(), ..QuoteInfo::default() }
}

/// The v2 JSON and the v1 JSON of a challenge.
fn both(challenge: &Challenge) -> (Value, Value) {
    let v2 = STANDARD.decode(&challenge.header).unwrap();
    (serde_json::from_slice(&v2).unwrap(), serde_json::from_str(&challenge.body).unwrap())
}

#[test]
fn equals_the_challenge_that_all_five_clients_paid() {
    let golden: Value = serde_json::from_str(include_str!("../tests/golden.json")).unwrap();
    let golden = &golden["dual_stack_unpaid_402"];
    let challenge = Quote::new(vec![terms("base-sepolia", 10_000)], info()).challenge("http://127.0.0.1:5051/weather", "Payment required");
    let (v2, v1) = both(&challenge);
    assert_eq!(v2, golden["challenge"]);
    assert_eq!(v1, golden["body"]);
}

#[test]
fn v1_sees_only_networks_it_knows() {
    let quote = Quote::new(vec![terms("ethereum", 1), terms("base", 2), terms("obol-sandbox", 3), terms("polygon", 4)], info());
    let (v2, v1) = both(&quote.challenge("https://a.example/x", "pay"));
    let networks = |v: &Value| v["accepts"].as_array().unwrap().iter().map(|a| a["network"].clone()).collect::<Vec<_>>();
    assert_eq!(networks(&v2), ["eip155:1", "eip155:8453", "eip155:1868722028", "eip155:137"]);
    assert_eq!(networks(&v1), ["base", "polygon"]);
    let none = Quote::new(vec![terms("ethereum", 1)], info()).challenge("https://a.example/x", "pay");
    assert_eq!(both(&none).1, json!({"x402Version": 1, "error": "pay", "accepts": []}));
}

#[test]
fn what_is_unknown_is_left_out_and_never_null() {
    let challenge = Quote::new(vec![terms("base", 1)], QuoteInfo::default()).challenge("https://a.example/x", "");
    let (v2, v1) = both(&challenge);
    assert_eq!(v2["resource"], json!({"url": "https://a.example/x"}));
    assert_eq!(v1["accepts"][0]["description"], "");
    for absent in [v1.get("error"), v2.get("error")] {
        assert_eq!(absent, None);
    }
    assert!(!challenge.body.contains("null"));
    serde_json::from_value::<PaymentRequired>(v2).unwrap();
    serde_json::from_value::<PaymentRequiredV1>(v1).unwrap();
}

#[test]
fn a_service_name_that_v2_would_refuse_is_left_out() {
    for (name, told) in [("Lab Weather", true), ("", false), (&*"x".repeat(32), true), (&*"x".repeat(33), false), ("Wetter ☀", false)] {
        let quote = Quote::new(vec![terms("base", 1)], QuoteInfo { service_name: name.into(), ..info() });
        let (v2, _) = both(&quote.challenge("https://a.example/x", "pay"));
        assert_eq!(v2["resource"].get("serviceName").is_some(), told, "{name}");
    }
}

#[test]
fn a_permit2_asset_is_marked_in_v2_and_absent_in_v1() {
    let mut terms = terms("base", 1);
    terms.asset.transfer_method = TransferMethod::Permit2;
    let (v2, v1) = both(&Quote::new(vec![terms], info()).challenge("https://a.example/x", "pay"));
    assert_eq!(v2["accepts"][0]["extra"]["assetTransferMethod"], "permit2");
    assert_eq!(v1["accepts"], json!([]));
}

#[test]
fn an_error_is_cut() {
    let (v2, v1) = both(&Quote::new(vec![terms("base", 1)], info()).challenge("https://a.example/x", &"é".repeat(100_000)));
    assert_eq!(v2["error"].as_str().unwrap().chars().count(), MAX_ERROR_CHARS);
    assert_eq!(v2["error"], v1["error"]);
}

proptest::proptest! {
    /// A quote with other amounts is the one that would have been made for them, also where not all terms are kept.
    #[test]
    fn other_amounts_make_the_quote_that_is_made_for_them(amounts in proptest::collection::vec(0..u64::MAX, 3), description in "\\PC{0,40}", known: bool) {
        let of = |amounts: &[u64]| {
            let mut upto = Terms { scheme: Scheme::Upto, ..terms("base-sepolia", amounts[1]) };
            upto.asset.transfer_method = TransferMethod::Permit2;
            let mut info = QuoteInfo { description: format!("{description} \"accepts\":[] \"amount\":\"1\""), ..info() };
            if known {
                info.facilitators.add(upto.network, [7; 20].into());
            }
            Quote::new(vec![terms("base", amounts[0]), upto, terms("ethereum", amounts[2])], info)
        };
        let made = of(&amounts);
        let (all, url): (Vec<Amount>, _) = (amounts.iter().copied().map(Amount::from).collect(), "https://a.example/x");
        let again = of(&[1, 22, 333]).at(&all);
        assert_eq!(again.terms(), made.terms());
        assert_eq!(made.terms().len(), if known { 3 } else { 2 });
        assert_eq!(again.challenge(url, "pay"), made.challenge(url, "pay"));
        for index in 0..3 {
            for version in [Version::V1, Version::V2] {
                assert_eq!(again.requirements(index, version, url), made.requirements(index, version, url));
            }
        }
        let (v2, _) = both(&made.challenge(url, "pay"));
        let told = v2["accepts"].as_array().unwrap();
        for (entry, terms) in told.iter().zip(made.terms()) {
            assert_eq!(entry["amount"], terms.amount.to_string());
        }
    }

    /// Whatever stands before the prepared part, in any length and with any characters, the whole stays
    /// padded base64 of JSON.
    #[test]
    fn every_url_and_error_is_spliced_right(url in "\\PC{0,60}", error in "(\\PC|[\n\"\\\\]){0,60}", description in "\\PC{0,40}") {
        let quote = Quote::new(vec![terms("base", 1), terms("polygon", 2)], QuoteInfo { description: description.clone(), ..info() });
        let challenge = quote.challenge(&url, &error);
        let (v2, v1) = both(&challenge);
        assert_eq!(v2["resource"]["url"], url.as_str());
        assert_eq!(v2["error"].as_str().unwrap_or_default(), error);
        assert_eq!(v1["accepts"][1]["resource"], url.as_str());
        assert_eq!(v1["accepts"][1]["description"], description.as_str());
        assert_eq!(Received::parse(Some(challenge.header.as_bytes()), b"").unwrap().offers.len(), 2);
        assert_eq!(Received::parse(None, challenge.body.as_bytes()).unwrap().offers.len(), 2);
    }
}
