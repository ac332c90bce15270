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

/// Nobody owes an answer that left before its money was asked for.
#[tokio::test]
async fn a_crash_while_settling_what_has_left_owes_nobody_an_answer() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (facilitator, gate) = Scripted::gated();
    let cashier = open(before.path(), &facilitator, NEVER).await;
    let permit = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap();
    let capture = tokio::spawn(permit.capture_delivered(receipt().amount));
    facilitator.asked.notified().await;
    std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();

    let second = open(after.path(), &Scripted::settling([SettleOutcome::Settled(receipt())]), SOON).await;
    second.recovered().await;
    let stats = second.stats();
    assert_eq!((stats.recovered, stats.delivered, stats.owed), (1, 1, 0));
    assert_eq!(second.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));

    gate.add_permits(1);
    assert!(matches!(capture.await.unwrap(), Captured::Settled(..)));
    let stats = cashier.stats();
    assert_eq!((stats.settled, stats.delivered, stats.owed), (1, 1, 0), "written in one go with the settlement");
}

/// As a crash in the middle of settling leaves it: one payment of unknown outcome.
async fn unknown_in(folder: &std::path::Path) {
    let (before, (facilitator, gate)) = (tempfile::tempdir().unwrap(), Scripted::gated());
    let cashier = open(before.path(), &facilitator, NEVER).await;
    let capture = tokio::spawn(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture());
    facilitator.asked.notified().await;
    std::fs::copy(before.path().join("journal.redb"), folder.join("journal.redb")).unwrap();
    gate.add_permits(1);
    assert!(matches!(capture.await.unwrap(), Captured::Settled(..)));
}

#[tokio::test]
async fn what_was_left_open_is_looked_at_before_ready() {
    let dir = tempfile::tempdir().unwrap();
    unknown_in(dir.path()).await;
    let (facilitator, gate) = Scripted::gated();
    // The clock would not ask for an hour.
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    facilitator.asked.notified().await;
    assert!(!cashier.is_recovered());
    gate.add_permits(1);
    cashier.recovered().await;
    assert!(cashier.is_recovered());
    assert_eq!((cashier.stats().unknown_now, cashier.stats().recovered), (0, 1));
}

#[tokio::test]
async fn a_first_look_that_learns_nothing_does_not_hold_up_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    unknown_in(dir.path()).await;
    let (facilitator, _gate) = Scripted::gated();
    let local: Vec<(_, std::sync::Arc<dyn obol_settle::Facilitator>)> = vec![(NETWORK, facilitator.clone())];
    let first_look = std::time::Duration::from_millis(50);
    let cashier = obol_settle::Cashier::open(obol_settle::CashierConfig { local, first_look, ..config(dir.path()) }).await.unwrap();
    cashier.recovered().await;
    assert_eq!((cashier.stats().unknown_now, facilitator.settled.load(SeqCst)), (1, 1), "asked, and still unknown");
    let refused = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err();
    assert_eq!(refused, Refusal::Unsettled { transaction: None });
    drop(cashier);
    // The row says by now when it is asked about: that is done at once, and not waited for.
    let (silent, gate) = Scripted::gated();
    let cashier = open(dir.path(), &silent, NEVER).await;
    assert!(cashier.is_recovered());
    silent.asked.notified().await;
    assert_eq!(cashier.stats().unknown_now, 1);
    assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), refused);
    gate.add_permits(1);
    until("it is known", async || cashier.stats().unknown_now == 0).await;
}

#[tokio::test]
async fn a_first_look_that_finds_nobody_is_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    unknown_in(dir.path()).await;
    let down = Scripted::settling([SettleOutcome::NotAsked { cause: "down".into() }]);
    let cashier = open(dir.path(), &down, NEVER).await;
    cashier.recovered().await;
    assert_eq!(cashier.stats().unknown_now, 1);
}

#[tokio::test]
async fn a_journal_without_open_payments_is_ready_at_once() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    assert!(open(dir.path(), &facilitator, NEVER).await.is_recovered());
}

/// The buyer was told that nothing was charged: a crash right after that must not make it untrue.
#[tokio::test]
async fn what_was_told_as_never_asked_is_not_asked_after_a_crash() {
    for n in 0..10 {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let facilitator = Scripted::settling([SettleOutcome::NotAsked { cause: "down".into() }]);
        let cashier = open(before.path(), &facilitator, NEVER).await;
        let captured = cashier.admit(&offer(), payment(n), &[], REQUEST).await.unwrap().capture().await;
        std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();
        assert!(matches!(captured, Captured::NotAsked));
        let reborn = Scripted::new();
        let second = open(after.path(), &reborn, SOON).await;
        second.recovered().await;
        assert_eq!((reborn.settled.load(SeqCst), second.stats().unknown_now), (0, 0), "copy {n}");
        assert!(second.admit(&offer(), payment(n), &[], REQUEST).await.is_ok(), "and it may be used");
    }
}
