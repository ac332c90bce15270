//! What a seller can look up.

use obol_payment::State;
use obol_settle::{Captured, ListError, PaymentQuery, SettleOutcome};

use crate::support::*;

#[tokio::test]
async fn payments_are_listed_newest_first_filtered_and_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let facilitator = Scripted::new();
    let cashier = open(dir.path(), &facilitator, NEVER).await;
    for n in 0..25 {
        if n == 7 {
            facilitator.settle.lock().unwrap().push_back(SettleOutcome::Refused { reason: "insufficient_funds".into() });
        }
        let offer = if n % 2 == 0 { "even" } else { "odd" }.parse().unwrap();
        let permit = cashier.admit(&offer, payment(n), &[], REQUEST).await.unwrap();
        match permit.capture().await {
            Captured::Settled(_, delivery) if n != 3 => delivery.complete(),
            _ => {}
        }
    }
    cashier.drain().await;
    let query = PaymentQuery { limit: 10, ..PaymentQuery::default() };
    let (mut seen, mut cursor, mut sizes) = (Vec::new(), None, Vec::new());
    loop {
        let page = cashier.payments(PaymentQuery { cursor, ..query.clone() }).await.unwrap();
        sizes.push(page.payments.len());
        seen.extend(page.payments);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert!(seen.windows(2).all(|two| two[0].created >= two[1].created), "newest first");
    let keys: std::collections::BTreeSet<_> = seen.iter().map(|payment| payment.key.clone()).collect();
    assert_eq!(keys.len(), 25);

    let count = async |query: PaymentQuery| cashier.payments(PaymentQuery { limit: 100, ..query }).await.unwrap().payments.len();
    let all = PaymentQuery::default;
    assert_eq!(count(PaymentQuery { states: vec![State::Refused], ..all() }).await, 1);
    assert_eq!(count(PaymentQuery { states: vec![State::Owed, State::Refused], ..all() }).await, 2);
    assert_eq!(count(PaymentQuery { offer: Some("odd".parse().unwrap()), ..all() }).await, 12);
    assert_eq!(count(PaymentQuery { payer: Some(payer()), ..all() }).await, 25);
    assert_eq!(count(PaymentQuery { payer: Some(payment(1).terms.pay_to), ..all() }).await, 0);
    assert_eq!(count(PaymentQuery { since: Some(seen[0].created), until: Some(seen[0].created), ..all() }).await, 0);
    let owed = cashier.payments(PaymentQuery { states: vec![State::Owed], limit: 1, ..all() }).await.unwrap().payments.remove(0);
    assert_eq!((owed.transaction.as_deref(), owed.amount_decimal.as_deref()), (Some("0xabc"), Some("0.001")));
    assert_eq!(cashier.payment(&owed.key).await.unwrap().as_ref(), Some(&owed));
    let nonce = owed.key.rsplit('/').next().unwrap().to_owned();
    assert_eq!(count(PaymentQuery { find: Some(nonce), ..all() }).await, 1);
    assert_eq!(cashier.payment("eip155:1/0x/0x/0x").await.unwrap(), None);
    let text = serde_json::to_string(&seen).unwrap();
    assert!(!text.contains("signature") && !text.contains("x402Version"), "{text}");
}

#[tokio::test]
async fn an_export_has_every_payment_once() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = open(dir.path(), &Scripted::new(), NEVER).await;
    for n in 0..25 {
        let Captured::Settled(_, delivery) = cashier.admit(&offer(), payment(n), &[], REQUEST).await.unwrap().capture().await else {
            panic!()
        };
        delivery.complete();
    }
    cashier.drain().await;
    let (mut keys, mut cursor) = (Vec::new(), None);
    loop {
        let page = cashier.export(PaymentQuery { limit: 7, cursor, ..PaymentQuery::default() }).await.unwrap();
        keys.extend(page.payments.into_iter().map(|payment| payment.key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(keys.len(), 25);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 25);
}

#[tokio::test]
async fn hostile_cursors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cashier = open(dir.path(), &Scripted::new(), NEVER).await;
    for cursor in ["", "x", "1.zz", "a.b", "j.00", "a.2026-01.x", &"9".repeat(5000)] {
        let query = || PaymentQuery { cursor: Some(cursor.to_owned()), ..PaymentQuery::default() };
        assert!(matches!(cashier.payments(query()).await, Err(ListError::Cursor)), "{cursor}");
        assert!(matches!(cashier.export(query()).await, Err(ListError::Cursor)), "{cursor}");
    }
    assert!(cashier.payments(PaymentQuery { limit: usize::MAX, ..PaymentQuery::default() }).await.unwrap().payments.is_empty());
}
