//! The journal in a database: several cashiers, as many processes have them, on one PostgreSQL.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join_all};
use obol_e2e::postgres::Postgres;
use obol_offer::{Amount, B256, Network, OfferName, Scheme, Terms};
use obol_settle::{
    Captured, Cashier, CashierConfig, Facilitator, OpenError, PaymentPermit, PaymentQuery, PaymentState, Receipt, Recovery, Refusal,
    Secret, SettleOutcome, SharedJournal, StoredAnswer, VerifyOutcome,
};
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

const NETWORK: &str = "base-sepolia";
/// Fingerprints of requests.
const REQUEST: [u8; 32] = [9; 32];
const OTHER_REQUEST: [u8; 32] = [8; 32];

fn payment(n: u64) -> MatchedPayment {
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

fn receipt(payment: &MatchedPayment) -> Receipt {
    Receipt { transaction: "0xabc".into(), payer: payment.authorization.from, amount: payment.terms.amount }
}

/// Verifies everything; settles what its script says, and everything when that is empty.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<SettleOutcome>>,
    /// When set, settling waits for a permit.
    gate: Mutex<Option<Arc<Semaphore>>>,
    asked: AtomicUsize,
}

impl Facilitator for Scripted {
    fn id(&self) -> &str {
        "scripted"
    }
    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
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

struct Shop {
    database: Postgres,
    facilitator: Arc<Scripted>,
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        Self { database: Postgres::start(), facilitator: Arc::default(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn config(&self, url: &str, name: &str) -> CashierConfig {
        config(url, &self.folder.path().join(name), &self.facilitator)
    }

    async fn open(&self, name: &str) -> Cashier {
        let cashier = Cashier::open(self.config(&self.database.url(), name)).await.expect("it opens");
        cashier.recovered().await;
        cashier
    }

    fn gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.facilitator.gate.lock().expect("no panic") = Some(Arc::clone(&gate));
        gate
    }

    fn states(&self) -> String {
        self.database.query("select string_agg(state, ' ' order by key) from obol.payment")
    }

    async fn until(&self, what: &str, states: &str) {
        until(what, async || self.states() == states).await;
    }
}

fn config(url: &str, folder: &Path, facilitator: &Arc<Scripted>) -> CashierConfig {
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

fn offer() -> OfferName {
    "weather".parse().expect("a name")
}

async fn admit(cashier: &Cashier, n: u64, request: [u8; 32]) -> Result<PaymentPermit, Refusal> {
    cashier.admit(&offer(), payment(n), &[], request).await
}

/// Waits for what must become true; the bound only ends a broken test.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while Instant::now() < end {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

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

/// A wire to the database that can be cut, and that can swallow the answer to a commit.
struct Wire {
    url: String,
    /// Ends every connection, and takes no new one.
    cut: Arc<AtomicBool>,
    /// Lets the next commit through, and ends its connection before the answer.
    swallow: Arc<AtomicBool>,
}

impl Wire {
    async fn start(database: &Postgres) -> Self {
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
