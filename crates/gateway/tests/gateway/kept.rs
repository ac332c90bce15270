//! Offers that give a lost answer again.

use http::StatusCode;
use obol_gateway::GatewayConfig;
use obol_offer::{DeliverySpec, OnLost};
use tokio::io::AsyncWriteExt;

use crate::support::*;

async fn shop() -> Shop {
    Shop::with(GatewayConfig::default(), |spec| {
        spec.delivery = Some(DeliverySpec { on_lost: OnLost::StoredAnswer, ..DeliverySpec::default() })
    })
    .await
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_charges_nothing() {
    let shop = shop().await;
    let payment = shop.payment();
    let first = shop.get_paid("/services/a/headers", &payment).await;
    for _ in 0..3 {
        let again = shop.get_paid("/services/a/headers", &payment).await;
        assert_eq!((again.status, again.text()), (StatusCode::OK, first.text()));
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.header("cache-control"), "private, no-store");
        assert_eq!(again.decoded("payment-response"), first.decoded("payment-response"));
        assert_eq!(again.decoded("x-payment-response"), first.decoded("x-payment-response"));
    }
    let other = shop.get_paid("/services/a/other", &payment).await;
    assert_eq!((other.status, other.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_for_other_request")));
    let with_body = shop.send(shop.request("GET", "/services/a/headers").header("payment-signature", &payment), "x").await;
    assert_eq!(with_body.status, StatusCode::CONFLICT, "another body is another request");
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
    until("delivered once", || shop.cashier.stats().delivered == 1).await;
}

#[tokio::test]
async fn a_connection_that_was_cut_loses_nothing() {
    let shop = shop().await;
    let payment = shop.payment();
    *shop.facilitator.hold.lock().unwrap() = true;
    let mut cut = connect(&shop).await;
    let request = format!("GET /services/a/x HTTP/1.1\r\nHost: {}\r\nPAYMENT-SIGNATURE: {payment}\r\n\r\n", shop.addr);
    cut.write_all(request.as_bytes()).await.unwrap();
    until("settling", || shop.facilitator.begun() == 1).await;
    drop(cut);
    *shop.facilitator.hold.lock().unwrap() = false;
    shop.facilitator.go.notify_one();
    until("settled", || shop.cashier.stats().settled == 1).await;
    let copies = (0..8).map(|_| shop.get_paid("/services/a/x", &payment));
    for got in futures_util::future::join_all(copies).await {
        assert_eq!((got.status, got.text(), got.header("idempotent-replayed")), (StatusCode::OK, "hello", "true"));
    }
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}

#[tokio::test]
async fn retries_at_once_run_the_upstream_once_and_all_get_the_answer() {
    let shop = shop().await;
    let payment = shop.payment();
    shop.cashier.recovered().await;
    let first = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!(first.status, StatusCode::OK);
    let copies = (0..8).map(|_| shop.get_paid("/services/a/x", &payment));
    assert!(futures_util::future::join_all(copies).await.iter().all(|got| got.status == StatusCode::OK && got.text() == "hello"));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}

#[tokio::test]
async fn hostile_what_was_not_paid_or_is_too_large_is_not_given_again() {
    let shop = shop().await;
    *shop.facilitator.settle.lock().unwrap() = Settle::Refuse;
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::PAYMENT_REQUIRED);
    *shop.facilitator.settle.lock().unwrap() = Settle::Unknown;
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::SERVICE_UNAVAILABLE, "unknown is not paid");

    *shop.facilitator.settle.lock().unwrap() = Settle::Pay;
    let large = shop.payment();
    assert_eq!(shop.get_paid("/services/a/big", &large).await.status, StatusCode::OK);
    let again = shop.get_paid("/services/a/big", &large).await;
    assert_eq!((again.status, again.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_already_used")));
}

#[tokio::test]
async fn an_offer_that_says_nothing_keeps_nothing() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::OK);
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::CONFLICT);
}
