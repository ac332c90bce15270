//! Answers that are kept for buyers who did not get them.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use obol_settle::{Captured, Refusal, SettleOutcome, StoredAnswer};

use crate::support::*;

fn answer() -> StoredAnswer {
    StoredAnswer { status: 200, headers: vec![("content-type".into(), b"text/plain".to_vec())], body: b"hello".to_vec() }
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_charges_nothing() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let captured = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture_for(Some(answer())).await;
    let again = Refusal::Answered { receipt: receipt(), answer: Arc::new(answer()) };
    assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), again, "while the first is on its way");
    drop(captured);
    cashier.drain().await;
    drop(cashier);
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    for _ in 0..3 {
        assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), again, "after a restart");
    }
    assert_eq!(cashier.admit(&offer(), payment(1), &[], [8; 32]).await.unwrap_err(), Refusal::OtherRequest);
    assert_eq!((facilitator.settled.load(SeqCst), cashier.stats().settled), (1, 0));
}

#[tokio::test]
async fn hostile_an_answer_is_not_given_before_it_is_paid() {
    let refused = SettleOutcome::Refused { reason: "insufficient_funds".into() };
    let unknown = SettleOutcome::Unknown { cause: "test".into(), transaction: None };
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([refused, unknown, SettleOutcome::Settled(receipt())]));
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let captured = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture_for(Some(answer())).await;
    assert!(matches!(captured, Captured::Refused { .. }));
    cashier.drain().await;
    // The refused one may be tried again: there is no answer for it.
    let captured = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture_for(Some(answer())).await;
    assert!(matches!(captured, Captured::Unsettled { .. }));
    assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), Refusal::Unsettled { transaction: None });
    cashier.drain().await;
    drop(cashier);
    // It is found settled: the buyer, who got nothing yet, gets what was kept.
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    until("it is known", async || cashier.stats().unknown_now == 0).await;
    let again = Refusal::Answered { receipt: receipt(), answer: Arc::new(answer()) };
    assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), again);
}

#[tokio::test]
async fn a_crash_while_settling_does_not_lose_the_answer() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (facilitator, gate) = Scripted::gated();
    let cashier = open(before.path(), &facilitator, NEVER).await;
    let capture = tokio::spawn(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture_for(Some(answer())));
    facilitator.asked.notified().await;
    std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();
    let reborn = Scripted::new();
    let second = open(after.path(), &reborn, NEVER).await;
    second.recovered().await;
    let again = Refusal::Answered { receipt: receipt(), answer: Arc::new(answer()) };
    assert_eq!(second.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), again);
    gate.add_permits(1);
    assert!(matches!(capture.await.unwrap(), Captured::Settled(..)));
}
