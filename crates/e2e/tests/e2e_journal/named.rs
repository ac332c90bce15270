//! Purchases that their payers have named (the x402 extension `payment-identifier`), sold by several cashiers.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use obol_settle::{Captured, Cashier, PaymentPermit, Refusal, SettleOutcome, StoredAnswer};
use obol_x402::MatchedPayment;

use crate::support::*;

async fn buy(cashier: &Cashier, payment: MatchedPayment, request: [u8; 32], id: &str) -> Result<PaymentPermit, Refusal> {
    cashier.admit_named(&offer(), payment, &[], request, Some(&id.parse().expect("an identifier"))).await
}

const ID: &str = "pay_0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn signatures_at_three_cashiers_under_one_name_are_one_purchase() {
    let shop = Shop::new();
    let cashiers = [shop.open("a").await, shop.open("b").await, shop.open("c").await];
    for round in 0..10 {
        let (runs, id) = (AtomicUsize::new(0), format!("pay_of_round_number_{round}"));
        let answers =
            join_all((0..6).map(async |n: usize| match buy(&cashiers[n % 3], payment(10 * round + n as u64), REQUEST, &id).await {
                Ok(permit) => {
                    runs.fetch_add(1, SeqCst);
                    let kept = StoredAnswer { status: 200, headers: Vec::new(), body: id.clone().into_bytes() };
                    let Captured::Settled(_, delivery) = permit.capture_for(Some(kept)).await else { panic!("it settles") };
                    delivery.complete();
                    id.clone()
                }
                Err(Refusal::Answered { answer, .. }) => String::from_utf8_lossy(&answer.body).into_owned(),
                Err(other) => format!("{other:?}"),
            }))
            .await;
        assert_eq!((runs.load(SeqCst), answers), (1, vec![id; 6]));
    }
    assert_eq!(shop.facilitator.asked.load(SeqCst), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_stands_for_its_purchase_at_every_cashier_and_after_all_are_gone() {
    let shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    // Released, and so free for another request, and for another cashier.
    buy(&a, payment(1), OTHER_REQUEST, ID).await.expect("a permit").release().await;
    let Captured::Settled(receipt, delivery) = buy(&b, payment(2), REQUEST, ID).await.expect("a permit").capture().await else {
        panic!("it settles")
    };
    delivery.complete();
    // Nothing moved under that one: it is free too.
    shop.next(SettleOutcome::Refused { reason: "insufficient_funds".into() });
    let refused = buy(&a, payment(7), OTHER_REQUEST, "pay_that_was_refused").await.expect("a permit").capture().await;
    assert!(matches!(refused, Captured::Refused { .. }));
    assert!(buy(&b, payment(8), REQUEST, "pay_that_was_refused").await.is_ok());
    b.drain().await;
    drop((a, b));

    let c = shop.open("c").await;
    let verified = shop.facilitator.verified.load(SeqCst);
    assert_eq!(buy(&c, payment(3), REQUEST, ID).await.map(drop), Err(Refusal::AlreadyUsed(receipt)));
    assert_eq!(buy(&c, payment(4), OTHER_REQUEST, ID).await.map(drop), Err(Refusal::OtherPurchase));
    let mut dearer = payment(5);
    dearer.terms.amount = 2_000.into();
    assert_eq!(buy(&c, dearer, REQUEST, ID).await.map(drop), Err(Refusal::OtherPurchase), "at other terms");
    assert!(buy(&c, payment(1), REQUEST, ID).await.is_err(), "a payment that was given back has no claim on its old name");
    assert_eq!(shop.facilitator.verified.load(SeqCst), verified, "known before anybody is asked");
    let mut stranger = payment(6);
    stranger.authorization.from = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().expect("an address");
    assert!(buy(&c, stranger, REQUEST, ID).await.is_ok(), "another payer's name is another name");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_unknown_purchase_is_free_nowhere() {
    let shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    shop.next(SettleOutcome::Unknown { cause: "test".into(), transaction: None });
    let captured = buy(&a, payment(1), REQUEST, ID).await.expect("a permit").capture().await;
    assert!(matches!(captured, Captured::Unsettled { .. }));
    for cashier in [&a, &b] {
        assert_eq!(buy(cashier, payment(2), REQUEST, ID).await.map(drop), Err(Refusal::Unsettled { transaction: None }));
        assert_eq!(buy(cashier, payment(3), OTHER_REQUEST, ID).await.map(drop), Err(Refusal::OtherPurchase));
    }
}
