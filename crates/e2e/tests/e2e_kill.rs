//! A real kill -9 loop: the real binary sells under load, against a real EVM node and a facilitator
//! that we did not write, and is killed at random again and again. At the end chain, journal and
//! answers must agree to the unit.
//!
//! `cargo xtask kill --rounds N` runs many rounds (`OBOL_KILLS`); a plain test run a few.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256, hex};
use alloy_sol_types::{SolCall, sol};
use obol_e2e::{
    anvil::{Anvil, ENDOWMENT, KEYS, USDC},
    facilitators::{Facilitator, Maker},
    forge, http, keep,
    stack::Stack,
    upstream::Upstream,
};
use serde_json::{Value, json};

const PRICE: u64 = 1_000;
const ROUNDS: u32 = 25;
/// Buyers at once; each has an account of its own, none a facilitator's.
const BUYERS: [&str; 6] = [KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]];
/// An offer for each policy of what is owed to who did not get an answer.
const OFFERS: [(&str, &str); 3] = [("plain", "receipt"), ("kept", "storedAnswer"), ("again", "rerun")];

sol! {
    function authorizationState(address authorizer, bytes32 nonce) returns (bool);
}

/// One signed payment and everything its buyer was told.
#[derive(Clone, Debug)]
struct Bought {
    payer: Address,
    nonce: B256,
    offer: usize,
    path: String,
    header: String,
    /// Whole answers with status 200.
    answers: u32,
    /// "Sign a new payment": a promise that this one never moves money.
    told_to_sign: bool,
    /// Transactions of receipts.
    receipts: Vec<String>,
    last: String,
}

#[derive(Default)]
struct Ledger {
    bought: Mutex<Vec<Bought>>,
    stop: AtomicBool,
}

impl Bought {
    fn sign(key: &str, payees: &[Address], now: u64, number: usize) -> Self {
        let offer = rand::random_range(0..OFFERS.len());
        let payment = forge::payment(key, &forge::terms(payees[offer], PRICE), 0, now + 200);
        let nonce = payment["payload"]["authorization"]["nonce"].as_str().and_then(|n| n.parse().ok()).expect("a nonce");
        let path = format!("/services/{}/{number}", OFFERS[offer].0);
        let header = forge::header(&payment);
        Self {
            payer: forge::address(key),
            nonce,
            offer,
            path,
            header,
            answers: 0,
            told_to_sign: false,
            receipts: vec![],
            last: String::new(),
        }
    }

    /// Presents it once; true when there is no use in presenting it again.
    async fn present(&mut self, client: &reqwest::Client, url: &str, patience: Duration) -> bool {
        let request = client.get(url).header("payment-signature", &self.header).timeout(patience);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                self.last = format!("no answer: {error}");
                return false;
            }
        };
        let status = answer.status().as_u16();
        let receipt = answer.headers().get("payment-response").and_then(|value| value.to_str().ok()).map(forge::decode);
        let transaction = receipt.filter(|receipt| receipt["success"] == true).and_then(|r| Some(r["transaction"].as_str()?.to_owned()));
        let Ok(body) = answer.text().await else {
            self.last = format!("{status}, cut off");
            return false;
        };
        self.last = format!("{status} {}", body.chars().take(120).collect::<String>());
        self.receipts.extend(transaction.clone());
        match status {
            200 => {
                assert!(transaction.is_some(), "an answer without a receipt for {}", self.path);
                assert!(body.contains(&format!("/{} ", self.path.rsplit('/').next().expect("a number"))), "another's answer: {body}");
                self.answers += 1;
                true
            }
            402 => {
                self.told_to_sign = true;
                true
            }
            409 if body.contains("payment_already_used") => true,
            409 if body.contains("payment_in_progress") => false,
            503 => false,
            _ => panic!("{} was answered {}", self.path, self.last),
        }
    }
}

async fn buyer(key: &'static str, stack_url: String, payees: Vec<Address>, ledger: Arc<Ledger>) {
    let client = http();
    while !ledger.stop.load(SeqCst) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let number = { ledger.bought.lock().expect("whole").len() };
        let mut bought = Bought::sign(key, &payees, now, number * BUYERS.len() + BUYERS.iter().position(|k| *k == key).expect("listed"));
        // Before anything is sent: a payment that is forgotten is not checked.
        let place = {
            let mut all = ledger.bought.lock().expect("whole");
            all.push(bought.clone());
            all.len() - 1
        };
        // Some buyers retry, some are hasty, some leave.
        for _ in 0..rand::random_range(1..5) {
            let patience = Duration::from_millis(if rand::random_ratio(1, 5) { 40 } else { 5_000 });
            let over = bought.present(&client, &format!("{stack_url}{}", bought.path), patience).await;
            ledger.bought.lock().expect("whole")[place] = bought.clone();
            if over || ledger.stop.load(SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(5..80))).await;
        }
    }
}

async fn is_used(anvil: &Anvil, bought: &Bought) -> bool {
    let data = authorizationStateCall { authorizer: bought.payer, nonce: bought.nonce }.abi_encode();
    let word = anvil.rpc("eth_call", json!([{ "to": USDC, "data": hex::encode_prefixed(data) }, "latest"])).await;
    word.as_str().expect("a word").ends_with('1')
}

fn maker() -> Maker {
    match std::env::var("OBOL_KILL_FACILITATOR").as_deref() {
        Ok("python") => Maker::Python,
        Ok("rust") => Maker::Rust,
        Ok("typescript") | Err(_) => Maker::TypeScript,
        Ok(other) => panic!("OBOL_KILL_FACILITATOR is typescript, python or rust, not {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_chain_journal_and_answers_agree_to_the_unit() {
    let rounds = std::env::var("OBOL_KILLS").map_or(ROUNDS, |rounds| rounds.parse().expect("OBOL_KILLS is a number"));
    let anvil = Anvil::start().await;
    let facilitator = Facilitator::start(maker(), &anvil.url);
    let upstream = Upstream::start().await;
    let mut stack = Stack::with(&format!("networks:\n  base-sepolia:\n    rpc: [\"{}\"]\n", anvil.url));
    let payees: Vec<Address> = OFFERS.iter().map(|_| forge::fresh_address()).collect();
    for ((name, policy), payee) in OFFERS.iter().zip(&payees) {
        stack.sell(name, &upstream.url, &payee.to_string(), &facilitator.url);
        stack.set(name, &format!("delivery:\n  onLost: {policy}\n"));
    }
    let ledger = Arc::new(Ledger::default());
    let buyers: Vec<_> = BUYERS.map(|key| tokio::spawn(buyer(key, stack.url(""), payees.clone(), Arc::clone(&ledger)))).into();
    let begun = Instant::now();
    for round in 1..=rounds {
        stack.up().await;
        // Sometimes during the first look at what was left open, sometimes in full swing.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..600))).await;
        stack.kill();
        if buyers.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        if round % 25 == 0 {
            let (count, rate) = (ledger.bought.lock().expect("whole").len(), f64::from(round) / begun.elapsed().as_secs_f64());
            println!("{round} kills, {rate:.2} rounds/s, {count} payments signed");
        }
    }
    let rate = f64::from(rounds) / begun.elapsed().as_secs_f64();
    stack.up().await;
    ledger.stop.store(true, SeqCst);
    for buyer in buyers {
        buyer.await.expect("no buyer saw what must not be");
    }

    // Every buyer comes back once more, in peace.
    let mut bought = std::mem::take(&mut *ledger.bought.lock().expect("whole"));
    let client = http();
    for payment in bought.iter_mut().filter(|payment| !payment.told_to_sign) {
        for _ in 0..2 {
            if payment.present(&client, &stack.url(&payment.path), Duration::from_secs(40)).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // The time of every authorization passes, finally: what was not made can never be.
    anvil.rpc("evm_increaseTime", json!([600])).await;
    anvil.rpc("anvil_mine", json!(["0x100"])).await;
    stack.kill();
    stack.up().await;
    let end = Instant::now() + Duration::from_secs(120);
    while stack.status()["node"]["payments"]["unknown"] != 0 {
        assert!(Instant::now() < end, "payments stay unknown: {}", stack.ok(&["payments", "list", "--state", "unknown"]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let rows: Vec<Value> = serde_json::from_str(&stack.ok(&["payments", "export", "--format", "json"])).expect("JSON");
    let rows: BTreeMap<String, Value> = rows
        .into_iter()
        .map(|row| (row["key"].as_str().expect("a key").rsplit('/').next().expect("a nonce").to_lowercase(), row))
        .collect();
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let (mut used, mut paid_to, mut paid_by) = (0, vec![0; OFFERS.len()], BTreeMap::<Address, u64>::new());
    for payment in &bought {
        let row = rows.get(&payment.nonce.to_string().to_lowercase());
        let state = row.map_or("none", |row| row["state"].as_str().expect("a state"));
        *states.entry(state.to_owned()).or_default() += 1;
        let moved = is_used(&anvil, payment).await;
        let paid = matches!(state, "settled" | "delivered" | "owed" | "lost" | "refunded");
        assert!(paid || matches!(state, "none" | "released" | "refused" | "expired"), "still open: {payment:?} {row:?}");
        assert_eq!(moved, paid, "chain and journal differ: {payment:?} {row:?}");
        assert!(!(moved && payment.told_to_sign), "charged after a 402: {payment:?} {row:?}");
        assert!(moved || payment.answers == 0, "answered unpaid: {payment:?} {row:?}");
        assert!(moved || payment.receipts.is_empty(), "a receipt for nothing: {payment:?} {row:?}");
        if !moved {
            continue;
        }
        used += 1;
        paid_to[payment.offer] += PRICE;
        *paid_by.entry(payment.payer).or_default() += PRICE;
        let transaction = row.and_then(|row| row["transaction"].as_str()).expect("a paid row has its transaction");
        assert!(payment.receipts.iter().all(|receipt| receipt == transaction), "another receipt: {payment:?} {row:?}");
        assert!(anvil.succeeded(transaction.parse().expect("a hash")).await, "{transaction} is not on chain");
        let most = match OFFERS[payment.offer].1 {
            "receipt" => 1,
            "rerun" => 2,
            _ => u32::MAX,
        };
        assert!(payment.answers <= most, "{} answers for one payment: {payment:?} {row:?}", payment.answers);
    }
    for (payee, expected) in payees.iter().zip(&paid_to) {
        assert_eq!(anvil.balance(*payee).await, U256::from(*expected), "what a payee owns");
    }
    for key in BUYERS {
        let payer = forge::address(key);
        let spent = paid_by.get(&payer).copied().unwrap_or_default();
        assert_eq!(anvil.balance(payer).await, U256::from(ENDOWMENT - spent), "what a payer owns");
    }
    assert!(rounds < 10 || used > u64::from(rounds), "{used} payments in {rounds} rounds show little");
    let states: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let line = format!(
        "{rounds} kills ({rate:.2} rounds/s) against {}: {} payments signed, {used} paid; {}; balances, journal and answers agree",
        maker(),
        bought.len(),
        states.join(", ")
    );
    println!("{line}");
    keep("kill.txt", &line);
}
