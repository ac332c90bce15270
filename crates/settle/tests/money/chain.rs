//! The chain has the last word on what nobody else knows.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use futures_util::future::BoxFuture;
use obol_settle::{Captured, Cashier, CashierConfig, ChainFinding, ChainView, Facilitator, Refusal, SettleOutcome};
use obol_x402::MatchedPayment;

use crate::support::*;

/// A chain that shows one thing after the other, its last for ever.
struct Shows {
    findings: Mutex<VecDeque<ChainFinding>>,
    looks: AtomicUsize,
    named: Mutex<Option<String>>,
}

impl ChainView for Shows {
    fn look<'a>(&'a self, payment: &'a MatchedPayment, since: u64, transaction: Option<&'a str>) -> BoxFuture<'a, ChainFinding> {
        assert_eq!(payment.authorization.from, payer());
        assert!(since > 1_600_000_000 && since < 10_000_000_000, "seconds, not milliseconds: {since}");
        self.looks.fetch_add(1, SeqCst);
        *self.named.lock().unwrap() = transaction.map(str::to_owned);
        let mut findings = self.findings.lock().unwrap();
        let found = if findings.len() > 1 { findings.pop_front() } else { findings.front().cloned() };
        Box::pin(async move { found.unwrap() })
    }
}

struct Setting {
    cashier: Cashier,
    facilitator: Arc<Scripted>,
    chain: Arc<Shows>,
    _folder: tempfile::TempDir,
}

/// A payment whose settlement nobody knows, and a chain that shows `findings` from then on.
async fn unknown(findings: impl IntoIterator<Item = ChainFinding>) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let lost = SettleOutcome::Unknown { cause: "lost".into(), transaction: Some("0xfeed".into()) };
    // Whoever asks the facilitator again learns nothing.
    let facilitator = Scripted::settling(std::iter::repeat_n(lost, 1_000));
    let chain =
        Arc::new(Shows { findings: Mutex::new(findings.into_iter().collect()), looks: AtomicUsize::new(0), named: Mutex::default() });
    let local: Arc<dyn Facilitator> = Arc::<Scripted>::clone(&facilitator);
    let view: Arc<dyn ChainView> = Arc::<Shows>::clone(&chain);
    let config = CashierConfig { local: vec![(NETWORK, local)], chains: vec![(NETWORK, view)], recovery: SOON, ..config(folder.path()) };
    let cashier = Cashier::open(config).await.unwrap();
    let captured = cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture().await;
    assert!(matches!(captured, Captured::Unsettled { .. }), "{captured:?}");
    Setting { cashier, facilitator, chain, _folder: folder }
}

impl Setting {
    async fn resolved(&self) -> Refusal {
        until("resolved", async || self.cashier.stats().unknown_now == 0).await;
        self.cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_transfer_on_chain_is_a_settlement_though_the_facilitator_never_says_so() {
    let found = ChainFinding::Settled { transaction: "0xabc".into(), amount: receipt().amount, is_final: false };
    let setting = unknown([ChainFinding::Unavailable { cause: "down".into() }, found]).await;
    assert_eq!(setting.resolved().await, Refusal::AlreadyUsed(receipt()));
    assert_eq!(setting.chain.named.lock().unwrap().as_deref(), Some("0xfeed"), "the hash that was named is looked at");
    let stats = setting.cashier.stats();
    assert_eq!((stats.recovered, stats.owed), (1, 1));
    // Once by the buyer's request, once by the first look that found nothing.
    assert_eq!(setting.facilitator.settled.load(SeqCst), 2);
}

#[tokio::test]
async fn what_can_never_be_paid_is_closed_and_a_new_payment_may_be_made() {
    for finding in [ChainFinding::Unused { as_of: 1, is_final: true }, ChainFinding::UsedElsewhere { is_final: true }] {
        let setting = unknown([finding]).await;
        assert_eq!(setting.resolved().await, Refusal::Invalid { reason: "authorization_expired".into() });
        assert!(setting.cashier.admit(&offer(), payment(2), &[], REQUEST).await.is_ok());
    }
}

#[tokio::test]
async fn what_is_not_final_decides_nothing() {
    let undecided = [
        ChainFinding::Unused { as_of: 1, is_final: false },
        ChainFinding::UsedElsewhere { is_final: false },
        ChainFinding::Unavailable { cause: "garbage".into() },
        ChainFinding::Settled { transaction: String::new(), amount: receipt().amount, is_final: true },
    ];
    let setting = unknown(undecided).await;
    until("looked at", async || setting.chain.looks.load(SeqCst) > 6).await;
    assert_eq!(setting.cashier.stats().unknown_now, 1);
    let again = setting.cashier.admit(&offer(), payment(2), &[], REQUEST).await.unwrap_err();
    assert_eq!(again, Refusal::Unsettled { transaction: Some("0xfeed".into()) });
}

/// A word that is held against the chain: what it is, what the chain shows then, and what comes of it.
#[tokio::test]
async fn a_facilitators_word_counts_when_the_chain_agrees_where_that_is_wanted() {
    let unused = || ChainFinding::Unused { as_of: 1_700_000_000, is_final: false };
    let shown = |amount: u64| ChainFinding::Settled { transaction: "0xbeef".into(), amount: amount.into(), is_final: false };
    let away = || ChainFinding::Unavailable { cause: "away".into() };
    let refused = || SettleOutcome::Refused { reason: "no".into() };
    let success = || SettleOutcome::Settled(receipt());
    let cases = [
        ("a success that a node shows a moment later", success(), vec![unused(), shown(1000)], "settled 0xbeef"),
        ("a success that no node shows", success(), vec![unused()], "unsettled"),
        ("a success of another amount", success(), vec![shown(1)], "unsettled"),
        ("a refusal", refused(), vec![unused()], "refused"),
        ("a refusal of what was settled", refused(), vec![shown(1000)], "settled 0xbeef"),
        ("a refusal that nobody can check", refused(), vec![away()], "unsettled"),
    ];
    for (name, word, findings, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let facilitator = Scripted::settling([word]);
        let chain =
            Arc::new(Shows { findings: Mutex::new(findings.into_iter().collect()), looks: AtomicUsize::new(0), named: Mutex::default() });
        let local: Arc<dyn Facilitator> = Arc::<Scripted>::clone(&facilitator);
        let view: Arc<dyn ChainView> = Arc::<Shows>::clone(&chain);
        let config = CashierConfig {
            local: vec![(NETWORK, local)],
            chains: vec![(NETWORK, view)],
            verify_transfers: vec![NETWORK],
            settle_timeout: std::time::Duration::from_secs(2),
            ..config(folder.path())
        };
        let cashier = Cashier::open(config).await.unwrap();
        let told = match cashier.admit(&offer(), payment(1), &[], REQUEST).await.unwrap().capture().await {
            Captured::Settled(receipt, _) => format!("settled {}", receipt.transaction),
            Captured::Refused { .. } => "refused".to_owned(),
            Captured::Unsettled { .. } => "unsettled".to_owned(),
            Captured::NotAsked | Captured::Nothing => "not asked".to_owned(),
        };
        assert_eq!(told, expected, "{name}");
    }
}
