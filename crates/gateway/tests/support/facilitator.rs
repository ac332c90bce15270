use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering},
};

use futures_util::{FutureExt, future::BoxFuture};
use obol_offer::{Address, Network};
use obol_settle::{Facilitator, Receipt, SettleOutcome, VerifyOutcome};
use obol_x402::MatchedPayment;
use tokio::sync::Notify;

pub const HASH: &str = "0xabababababababababababababababababababababababababababababababab";

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Settle {
    #[default]
    Pay,
    Refuse,
    NotAsked,
    Unknown,
    UnknownWithHash,
}

/// Does as told.
#[derive(Debug, Default)]
pub struct Fake {
    pub invalid: Mutex<Option<&'static str>>,
    pub unavailable: Mutex<bool>,
    pub settle: Mutex<Settle>,
    /// While set, settling waits for `go`.
    pub hold: Mutex<bool>,
    pub go: Notify,
    pub verifies: AtomicU32,
    pub begun: AtomicU32,
    pub settles: AtomicU32,
    /// Amounts that it was asked to settle.
    pub charges: Mutex<Vec<u64>>,
    pub versions: Mutex<Vec<obol_x402::Version>>,
}

impl Fake {
    pub fn settles(&self) -> u32 {
        self.settles.load(Ordering::SeqCst)
    }

    pub fn begun(&self) -> u32 {
        self.begun.load(Ordering::SeqCst)
    }
}

impl Facilitator for Fake {
    fn id(&self) -> &str {
        "fake"
    }

    fn upto(&self, network: &Network) -> Option<Address> {
        (network.name == "base-sepolia").then(|| [9; 20].into())
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        self.verifies.fetch_add(1, Ordering::SeqCst);
        let outcome = match *self.invalid.lock().unwrap() {
            _ if *self.unavailable.lock().unwrap() => VerifyOutcome::Unavailable { cause: "test".into() },
            Some(reason) => VerifyOutcome::Invalid { reason: reason.into() },
            None => VerifyOutcome::Valid { payer: payment.authorization.from },
        };
        std::future::ready(outcome).boxed()
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.versions.lock().unwrap().push(payment.version);
            self.charges.lock().unwrap().push(payment.charge.to_string().parse().unwrap());
            if *self.hold.lock().unwrap() {
                self.go.notified().await;
            }
            self.settles.fetch_add(1, Ordering::SeqCst);
            let mode = *self.settle.lock().unwrap();
            match mode {
                Settle::Pay => {
                    SettleOutcome::Settled(Receipt { transaction: HASH.into(), payer: payment.authorization.from, amount: payment.charge })
                }
                Settle::Refuse => SettleOutcome::Refused { reason: "insufficient_funds".into() },
                Settle::NotAsked => SettleOutcome::NotAsked { cause: "test".into() },
                Settle::Unknown => SettleOutcome::Unknown { cause: "test".into(), transaction: None },
                Settle::UnknownWithHash => SettleOutcome::Unknown { cause: "test".into(), transaction: Some(HASH.into()) },
            }
        }
        .boxed()
    }
}
