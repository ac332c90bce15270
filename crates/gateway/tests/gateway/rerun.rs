//! Offers that run a lost request once more.

use http::StatusCode;
use obol_gateway::GatewayConfig;
use obol_offer::{DeliverySpec, OnLost};
use tokio::io::AsyncWriteExt;

use crate::support::*;

async fn shop() -> Shop {
    let delivery = DeliverySpec { on_lost: OnLost::Rerun, ..DeliverySpec::default() };
    Shop::with(GatewayConfig::default(), |spec| spec.delivery = Some(delivery)).await
}

/// Pays for `path`, and is gone before the answer leaves.
async fn lose(shop: &Shop, path: &str, payment: &str) {
    let owed = shop.cashier.stats().owed;
    *shop.facilitator.hold.lock().unwrap() = true;
    let begun = shop.facilitator.begun();
    let mut cut = connect(shop).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nPAYMENT-SIGNATURE: {payment}\r\n\r\n", shop.addr);
    cut.write_all(request.as_bytes()).await.unwrap();
    until("settling", || shop.facilitator.begun() == begun + 1).await;
    drop(cut);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    *shop.facilitator.hold.lock().unwrap() = false;
    shop.facilitator.go.notify_one();
    until("owed", || shop.cashier.stats().owed == owed + 1).await;
}

#[tokio::test]
async fn a_lost_request_runs_once_more_and_charges_nothing() {
    let shop = shop().await;
    let payment = shop.payment();
    lose(&shop, "/services/a/x", &payment).await;
    let other = shop.get_paid("/services/a/y", &payment).await;
    assert_eq!((other.status, other.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_for_other_request")));
    let again = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!((again.status, again.text()), (StatusCode::OK, "hello"));
    assert_eq!(again.decoded("payment-response")["transaction"], HASH);
    until("delivered", || shop.cashier.stats().delivered == 1).await;
    let third = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!((third.status, third.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_already_used")));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (2, 1));
}

#[tokio::test]
async fn hostile_copies_of_a_lost_payment_get_one_more_run() {
    let shop = shop().await;
    let payment = shop.payment();
    lose(&shop, "/services/a/x", &payment).await;
    let copies = (0..8).map(|_| shop.get_paid("/services/a/x", &payment));
    let answers = futures_util::future::join_all(copies).await;
    assert_eq!(answers.iter().filter(|got| got.status == StatusCode::OK).count(), 1);
    assert!(answers.iter().all(|got| matches!(got.status.as_u16(), 200 | 409)));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (2, 1));
}

#[tokio::test]
async fn hostile_a_second_run_that_gets_lost_is_the_last() {
    let shop = shop().await;
    let payment = shop.payment();
    lose(&shop, "/services/a/big", &payment).await;
    let mut cut = connect(&shop).await;
    let request = format!("GET /services/a/big HTTP/1.1\r\nHost: {}\r\nPAYMENT-SIGNATURE: {payment}\r\n\r\n", shop.addr);
    cut.write_all(request.as_bytes()).await.unwrap();
    until("run again", || shop.upstream.heads() == 2).await;
    drop(cut);
    until("lost", || shop.cashier.stats().owed == 2).await;
    let third = shop.get_paid("/services/a/big", &payment).await;
    assert_eq!((third.status, third.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_already_used")));
    assert!(third.json()["hint"].as_str().unwrap().contains("refund"));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (2, 1));
}

#[tokio::test]
async fn an_offer_that_does_not_say_so_runs_nothing_twice() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    lose(&shop, "/services/a/x", &payment).await;
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::CONFLICT);
    assert_eq!(shop.upstream.heads(), 1);
}
