//! A token's ledger with a facilitator before it: what moves is decided when it settles, as on a
//! chain, and others may act on the ledger at any time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, future::BoxFuture};
use obol_gateway::GatewayConfig;
use obol_offer::{Address, B256};
use obol_settle::{Cashier, CashierConfig, ChainFinding, ChainView, Facilitator, Receipt, Recovery, SettleOutcome, VerifyOutcome};
use obol_x402::MatchedPayment;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use crate::support::*;

pub const ENDOWMENT: u64 = 1_000_000;

#[derive(Default)]
struct Books {
    balances: HashMap<Address, u64>,
    used: HashSet<B256>,
    /// Transfers by nonce, with whom they paid how much.
    transfers: HashMap<B256, (Address, u64)>,
}

/// The ledger and its facilitator.
#[derive(Default)]
pub struct Ledger {
    books: Mutex<Books>,
    /// While set, settling waits for `go`.
    pub hold: Mutex<bool>,
    pub begun: Notify,
    pub go: Notify,
    pub settles: std::sync::atomic::AtomicU32,
}

impl Ledger {
    pub fn endowed() -> Arc<Self> {
        let ledger = Self::default();
        ledger.books.lock().unwrap().balances.insert(obol_x402::eip3009::address_of(&key()), ENDOWMENT);
        Arc::new(ledger)
    }

    pub fn balance(&self, owner: Address) -> u64 {
        self.books.lock().unwrap().balances.get(&owner).copied().unwrap_or_default()
    }

    pub fn transfers(&self) -> usize {
        self.books.lock().unwrap().transfers.len()
    }

    /// The payer moves the rest elsewhere, or gets more.
    pub fn set_balance(&self, payer: Address, value: u64) {
        self.books.lock().unwrap().balances.insert(payer, value);
    }

    /// `cancelAuthorization`.
    pub fn cancel(&self, nonce: B256) {
        self.books.lock().unwrap().used.insert(nonce);
    }

    /// `transferWithAuthorization`, by whomever.
    pub fn transfer(&self, from: Address, to: Address, value: u64, nonce: B256) -> Result<(), &'static str> {
        let mut books = self.books.lock().unwrap();
        if books.used.contains(&nonce) {
            return Err("invalid_exact_evm_nonce_already_used");
        }
        let owned = books.balances.get(&from).copied().unwrap_or_default();
        books.balances.insert(from, owned.checked_sub(value).ok_or("insufficient_funds")?);
        *books.balances.entry(to).or_default() += value;
        books.used.insert(nonce);
        books.transfers.insert(nonce, (to, value));
        Ok(())
    }
}

fn value(payment: &MatchedPayment) -> u64 {
    payment.authorization.value.to_string().parse().unwrap()
}

fn hash(nonce: B256) -> String {
    nonce.to_string()
}

impl Facilitator for Ledger {
    fn id(&self) -> &str {
        "ledger"
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        let signed = &payment.authorization;
        let books = self.books.lock().unwrap();
        let invalid = |reason: &str| VerifyOutcome::Invalid { reason: reason.to_owned() };
        let outcome = if books.used.contains(&signed.nonce) {
            invalid("invalid_exact_evm_nonce_already_used")
        } else if books.balances.get(&signed.from).copied().unwrap_or_default() < value(payment) {
            invalid("insufficient_funds")
        } else {
            VerifyOutcome::Valid { payer: signed.from }
        };
        std::future::ready(outcome).boxed()
    }

    /// Like real ones, it says success again for what it has settled itself.
    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        async move {
            self.begun.notify_one();
            if *self.hold.lock().unwrap() {
                self.go.notified().await;
            }
            self.settles.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let signed = &payment.authorization;
            match self.transfer(signed.from, signed.to, value(payment), signed.nonce) {
                Ok(()) => SettleOutcome::Settled(Receipt { transaction: hash(signed.nonce), payer: signed.from, amount: signed.value }),
                Err(reason) => SettleOutcome::Refused { reason: reason.to_owned() },
            }
        }
        .boxed()
    }
}

impl ChainView for Ledger {
    fn look<'a>(&'a self, payment: &'a MatchedPayment, _since: u64, _transaction: Option<&'a str>) -> BoxFuture<'a, ChainFinding> {
        let books = self.books.lock().unwrap();
        let signed = &payment.authorization;
        let finding = match books.transfers.get(&signed.nonce) {
            Some((to, paid)) if (*to, *paid) == (signed.to, value(payment)) => {
                ChainFinding::Settled { transaction: hash(signed.nonce), amount: payment.charge, is_final: true }
            }
            None if !books.used.contains(&signed.nonce) => ChainFinding::Unused { as_of: now(), is_final: false },
            _ => ChainFinding::UsedElsewhere { is_final: true },
        };
        std::future::ready(finding).boxed()
    }
}

/// A gateway that is paid over the ledger, and may read it.
pub struct Market {
    pub shop: Shop,
    pub ledger: Arc<Ledger>,
    pub cashier: Cashier,
    _journal: tempfile::TempDir,
}

impl Market {
    /// One offer, as [`Shop::open`] has.
    pub async fn open() -> Self {
        let (mut shop, ledger, journal) = (Shop::open().await, Ledger::endowed(), tempfile::tempdir().unwrap());
        let mut config = CashierConfig::new(journal.path().join("journal"));
        config.local = vec![("base-sepolia", ledger.clone())];
        config.chains = vec![("base-sepolia", ledger.clone() as Arc<dyn ChainView>)];
        let short = std::time::Duration::from_millis(50);
        config.recovery = Recovery { first: short, longest: short, tries: 1000 };
        let cashier = Cashier::open(config).await.unwrap();
        let (public, admin) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        (shop.addr, shop.admin) = (public.local_addr().unwrap(), admin.local_addr().unwrap());
        let gateway = obol_gateway::Gateway::new(GatewayConfig::default(), shop.table.clone(), cashier.clone());
        tokio::spawn(gateway.run(public, admin, CancellationToken::new()));
        Self { shop, ledger, cashier, _journal: journal }
    }
}
