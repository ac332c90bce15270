//! What is owed: a second run, a refund by hand, and names of purchases across crashes.

use std::sync::atomic::Ordering::SeqCst;

use obol_settle::{Captured, Cashier, PaymentQuery, PaymentState, Refund, RefundError, Refusal, SettleOutcome, StoredAnswer};
use obol_x402::PaymentId;

use crate::support::*;

async fn state(cashier: &Cashier, n: u64) -> PaymentState {
    cashier.payment(&payment(n).replay_key().to_string()).await.unwrap().unwrap().state
}

/// A payment whose answer got lost.
async fn lose(cashier: &Cashier, n: u64) {
    let captured = cashier.admit(&offer(), payment(n), &[], REQUEST).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Settled(..)));
    drop(captured);
    cashier.drain().await;
    assert_eq!(state(cashier, n).await, PaymentState::Owed);
}

#[tokio::test]
async fn a_second_run_is_durable_before_it_begins_and_is_the_last() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let facilitator = Scripted::new();
    let cashier = open(before.path(), &facilitator, NEVER).await;
    lose(&cashier, 1).await;
    let permit = cashier.rerun(payment(1), REQUEST).await.unwrap();
    assert!(permit.is_paid());
    let listed = cashier.export(PaymentQuery::default()).await.unwrap().payments;
    assert_eq!(listed.iter().map(|payment| payment.state).collect::<Vec<_>>(), [PaymentState::Rerunning], "and not as owed besides");
    // As a crash at this moment leaves it: the upstream may have been called.
    std::fs::copy(before.path().join("journal.redb"), after.path().join("journal.redb")).unwrap();
    let second = open(after.path(), &facilitator, NEVER).await;
    assert_eq!(state(&second, 1).await, PaymentState::Lost);
    assert_eq!(second.rerun(payment(1), REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));

    let Captured::Settled(paid, delivery) = permit.capture().await else { panic!() };
    assert_eq!(paid, receipt());
    delivery.complete();
    assert_eq!(state(&cashier, 1).await, PaymentState::Delivered);
    assert_eq!(cashier.rerun(payment(1), REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(facilitator.settled.load(SeqCst), 1);
}

#[tokio::test]
async fn a_run_that_reached_nobody_may_be_tried_again_and_another_may_not() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    lose(&cashier, 1).await;
    assert_eq!(cashier.rerun(payment(1), [8; 32]).await.unwrap_err(), Refusal::OtherRequest);
    cashier.rerun(payment(1), REQUEST).await.unwrap().unsent().await;
    assert_eq!(state(&cashier, 1).await, PaymentState::Owed);
    cashier.rerun(payment(1), REQUEST).await.unwrap().release().await;
    assert_eq!(state(&cashier, 1).await, PaymentState::Lost);
    assert_eq!(cashier.rerun(payment(1), REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
}

#[tokio::test]
async fn hostile_a_second_run_is_for_who_paid() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let permit = cashier.admit(&offer(), payment(2), &[], REQUEST).await.unwrap();
    assert_eq!(cashier.rerun(payment(2), REQUEST).await.unwrap_err(), Refusal::InProgress, "not paid yet");
    assert_eq!(cashier.rerun(payment(3), REQUEST).await.unwrap_err(), Refusal::OtherRequest, "never seen");
    let Captured::Settled(_, delivery) = permit.capture().await else { panic!() };
    assert_eq!(cashier.rerun(payment(2), REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()), "on its way");
    delivery.complete();
    cashier.drain().await;
    lose(&cashier, 1).await;
    let forged = obol_x402::MatchedPayment { payload_digest: [7; 32], ..payment(1) };
    assert_eq!(cashier.rerun(forged, REQUEST).await.unwrap_err(), Refusal::OtherRequest);
}

#[tokio::test]
async fn a_refund_is_noted_once_and_only_where_something_is_owed() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    lose(&cashier, 1).await;
    let key = payment(1).replay_key().to_string();
    let refund = |note: &str| Refund { transaction: Some("0xfeed".into()), note: Some(note.into()) };
    assert!(matches!(cashier.note_refund("eip155:1/x", refund("")).await, Err(RefundError::Unknown)));
    assert!(matches!(cashier.note_refund(&payment(9).replay_key().to_string(), refund("")).await, Err(RefundError::Unknown)));
    assert!(matches!(cashier.note_refund(&key, refund("two\nlines")).await, Err(RefundError::Note)));
    let bad = Refund { transaction: Some("0x ab".into()), note: None };
    assert!(matches!(cashier.note_refund(&key, bad).await, Err(RefundError::Transaction)));
    let noted = cashier.note_refund(&key, refund("by hand")).await.unwrap();
    assert_eq!((noted.state, noted.refund.as_ref().unwrap()), (PaymentState::Refunded, &refund("by hand")));
    assert_eq!(cashier.note_refund(&key, refund("again")).await.unwrap(), noted, "what is noted stays");
    drop(cashier);

    let cashier = open(dir.path(), &facilitator, NEVER).await;
    assert_eq!(cashier.payment(&key).await.unwrap().unwrap(), noted);
    assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(cashier.rerun(payment(1), REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()), "the money is back");
    let Captured::Settled(_, delivery) = cashier.admit(&offer(), payment(2), &[], REQUEST).await.unwrap().capture().await else { panic!() };
    delivery.complete();
    cashier.drain().await;
    let delivered = payment(2).replay_key().to_string();
    assert!(matches!(cashier.note_refund(&delivered, refund("")).await, Err(RefundError::NotOwed(PaymentState::Delivered))));
}

#[tokio::test]
async fn hostile_an_answer_is_not_given_beside_its_refund() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let kept = StoredAnswer { status: 200, headers: Vec::new(), body: b"hello".to_vec() };
    drop(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture_for(Some(kept)).await);
    cashier.drain().await;
    assert!(matches!(cashier.admit(&offer(), payment(1), &[], REQUEST).await, Err(Refusal::Answered { .. })));
    cashier.note_refund(&payment(1).replay_key().to_string(), Refund::default()).await.unwrap();
    assert_eq!(cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
}

#[tokio::test]
async fn a_purchase_signed_anew_is_told_what_the_first_one_bought_where_lost_answers_are_made_again() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let name: PaymentId = "purchase-number-1".parse().unwrap();
    let buy = async |n| cashier.admit_or_rerun(&offer(), payment(n), &[], REQUEST, Some(&name), true).await;
    drop(buy(1).await.unwrap().capture().await);
    cashier.drain().await;
    assert_eq!(buy(2).await.unwrap_err(), Refusal::AlreadyUsed(receipt()), "of the first");
    let again = buy(1).await.unwrap();
    assert!(again.is_paid());
}

#[tokio::test]
async fn a_metered_answer_made_again_is_delivered_when_it_has_left() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    // Charged before it left, as its head said what was used; then it got lost.
    drop(cashier.admit(&offer(), metered(1), &[], REQUEST).await.unwrap().capture().await);
    cashier.drain().await;
    let captured = cashier.rerun(metered(1), REQUEST).await.unwrap().capture_delivered(7.into()).await;
    assert!(matches!(captured, Captured::Settled(..)));
    drop(captured);
    cashier.drain().await;
    let key = metered(1).replay_key().to_string();
    assert_eq!(cashier.payment(&key).await.unwrap().unwrap().state, PaymentState::Delivered);
    assert_eq!(facilitator.settled.load(SeqCst), 1);
}

#[tokio::test]
async fn the_name_of_a_purchase_survives_a_restart() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::new());
    let id: PaymentId = "pay_0123456789abcdef".parse().unwrap();
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let buy = async |cashier: &Cashier, n, request| cashier.admit_named(&offer(), payment(n), &[], request, Some(&id)).await;
    // Released, and so free for another request.
    buy(&cashier, 1, [8; 32]).await.unwrap().release().await;
    let Captured::Settled(..) = buy(&cashier, 2, REQUEST).await.unwrap().capture().await else { panic!() };
    cashier.drain().await;
    drop(cashier);
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let verified = facilitator.verified.load(SeqCst);
    assert_eq!(buy(&cashier, 3, REQUEST).await.unwrap_err(), Refusal::AlreadyUsed(receipt()));
    assert_eq!(buy(&cashier, 4, [8; 32]).await.unwrap_err(), Refusal::OtherPurchase);
    let dearer = obol_x402::MatchedPayment { terms: obol_offer::Terms { amount: 2_000.into(), ..payment(5).terms }, ..payment(5) };
    let refused = cashier.admit_named(&offer(), dearer, &[], REQUEST, Some(&id)).await;
    assert_eq!(refused.unwrap_err(), Refusal::OtherPurchase, "at other terms");
    assert_eq!(facilitator.verified.load(SeqCst), verified, "known before anybody is asked");
    assert!(buy(&cashier, 1, REQUEST).await.is_err(), "a payment that was given back has no claim on its old name");
}

/// A crash while settling: the name stands for something whose outcome nobody knows.
#[tokio::test]
async fn the_name_of_an_unknown_purchase_is_not_free() {
    let (dir, id) = (tempfile::tempdir().unwrap(), "pay_0123456789abcdef".parse::<PaymentId>().unwrap());
    let unknown = SettleOutcome::Unknown { cause: "test".into(), transaction: None };
    let facilitator = Scripted::settling([unknown.clone(), unknown]);
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    let captured = cashier.admit_named(&offer(), payment(1), &[], REQUEST, Some(&id)).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Unsettled { .. }));
    cashier.drain().await;
    drop(cashier);
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    cashier.recovered().await;
    let again = cashier.admit_named(&offer(), payment(2), &[], REQUEST, Some(&id)).await;
    assert_eq!(again.unwrap_err(), Refusal::Unsettled { transaction: None });
    let other = cashier.admit_named(&offer(), payment(3), &[], [8; 32], Some(&id)).await;
    assert_eq!(other.unwrap_err(), Refusal::OtherPurchase);
}
