//! The journal in a database: several cashiers, as many processes have them, on one PostgreSQL.

mod metered;
mod named;
mod support;
mod tls;

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use obol_settle::{Captured, Cashier, OpenError, PaymentQuery, PaymentState, Refusal, SettleOutcome, StoredAnswer};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn copies_at_three_cashiers_are_one_payment_and_all_get_its_outcome() {
    let shop = Shop::new();
    let cashiers = [shop.open("a").await, shop.open("b").await, shop.open("c").await];
    for n in 1..=20 {
        let runs = AtomicUsize::new(0);
        let answers = join_all(cashiers.iter().map(async |cashier| match admit(cashier, n, REQUEST).await {
            Ok(permit) => {
                runs.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                let kept = StoredAnswer { status: 200, headers: Vec::new(), body: format!("answer {n}").into_bytes() };
                let Captured::Settled(_, delivery) = permit.capture_for(Some(kept)).await else { panic!("it settles") };
                delivery.complete();
                "first".to_owned()
            }
            Err(Refusal::Answered { answer, .. }) => String::from_utf8_lossy(&answer.body).into_owned(),
            Err(other) => format!("{other:?}"),
        }))
        .await;
        assert_eq!(runs.load(SeqCst), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| **answer == format!("answer {n}")).count(), 2, "{answers:?}");
    }
    assert_eq!(shop.facilitator.asked.load(SeqCst), 20);
    assert!(matches!(admit(&cashiers[0], 1, OTHER_REQUEST).await, Err(Refusal::OtherRequest)));
    until("all are delivered", async || shop.states() == ["delivered"; 20].join(" ")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payment_keeps_its_payers_next_one_out_everywhere() {
    let shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    let early = admit(&b, 2, REQUEST).await.expect("nothing is in doubt yet");
    let unknown = SettleOutcome::Unknown { cause: "time".into(), transaction: Some("0xdef".into()) };
    shop.facilitator.script.lock().expect("no panic").push_back(unknown);
    let captured = admit(&a, 1, REQUEST).await.expect("a permit").capture().await;
    assert!(matches!(captured, Captured::Unsettled { transaction: Some(hash) } if hash == "0xdef"));

    let told = Err(Refusal::Unsettled { transaction: Some("0xdef".to_owned()) });
    assert_eq!(admit(&b, 3, REQUEST).await.map(drop), told, "another payment for the same request");
    assert_eq!(admit(&b, 1, REQUEST).await.map(drop), told, "the same payment");
    assert!(matches!(early.capture().await, Captured::Unsettled { .. }), "one that was reserved before");
    assert_eq!(shop.facilitator.asked.load(SeqCst), 1, "nobody was asked again");
    let captured = admit(&b, 4, OTHER_REQUEST).await.expect("another request").capture().await;
    assert!(matches!(captured, Captured::Settled(..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_taken_over_and_nothing_of_a_live_one() {
    let shop = Shop::new();
    let b = shop.open("b").await;
    let live = admit(&b, 9, OTHER_REQUEST).await.expect("a permit");
    let dying = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let gate = shop.gate();
    let config = shop.config(&shop.database.url(), "a");
    let (told, heard) = tokio::sync::oneshot::channel();
    dying.spawn(async move {
        let a = Cashier::open(config).await.expect("it opens");
        let [one, two, three] = [1, 2, 3].map(|n| admit(&a, n, [n as u8; 32]));
        let (one, two, three) = (one.await.expect("one"), two.await.expect("two"), three.await.expect("three"));
        gate.add_permits(1);
        let Captured::Settled(_, delivery) = three.capture().await else { panic!("it settles") };
        let settling = tokio::spawn(two.capture());
        assert!(told.send(()).is_ok());
        settling.await.ok();
        // Never reached: the gate stays closed.
        drop((one, delivery, a));
    });
    heard.await.expect("it gets so far");
    shop.until("a is in mid-settlement", "reserved settling settled reserved").await;
    // At once, and nothing of it runs to its end.
    dying.shutdown_background();
    let gate = shop.gate();

    // A copy of what it was settling waits for the takeover, and is told that nobody knows.
    assert!(matches!(admit(&b, 2, [2; 32]).await, Err(Refusal::Unsettled { .. })));
    gate.add_permits(100);
    shop.until("taken over and asked about", "released owed owed reserved").await;
    assert_eq!(shop.facilitator.asked.load(SeqCst), 3, "the one in mid-settlement was asked about once more");
    let permit = admit(&b, 1, [1; 32]).await.expect("the released one may be used again");
    permit.release().await;
    assert!(matches!(live.capture().await, Captured::Settled(..)), "b's own went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_takes_no_new_work_and_loses_nothing() {
    let mut shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    let gate = shop.gate();
    let settling = tokio::spawn(admit(&a, 1, [1; 32]).await.expect("a permit").capture());
    let reserved = admit(&b, 2, [2; 32]).await.expect("a permit");
    shop.until("it is asked", "settling reserved").await;
    shop.database.crash();
    until("both notice", async || !a.is_recovered() && !b.is_recovered()).await;
    let begun = Instant::now();
    assert!(matches!(admit(&a, 3, REQUEST).await, Err(Refusal::JournalUnavailable)));
    assert!(begun.elapsed() < Duration::from_secs(2), "at once");
    // Nor is the buyer told that none was: that cannot be written down either.
    let captured = reserved.capture().await;
    assert!(matches!(captured, Captured::Unsettled { transaction: None }), "{captured:?}");
    assert_eq!(shop.facilitator.asked.load(SeqCst), 1, "no money is asked for that could not be written down");
    gate.add_permits(1);
    let Captured::Settled(_, delivery) = settling.await.expect("no panic") else { panic!("money moved") };
    delivery.complete();

    shop.database.up();
    until("both are back", async || a.is_recovered() && b.is_recovered()).await;
    shop.until("what happened meanwhile is written", "delivered released").await;
    gate.add_permits(10);
    assert!(matches!(admit(&a, 3, REQUEST).await.expect("a permit").capture().await, Captured::Settled(..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_and_taken_for_dead_charges_nothing() {
    let shop = Shop::new();
    let wire = Wire::start(&shop.database).await;
    let a = Cashier::open(shop.config(&wire.url, "a")).await.expect("it opens");
    let b = shop.open("b").await;
    let stale = admit(&a, 1, REQUEST).await.expect("a permit");
    wire.cut.store(true, SeqCst);
    shop.until("taken over", "released").await;
    let current = admit(&b, 1, REQUEST).await.expect("it may be used again");
    wire.cut.store(false, SeqCst);
    until("a is back", async || a.is_recovered()).await;
    assert!(matches!(stale.capture().await, Captured::NotAsked));
    assert_eq!(shop.states(), "reserved", "b's reservation is untouched");
    assert!(matches!(current.capture().await, Captured::Settled(..)));
    assert_eq!(shop.facilitator.asked.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let shop = Shop::new();
    let wire = Wire::start(&shop.database).await;
    let a = Cashier::open(shop.config(&wire.url, "a")).await.expect("it opens");
    for n in 1..=5 {
        let permit = admit(&a, n, [n as u8; 32]).await.expect("a permit");
        wire.swallow.store(true, SeqCst);
        let Captured::Settled(_, delivery) = permit.capture().await else { panic!("{n}: it was written that it is settled") };
        delivery.complete();
        assert!(!wire.swallow.load(SeqCst), "{n}: an answer was swallowed");
        until("a is back", async || a.is_recovered()).await;
    }
    shop.until("every one once", ["delivered"; 5].join(" ").as_str()).await;
    assert_eq!(shop.facilitator.asked.load(SeqCst), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_listed_archived_and_exported_by_any_of_them() {
    let shop = Shop::new();
    let (a, b) = (shop.open("a").await, shop.open("b").await);
    for n in 1..=25 {
        let captured = admit(if n % 2 == 0 { &a } else { &b }, n, [n as u8; 32]).await.expect("a permit").capture().await;
        let Captured::Settled(_, delivery) = captured else { panic!("it settles") };
        if n > 5 { delivery.complete() } else { drop(delivery) }
    }
    // `payments` waits for its own cashier's facts.
    a.payments(PaymentQuery::default()).await.expect("a page");
    let mut query = PaymentQuery { limit: 7, ..PaymentQuery::default() };
    let mut listed = Vec::new();
    loop {
        let page = b.payments(query.clone()).await.expect("a page");
        assert!(page.payments.len() <= 7);
        listed.extend(page.payments);
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    assert_eq!(listed.len(), 25);
    assert!(listed.is_sorted_by(|a, b| a.created >= b.created), "the newest first");
    let owed = a.payments(PaymentQuery { states: vec![PaymentState::Owed], limit: 100, ..PaymentQuery::default() }).await.expect("a page");
    assert_eq!(owed.payments.len(), 5);

    // As if they had been closed for long, and their authorizations void.
    shop.database.query(
        "update obol.payment set updated = 1700000000000, \
         detail = replace(replace(detail::text, '\"valid_before\":4000000000', '\"valid_before\":1700000000'), '\"updated\":' || updated, '\"updated\":1700000000000')::json",
    );
    drop((a, b));
    let c = shop.open("c").await;
    until("all but the owed ones are in the archive", async || {
        shop.database.query("select count(*) from obol.archive where month = '2023-11'") == "20"
    })
    .await;
    assert_eq!(shop.database.query("select count(*) from obol.payment"), "5");
    let mut query = PaymentQuery { limit: 6, ..PaymentQuery::default() };
    let mut exported = Vec::new();
    loop {
        let page = c.export(query.clone()).await.expect("a page");
        exported.extend(page.payments.into_iter().map(|payment| payment.key));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    exported.sort();
    let mut keys: Vec<_> = listed.into_iter().map(|payment| payment.key).collect();
    keys.sort();
    assert_eq!(exported, keys);
    assert_eq!(c.payment(&keys[20]).await.expect("it can be read").expect("it is there").key, keys[20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_format_2_is_brought_up_with_its_payments() {
    let shop = Shop::new();
    let a = shop.open("a").await;
    let Captured::Settled(receipt, delivery) = admit(&a, 1, REQUEST).await.expect("a permit").capture().await else { panic!("it settles") };
    delivery.complete();
    shop.until("it is written", "delivered").await;
    drop(a);
    shop.database.query("alter table obol.payment drop column debtor, drop column owes");
    shop.database.query("update obol.meta set format = 2");
    let b = shop.open("b").await;
    assert_eq!(shop.database.query("select format from obol.meta"), "3");
    assert_eq!(admit(&b, 1, REQUEST).await.map(drop), Err(Refusal::AlreadyUsed(receipt)));
    let left = admit_payment(&b, metered(2, 1_000), REQUEST).await.expect("a permit");
    assert_eq!(shop.database.query("select owes from obol.payment where debtor is not null"), "1000");
    assert!(matches!(left.capture_delivered(1_000.into()).await, Captured::Settled(..)));
    shop.until("and owes nothing", "delivered delivered").await;
    assert_eq!(shop.database.query("select count(*) from obol.payment where debtor is not null"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_obol_and_one_that_does_not_exist_are_refused() {
    let shop = Shop::new();
    drop(shop.open("a").await);
    shop.database.query("update obol.meta set format = 99");
    let refused = Cashier::open(shop.config(&shop.database.url(), "b")).await.err().expect("it is refused");
    assert!(matches!(&refused, OpenError::Database { cause } if cause.contains("format is 99")), "{refused}");
    let nowhere = shop.database.url().replace("/postgres", "/nowhere");
    let refused = Cashier::open(shop.config(&nowhere, "b")).await.err().expect("it is refused");
    assert!(matches!(&refused, OpenError::Database { cause } if cause.contains("nowhere")), "{refused}");
}
