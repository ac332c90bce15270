//! Payments, cashiers, a scripted facilitator in the process, and one behind a real socket.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use obol_offer::{Address, Amount, B256, Network, OfferName, Scheme, Terms};
use obol_settle::{Cashier, CashierConfig, Facilitator, Receipt, Recovery, SettleOutcome, VerifyOutcome};
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
};

pub const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
pub const NETWORK: &str = "base-sepolia";
/// Fingerprint of the one request of most tests.
pub const REQUEST: [u8; 32] = [9; 32];

pub fn payer() -> Address {
    PAYER.parse().unwrap()
}

pub fn offer() -> OfferName {
    "weather".parse().unwrap()
}

/// A payment of 1000 units; `n` makes it unique.
pub fn payment(n: u64) -> MatchedPayment {
    let network = Network::find(NETWORK).unwrap();
    let pay_to: Address = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
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
            from: payer(),
            to: pay_to,
            value: Amount::from(1000),
            valid_after: 0,
            valid_before: 4_000_000_000,
            nonce,
            kind: AuthorizationKind::Eip3009,
            signature: vec![1; 65],
        },
        local_check: LocalCheck::SignedByPayer,
        charge: Amount::from(1000),
        payload_digest: nonce.0,
        facilitator_body: format!(r#"{{"x402Version":2,"paymentPayload":{{"n":{n}}},"paymentRequirements":{{}}}}"#).into_bytes(),
    }
}

/// Who alone may settle metered payments.
const SETTLER: Address = Address::repeat_byte(7);

/// The same, to be charged for what is used.
pub fn metered(n: u64) -> MatchedPayment {
    let mut payment = payment(n);
    payment.terms.scheme = Scheme::Upto;
    payment.authorization.kind = AuthorizationKind::Upto { facilitator: SETTLER };
    payment
}

pub fn receipt() -> Receipt {
    Receipt { transaction: "0xabc".into(), payer: payer(), amount: Amount::from(1000) }
}

/// Quick recovery, so that tests wait for outcomes and not for clocks.
pub const SOON: Recovery = Recovery { first: Duration::from_millis(20), longest: Duration::from_millis(20), tries: 500 };
/// No recovery at all.
pub const NEVER: Recovery = Recovery { first: Duration::from_secs(3600), longest: Duration::from_secs(3600), tries: 1 };

pub fn config(folder: &Path) -> CashierConfig {
    CashierConfig {
        settle_timeout: Duration::from_secs(20),
        verify_timeout: Duration::from_secs(20),
        recovery: NEVER,
        hold: Duration::ZERO,
        ..CashierConfig::new(folder.join("journal.redb"))
    }
}

/// A cashier with one facilitator in the process.
pub async fn open(folder: &Path, facilitator: &Arc<Scripted>, recovery: Recovery) -> Cashier {
    let local: Arc<dyn Facilitator> = Arc::<Scripted>::clone(facilitator);
    Cashier::open(CashierConfig { local: vec![(NETWORK, local)], recovery, ..config(folder) }).await.unwrap()
}

/// Waits for something that must become true; the bound only ends a broken test.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Answers from scripts; when a script is empty, it verifies and settles.
#[derive(Default)]
pub struct Scripted {
    pub verify: Mutex<VecDeque<VerifyOutcome>>,
    pub settle: Mutex<VecDeque<SettleOutcome>>,
    /// When set, settling waits for a permit.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    pub asked: Notify,
    pub verified: AtomicUsize,
    pub settled: AtomicUsize,
}

impl Scripted {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    pub fn settling(outcomes: impl IntoIterator<Item = SettleOutcome>) -> Arc<Self> {
        let this = Self::default();
        this.settle.lock().unwrap().extend(outcomes);
        Arc::new(this)
    }
    pub fn gated() -> (Arc<Self>, Arc<Semaphore>) {
        let (this, gate) = (Self::new(), Arc::new(Semaphore::new(0)));
        *this.gate.lock().unwrap() = Some(Arc::clone(&gate));
        (this, gate)
    }
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
        let scripted = self.verify.lock().unwrap().pop_front();
        Box::pin(async move { scripted.unwrap_or(VerifyOutcome::Valid { payer: payment.authorization.from }) })
    }
    fn settle<'a>(&'a self, _payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        self.settled.fetch_add(1, SeqCst);
        self.asked.notify_one();
        let gate = self.gate.lock().unwrap().clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            self.settle.lock().unwrap().pop_front().unwrap_or_else(|| SettleOutcome::Settled(receipt()))
        })
    }
}

/// What a facilitator behind a socket does with one request.
#[derive(Clone)]
pub enum Does {
    /// Status and body.
    Says(u16, String),
    /// Both, one right after the other, on a connection kept open.
    SaysTwice(String, String),
    /// 308 to another base URL.
    Sends(String),
    /// Reads the request, and closes.
    HangsUp,
    /// Reads the request, and never answers.
    Stays,
    /// Answers for ever.
    Floods,
}

pub fn valid() -> Does {
    Does::Says(200, format!(r#"{{"isValid":true,"payer":"{PAYER}"}}"#))
}

pub fn success() -> Does {
    Does::Says(200, format!(r#"{{"success":true,"payer":"{PAYER}","transaction":"0xabc","network":"eip155:84532"}}"#))
}

pub fn says(status: u16, body: &str) -> Does {
    Does::Says(status, body.to_owned())
}

/// A facilitator behind a real socket that follows a script per path, its last line for ever.
pub struct Remote {
    pub url: url::Url,
    /// Answer to `/supported`; 404 when there is none.
    pub supported: Arc<Mutex<Option<String>>>,
    /// Path, head and body of every request to `/verify` and `/settle`.
    pub requests: Requests,
}

impl Remote {
    pub async fn start(verify: impl Into<VecDeque<Does>>, settle: impl Into<VecDeque<Does>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap()).parse().unwrap();
        let (verify, settle) = (Arc::new(Mutex::new(verify.into())), Arc::new(Mutex::new(settle.into())));
        let (requests, supported) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let this = Self { url, supported: Arc::clone(&supported), requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&verify), Arc::clone(&settle), Arc::clone(&supported), Arc::clone(&requests)));
            }
        });
        this
    }

    pub fn count(&self, path: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|(p, ..)| p == path).count()
    }
}

type Script = Arc<Mutex<VecDeque<Does>>>;

type Requests = Arc<Mutex<Vec<(String, String, String)>>>;

async fn serve(mut stream: TcpStream, verify: Script, settle: Script, supported: Arc<Mutex<Option<String>>>, requests: Requests) {
    let Some((head, body)) = read_request(&mut stream).await else { return };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let script = match path.as_str() {
        "/base/verify" => verify,
        "/base/settle" => settle,
        _ => {
            let known = supported.lock().unwrap().clone();
            return answer(&mut stream, if known.is_some() { 200 } else { 404 }, &known.unwrap_or_default()).await;
        }
    };
    requests.lock().unwrap().push((path.clone(), head, body));
    let does = {
        let mut script = script.lock().unwrap();
        if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
    };
    match does.unwrap() {
        Does::Says(status, body) => answer(&mut stream, status, &body).await,
        Does::Sends(base) => {
            let name = path.rsplit('/').next().unwrap();
            let text = format!("HTTP/1.1 308 Moved\r\nlocation: {base}{name}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Does::SaysTwice(first, second) => {
            let text = |body: String| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all((text(first) + &text(second)).as_bytes()).await;
            let _ = stream.read(&mut [0; 1]).await;
        }
        Does::HangsUp => {}
        Does::Stays => std::future::pending().await,
        Does::Floods => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b' '; 8192]).await.is_ok() {}
        }
    }
}

async fn answer(stream: &mut TcpStream, status: u16, body: &str) {
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut data = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        data.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&data).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}
