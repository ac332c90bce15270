//! Purchases that their buyers have named: the x402 extension `payment-identifier`.

use futures_util::future::join_all;
use http::StatusCode;
use obol_gateway::GatewayConfig;
use obol_offer::{DeliverySpec, OnLost, PaymentIdentifier};
use serde_json::json;

use crate::support::*;

const ID: &str = "pay_0123456789abcdef";

async fn shop(payment_identifier: PaymentIdentifier, on_lost: OnLost) -> Shop {
    Shop::with(GatewayConfig::default(), |spec| spec.delivery = Some(DeliverySpec { on_lost, payment_identifier })).await
}

/// A fresh payment, signed anew, for a purchase of that name.
fn named(shop: &Shop, id: &str) -> String {
    pay_v2_with(&shop.terms(), &json!({ "payment-identifier": { "info": { "required": false, "id": id } } }))
}

fn error(got: &Got) -> (u16, String) {
    (got.status.as_u16(), got.json()["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_offer_says_whether_it_takes_identifiers() {
    for (policy, required) in [(PaymentIdentifier::Optional, false), (PaymentIdentifier::Required, true)] {
        let challenge = shop(policy, OnLost::Receipt).await.get("/services/a/x").await.decoded("payment-required");
        let extension = &challenge["extensions"]["payment-identifier"];
        assert_eq!(extension["info"], json!({ "required": required }));
        assert_eq!(extension["schema"]["properties"]["id"]["minLength"], 16);
    }
    let silent = Shop::open().await;
    assert!(silent.get("/services/a/x").await.decoded("payment-required").get("extensions").is_none());
    // And then one that comes is passed over: these are two purchases.
    for _ in 0..2 {
        assert_eq!(silent.get_paid("/services/a/x", &named(&silent, ID)).await.status, StatusCode::OK);
    }
    assert_eq!(silent.facilitator.settles(), 2);
}

#[tokio::test]
async fn a_purchase_that_is_signed_anew_is_charged_once() {
    let shop = shop(PaymentIdentifier::Optional, OnLost::StoredAnswer).await;
    let first = shop.get_paid("/services/a/x", &named(&shop, ID)).await;
    assert_eq!(first.status, StatusCode::OK);
    for _ in 0..3 {
        let again = shop.get_paid("/services/a/x", &named(&shop, ID)).await;
        assert_eq!((again.status, again.text(), again.header("idempotent-replayed")), (StatusCode::OK, first.text(), "true"));
        assert_eq!(again.decoded("payment-response"), first.decoded("payment-response"));
    }
    let other = shop.get_paid("/services/a/y", &named(&shop, ID)).await;
    assert_eq!(error(&other), (409, "payment_identifier_conflict".into()));
    let other = shop.send(shop.request("POST", "/services/a/x").header("payment-signature", named(&shop, ID)), "body").await;
    assert_eq!(error(&other), (409, "payment_identifier_conflict".into()));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
    assert_eq!(shop.get_paid("/services/a/x", &named(&shop, "pay_another_purchase")).await.status, StatusCode::OK);
    assert_eq!(shop.get_paid("/services/a/x", &shop.payment()).await.status, StatusCode::OK, "it is optional");
    assert_eq!(shop.facilitator.settles(), 3);
}

#[tokio::test]
async fn without_a_stored_answer_the_receipt_is_shown() {
    let shop = shop(PaymentIdentifier::Optional, OnLost::Receipt).await;
    let first = shop.get_paid("/services/a/x", &named(&shop, ID)).await;
    let again = shop.get_paid("/services/a/x", &named(&shop, ID)).await;
    assert_eq!(error(&again), (409, "payment_already_used".into()));
    assert_eq!(again.decoded("payment-response"), first.decoded("payment-response"));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_signatures_at_once_are_one_purchase() {
    let shop = shop(PaymentIdentifier::Optional, OnLost::StoredAnswer).await;
    let payments: Vec<_> = (0..8).map(|_| named(&shop, ID)).collect();
    let answers = join_all(payments.iter().map(|payment| shop.get_paid("/services/a/x", payment))).await;
    // Those that are not held long enough on a slow machine are told that it is in progress.
    assert!(answers.iter().all(|got| matches!(got.status.as_u16(), 200 | 409)));
    assert!(answers.iter().any(|got| got.status == StatusCode::OK));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}

/// An identifier is no bearer token: who knows it and cannot sign for its payer learns nothing.
#[tokio::test]
async fn hostile_an_identifier_without_its_payers_signature_buys_and_shows_nothing() {
    let shop = shop(PaymentIdentifier::Optional, OnLost::StoredAnswer).await;
    assert_eq!(shop.get_paid("/services/a/x", &named(&shop, ID)).await.status, StatusCode::OK);
    let forge = |change: &dyn Fn(&mut serde_json::Value)| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut payment: serde_json::Value = serde_json::from_slice(&STANDARD.decode(named(&shop, ID)).unwrap()).unwrap();
        change(&mut payment["payload"]);
        STANDARD.encode(payment.to_string())
    };
    // The payer's address and a new nonce under an old signature: only the facilitator can tell.
    *shop.facilitator.invalid.lock().unwrap() = Some("invalid_exact_evm_payload_signature");
    let forged = forge(&|payload| payload["authorization"]["nonce"] = format!("0x{:064x}", 0xbad).into());
    let got = shop.get_paid("/services/a/x", &forged).await;
    assert_eq!((got.status, got.json()["code"].as_str()), (StatusCode::PAYMENT_REQUIRED, Some("payment_invalid")));
    assert!(!got.text().contains(HASH) && got.decoded("payment-response")["success"] == false);
    // Another payer's purchase of the same name is another purchase.
    *shop.facilitator.invalid.lock().unwrap() = None;
    let stranger = forge(&|payload| payload["authorization"]["from"] = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into());
    let got = shop.get_paid("/services/a/x", &stranger).await;
    assert_eq!((got.status, got.header("idempotent-replayed")), (StatusCode::OK, ""));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (2, 2));
}

#[tokio::test]
async fn an_identifier_is_asked_for_and_checked() {
    let shop = shop(PaymentIdentifier::Required, OnLost::Receipt).await;
    let got = shop.get_paid("/services/a/x", &shop.payment()).await;
    assert_eq!(error(&got), (400, "payment_identifier_required".into()));
    let v1 = shop.send(shop.request("GET", "/services/a/x").header("x-payment", pay_v1(&shop.terms())), "").await;
    assert_eq!(error(&v1), (400, "payment_identifier_required".into()));
    for bad in ["short", "has a space in the middle", &"a".repeat(129)] {
        let got = shop.get_paid("/services/a/x", &named(&shop, bad)).await;
        assert_eq!(error(&got), (400, "payment_identifier_invalid".into()), "{bad}");
    }
    assert_eq!((shop.upstream.heads(), shop.facilitator.verifies.load(std::sync::atomic::Ordering::SeqCst)), (0, 0));
    assert_eq!(shop.get_paid("/services/a/x", &named(&shop, ID)).await.status, StatusCode::OK);
}

/// What was not bought leaves its name free, for the same request and for another.
#[tokio::test]
async fn a_purchase_that_failed_leaves_its_name_free() {
    let shop = shop(PaymentIdentifier::Optional, OnLost::Receipt).await;
    *shop.facilitator.settle.lock().unwrap() = Settle::Refuse;
    assert_eq!(shop.get_paid("/services/a/x", &named(&shop, ID)).await.status, StatusCode::PAYMENT_REQUIRED);
    *shop.facilitator.settle.lock().unwrap() = Settle::Unknown;
    assert_eq!(shop.get_paid("/services/a/y", &named(&shop, ID)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    // Nobody knows yet whether that one was bought, and asking again in the background tells nothing new.
    assert_eq!(error(&shop.get_paid("/services/a/y", &named(&shop, ID)).await), (503, "settlement_unknown".into()));
    assert_eq!(error(&shop.get_paid("/services/a/x", &named(&shop, ID)).await), (409, "payment_identifier_conflict".into()));
    assert_eq!(shop.facilitator.verifies.load(std::sync::atomic::Ordering::SeqCst), 2, "neither of the last two came as far as that");
}
