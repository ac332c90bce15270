//! Payments, a scripted facilitator, a shop whose cashiers share a real database, and a wire to it that breaks.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use obol_e2e::postgres::Postgres;
use obol_offer::{Address, Amount, B256, Network, OfferName, Scheme, Terms};
use obol_settle::{
    Cashier, CashierConfig, Facilitator, PaymentPermit, Receipt, Recovery, Refusal, Secret, SettleOutcome, SharedJournal, VerifyOutcome,
};
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

pub const NETWORK: &str = "base-sepolia";
/// Fingerprints of requests.
pub const REQUEST: [u8; 32] = [9; 32];
pub const OTHER_REQUEST: [u8; 32] = [8; 32];

/// Who alone may settle metered payments.
const SETTLER: Address = Address::repeat_byte(7);

pub fn payment(n: u64) -> MatchedPayment {
    let network = Network::find(NETWORK).expect("built in");
    let pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().expect("an address");
    let nonce = B256::left_padding_from(&n.to_be_bytes());
    MatchedPayment {
        version: Version::V2,
        terms: Terms {
            scheme: Scheme::Exact,
            network,
            asset: network.default_asset(),
            pay_to,
            amount: Amount::from(1000),
            max_timeout_seconds: 300,
        },
        authorization: Authorization {
            from: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().expect("an address"),
            to: pay_to,
            value: Amount::from(1000),
            valid_after: 0,
            valid_before: 4_000_000_000,
            nonce,
            kind: AuthorizationKind::default(),
            signature: vec![1; 65],
        },
        local_check: LocalCheck::SignedByPayer,
        charge: Amount::from(1000),
        payload_digest: nonce.0,
        facilitator_body: format!(r#"{{"n":{n},"nul":"\u0000"}}"#).into_bytes(),
    }
}

/// The same, to be charged for what is used, up to `ceiling`.
pub fn metered(n: u64, ceiling: u64) -> MatchedPayment {
    let mut payment = payment(n);
    (payment.terms.scheme, payment.terms.amount, payment.charge) = (Scheme::Upto, ceiling.into(), ceiling.into());
    (payment.authorization.value, payment.authorization.kind) = (ceiling.into(), AuthorizationKind::Upto { facilitator: SETTLER });
    payment
}

pub fn receipt(payment: &MatchedPayment) -> Receipt {
    Receipt { transaction: "0xabc".into(), payer: payment.authorization.from, amount: payment.charge }
}

/// Verifies everything; settles what its script says, and everything when that is empty.
#[derive(Default)]
pub struct Scripted {
    pub script: Mutex<VecDeque<SettleOutcome>>,
    /// When set, settling waits for a permit.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    pub asked: AtomicUsize,
    pub verified: AtomicUsize,
}

impl Facilitator for Scripted {
    fn id(&self) -> &str {
        "scripted"
    }
    fn upto(&self, _network: &Network) -> Option<Address> {
        Some(SETTLER)
    }
    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        self.verified.fetch_add(1, SeqCst);
        Box::pin(async move { VerifyOutcome::Valid { payer: payment.authorization.from } })
    }
    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        self.asked.fetch_add(1, SeqCst);
        let gate = self.gate.lock().expect("no panic").clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.expect("never closed").forget();
            }
            let scripted = self.script.lock().expect("no panic").pop_front();
            scripted.unwrap_or_else(|| SettleOutcome::Settled(receipt(payment)))
        })
    }
}

pub struct Shop {
    pub database: Postgres,
    pub facilitator: Arc<Scripted>,
    folder: TempDir,
}

impl Shop {
    pub fn new() -> Self {
        Self::with(Postgres::start())
    }

    pub fn with(database: Postgres) -> Self {
        Self { database, facilitator: Arc::default(), folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn config(&self, url: &str, name: &str) -> CashierConfig {
        config(url, &self.folder.path().join(name), &self.facilitator)
    }

    pub async fn open(&self, name: &str) -> Cashier {
        let cashier = Cashier::open(self.config(&self.database.url(), name)).await.expect("it opens");
        cashier.recovered().await;
        cashier
    }

    pub fn gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.facilitator.gate.lock().expect("no panic") = Some(Arc::clone(&gate));
        gate
    }

    pub fn states(&self) -> String {
        self.database.query("select string_agg(state, ' ' order by key) from obol.payment")
    }

    /// What the next settlement comes to.
    pub fn next(&self, outcome: SettleOutcome) {
        self.facilitator.script.lock().expect("no panic").push_back(outcome);
    }

    pub async fn until(&self, what: &str, states: &str) {
        until(what, async || self.states() == states).await;
    }
}

pub fn config(url: &str, folder: &Path, facilitator: &Arc<Scripted>) -> CashierConfig {
    std::fs::create_dir_all(folder).expect("a folder");
    let local: Arc<dyn Facilitator> = Arc::<Scripted>::clone(facilitator);
    CashierConfig {
        local: vec![(NETWORK, local)],
        shared: Some(SharedJournal { takeover: Duration::from_secs(2), ..SharedJournal::new(Secret::new(url)) }),
        recovery: Recovery { first: Duration::from_secs(3600), longest: Duration::from_secs(3600), tries: 1 },
        hold: Duration::from_secs(10),
        settle_timeout: Duration::from_secs(20),
        ..CashierConfig::new(folder.join("journal.redb"))
    }
}

pub fn offer() -> OfferName {
    "weather".parse().expect("a name")
}

pub async fn admit(cashier: &Cashier, n: u64, request: [u8; 32]) -> Result<PaymentPermit, Refusal> {
    admit_payment(cashier, payment(n), request).await
}

pub async fn admit_payment(cashier: &Cashier, payment: MatchedPayment, request: [u8; 32]) -> Result<PaymentPermit, Refusal> {
    cashier.admit(&offer(), payment, &[], request).await
}

/// Waits for what must become true; the bound only ends a broken test.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while Instant::now() < end {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// A wire to the database that can be cut, and that can swallow the answer to a commit.
pub struct Wire {
    pub url: String,
    /// Ends every connection, and takes no new one.
    pub cut: Arc<AtomicBool>,
    /// Lets the next commit through, and ends its connection before the answer.
    pub swallow: Arc<AtomicBool>,
}

impl Wire {
    pub async fn start(database: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let here = listener.local_addr().expect("it listens");
        let there = database.url().split(['@', '/']).nth(3).expect("a host and a port").to_owned();
        let this = Self { url: format!("postgres://obol@{here}/postgres"), cut: Arc::default(), swallow: Arc::default() };
        let (cut, swallow) = (Arc::clone(&this.cut), Arc::clone(&this.swallow));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !cut.load(SeqCst) {
                    tokio::spawn(carry(client, there.clone(), Arc::clone(&cut), Arc::clone(&swallow)));
                }
            }
        });
        this
    }
}

async fn carry(mut client: TcpStream, there: String, cut: Arc<AtomicBool>, swallow: Arc<AtomicBool>) {
    let Ok(mut server) = TcpStream::connect(there).await else { return };
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    while !cut.load(SeqCst) {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(read @ 1..) = read else { return };
                let is_commit = up[..read].windows(6).any(|word| word == b"commit");
                if server.write_all(&up[..read]).await.is_err() {
                    return;
                }
                if is_commit && swallow.swap(false, SeqCst) {
                    // Until it has been done.
                    drop(server.read(&mut down).await);
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&down[..read]).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}
