//! Attacks on the moment at which money moves.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use http::StatusCode;
use obol_offer::{Address, B256};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{ledger::*, support::*};

const PRICE: u64 = 1_000;

fn payer() -> Address {
    obol_x402::eip3009::address_of(&key())
}

fn payee() -> Address {
    PAYEE.parse().unwrap()
}

fn nonce_of(payment: &str) -> B256 {
    let payment: Value = serde_json::from_slice(&STANDARD.decode(payment).unwrap()).unwrap();
    payment["payload"]["authorization"]["nonce"].as_str().unwrap().parse().unwrap()
}

fn says(got: &Got) -> (u16, String) {
    let json = got.json();
    let code = if got.status == StatusCode::PAYMENT_REQUIRED { &json["code"] } else { &json["error"] };
    (got.status.as_u16(), code.as_str().unwrap_or_default().to_owned())
}

/// "Five Attacks", replay: one payment was good for 248 answers of a live endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_payment_buys_one_of_248_answers() {
    let market = Market::open().await;
    let (in_a_row, at_once) = (market.shop.payment(), market.shop.payment());
    let mut granted = 0;
    for _ in 0..248 {
        granted += u32::from(market.shop.get_paid("/services/a/x", &in_a_row).await.status == StatusCode::OK);
    }
    assert_eq!((granted, market.shop.upstream.heads(), market.ledger.balance(payee())), (1, 1, PRICE));

    let answers = join_all((0..248).map(|_| market.shop.get_paid("/services/a/x", &at_once))).await;
    let granted = answers.iter().filter(|got| got.status == StatusCode::OK).count();
    assert_eq!((granted, market.shop.upstream.heads(), market.ledger.balance(payee())), (1, 2, 2 * PRICE));
    assert!(answers.iter().all(|got| matches!(got.status.as_u16(), 200 | 409)));
}

/// "Five Attacks", grant before final: the answer is there, and leaves only when the money is.
#[tokio::test]
async fn nothing_of_an_answer_leaves_before_it_is_settled() {
    let market = Market::open().await;
    *market.ledger.hold.lock().unwrap() = true;
    let mut stream = connect(&market.shop).await;
    let request = format!("GET /services/a/x HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {}\r\n\r\n", market.shop.payment());
    stream.write_all(request.as_bytes()).await.unwrap();
    market.ledger.begun.notified().await;
    assert_eq!(market.shop.upstream.heads(), 1, "the answer is there");
    let mut some = [0; 64];
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut some)).await;
    assert!(early.is_err(), "{early:?}");
    market.ledger.go.notify_one();
    let count = stream.read(&mut some).await.unwrap();
    assert!(some[..count].starts_with(b"HTTP/1.1 200 "));
    assert_eq!(market.ledger.balance(payee()), PRICE);
}

/// "Five Attacks", caller-unbound settlement: anybody may send the buyer's authorization to the
/// token, and the facilitator then fails on a used nonce although the seller was paid.
#[tokio::test]
async fn a_payment_settled_by_somebody_else_is_neither_free_nor_lost() {
    let market = Market::open().await;
    *market.ledger.hold.lock().unwrap() = true;
    let payment = market.shop.payment();
    let attack = async {
        market.ledger.begun.notified().await;
        market.ledger.transfer(payer(), payee(), PRICE, nonce_of(&payment)).unwrap();
        *market.ledger.hold.lock().unwrap() = false;
        market.ledger.go.notify_one();
    };
    let (got, ()) = tokio::join!(market.shop.get_paid("/services/a/x", &payment), attack);
    // Not a 402, to which an honest buyer would sign a second payment.
    assert_eq!(says(&got), (503, "settlement_unknown".into()));
    assert!(got.json()["retriable"] == true && !got.text().contains("hello") && !got.headers.contains_key("payment-required"));
    assert_eq!(market.ledger.balance(payee()), PRICE, "the seller was paid");

    // The chain says so: the same payment then shows its receipt, and is on the list of what is owed.
    let receipt = loop {
        let again = market.shop.get_paid("/services/a/x", &payment).await;
        match says(&again) {
            (503, _) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => {
                assert_eq!(other, (409, "payment_already_used".into()));
                break again.decoded("payment-response");
            }
        }
    };
    assert_eq!((receipt["success"].as_bool(), receipt["transaction"].as_str()), (Some(true), Some(&*nonce_of(&payment).to_string())));
    assert_eq!((market.shop.upstream.heads(), market.cashier.stats().owed), (1, 1));
    assert_eq!((market.ledger.transfers(), market.ledger.balance(payee())), (1, PRICE));
}

/// The same before we have seen the payment at all. It may have bought something of the same payee
/// elsewhere, so nothing is served; the chain shows that the seller was paid, so no 402 asks for more.
#[tokio::test]
async fn a_payment_settled_before_it_came_buys_nothing() {
    let market = Market::open().await;
    let payment = market.shop.payment();
    market.ledger.transfer(payer(), payee(), PRICE, nonce_of(&payment)).unwrap();
    let got = market.shop.get_paid("/services/a/x", &payment).await;
    assert_eq!(says(&got), (409, "payment_spent".into()));
    assert_eq!(
        (got.json()["transaction"].as_str(), got.json()["retriable"].as_bool()),
        (Some(&*nonce_of(&payment).to_string()), Some(false))
    );
    assert!(got.json()["hint"].as_str().unwrap().contains("refund") && !got.headers.contains_key("payment-required"));
    assert_eq!((market.shop.upstream.heads(), market.ledger.settles.load(SeqCst)), (0, 0));

    // A nonce that its payer cancelled paid nobody: that one may sign anew.
    let cancelled = market.shop.payment();
    market.ledger.cancel(nonce_of(&cancelled));
    let got = market.shop.get_paid("/services/a/x", &cancelled).await;
    assert_eq!(says(&got), (402, "payment_invalid".into()));
    assert!(got.json()["error"].as_str().unwrap().contains("nonce_already_used"));
    // Nor did one that went to somebody else.
    let elsewhere = market.shop.payment();
    market.ledger.transfer(payer(), payer(), PRICE, nonce_of(&elsewhere)).unwrap();
    assert_eq!(says(&market.shop.get_paid("/services/a/x", &elsewhere).await), (402, "payment_invalid".into()));
    assert_eq!((market.shop.upstream.heads(), market.ledger.settles.load(SeqCst)), (0, 0));
}

/// "Free-Riding", allowance overdraft: one balance, verified for many payments at once.
#[tokio::test]
async fn a_balance_for_one_answer_buys_one_of_eight() {
    let market = Market::open().await;
    market.ledger.set_balance(payer(), PRICE);
    let payments: Vec<_> = (0..8).map(|_| market.shop.payment()).collect();
    let paths: Vec<_> = (0..8).map(|i| format!("/services/a/slow?{i}")).collect();
    let slow = payments.iter().zip(&paths).map(|(payment, path)| market.shop.get_paid(path, payment));
    let answers = join_all(slow).await;
    let granted: Vec<_> = answers.iter().filter(|got| got.status == StatusCode::OK).collect();
    assert_eq!((granted.len(), market.ledger.balance(payee()), market.ledger.balance(payer())), (1, PRICE, 0));
    for got in answers.iter().filter(|got| got.status != StatusCode::OK) {
        assert!(got.text() != "slow" && got.status == StatusCode::PAYMENT_REQUIRED, "{}", got.text());
    }
    // What the attack costs is the upstream's work, which `limits.maxInFlight` bounds.
    assert!(market.shop.upstream.heads() <= 8);
}

/// "Free-Riding", allowance overdraft: the funds leave between verify and settle.
#[tokio::test]
async fn funds_that_leave_after_verify_withhold_the_answer() {
    let market = Market::open().await;
    *market.ledger.hold.lock().unwrap() = true;
    let payment = market.shop.payment();
    let attack = async {
        market.ledger.begun.notified().await;
        market.ledger.set_balance(payer(), 0);
        *market.ledger.hold.lock().unwrap() = false;
        market.ledger.go.notify_one();
    };
    let (got, ()) = tokio::join!(market.shop.get_paid("/services/a/x", &payment), attack);
    assert_eq!(says(&got), (402, "settlement_refused".into()));
    assert!(!got.text().contains("hello"));
    assert_eq!(got.decoded("payment-response")["errorReason"], "insufficient_funds");
    assert_eq!(market.ledger.balance(payee()), 0);
}

/// "Free-Riding", denial of settlement: the buyer cancels once the answer is computed.
#[tokio::test]
async fn an_authorization_cancelled_after_verify_withholds_the_answer() {
    let market = Market::open().await;
    *market.ledger.hold.lock().unwrap() = true;
    let payment = market.shop.payment();
    let attack = async {
        market.ledger.begun.notified().await;
        market.ledger.cancel(nonce_of(&payment));
        *market.ledger.hold.lock().unwrap() = false;
        market.ledger.go.notify_one();
    };
    let (got, ()) = tokio::join!(market.shop.get_paid("/services/a/x", &payment), attack);
    assert_eq!(says(&got), (503, "settlement_unknown".into()), "it might have been settled by somebody else");
    assert!(!got.text().contains("hello"));
    // The chain shows that it never can be: closed, and a new payment is welcome.
    until("looked up", || market.cashier.stats().unknown_now == 0).await;
    let again = market.shop.get_paid("/services/a/x", &payment).await;
    assert_eq!(again.status, StatusCode::PAYMENT_REQUIRED, "{}", again.text());
    assert_eq!(market.shop.get_paid_patiently("/services/a/x", &market.shop.payment()).await.status, StatusCode::OK);
    assert_eq!((market.ledger.transfers(), market.ledger.balance(payee())), (1, PRICE));
}

/// "Free-Riding", denial of settlement: a buyer who never reads has paid before there is anything to read.
#[tokio::test]
async fn a_buyer_who_reads_nothing_has_paid() {
    let market = Market::open().await;
    let mut stream = connect(&market.shop).await;
    let request = format!("GET /services/a/big HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {}\r\n\r\n", market.shop.payment());
    stream.write_all(request.as_bytes()).await.unwrap();
    until("settled", || market.cashier.stats().settled == 1).await;
    assert_eq!(market.ledger.balance(payee()), PRICE);
    drop(stream);
    until("owed", || market.cashier.stats().owed == 1).await;
}
