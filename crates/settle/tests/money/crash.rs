//! What a crash leaves behind, and what becomes of it.

use std::sync::atomic::Ordering::SeqCst;

use obol_settle::{Captured, Refusal, SettleOutcome};

use crate::support::*;

/// Copies the journal while a settlement is under way, as a crash would leave it.
#[tokio::test]
async fn a_crash_while_settling_is_unknown_until_the_facilitator_says_success() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (facilitator, gate) = Scripted::gated();
    let cashier = open(before.path(), &facilitator, NEVER).await;
    let capture = tokio::spawn(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture());
    facilitator.asked.notified().await;
    std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();

    let reborn = Scripted::settling([
        SettleOutcome::NotAsked { cause: "down".into() },
        SettleOutcome::Refused { reason: "nonce_already_used".into() },
        SettleOutcome::Settled(receipt()),
    ]);
    let hold = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    *reborn.gate.lock().unwrap() = Some(std::sync::Arc::clone(&hold));
    let second = open(after.path(), &reborn, SOON).await;
    let again = |n: u64| second.admit(&ORDER, payment(n), &[], REQUEST);
    assert_eq!(again(1).await.unwrap_err(), Refusal::Unsettled { transaction: None });
    assert_eq!(again(2).await.unwrap_err(), Refusal::Unsettled { transaction: None }, "no second payment while one is unknown");
    hold.add_permits(3);
    until("resolved", async || second.stats().unknown_now == 0).await;
    assert_eq!(again(1).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(reborn.settled.load(SeqCst), 3);
    assert_eq!(reborn.verified.load(SeqCst), 0);

    gate.add_permits(1);
    assert!(matches!(capture.await.unwrap(), Captured::Settled(..)));
}

static ORDER: std::sync::LazyLock<obol_offer::OfferName> = std::sync::LazyLock::new(offer);

#[tokio::test]
async fn a_crash_before_settling_charges_nothing() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let facilitator = Scripted::new();
    let cashier = open(before.path(), &facilitator, NEVER).await;
    let _permit = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap();
    std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();
    let second = open(after.path(), &facilitator, SOON).await;
    assert!(second.admit(&offer(), payment(1), &[], REQUEST).await.is_ok());
    assert_eq!(facilitator.settled.load(SeqCst), 0);
}

#[tokio::test]
async fn a_crash_between_settled_and_delivered_is_owed() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let facilitator = Scripted::new();
    let cashier = open(before.path(), &facilitator, NEVER).await;
    let captured = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture().await;
    cashier.drain().await;
    std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();
    drop(captured);
    let second = open(after.path(), &facilitator, SOON).await;
    assert_eq!(second.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(facilitator.settled.load(SeqCst), 1);
}
