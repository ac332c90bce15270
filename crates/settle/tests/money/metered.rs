//! Answers that leave before they are paid.

use std::{path::Path, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use obol_settle::{Captured, Cashier, CashierConfig, Facilitator, PaymentState, Recovery, Refusal, SettleOutcome};
use obol_x402::MatchedPayment;

use crate::support::*;

/// A cashier at which nobody may owe anything while owing something.
async fn open(folder: &Path, facilitator: &Arc<Scripted>, settle_timeout: u64, recovery: Recovery) -> Cashier {
    let local: Arc<dyn Facilitator> = Arc::<Scripted>::clone(facilitator);
    let settle_timeout = Duration::from_secs(settle_timeout);
    let local = vec![(NETWORK, local)];
    Cashier::open(CashierConfig { local, recovery, settle_timeout, max_exposure: 0, ..config(folder) }).await.unwrap()
}

async fn deliver(cashier: &Cashier, payment: MatchedPayment) -> Result<Captured, Refusal> {
    Ok(cashier.admit(&offer(), payment, &[], REQUEST).await?.capture_delivered(1000.into()).await)
}

async fn state(cashier: &Cashier, payment: MatchedPayment) -> PaymentState {
    cashier.drain().await;
    cashier.payment(&payment.replay_key().to_string()).await.unwrap().unwrap().state
}

fn not_asked() -> SettleOutcome {
    SettleOutcome::NotAsked { cause: "connection refused".into() }
}

#[tokio::test]
async fn a_facilitator_that_was_away_for_a_moment_charges_what_has_left() {
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([not_asked(), not_asked()]));
    let cashier = open(dir.path(), &facilitator, 20, NEVER).await;
    let captured = deliver(&cashier, metered(1)).await.unwrap();
    assert!(matches!(captured, Captured::Settled(..)), "{captured:?}");
    assert_eq!(facilitator.settled.load(SeqCst), 3);
    assert!(matches!(deliver(&cashier, metered(2)).await, Ok(Captured::Settled(..))), "nothing is owed");
    assert_eq!(state(&cashier, metered(1)).await, PaymentState::Delivered);
}

#[tokio::test]
async fn what_has_left_unpaid_stays_owed_whoever_says_no() {
    let refused = SettleOutcome::Refused { reason: "insufficient_funds".into() };
    for (outcome, ends) in [(refused, PaymentState::Refused), (not_asked(), PaymentState::Released)] {
        let dir = tempfile::tempdir().unwrap();
        let cashier = open(dir.path(), &Scripted::settling(vec![outcome; 9]), 1, NEVER).await;
        let captured = deliver(&cashier, metered(1)).await.unwrap();
        assert!(!matches!(captured, Captured::Settled(..)), "{captured:?}");
        cashier.drain().await;
        for again in [metered(1), metered(2)] {
            assert_eq!(deliver(&cashier, again).await.unwrap_err(), Refusal::Exposed);
        }
        assert!(cashier.admit(&offer(), payment(3), &[], REQUEST).await.is_ok(), "what is paid before it leaves may be bought");
        assert_eq!(state(&cashier, metered(1)).await, ends);
    }
}

#[tokio::test]
async fn an_unknown_outcome_of_what_has_left_is_resolved_as_delivered() {
    let unknown = SettleOutcome::Unknown { cause: "time".into(), transaction: None };
    let (dir, facilitator) = (tempfile::tempdir().unwrap(), Scripted::settling([unknown.clone(), unknown]));
    let cashier = open(dir.path(), &facilitator, 20, SOON).await;
    assert!(matches!(deliver(&cashier, metered(1)).await, Ok(Captured::Unsettled { .. })));
    until("the second question is answered", async || cashier.stats().recovered == 1).await;
    assert_eq!((cashier.stats().delivered, cashier.stats().owed), (1, 0));
    assert!(matches!(deliver(&cashier, metered(2)).await, Ok(Captured::Settled(..))), "nothing is owed");
    assert_eq!(state(&cashier, metered(1)).await, PaymentState::Delivered);
}
