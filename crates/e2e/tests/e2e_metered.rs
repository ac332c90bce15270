//! Metered answers that end too early, up to the money moving on a real EVM node: streams cut at random bytes, by
//! the buyer and by the model server, and a node that is killed in the middle and right after.

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst, time::Duration};

use alloy_primitives::{Address, B256, U256};
use obol_e2e::{
    anvil::{Anvil, ENDOWMENT, KEYS},
    facilitators::{Facilitator, Maker},
    forge,
    generous::Generous,
    http, keep,
    models::{MODEL, ModelServer},
    stack::Stack,
    valve::{Flow, Valve},
};
use obol_x402::{Received, signing};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

const PAYER: &str = KEYS[8];
const MAX_TOKENS: u64 = 32;
/// Atomic units for a token in, and for one out.
const PRICES: (u64, u64) = (1, 2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A seller of llama.cpp's model behind a valve, on Anvil.
struct Shop {
    anvil: Anvil,
    valve: Valve,
    facilitator: Generous,
    stack: Stack,
    payee: Address,
    _behind: (ModelServer, Facilitator),
}

/// A signed payment for one request.
struct Payment {
    body: String,
    header: String,
    nonce: B256,
    /// Atomic units that were authorised.
    ceiling: u64,
}

impl Shop {
    /// `reads_chain`: whether the node can look up payments itself.
    async fn open(reads_chain: bool) -> Self {
        let (anvil, llama) = (Anvil::start().await, ModelServer::llama().await);
        anvil.approve_permit2(forge::address(PAYER), U256::MAX).await;
        let valve = Valve::start(&llama.url).await;
        let behind = Facilitator::start(Maker::TypeScript, &anvil.url);
        let facilitator = Generous::start(&behind.url).await;
        let networks = format!("networks:\n  base-sepolia:\n    rpc: [\"{}\"]\n", anvil.url);
        let mut stack = Stack::with(if reads_chain { &networks } else { "" });
        let payee = forge::fresh_address();
        stack.ok(&[
            &["sell", "inference", "chat", "--upstream", &valve.url, "--model", MODEL, "--per-mtok", "1", "--per-mtok-output", "2"],
            &["--pay-to", &payee.to_string(), "--network", "base-sepolia", "--facilitator", &facilitator.url][..],
        ]
        .concat());
        stack.up().await;
        let shop = Self { anvil, valve, facilitator, stack, payee, _behind: (llama, behind) };
        shop.wait_until_ready().await;
        shop
    }

    async fn wait_until_ready(&self) {
        let status = || self.stack.ok(&["sell", "status", "chat", "--output", "json"]);
        wait("the offer is ready", || status().contains("\"state\": \"ready\"")).await;
    }

    fn url(&self) -> String {
        self.stack.url("/services/chat/v1/chat/completions")
    }

    /// Asks for the price of a request of its own, and signs for it.
    async fn sign(&self, number: u64) -> Payment {
        let body = json!({
            "model": MODEL, "max_tokens": MAX_TOKENS, "temperature": 0, "stream": true, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": format!("hello {number}") }],
        })
        .to_string();
        let asked = http().post(self.url()).header("content-type", "application/json").body(body.clone()).send().await.expect("it answers");
        let header = asked.headers().get("payment-required").map(|header| header.as_bytes());
        let offers = Received::parse(header, b"").expect("a challenge").offers;
        let offered = offers.into_iter().find(|offered| offered.scheme == "upto").expect("upto is offered");
        let terms = offered.terms().expect("it can be paid");
        let kind = offered.kind(&terms).expect("somebody settles");
        let (nonce, until) = (B256::from(rand::random::<[u8; 32]>()), self.anvil.now().await + 250);
        let signed = signing::sign(&forge::secret(PAYER), &terms, kind, nonce, 0..until);
        let ceiling = terms.amount.to_string().parse().expect("a small amount");
        assert_eq!(ceiling, body.len() as u64 * PRICES.0 + MAX_TOKENS * PRICES.1, "the documented ceiling");
        Payment { body, header: offered.payment(&signed).1, nonce, ceiling }
    }

    async fn present(&self, payment: &Payment) -> reqwest::Response {
        let request = http().post(self.url()).header("content-type", "application/json").header("payment-signature", &payment.header);
        request.body(payment.body.clone()).timeout(PATIENCE).send().await.expect("the gateway answers")
    }

    fn rows(&self) -> BTreeMap<String, Value> {
        let rows: Vec<Value> = serde_json::from_str(&self.stack.ok(&["payments", "export", "--format", "json"])).expect("JSON");
        let nonce = |row: &Value| row["key"].as_str().and_then(|key| key.rsplit('/').next()).expect("a key").to_lowercase();
        rows.into_iter().map(|row| (nonce(&row), row)).collect()
    }

    /// The payment's row, once it is in `state`.
    async fn row_in(&self, payment: &Payment, state: &str) -> Value {
        let row = || self.rows().remove(&payment.nonce.to_string()).unwrap_or_default();
        wait(state, || row()["state"] == state).await;
        row()
    }

    async fn balance(&self) -> u64 {
        self.anvil.balance(self.payee).await.to()
    }
}

async fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whole events with data, as they come from the model server.
fn events(passed: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(passed);
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    whole.split("\n\n").filter_map(|event| serde_json::from_str(event.trim().strip_prefix("data:")?).ok()).collect()
}

fn usage(events: &[Value]) -> Option<(u64, u64)> {
    let usage = &events.iter().rfind(|event| event["usage"].is_object())?["usage"];
    Some((usage["prompt_tokens"].as_u64()?, usage["completion_tokens"].as_u64()?))
}

fn cost((input, output): (u64, u64)) -> u64 {
    input * PRICES.0 + output * PRICES.1
}

/// docs/metering.md, "Cut": a quarter of the prompt's bytes and each event that left but the first.
fn owed_by_who_left(body: &str, left: &[Value]) -> u64 {
    if left.is_empty() { 0 } else { cost((body.len() as u64 / 4, left.len() as u64 - 1)) }
}

/// docs/inference.md, "What is counted": the server's own count if it came, else each piece and a quarter of the prompt's bytes.
fn owed_for_a_broken_answer(body: &str, passed: &[Value]) -> u64 {
    let piece = |event: &&Value| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty());
    let pieces = passed.iter().filter(piece).count() as u64;
    match usage(passed) {
        Some(counted) => cost(counted),
        None if pieces > 0 => cost((body.len() as u64 / 4, pieces)),
        None => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_cut_at_random_bytes_are_charged_by_the_rule_to_the_unit() {
    const CUTS: u64 = 40;
    let shop = Shop::open(false).await;
    let mut dice = StdRng::seed_from_u64(402);
    let (mut due, mut by, mut total) = (0, BTreeMap::<_, u64>::new(), usize::MAX);
    for number in 0..CUTS {
        // The first is held at its very end, and tells how long a stream is.
        let at = match number {
            0 => total,
            early if early % 5 == 2 => dice.random_range(1..400),
            _ => dice.random_range(1..=total),
        };
        let flow = if number % 4 == 3 { Flow::Break(at) } else { Flow::Hold(at) };
        shop.valve.set(flow);
        let payment = shop.sign(number).await;
        let mut answer = shop.present(&payment).await;
        assert_eq!(answer.status(), 200);
        let (charge, who) = if let Flow::Hold(_) = flow {
            let passed = shop.valve.stopped().await;
            if number == 0 {
                total = passed.len();
            }
            let passed = events(&passed);
            let mut seen = Vec::new();
            while events(&seen).len() < passed.len() {
                seen.extend_from_slice(&answer.chunk().await.expect("a chunk").expect("nothing has ended"));
            }
            assert_eq!(events(&seen).len(), passed.len());
            drop(answer);
            (owed_by_who_left(&payment.body, &passed), "buyers")
        } else {
            let text = answer.text().await.expect("a stream that says how it ended");
            assert!(text.contains("upstream_broken"), "{text}");
            (owed_for_a_broken_answer(&payment.body, &events(&shop.valve.stopped().await)), "servers")
        };
        assert!(charge <= payment.ceiling);
        due += charge;
        *by.entry(if charge == 0 { "for nothing" } else { who }).or_default() += 1;
        if charge == 0 {
            let row = shop.row_in(&payment, "released").await;
            assert!(row["settled"].is_null(), "{flow:?}: {row}");
        } else {
            let row = shop.row_in(&payment, "delivered").await;
            assert_eq!(row["settled"], charge.to_string(), "{flow:?}: {row}");
            assert_eq!(row["amount"], payment.ceiling.to_string());
        }
        assert_eq!(shop.balance().await, due, "{flow:?}");
    }
    assert_eq!(shop.anvil.balance(forge::address(PAYER)).await, U256::from(ENDOWMENT - due));
    let settled: u64 = shop.rows().values().filter_map(|row| row["settled"].as_str()?.parse::<u64>().ok()).sum();
    assert_eq!(settled, due, "chain and journal agree");
    let line = format!("{CUTS} streams of {total} bytes, cut at random bytes: {by:?}; {due} atomic units moved, as the rule says");
    println!("{line}");
    keep("cuts.txt", &line);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_mid_stream_has_charged_nothing_and_the_payment_stays_good() {
    let mut shop = Shop::open(false).await;
    for number in 0..3 {
        let before = shop.balance().await;
        let asked = shop.facilitator.wishes.asked.load(SeqCst);
        shop.valve.set(Flow::Hold(rand::random_range(1..2_000)));
        let payment = shop.sign(number).await;
        let mut answer = shop.present(&payment).await;
        let passed = events(&shop.valve.stopped().await);
        let mut seen = Vec::new();
        while events(&seen).len() < passed.len() {
            seen.extend_from_slice(&answer.chunk().await.expect("a chunk").expect("nothing has ended"));
        }
        shop.stack.kill();
        assert!(answer.text().await.is_err(), "a buyer can tell a cut from an end");
        shop.stack.up().await;
        let row = shop.row_in(&payment, "released").await;
        assert!(row["settled"].is_null(), "{row}");
        assert_eq!((shop.facilitator.wishes.asked.load(SeqCst), shop.balance().await), (asked, before));

        shop.valve.set(Flow::Open);
        shop.wait_until_ready().await;
        let whole = shop.present(&payment).await.bytes().await.expect("a whole answer");
        let charge = cost(usage(&events(&whole)).expect("the server counts"));
        assert_eq!(shop.row_in(&payment, "delivered").await["settled"], charge.to_string());
        assert_eq!((shop.facilitator.wishes.asked.load(SeqCst), shop.balance().await), (asked + 1, before + charge));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_before_a_settlement_is_answered_has_charged_once() {
    for reads_chain in [false, true] {
        let mut shop = Shop::open(reads_chain).await;
        shop.facilitator.wishes.delay.store(u64::MAX, SeqCst);
        let payment = shop.sign(0).await;
        let whole = shop.present(&payment).await.bytes().await.expect("a whole answer");
        let charge = cost(usage(&events(&whole)).expect("the server counts"));
        let wishes = shop.facilitator.wishes.clone();
        wait("the facilitator is asked", || wishes.asked.load(SeqCst) == 1).await;
        shop.stack.kill();
        assert_eq!((wishes.made.load(SeqCst), shop.balance().await), (0, 0), "killed before any money moved");
        // It is made while nobody listens, and found on the chain, or by asking again.
        wishes.delay.store(0, SeqCst);
        wait("it is made", || wishes.made.load(SeqCst) == 1).await;
        // Twice: what is written down stays as it is.
        for _ in 0..2 {
            shop.stack.up().await;
            let row = shop.row_in(&payment, "delivered").await;
            assert_eq!(row["settled"], charge.to_string(), "{row}");
            assert_eq!((wishes.made.load(SeqCst), shop.balance().await), (1, charge));
            shop.stack.kill();
        }
        shop.stack.up().await;
        shop.wait_until_ready().await;
        let again = shop.present(&payment).await;
        assert_eq!(again.status(), 409);
        let receipt = again.headers().get("payment-response").and_then(|value| value.to_str().ok()).map(forge::decode);
        assert_eq!(receipt.expect("a receipt")["amount"], charge.to_string());
        let asked = if reads_chain { 1 } else { 2 };
        assert_eq!((wishes.asked.load(SeqCst), wishes.made.load(SeqCst), shop.balance().await), (asked, 1, charge));
    }
}
