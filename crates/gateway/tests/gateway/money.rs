//! Paid requests: never served unpaid, never charged for nothing, never charged twice.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use obol_offer::Terms;
use obol_reconcile::{Entry, RouteTable};
use obol_x402::{Quote, Version};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;

use crate::support::*;

#[tokio::test]
async fn both_versions_pay() {
    let shop = Shop::open().await;
    for (header, payment) in [("payment-signature", pay_v2(&shop.terms())), ("x-payment", pay_v1(&shop.terms()))] {
        let got = shop.send(shop.request("POST", "/services/a/x?q=1").header(header, payment), "the body").await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "hello"), "{header}");
        let (v2, v1) = (got.decoded("payment-response"), got.decoded("x-payment-response"));
        assert_eq!((&v2["success"], &v2["transaction"], &v2["network"]), (&true.into(), &HASH.into(), &"eip155:84532".into()));
        assert_eq!((&v1["success"], &v1["transaction"], &v1["network"]), (&true.into(), &HASH.into(), &"base-sepolia".into()));
        assert_eq!(got.header("cache-control"), "private, no-store");
        assert!(got.header("server-timing").contains("settle;dur="));
        let seen = shop.upstream.last();
        assert_eq!((seen.method.as_str(), seen.target.as_str(), &*seen.body), ("POST", "/x?q=1", &b"the body"[..]));
        let payer = obol_x402::eip3009::address_of(&key()).to_string();
        assert_eq!(seen.headers["x-obol-payer"], payer);
        assert!(seen.headers["x-obol-payment"].to_str().unwrap().starts_with("eip155:84532/"));
        assert!(!seen.headers.contains_key(header));
    }
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (2, 2));
    assert_eq!(*shop.facilitator.versions.lock().unwrap(), [Version::V2, Version::V1]);
    until("both delivered", || shop.cashier.stats().delivered == 2).await;
}

#[tokio::test]
async fn a_used_payment_buys_nothing_more() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::OK);
    let again = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!((again.status, again.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_already_used")));
    assert_eq!((again.decoded("payment-response")["transaction"].as_str(), again.json()["transaction"].as_str()), (Some(HASH), Some(HASH)));
    let other = shop.get_paid("/services/a/y", &payment).await;
    assert_eq!((other.status, other.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_for_other_request")));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}

#[tokio::test]
async fn eight_copies_at_once_run_the_upstream_once() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let copies = (0..8).map(|_| shop.get_paid("/services/a/slow", &payment));
    let statuses: Vec<_> = futures_util::future::join_all(copies).await.iter().map(|got| got.status).collect();
    assert_eq!(statuses.iter().filter(|s| **s == StatusCode::OK).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == StatusCode::CONFLICT).count(), 7, "{statuses:?}");
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}

#[tokio::test]
async fn a_copy_for_another_request_is_told_to_come_back() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let second = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shop.get_paid("/services/a/x", &payment).await
    };
    let (first, second) = tokio::join!(shop.get_paid("/services/a/slow", &payment), second);
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::CONFLICT));
    assert_eq!((second.json()["error"].as_str(), second.json()["retriable"].as_bool()), (Some("payment_in_progress"), Some(true)));
    assert!(!second.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_failed_upstream_is_not_charged_and_the_payment_stays_good() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    for (path, status) in [("500", 500), ("404", 404), ("402", 502)] {
        let got = shop.get_paid(&format!("/services/a/{path}"), &payment).await;
        assert_eq!(got.status.as_u16(), status, "{path}");
        assert!(!got.headers.contains_key("payment-response") && !got.headers.contains_key("payment-required"), "{path}");
        if path == "402" {
            assert_eq!(got.json()["error"], "upstream_payment_required");
        }
    }
    assert_eq!(shop.facilitator.begun(), 0);
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::OK);
    assert_eq!(shop.facilitator.settles(), 1);
}

#[tokio::test]
async fn redirects_and_not_modified_are_charged() {
    let shop = Shop::open().await;
    for (path, status) in [("304", StatusCode::NOT_MODIFIED), ("204", StatusCode::NO_CONTENT)] {
        let payment = shop.payment();
        let got = shop.get_paid(&format!("/services/a/{path}"), &payment).await;
        assert_eq!((got.status, got.decoded("payment-response")["success"].as_bool()), (status, Some(true)));
    }
    let payment = shop.payment();
    let head = shop.send(shop.request("HEAD", "/services/a").header("payment-signature", payment), "").await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "5"));
    until("bodiless answers are delivered", || shop.cashier.stats().delivered == 3).await;
}

#[tokio::test]
async fn a_buyer_who_leaves_during_settlement_has_paid() {
    let shop = Shop::open().await;
    *shop.facilitator.hold.lock().unwrap() = true;
    let payment = shop.payment();
    let mut stream = connect(&shop).await;
    let request = format!("GET /services/a/x HTTP/1.1\r\nHost: {}\r\nPAYMENT-SIGNATURE: {payment}\r\n\r\n", shop.addr);
    stream.write_all(request.as_bytes()).await.unwrap();
    until("settlement begun", || shop.facilitator.begun() == 1).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    shop.facilitator.go.notify_one();
    until("settled and owed", || shop.cashier.stats().settled == 1 && shop.cashier.stats().owed == 1).await;
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.json()["error"], "payment_already_used");
}

#[tokio::test]
async fn a_buyer_who_leaves_before_the_answer_has_not() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let mut stream = connect(&shop).await;
    let request = format!("GET /services/a/never HTTP/1.1\r\nHost: {}\r\nPAYMENT-SIGNATURE: {payment}\r\n\r\n", shop.addr);
    stream.write_all(request.as_bytes()).await.unwrap();
    until("the upstream works", || shop.upstream.heads() == 1).await;
    drop(stream);
    until("the upstream's work is cancelled", || shop.upstream.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    until("released", || shop.cashier.stats().released == 1).await;
    assert_eq!((shop.facilitator.begun(), shop.get_paid_patiently("/services/a/x", &payment).await.status), (0, StatusCode::OK));
}

#[tokio::test]
async fn a_refused_settlement_asks_again_and_shows_no_answer() {
    let shop = Shop::open().await;
    *shop.facilitator.settle.lock().unwrap() = Settle::Refuse;
    let payment = shop.payment();
    let got = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED);
    let receipt = got.decoded("payment-response");
    assert_eq!((receipt["success"].as_bool(), receipt["errorReason"].as_str()), (Some(false), Some("insufficient_funds")));
    assert_eq!((&got.json()["code"], &got.json()["retriable"]), (&"settlement_refused".into(), &false.into()));
    assert_eq!(got.decoded("payment-required")["accepts"][0]["amount"], "1000");
    assert!(!got.text().contains("hello"));
}

#[tokio::test]
async fn an_unknown_settlement_is_never_a_402() {
    let shop = Shop::open().await;
    for (mode, hash) in [(Settle::Unknown, None), (Settle::UnknownWithHash, Some(HASH))] {
        *shop.facilitator.settle.lock().unwrap() = mode;
        let payment = shop.payment();
        let path = format!("/services/a/{mode:?}");
        for _ in 0..3 {
            let got = shop.get_paid(&path, &payment).await;
            assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("settlement_unknown")));
            assert_eq!((got.json()["transaction"].as_str(), got.json()["retriable"].as_bool()), (hash, Some(true)));
            assert!(!got.header("retry-after").is_empty() && !got.headers.contains_key("payment-required"));
        }
    }
    assert_eq!((shop.facilitator.settles(), shop.upstream.heads()), (2, 2));
}

#[tokio::test]
async fn a_settlement_that_was_never_asked_moves_nothing() {
    let shop = Shop::open().await;
    *shop.facilitator.settle.lock().unwrap() = Settle::NotAsked;
    let payment = shop.payment();
    let got = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("facilitator_unavailable")));
    *shop.facilitator.settle.lock().unwrap() = Settle::Pay;
    assert_eq!(shop.get_paid_patiently("/services/a/x", &payment).await.status, StatusCode::OK);
}

/// Without a chain to read, a facilitator's "used already" may mean that the seller was paid.
#[tokio::test]
async fn a_nonce_used_before_it_came_is_no_402() {
    let shop = Shop::open().await;
    *shop.facilitator.invalid.lock().unwrap() = Some("invalid_exact_evm_nonce_already_used");
    let got = shop.get_paid("/services/a/x", &shop.payment()).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_spent")));
    assert!(!got.headers.contains_key("payment-required") && got.json()["hint"].as_str().unwrap().contains("refund"));
    *shop.facilitator.invalid.lock().unwrap() = Some("invalid_exact_evm_transaction_simulation_failed");
    let got = shop.get_paid("/services/a/x", &shop.payment()).await;
    assert_eq!((got.status, got.json()["code"].as_str()), (StatusCode::PAYMENT_REQUIRED, Some("payment_invalid")));
}

#[tokio::test]
async fn the_facilitators_verdict_counts() {
    let shop = Shop::open().await;
    *shop.facilitator.invalid.lock().unwrap() = Some("insufficient_funds");
    let payment = shop.payment();
    let got = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!((got.status, got.json()["code"].as_str()), (StatusCode::PAYMENT_REQUIRED, Some("payment_invalid")));
    assert!(got.json()["error"].as_str().unwrap().contains("insufficient_funds"));
    *shop.facilitator.invalid.lock().unwrap() = None;
    *shop.facilitator.unavailable.lock().unwrap() = true;
    let payment = shop.payment();
    let got = shop.get_paid("/services/a/x", &payment).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("facilitator_unavailable")));
    assert_eq!(shop.get("/services/a").await.status, StatusCode::PAYMENT_REQUIRED, "a challenge waits for nobody");
    assert_eq!(shop.upstream.heads(), 0);
}

#[tokio::test]
async fn payments_for_other_terms_are_refused_with_the_reason() {
    let shop = Shop::open().await;
    let terms = shop.terms();
    let mut cheap = terms.clone();
    cheap.amount = 999.into();
    let mut elsewhere = terms.clone();
    elsewhere.pay_to = obol_x402::eip3009::address_of(&key());
    let mut mainnet = terms.clone();
    mainnet.network = obol_offer::Network::find("base").unwrap();
    mainnet.asset = mainnet.network.default_asset();
    for wrong in [&cheap, &elsewhere, &mainnet] {
        let got = shop.get_paid("/services/a/x", &pay_v2(wrong)).await;
        assert_eq!((got.status, got.json()["code"].as_str()), (StatusCode::PAYMENT_REQUIRED, Some("no_matching_requirement")));
        assert!(got.decoded("payment-required")["error"].as_str().unwrap().starts_with("no_matching_requirement"));
    }
    for (garbage, code) in [("%%%", "payment_header_not_base64"), ("e30=", "payment_malformed"), ("aGk=", "payment_malformed")] {
        let got = shop.get_paid("/services/a/x", garbage).await;
        assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::BAD_REQUEST, Some(code)), "{}", got.text());
    }
    let twice = shop.request("GET", "/services/a").header("payment-signature", shop.payment()).header("x-payment", pay_v1(&terms));
    assert_eq!(shop.send(twice, "").await.json()["error"], "payment_header_repeated");
    assert_eq!((shop.upstream.heads(), shop.facilitator.begun()), (0, 0));
}

#[tokio::test]
async fn the_price_before_an_edit_stays_good_for_a_while() {
    let shop = Shop::open().await;
    let old = shop.entry();
    let raise = |until: OffsetDateTime| {
        let mut terms = shop.terms();
        terms.amount = 5000.into();
        let quote = Quote::new(vec![terms], old.quote.as_ref().unwrap().info().clone());
        let entry = Entry { quote: Some(quote), previous: Some((old.clone(), until)), ..Entry::clone(&old) };
        let mut builder = RouteTable::builder();
        builder.insert(Arc::new(entry));
        shop.table.store(Some(Arc::new(builder.build())));
    };
    let (good, late) = (pay_v2(&shop.terms()), pay_v2(&shop.terms()));
    raise(OffsetDateTime::now_utc() + Duration::from_secs(60));
    assert_eq!(shop.get_paid("/services/a/x", &good).await.status, StatusCode::OK);
    raise(OffsetDateTime::now_utc() - Duration::from_secs(1));
    let got = shop.get_paid("/services/a/x", &late).await;
    assert_eq!(
        (got.status, got.decoded("payment-required")["accepts"][0]["amount"].as_str()),
        (StatusCode::PAYMENT_REQUIRED, Some("5000"))
    );
}

#[tokio::test]
async fn a_payment_of_open_outcome_is_never_a_402_even_when_it_is_no_longer_asked_for() {
    let shop = Shop::open().await;
    let (v1, v2, used, unused) = (pay_v1(&shop.terms()), shop.payment(), shop.payment(), shop.payment());
    assert_eq!(shop.get_paid("/services/a/used", &used).await.status, StatusCode::OK);
    *shop.facilitator.settle.lock().unwrap() = Settle::UnknownWithHash;
    let send_v1 = || shop.send(shop.request("GET", "/services/a/one").header("x-payment", &v1), "");
    assert_eq!(send_v1().await.json()["error"], "settlement_unknown");
    assert_eq!(shop.get_paid("/services/a/two", &v2).await.json()["error"], "settlement_unknown");

    // The price changes, and the old one is no longer good.
    let old = shop.entry();
    let dearer = Terms { amount: 5000.into(), ..shop.terms() };
    let quote = Quote::new(vec![dearer], old.quote.as_ref().unwrap().info().clone());
    let mut builder = RouteTable::builder();
    builder.insert(Arc::new(Entry { quote: Some(quote), previous: None, ..Entry::clone(&old) }));
    shop.table.store(Some(Arc::new(builder.build())));

    for got in [send_v1().await, shop.get_paid("/services/a/two", &v2).await] {
        assert_eq!((got.status, got.json()["transaction"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some(HASH)), "{}", got.text());
        assert!(!got.headers.contains_key("payment-required"));
    }
    let got = shop.get_paid("/services/a/used", &used).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_already_used")));
    assert_eq!(shop.get_paid("/services/a/x", &unused).await.status, StatusCode::PAYMENT_REQUIRED);
}

#[tokio::test]
async fn a_payment_is_bound_to_the_body() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let post = || shop.request("POST", "/services/a/500").header("payment-signature", &payment);
    assert_eq!(shop.send(post(), "one").await.status.as_u16(), 500);
    assert_eq!(shop.get_paid("/services/a/x", &payment).await.status, StatusCode::OK);
    let paid = shop.payment();
    let post = || shop.request("POST", "/services/a/x").header("payment-signature", &paid);
    assert_eq!(shop.send(post(), "one").await.status, StatusCode::OK);
    assert_eq!(shop.send(post(), "one").await.json()["error"], "payment_already_used");
    assert_eq!(shop.send(post(), "two").await.json()["error"], "payment_for_other_request");
}
