//! Three gateways share one journal: whatever is sent to whom, and whoever dies, every payment is
//! charged at most once, and at the end chain, journal and answers agree to the unit.

use std::{
    net::SocketAddr,
    sync::{Mutex, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use alloy_primitives::{Address, U256};
use futures_util::future::join_all;
use obol_e2e::{
    anvil::{Anvil, KEYS},
    facilitators::{Facilitator, Maker},
    forge,
    generous::Generous,
    http,
    postgres::Postgres,
    stack::Stack,
    upstream::Upstream,
};

const PAYERS: [&str; 3] = [KEYS[6], KEYS[7], KEYS[8]];
const PRICE: u64 = 1_000;
const PATH: &str = "/services/weather";

/// A shop with three gateways.
struct Shop {
    anvil: Anvil,
    _inner: Facilitator,
    facilitator: Generous,
    upstream: Upstream,
    database: Mutex<Postgres>,
    _secret: tempfile::TempDir,
    payee: Address,
    replicas: Vec<tokio::sync::Mutex<Stack>>,
    addresses: Vec<SocketAddr>,
}

impl Shop {
    async fn open() -> Self {
        let anvil = Anvil::start().await;
        let inner = Facilitator::start(Maker::Rust, &anvil.url);
        let facilitator = Generous::start(&inner.url).await;
        let (upstream, database) = (Upstream::start().await, Postgres::start());
        let secret = tempfile::tempdir().expect("a folder");
        let file = secret.path().join("journal-url");
        fs_err::write(&file, database.url()).expect("a file");
        let payee = forge::fresh_address();
        let (mut replicas, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut stack = Stack::with(&format!("journal:\n  postgres: ref+file://{}\n", file.display()));
            stack.sell("weather", &upstream.url, &payee.to_checksum(None), &facilitator.url);
            stack.up().await;
            stack.wait_for(PATH, 402).await;
            addresses.push(stack.listen);
            replicas.push(tokio::sync::Mutex::new(stack));
        }
        upstream.take_seen();
        Self { anvil, _inner: inner, facilitator, upstream, database: Mutex::new(database), _secret: secret, payee, replicas, addresses }
    }

    async fn payment(&self, n: usize) -> String {
        let now = self.anvil.now().await;
        forge::header(&forge::payment(PAYERS[n % PAYERS.len()], &forge::terms(self.payee, PRICE), 0, now + 280))
    }

    /// Status, and whether a receipt came with it; status 0 when nothing came.
    async fn buy(&self, replica: usize, n: usize, payment: &str) -> (u16, bool) {
        let url = format!("http://{}{PATH}/item/{n}", self.addresses[replica]);
        let request = http().get(url).header("payment-signature", payment).timeout(Duration::from_secs(60));
        let Ok(answer) = request.send().await else { return (0, false) };
        let told = (answer.status().as_u16(), answer.headers().contains_key("payment-response"));
        // The answer counts when the whole of it is there.
        if answer.bytes().await.is_ok() { told } else { (0, false) }
    }

    /// The same payment again and again, wherever, until it is known what became of it.
    async fn buy_for_certain(&self, n: usize, payment: &str) -> (u16, bool) {
        let end = Instant::now() + Duration::from_secs(120);
        let mut replica = n;
        loop {
            let told = self.buy(replica % 3, n, payment).await;
            let is_certain = matches!(told, (200, _) | (402, _) | (409, true));
            if is_certain || Instant::now() > end {
                return told;
            }
            replica += 1;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn earned(&self) -> U256 {
        self.anvil.balance(self.payee).await
    }

    fn count(&self, filter: &str) -> u64 {
        let count = self.query(&format!("select count(*) from obol.payment where {filter}"));
        count.parse().expect("a number")
    }

    fn query(&self, sql: &str) -> String {
        self.database.lock().expect("no panic").query(sql)
    }

    async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !done().await {
            assert!(Instant::now() < end, "never: {what}; {}", self.query("select state, owner, detail from obol.payment where is_open"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_are_as_one_through_kills_and_a_lost_database() {
    let shop = Shop::open().await;

    // Copies, to all three at once.
    const COPIES: usize = 12;
    for n in 0..COPIES {
        let payment = shop.payment(n).await;
        let told = join_all((0..6).map(|copy| shop.buy(copy % 3, n, &payment))).await;
        let seen = shop.upstream.take_seen().into_iter().filter(|seen| seen.target.contains("/item/")).count();
        assert_eq!(seen, 1, "the upstream ran once: {told:?}");
        assert!(told.iter().any(|(status, _)| *status == 200), "{told:?}");
        assert!(told.iter().all(|(status, receipt)| matches!(status, 200 | 409) && *receipt), "held until the outcome was known: {told:?}");
        assert_eq!(shop.earned().await, U256::from(PRICE * (n as u64 + 1)), "charged once");
    }
    assert_eq!(shop.facilitator.wishes.asked.load(SeqCst), COPIES as u64);

    // One is killed in mid-settlement; its facilitator answers all the same, to nobody.
    shop.facilitator.wishes.delay.store(1_500, SeqCst);
    let payment = shop.payment(0).await;
    let killed = shop.addresses[0];
    let lost = tokio::spawn(http().get(format!("http://{killed}{PATH}/item/killed")).header("payment-signature", &payment).send());
    shop.until("it is settling", async || shop.count("state = 'settling'") == 1).await;
    shop.replicas[0].lock().await.kill();
    assert!(lost.await.expect("no panic").is_err(), "the connection broke");
    let end = Instant::now() + Duration::from_secs(60);
    let told = loop {
        let request = http().get(format!("http://{}{PATH}/item/killed", shop.addresses[1])).header("payment-signature", &payment);
        let answer = request.send().await.expect("the second gateway answers");
        let (status, receipt) = (answer.status().as_u16(), answer.headers().contains_key("payment-response"));
        assert!(status != 402, "never a second payment");
        if receipt || Instant::now() > end {
            break (status, receipt);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(matches!(told, (200 | 409, true)), "{told:?}");
    let seen = shop.upstream.take_seen().into_iter().filter(|seen| seen.target.contains("/item/")).count();
    assert_eq!(seen, 1, "the upstream ran once");
    assert_eq!(shop.earned().await, U256::from(PRICE * (COPIES as u64 + 1)), "charged once");
    assert_eq!(shop.count("state = 'owed'"), 1);
    let wishes = &shop.facilitator.wishes;
    assert!(wishes.asked.load(SeqCst) >= COPIES as u64 + 2 && wishes.made.load(SeqCst) == COPIES as u64 + 1, "it answered success twice");

    // Under load the database crashes, and then another gateway is killed for good.
    shop.replicas[0].lock().await.up().await;
    shop.facilitator.wishes.delay.store(150, SeqCst);
    const LOAD: usize = 60;
    let mut payments = Vec::new();
    for n in 0..LOAD {
        payments.push(shop.payment(n).await);
    }
    let trouble = async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        shop.database.lock().expect("no panic").crash();
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        shop.database.lock().expect("no panic").up();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        shop.replicas[2].lock().await.kill();
    };
    let buyers = payments.iter().enumerate().map(async |(n, payment)| {
        tokio::time::sleep(Duration::from_millis(n as u64 * 80)).await;
        shop.buy_for_certain(100 + n, payment).await
    });
    let (told, ()) = tokio::join!(join_all(buyers), trouble);
    assert!(told.iter().all(|(status, receipt)| matches!(status, 200 | 409) && *receipt), "every buyer knows: {told:?}");
    shop.until("nothing is open", async || shop.count("is_open") == 0).await;
    let all = (COPIES + 1 + LOAD) as u64;
    assert_eq!(shop.earned().await, U256::from(PRICE * all), "the chain");
    assert_eq!(shop.count("state in ('delivered', 'owed')"), all, "the journal");
    assert_eq!(shop.count("true"), all);
    let answered = told.iter().filter(|(status, _)| *status == 200).count();
    println!("{answered} of {LOAD} were answered through it all, the others have a receipt");
}
