//! Answers that leave before they are paid, at several cashiers.

use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::join_all;
use obol_settle::{Captured, Cashier, CashierConfig, Refusal, SettleOutcome};

use crate::support::*;

/// What a payer may owe here: one whole unit.
const LIMIT: u64 = 1_000_000;

async fn open(shop: &Shop, name: &str) -> Cashier {
    let config = CashierConfig { max_exposure: 1, ..shop.config(&shop.database.url(), name) };
    let cashier = Cashier::open(config).await.expect("it opens");
    cashier.recovered().await;
    cashier
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_payer_may_owe_is_one_sum_over_all_cashiers() {
    let shop = Shop::new();
    let (a, b) = (open(&shop, "a").await, open(&shop, "b").await);
    let first = admit_payment(&a, metered(1, 600_000), [1; 32]).await.expect("nothing is owed yet");
    let second = async |cashier| admit_payment(cashier, metered(2, 600_000), [2; 32]).await;
    assert_eq!(second(&b).await.map(drop), Err(Refusal::Exposed));
    assert!(admit(&b, 3, [3; 32]).await.is_ok(), "what is paid before it leaves counts nowhere");
    let mut stranger = metered(4, 600_000);
    stranger.authorization.from = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().expect("an address");
    assert!(admit_payment(&b, stranger, [4; 32]).await.is_ok(), "nor what another payer owes");

    // It leaves, and is not paid for.
    shop.next(SettleOutcome::Refused { reason: "insufficient_funds".into() });
    let refused = first.capture_delivered(600_000.into()).await;
    assert!(matches!(refused, Captured::Refused { .. }), "{refused:?}");
    for cashier in [&a, &b] {
        assert_eq!(second(cashier).await.map(drop), Err(Refusal::Exposed));
        let again = admit_payment(cashier, metered(1, 600_000), [1; 32]).await;
        assert_eq!(again.map(drop), Err(Refusal::Exposed), "nor is one payment good for any number of answers");
    }
    let small = admit_payment(&b, metered(1, 300_000), [1; 32]).await.expect("there is room for that much");
    small.release().await;
    assert_eq!(second(&b).await.map(drop), Err(Refusal::Exposed), "the old debt outlives the payment's next use");
    shop.database.query("update obol.payment set updated = updated - 86400000");
    assert!(second(&b).await.is_ok(), "after a day it is forgiven");
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_that_come_at_once_to_two_cashiers_stay_within_the_bound() {
    let shop = Shop::new();
    let cashiers = [open(&shop, "a").await, open(&shop, "b").await];
    for round in 1..=5 {
        let permits = join_all((0..8).map(async |n: usize| {
            let payment = metered(100 * round + n as u64, LIMIT / 3);
            admit_payment(&cashiers[n % 2], payment, [n as u8; 32]).await
        }))
        .await;
        assert_eq!(permits.iter().filter(|permit| permit.is_ok()).count(), 3, "{permits:?}");
        assert!(permits.iter().all(|permit| matches!(permit, Ok(_) | Err(Refusal::Exposed))), "{permits:?}");
        for permit in permits.into_iter().flatten() {
            permit.release().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_left_is_charged_though_another_payment_is_in_doubt() {
    let shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    let left = admit_payment(&a, metered(1, 1_000), REQUEST).await.expect("nothing is in doubt yet");
    shop.next(SettleOutcome::Unknown { cause: "time".into(), transaction: None });
    let doubted = admit(&b, 2, REQUEST).await.expect("a permit").capture().await;
    assert!(matches!(doubted, Captured::Unsettled { .. }));
    let captured = left.capture_delivered(1_000.into()).await;
    assert!(matches!(captured, Captured::Settled(..)), "{captured:?}");
    shop.until("both are written", "delivered unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_left_of_unknown_outcome_is_resolved_by_who_takes_it_over() {
    let shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    let left = admit_payment(&a, metered(1, 1_000), REQUEST).await.expect("a permit");
    shop.next(SettleOutcome::Unknown { cause: "time".into(), transaction: None });
    assert!(matches!(left.capture_delivered(1_000.into()).await, Captured::Unsettled { .. }));
    assert_eq!(shop.states(), "unknown");
    drop(a);
    // Its buyer has had the answer: nothing is owed.
    shop.until("taken over, asked about and paid", "delivered").await;
    assert_eq!(shop.facilitator.asked.load(SeqCst), 2);
    assert_eq!(b.stats().owed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_left_a_gateway_taken_for_dead_is_charged_unless_its_payment_is_used_again() {
    let shop = Shop::new();
    let wire = Wire::start(&shop.database).await;
    let a = Cashier::open(shop.config(&wire.url, "a")).await.expect("it opens");
    let b = shop.open("b").await;
    let left = admit_payment(&a, metered(1, 1_000), REQUEST).await.expect("a permit");
    let used = admit_payment(&a, metered(2, 1_000), REQUEST).await.expect("a permit");
    wire.cut.store(true, SeqCst);
    shop.until("taken over", "released released").await;
    let again = admit_payment(&b, metered(2, 1_000), REQUEST).await.expect("it may be used again");
    // The first tries fail: it is still cut off.
    let left = tokio::spawn(left.capture_delivered(1_000.into()));
    until("a has noticed", async || !a.is_recovered()).await;
    wire.cut.store(false, SeqCst);
    let captured = left.await.expect("no panic");
    assert!(matches!(captured, Captured::Settled(..)), "{captured:?}");
    assert!(matches!(used.capture_delivered(1_000.into()).await, Captured::NotAsked), "it is b's by now");
    assert!(matches!(again.capture_delivered(1_000.into()).await, Captured::Settled(..)));
    shop.until("each is charged once", "delivered delivered").await;
    assert_eq!(shop.facilitator.asked.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_left_is_charged_when_the_lost_database_is_back() {
    let mut shop = Shop::new();
    let a = shop.open("a").await;
    let left = admit_payment(&a, metered(1, 1_000), REQUEST).await.expect("a permit");
    shop.database.crash();
    until("it is noticed", async || !a.is_recovered()).await;
    let captured = tokio::spawn(left.capture_delivered(1_000.into()));
    shop.database.up();
    let captured = captured.await.expect("no panic");
    assert!(matches!(captured, Captured::Settled(..)), "{captured:?}");
    shop.until("it is written", "delivered").await;
}
