//! What we send to facilitators is what facilitators that we did not write accept, in both
//! protocol versions, up to the money moving on a real EVM node.

use obol_e2e::{
    anvil::{Anvil, KEYS},
    facilitators::{Facilitator, Maker},
    forge, http,
};
use obol_x402::{MatchedPayment, PaymentHeaders, Quote, QuoteInfo, decode, match_payment};
use serde_json::{Value, json};

const PAYER: &str = KEYS[8];
const PRICE: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_facilitator_verifies_and_settles_what_we_send() {
    let anvil = Anvil::start().await;
    for maker in Maker::ALL {
        let facilitator = Facilitator::start(maker, &anvil.url);
        for version in [1, 2] {
            let payee = forge::fresh_address();
            let matched = matched(version, payee, anvil.now().await);
            let verified = ask(&facilitator, "verify", &matched).await;
            assert_eq!(verified["isValid"], true, "{maker}, version {version}: {verified}");
            assert_eq!(anvil.balance(payee).await, 0, "{maker}: verifying moves nothing");

            let settled = ask(&facilitator, "settle", &matched).await;
            assert_eq!(settled["success"], true, "{maker}, version {version}: {settled}");
            let hash = settled["transaction"].as_str().and_then(|hash| hash.parse().ok()).expect("a transaction hash");
            assert!(anvil.succeeded(hash).await, "{maker}, version {version}");
            assert_eq!(anvil.balance(payee).await, PRICE, "{maker}, version {version}");
        }
    }
}

fn matched(version: u8, payee: obol_offer::Address, now: u64) -> MatchedPayment {
    let terms = forge::terms(payee, PRICE);
    let quote = Quote::new(vec![terms.clone()], QuoteInfo::default());
    let mut payment = forge::payment(PAYER, &terms, 0, now + 200);
    if version == 1 {
        payment = json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payment["payload"] });
    }
    let header = forge::header(&payment);
    let header = vec![header.as_bytes()];
    let headers = if version == 1 { PaymentHeaders { v1: header, v2: vec![] } } else { PaymentHeaders { v1: vec![], v2: header } };
    let payment = decode(&headers).expect("the header is well formed").expect("there is a payment");
    match_payment(&payment, &quote, "http://127.0.0.1/services/x", now, |_| true).expect("it matches")
}

async fn ask(facilitator: &Facilitator, step: &str, payment: &MatchedPayment) -> Value {
    let request = http().post(format!("{}/{step}", facilitator.url)).header("content-type", "application/json");
    request.body(payment.facilitator_body.clone()).send().await.expect("it answers").json().await.expect("in JSON")
}
