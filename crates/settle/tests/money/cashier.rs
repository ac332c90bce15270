//! Admission and capture with a facilitator in the process.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use futures_util::future::BoxFuture;
use obol_offer::Amount;
use obol_settle::{
    Captured, Cashier, CashierConfig, Facilitator, OpenError, PaymentPermit, Receipt, Refusal, SettleOutcome, VerifyOutcome,
};
use obol_x402::{LocalCheck, MatchedPayment};

use crate::support::*;

async fn admit(cashier: &Cashier, payment: MatchedPayment) -> Result<PaymentPermit, Refusal> {
    cashier.admit(&offer(), payment, &[], REQUEST).await
}

fn unknown() -> SettleOutcome {
    SettleOutcome::Unknown { cause: "test".into(), transaction: None }
}

fn pending() -> SettleOutcome {
    SettleOutcome::Pending { transaction: "0xdef".into() }
}

fn refused() -> SettleOutcome {
    SettleOutcome::Refused { reason: "insufficient_funds".into() }
}

#[tokio::test]
async fn a_payment_buys_one_answer() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let permit = admit(&cashier, payment(1)).await.unwrap();
    assert_eq!(permit.payment().replay_key(), payment(1).replay_key());
    let Captured::Settled(paid, delivery) = permit.capture().await else { panic!() };
    assert_eq!(paid, receipt());
    delivery.complete();
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    let other = cashier.admit(&offer(), payment(1), &[], [8; 32]).await;
    assert_eq!(other.unwrap_err(), Refusal::OtherRequest);
    cashier.drain().await;
    let stats = cashier.stats();
    assert_eq!((stats.admitted, stats.settled, stats.delivered, stats.owed, stats.settling_now), (1, 1, 1, 0, 0));
    assert_eq!(stats.refused[1], ("payment_already_used", 1));
    drop(cashier);
    // The journal knows it too.
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(facilitator.settled.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hostile_eight_copies_at_once_get_one_permit() {
    for check in [LocalCheck::SignedByPayer, LocalCheck::Undecided] {
        let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
        let cashier = open(dir.path(), &facilitator, NEVER).await;
        for round in 0..20 {
            let copies: Vec<_> = (0..8)
                .map(|_| {
                    let cashier = cashier.clone();
                    let payment = MatchedPayment { local_check: check, ..payment(round) };
                    tokio::spawn(async move { admit(&cashier, payment).await })
                })
                .collect();
            let mut permits = Vec::new();
            for copy in copies {
                match copy.await.unwrap() {
                    Ok(permit) => permits.push(permit),
                    Err(refusal) => assert_eq!(refusal, Refusal::InProgress),
                }
            }
            assert_eq!(permits.len(), 1, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_permit_given_back_may_be_used_again() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    admit(&cashier, payment(1)).await.unwrap().release().await;
    drop(admit(&cashier, payment(1)).await.unwrap());
    until("the dropped permit is released", async || admit(&cashier, payment(1)).await.is_ok()).await;
    assert_eq!(facilitator.settled.load(SeqCst), 0);
}

#[tokio::test]
async fn a_clean_refusal_may_be_tried_again() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([refused()]));
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let captured = admit(&cashier, payment(1)).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Refused { reason } if reason == "insufficient_funds"));
    cashier.drain().await;
    let captured = admit(&cashier, payment(1)).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Settled(..)));
}

#[tokio::test]
async fn verify_decides_who_is_admitted() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    facilitator.verify.lock().unwrap().extend([
        VerifyOutcome::Invalid { reason: "x".repeat(500) },
        VerifyOutcome::Valid { payer: payment(1).terms.pay_to },
        VerifyOutcome::Unavailable { cause: "down".into() },
    ]);
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::Invalid { reason: "x".repeat(120) });
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::Invalid { reason: "payer_mismatch".into() });
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::FacilitatorUnavailable);
    assert!(admit(&cashier, payment(1)).await.is_ok(), "no refusal keeps a claim");
}

#[tokio::test]
async fn a_forger_cannot_lock_out_or_read_a_payer() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let Captured::Settled(_, delivery) = admit(&cashier, payment(1)).await.unwrap().capture().await else { panic!() };
    delivery.complete();
    cashier.drain().await;
    // The same payer and nonce, another payload, and no valid signature.
    let forged = MatchedPayment { local_check: LocalCheck::Undecided, payload_digest: [7; 32], ..payment(1) };
    facilitator.verify.lock().unwrap().push_back(VerifyOutcome::Invalid { reason: "invalid_signature".into() });
    assert_eq!(admit(&cashier, forged).await.unwrap_err(), Refusal::Invalid { reason: "invalid_signature".into() });
    // A smart wallet's own retry is recognised without asking anybody.
    let asked = facilitator.verified.load(SeqCst);
    let retry = MatchedPayment { local_check: LocalCheck::Undecided, ..payment(1) };
    assert_eq!(admit(&cashier, retry).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(facilitator.verified.load(SeqCst), asked);
}

#[tokio::test]
async fn a_buyer_who_leaves_during_settlement_is_owed() {
    let (facilitator, gate) = Scripted::gated();
    let dir = tempfile::tempdir().unwrap();
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let capture = tokio::spawn(admit(&cashier, payment(1)).await.unwrap().capture());
    facilitator.asked.notified().await;
    capture.abort();
    assert!(capture.await.unwrap_err().is_cancelled());
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::InProgress);
    gate.add_permits(1);
    cashier.drain().await;
    assert_eq!(cashier.stats().owed, 1);
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
}

#[tokio::test]
async fn an_unknown_outcome_is_never_a_failed_one() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([unknown()]));
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    // Another payment for the same request was admitted before the doubt arose.
    let second = admit(&cashier, payment(2)).await.unwrap();
    let captured = admit(&cashier, payment(1)).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Unsettled { transaction: None }));
    let doubt = Refusal::Unsettled { transaction: None };
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), doubt);
    assert_eq!(admit(&cashier, payment(3)).await.unwrap_err(), doubt, "the buyer would pay twice");
    assert!(matches!(second.capture().await, Captured::Unsettled { .. }));
    assert_eq!(facilitator.settled.load(SeqCst), 1, "the second was never settled");
    assert!(cashier.admit(&offer(), payment(4), &[], [8; 32]).await.is_ok(), "another request is another purchase");
    cashier.drain().await;
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), doubt);
    assert_eq!(cashier.stats().unknown_now, 1);
}

#[tokio::test]
async fn receipts_that_do_not_fit_are_unknown() {
    let lies = [
        Receipt { payer: payment(1).terms.pay_to, ..receipt() },
        Receipt { amount: Amount::from(1), ..receipt() },
        Receipt { transaction: String::new(), ..receipt() },
    ];
    let spent = SettleOutcome::Refused { reason: "invalid_exact_evm_nonce_already_used".into() };
    for lie in lies.map(SettleOutcome::Settled).into_iter().chain([spent]) {
        let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([lie.clone()]));
        let cashier = open(dir.path(), &facilitator, NEVER).await;
        let captured = admit(&cashier, payment(1)).await.unwrap().capture().await;
        assert!(matches!(captured, Captured::Unsettled { .. }), "{lie:?}");
        assert!(matches!(admit(&cashier, payment(1)).await, Err(Refusal::Unsettled { .. })), "{lie:?}");
    }
}

#[tokio::test]
async fn a_pending_settlement_is_asked_about_exactly_once_more() {
    let cases = [(SettleOutcome::Settled(receipt()), true), (pending(), false), (refused(), false), (unknown(), false)];
    for (second, settles) in cases {
        let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([pending(), second.clone()]));
        let cashier = open(dir.path(), &facilitator, NEVER).await;
        let captured = admit(&cashier, payment(1)).await.unwrap().capture().await;
        assert_eq!(facilitator.settled.load(SeqCst), 2);
        if settles {
            assert!(matches!(captured, Captured::Settled(..)));
            continue;
        }
        assert!(matches!(captured, Captured::Unsettled { transaction: Some(hash) } if hash == "0xdef"), "{second:?}");
        cashier.drain().await;
        let again = admit(&cashier, payment(1)).await.unwrap_err();
        assert_eq!(again, Refusal::Unsettled { transaction: Some("0xdef".into()) }, "{second:?}");
    }
}

#[tokio::test]
async fn an_unknown_settlement_that_succeeded_is_found_and_owed() {
    let script = [unknown(), refused(), pending(), unknown(), SettleOutcome::Settled(receipt())];
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling(script));
    let cashier = open(dir.path(), &facilitator, SOON).await;
    assert!(matches!(admit(&cashier, payment(1)).await.unwrap().capture().await, Captured::Unsettled { .. }));
    until("the doubt is over", async || cashier.stats().unknown_now == 0).await;
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!((cashier.stats().recovered, cashier.stats().owed), (1, 1));
    assert!(admit(&cashier, payment(2)).await.is_ok(), "the payer may buy again");
}

#[tokio::test]
async fn a_journal_serves_one_cashier() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let first = open(dir.path(), &facilitator, NEVER).await;
    assert!(matches!(Cashier::open(config(dir.path())).await, Err(OpenError::InUse(_))));
    drop(first);
    assert!(Cashier::open(config(dir.path())).await.is_ok());
}

/// Not a measurement on a busy machine: it shows that many payments share a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_payments_at_once_are_each_captured_once() {
    const PAYMENTS: u64 = 2_000;
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let started = std::time::Instant::now();
    let buyers: Vec<_> = (0..PAYMENTS)
        .map(|n| {
            let cashier = cashier.clone();
            tokio::spawn(async move {
                let permit = admit(&cashier, payment(n)).await.unwrap();
                let Captured::Settled(_, delivery) = permit.capture().await else { panic!() };
                delivery.complete();
            })
        })
        .collect();
    for buyer in buyers {
        buyer.await.unwrap();
    }
    cashier.drain().await;
    println!("{PAYMENTS} payments in {:?}", started.elapsed());
    assert_eq!(facilitator.settled.load(SeqCst), 2_000);
    let stats = cashier.stats();
    assert_eq!((stats.settled, stats.delivered), (PAYMENTS, PAYMENTS));
}

/// Verifies, and panics when asked to settle.
struct Panics;

impl Facilitator for Panics {
    fn id(&self) -> &str {
        "panics"
    }
    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        Box::pin(async { VerifyOutcome::Valid { payer: payment.authorization.from } })
    }
    fn settle<'a>(&'a self, _: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        Box::pin(async { panic!("as a test") })
    }
}

#[tokio::test]
async fn a_facilitator_that_panics_leaves_an_unknown_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let local: Vec<(_, Arc<dyn Facilitator>)> = vec![(NETWORK, Arc::new(Panics))];
    let cashier = Cashier::open(CashierConfig { local, ..config(dir.path()) }).await.unwrap();
    assert!(matches!(admit(&cashier, payment(1)).await.unwrap().capture().await, Captured::Unsettled { .. }));
    cashier.drain().await;
    for n in [1, 2] {
        assert_eq!(admit(&cashier, payment(n)).await.unwrap_err(), Refusal::Unsettled { transaction: None }, "{n}");
    }
}

/// A buyer who gives up at any moment of admission leaves nothing behind.
#[tokio::test]
async fn an_admission_that_is_dropped_leaves_no_claim() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    for n in 0..30 {
        let bound = std::time::Duration::from_micros(n * 50);
        drop(tokio::time::timeout(bound, admit(&cashier, payment(n))).await);
        until("it may be used again", async || admit(&cashier, payment(n)).await.is_ok()).await;
    }
}

/// A cashier that holds retries for as long as a test may take.
async fn holding(folder: &std::path::Path, facilitator: &Arc<Scripted>) -> Cashier {
    let local: Vec<(_, Arc<dyn Facilitator>)> = vec![(NETWORK, facilitator.clone())];
    let hold = std::time::Duration::from_secs(60);
    Cashier::open(CashierConfig { local, hold, ..config(folder) }).await.unwrap()
}

#[tokio::test]
async fn retries_are_held_until_the_outcome_of_the_first_is_known() {
    let (facilitator, gate) = Scripted::gated();
    let dir = tempfile::tempdir().unwrap();
    let cashier = holding(dir.path(), &facilitator).await;
    let first = admit(&cashier, payment(1)).await.unwrap();
    let retries: Vec<_> = (0..8)
        .map(|_| {
            let cashier = cashier.clone();
            tokio::spawn(async move { admit(&cashier, payment(1)).await })
        })
        .collect();
    let other = cashier.admit(&offer(), payment(1), &[], [8; 32]).await;
    assert_eq!(other.unwrap_err(), Refusal::InProgress, "another request is not held");
    let capture = tokio::spawn(first.capture());
    facilitator.asked.notified().await;
    assert!(retries.iter().all(|retry| !retry.is_finished()));
    gate.add_permits(1);
    for retry in retries {
        assert_eq!(retry.await.unwrap().unwrap_err(), Refusal::AlreadyUsed(receipt()));
    }
    assert!(matches!(capture.await.unwrap(), Captured::Settled(..)));
    assert_eq!(facilitator.settled.load(SeqCst), 1);
}

#[tokio::test]
async fn a_held_retry_takes_over_when_the_first_gives_up() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = holding(dir.path(), &facilitator).await;
    let first = admit(&cashier, payment(1)).await.unwrap();
    let retry = tokio::spawn({
        let cashier = cashier.clone();
        async move { admit(&cashier, payment(1)).await }
    });
    tokio::task::yield_now().await;
    first.release().await;
    let permit = retry.await.unwrap().unwrap();
    assert!(matches!(permit.capture().await, Captured::Settled(..)));
    assert_eq!(facilitator.settled.load(SeqCst), 1);
}

#[tokio::test]
async fn a_retry_is_not_held_for_ever() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let local: Vec<(_, Arc<dyn Facilitator>)> = vec![(NETWORK, facilitator.clone())];
    let hold = std::time::Duration::from_millis(20);
    let cashier = Cashier::open(CashierConfig { local, hold, ..config(dir.path()) }).await.unwrap();
    let _first = admit(&cashier, payment(1)).await.unwrap();
    assert_eq!(admit(&cashier, payment(1)).await.unwrap_err(), Refusal::InProgress);
}
