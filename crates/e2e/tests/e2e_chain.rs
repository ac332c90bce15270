//! A chain of our own reading, and a facilitator of our own, against a real EVM node.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, sol};
use futures_util::future::join_all;
use obol_chain::{Chain, ChainConfig, SelfFacilitator, SettleConfig, SigningKey};
use obol_e2e::{
    anvil::{Anvil, ENDOWMENT, KEYS, USDC},
    buyers::Buyer,
    forge, http,
    stack::Stack,
    upstream::Upstream,
};
use obol_offer::Network;
use obol_settle::{ChainFinding, ChainView, Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::{LocalCheck, MatchedPayment, PaymentHeaders, Quote, QuoteInfo, decode, match_payment};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PRICE: u64 = 1_000;
/// The facilitator's own key.
const GAS: &str = KEYS[0];
const PAYER: &str = KEYS[8];

sol! {
    function transfer(address to, uint256 value);
    function cancelAuthorization(address authorizer, bytes32 nonce, bytes signature);
    function transferWithAuthorization(
        address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature
    );
}

fn chain(anvil: &Anvil) -> Arc<Chain> {
    let network = Network::find("base-sepolia").expect("a built-in network");
    // A node that is down comes first: it must not matter.
    let nodes = ["http://127.0.0.1:9".to_owned(), anvil.url.clone()].map(|url| url.parse().expect("a URL"));
    Arc::new(Chain::new(ChainConfig::new(network, nodes.into())).expect("two nodes"))
}

fn quick() -> SettleConfig {
    SettleConfig {
        patience: Duration::from_secs(20),
        bump_after: Duration::from_millis(500),
        poll_first: Duration::from_millis(50),
        poll_longest: Duration::from_millis(200),
        ..SettleConfig::default()
    }
}

fn facilitator(anvil: &Anvil, config: SettleConfig) -> SelfFacilitator {
    SelfFacilitator::new(chain(anvil), SigningKey::parse(GAS).expect("a key"), config)
}

async fn payment(anvil: &Anvil, payee: Address) -> MatchedPayment {
    payment_until(anvil, payee, 200).await
}

async fn payment_until(anvil: &Anvil, payee: Address, seconds: u64) -> MatchedPayment {
    let now = anvil.now().await;
    let terms = forge::terms(payee, PRICE);
    let quote = Quote::new(vec![terms.clone()], QuoteInfo::default());
    let header = forge::header(&forge::payment(PAYER, &terms, 0, now + seconds));
    let headers = PaymentHeaders { v1: vec![], v2: vec![header.as_bytes()] };
    let payment = decode(&headers).expect("the header is well formed").expect("there is a payment");
    match_payment(&payment, &quote, "http://127.0.0.1/services/x", now, |_| true).expect("it matches")
}

async fn count(anvil: &Anvil) -> u64 {
    let count = anvil.rpc("eth_getTransactionCount", json!([forge::address(GAS), "latest"])).await;
    u64::from_str_radix(count.as_str().expect("a number").trim_start_matches("0x"), 16).expect("a number")
}

fn hash(outcome: &SettleOutcome) -> B256 {
    let SettleOutcome::Settled(receipt) = outcome else { panic!("not settled: {outcome:?}") };
    assert_eq!((receipt.payer, receipt.amount.0), (forge::address(PAYER), U256::from(PRICE)));
    receipt.transaction.parse().expect("a hash")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_verifies_and_settles_and_tells_the_same_transaction_when_asked_again() {
    let anvil = Anvil::start().await;
    let us = facilitator(&anvil, quick());
    let payee = forge::fresh_address();
    let payment = payment(&anvil, payee).await;
    assert_eq!(us.id(), "self:base-sepolia");
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer: forge::address(PAYER) });
    assert_eq!(anvil.balance(payee).await, 0);

    let first = hash(&us.settle(&payment).await);
    assert!(anvil.succeeded(first).await);
    assert_eq!(anvil.balance(payee).await, PRICE);
    assert_eq!(hash(&us.settle(&payment).await), first);
    // Another process, after a crash: it has nothing but the chain.
    assert_eq!(hash(&facilitator(&anvil, quick()).settle(&payment).await), first);
    assert_eq!(anvil.balance(payee).await, PRICE);
    assert_eq!(count(&anvil).await, 1, "one transaction was paid for");
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Invalid { reason: "invalid_exact_evm_nonce_already_used".into() });

    // The chain's own word, with and without the hash.
    let chain = chain(&anvil);
    let settled = ChainFinding::Settled { transaction: first.to_string(), amount: payment.charge, is_final: false };
    for named in [None, Some(first.to_string()), Some(B256::ZERO.to_string()), Some("nonsense".to_owned())] {
        assert_eq!(chain.look(&payment, anvil.now().await, named.as_deref()).await, settled);
    }
    anvil.rpc("anvil_mine", json!(["0x100"])).await;
    assert!(matches!(chain.look(&payment, 0, None).await, ChainFinding::Settled { is_final: true, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_token_refuses_is_refused_before_it_costs_gas() {
    let anvil = Anvil::start().await;
    let us = facilitator(&anvil, quick());
    let good = payment(&anvil, forge::fresh_address()).await;
    let bend = |change: fn(&mut MatchedPayment)| {
        let mut bent = good.clone();
        change(&mut bent);
        bent
    };
    let cases: [(&str, MatchedPayment); 6] = [
        ("invalid_exact_evm_payload_signature", bend(|p| p.authorization.signature[3] ^= 1)),
        ("invalid_exact_evm_payload_recipient_mismatch", bend(|p| p.authorization.to = USDC)),
        ("invalid_exact_evm_payload_authorization_value_mismatch", bend(|p| p.authorization.value = 7.into())),
        ("invalid_exact_evm_payload_authorization_valid_before", bend(|p| p.authorization.valid_before = 5)),
        ("invalid_network", bend(|p| p.terms.network = Network::find("base").expect("built in"))),
        ("invalid_exact_evm_payload_signature", bend(|p| p.authorization.signature = [0x64, 0x92].repeat(64))),
    ];
    for (reason, bent) in cases {
        assert_eq!(us.verify(&bent).await, VerifyOutcome::Invalid { reason: reason.into() });
        assert_eq!(us.settle(&bent).await, SettleOutcome::Refused { reason: reason.into() });
    }
    // All of the payer's money goes elsewhere between verify and settle.
    let data = transferCall { to: USDC, value: U256::from(ENDOWMENT) }.abi_encode();
    anvil.transact(forge::address(PAYER), USDC, data).await;
    assert_eq!(us.verify(&good).await, VerifyOutcome::Invalid { reason: "insufficient_funds".into() });
    assert_eq!(us.settle(&good).await, SettleOutcome::Refused { reason: "insufficient_funds".into() });
    assert_eq!(count(&anvil).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_settlements_at_once_with_one_key_and_copies_of_one_are_one() {
    let anvil = Anvil::start().await;
    let us = facilitator(&anvil, quick());
    let payee = forge::fresh_address();
    let payments = join_all((0..16).map(|_| payment(&anvil, payee))).await;
    let outcomes = join_all(payments.iter().chain(&payments).map(|payment| us.settle(payment))).await;
    let mut hashes: Vec<_> = outcomes.iter().map(hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 16);
    assert_eq!(anvil.balance(payee).await, 16 * PRICE);
    assert_eq!(count(&anvil).await, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_chain_is_pending_and_the_dearer_transaction_is_found_later() {
    let anvil = Anvil::start().await;
    anvil.rpc("evm_setAutomine", json!([false])).await;
    let us = facilitator(&anvil, SettleConfig { patience: Duration::from_secs(2), ..quick() });
    let payee = forge::fresh_address();
    let payment = payment(&anvil, payee).await;
    let SettleOutcome::Pending { transaction: first } = us.settle(&payment).await else { panic!("nothing can be settled") };
    let pending = anvil.rpc("eth_getTransactionByHash", json!([first])).await;
    assert_eq!(pending["blockHash"], json!(null));
    // Replaced at least once within two seconds, each time for an eighth more or better, same number.
    let SettleOutcome::Pending { transaction: second } = us.settle(&payment).await else { panic!("nothing can be settled") };
    assert_ne!(first, second);
    let dearer = anvil.rpc("eth_getTransactionByHash", json!([second])).await;
    assert_eq!(dearer["nonce"], "0x0");
    let chain = chain(&anvil);
    assert!(matches!(chain.look(&payment, anvil.now().await, Some(&first)).await, ChainFinding::Unused { is_final: false, .. }));

    anvil.rpc("evm_setAutomine", json!([true])).await;
    anvil.rpc("anvil_mine", json!([])).await;
    let settled = hash(&us.settle(&payment).await);
    assert!(anvil.succeeded(settled).await);
    assert_eq!(anvil.balance(payee).await, PRICE);
    assert_eq!(count(&anvil).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_an_earlier_run_that_pays_too_little_is_made_way_for() {
    let anvil = Anvil::start().await;
    anvil.rpc("evm_setAutomine", json!([false])).await;
    let payee = forge::fresh_address();
    let payment = payment(&anvil, payee).await;
    let before = facilitator(&anvil, SettleConfig { patience: Duration::from_millis(300), ..quick() });
    assert!(matches!(before.settle(&payment).await, SettleOutcome::Pending { .. }));
    // The process is gone, its transaction is not; the next process is asked for the same payment.
    let after = facilitator(&anvil, SettleConfig { patience: Duration::from_millis(300), ..quick() });
    let outcome = after.settle(&payment).await;
    assert!(matches!(outcome, SettleOutcome::Pending { .. }), "{outcome:?}");
    anvil.rpc("evm_setAutomine", json!([true])).await;
    anvil.rpc("anvil_mine", json!([])).await;
    let mut outcome = after.settle(&payment).await;
    for _ in 0..50 {
        if matches!(outcome, SettleOutcome::Settled(_)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        outcome = after.settle(&payment).await;
    }
    assert!(anvil.succeeded(hash(&outcome)).await);
    assert_eq!(anvil.balance(payee).await, PRICE, "paid once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_tells_unused_cancelled_and_stolen_from_paid() {
    let anvil = Anvil::start().await;
    let chain = chain(&anvil);
    let now = anvil.now().await;
    let (unused, other) = (payment(&anvil, forge::fresh_address()).await, payment(&anvil, forge::fresh_address()).await);
    assert!(matches!(chain.look(&unused, now, None).await, ChainFinding::Unused { is_final: false, .. }));

    // The payer uses the nonce of one payment for another payee.
    let mut stolen = other.clone();
    stolen.authorization = obol_x402::eip3009::sign(
        &forge::secret(PAYER),
        &forge::terms(forge::fresh_address(), PRICE),
        other.authorization.nonce,
        0,
        now + 200,
    );
    let signed = &stolen.authorization;
    let data = transferWithAuthorizationCall {
        from: signed.from,
        to: signed.to,
        value: signed.value.0,
        validAfter: U256::ZERO,
        validBefore: U256::from(signed.valid_before),
        nonce: signed.nonce,
        signature: signed.signature.clone().into(),
    };
    let sent = anvil.transact(forge::address(KEYS[9]), USDC, data.abi_encode()).await.to_string();
    assert_eq!(chain.look(&other, now, Some(&sent)).await, ChainFinding::UsedElsewhere { is_final: false });
    let us = facilitator(&anvil, quick());
    assert!(matches!(us.settle(&other).await, SettleOutcome::Unknown { .. }), "not final yet");

    // Time and blocks pass.
    anvil.rpc("evm_increaseTime", json!([400])).await;
    anvil.rpc("anvil_mine", json!(["0x100", "0x2"])).await;
    assert!(matches!(chain.look(&unused, now, None).await, ChainFinding::Unused { is_final: true, .. }));
    assert_eq!(chain.look(&other, now, None).await, ChainFinding::UsedElsewhere { is_final: true });
    assert_eq!(us.settle(&other).await, SettleOutcome::Refused { reason: "authorization_spent_elsewhere".into() });
}

/// A wallet that counts down from 30,720, for some 800,000 gas, before it approves.
/// `PUSH2 30720, JUMPDEST, PUSH1 1, SWAP1, SUB, DUP1, PUSH1 3, JUMPI, POP`, and then as [`WALLET`].
const SLOW_WALLET: &str = "0x6178005b600190038060035750631626ba7e60e01b60005260206000f3";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_a_wallet_that_takes_too_much_gas_is_found_out_before_anything_is_served() {
    let anvil = Anvil::start().await;
    let us = facilitator(&anvil, quick());
    let wallet = forge::fresh_address();
    anvil.transact(forge::address(KEYS[9]), USDC, transferCall { to: wallet, value: U256::from(PRICE) }.abi_encode()).await;
    let mut payment = payment(&anvil, forge::fresh_address()).await;
    payment.authorization.from = wallet;
    payment.local_check = LocalCheck::Undecided;
    anvil.rpc("anvil_setCode", json!([wallet, WALLET])).await;
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer: wallet });
    anvil.rpc("anvil_setCode", json!([wallet, SLOW_WALLET])).await;
    let reason = || "gas_above_bound".to_owned();
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Invalid { reason: reason() });
    assert_eq!(us.settle(&payment).await, SettleOutcome::Refused { reason: reason() });
    assert_eq!(count(&anvil).await, 0);
}

/// The smallest ERC-1271 wallet: it approves of everything, like a wallet whose owner has signed.
/// `PUSH4 0x1626ba7e, PUSH1 224, SHL, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN`.
const WALLET: &str = "0x631626ba7e60e01b60005260206000f3";

#[tokio::test(flavor = "multi_thread")]
async fn a_smart_wallet_pays() {
    let anvil = Anvil::start().await;
    let us = facilitator(&anvil, quick());
    let (wallet, payee) = (forge::fresh_address(), forge::fresh_address());
    anvil.rpc("anvil_setCode", json!([wallet, WALLET])).await;
    let mut payment = payment(&anvil, payee).await;
    payment.authorization.from = wallet;
    payment.authorization.signature = vec![7; 97];
    payment.local_check = LocalCheck::Undecided;
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Invalid { reason: "insufficient_funds".into() });
    let data = transferCall { to: wallet, value: U256::from(PRICE) }.abi_encode();
    anvil.transact(forge::address(KEYS[9]), USDC, data).await;
    assert_eq!(us.verify(&payment).await, VerifyOutcome::Valid { payer: wallet });
    assert!(matches!(us.settle(&payment).await, SettleOutcome::Settled(receipt) if receipt.payer == wallet));
    assert_eq!(anvil.balance(payee).await, PRICE);
    anvil.rpc("anvil_setCode", json!([wallet, "0x60006000fd"])).await;
    payment.authorization.nonce = B256::repeat_byte(1);
    assert!(matches!(us.verify(&payment).await, VerifyOutcome::Invalid { .. }));
}

fn sell(stack: &Stack, upstream: &Upstream, payee: Address, facilitator: Option<&str>) {
    let payee = payee.to_checksum(None);
    let offer =
        ["sell", "http", "weather", "--upstream", &upstream.url, "--price", "0.001", "--pay-to", &payee, "--network", "base-sepolia"];
    stack.ok(&[&offer[..], &facilitator.map(|url| vec!["--facilitator", url]).unwrap_or_default()].concat());
}

/// One signed payment, to be presented as often as one likes.
async fn header(anvil: &Anvil, payee: Address) -> String {
    forge::header(&forge::payment(PAYER, &forge::terms(payee, PRICE), 0, anvil.now().await + 200))
}

async fn present(url: String, header: String) -> (u16, Option<serde_json::Value>) {
    let Ok(answer) = http().get(url).header("payment-signature", header).send().await else { return (0, None) };
    let receipt = answer.headers().get("payment-response").and_then(|value| value.to_str().ok()).map(forge::decode);
    (answer.status().as_u16(), receipt)
}

/// Presents the same payment until its outcome is known.
async fn present_until_known(stack: &Stack, header: &str) -> serde_json::Value {
    for _ in 0..300 {
        match present(stack.url("/services/weather"), header.to_owned()).await {
            (409, Some(receipt)) => return receipt,
            (503 | 409 | 0, _) => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("neither unknown nor used: {other:?}"),
        }
    }
    panic!("the outcome is never known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_key_sells_to_every_client_with_nobody_between() {
    let anvil = Anvil::start().await;
    let upstream = Upstream::start().await;
    let mut stack = Stack::settling(&anvil.url, GAS);
    let payee = forge::fresh_address();
    sell(&stack, &upstream, payee, None);
    stack.up().await;
    stack.wait_for("/services/weather", 402).await;
    for (index, buyer) in Buyer::ALL.into_iter().enumerate() {
        let answer = buyer.buy(&stack.url("/services/weather"));
        assert_eq!(answer.status, 200, "{buyer}: {answer:?}");
        let receipt = answer.receipt.expect("a receipt");
        assert!(receipt.success && anvil.succeeded(receipt.transaction).await, "{buyer}");
        assert_eq!(upstream.take_seen().len(), 1, "{buyer}");
        assert_eq!(anvil.balance(payee).await, PRICE * (index as u64 + 1), "{buyer}");
    }
    let shown = stack.status().to_string() + &stack.node().tail();
    assert!(!shown.contains(&GAS[2..20]), "the key is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_while_its_transaction_waits_finds_it_on_the_chain() {
    let anvil = Anvil::start().await;
    let upstream = Upstream::start().await;
    let mut stack = Stack::settling(&anvil.url, GAS);
    let payee = forge::fresh_address();
    sell(&stack, &upstream, payee, None);
    stack.up().await;
    stack.wait_for("/services/weather", 402).await;

    anvil.rpc("evm_setAutomine", json!([false])).await;
    let header = header(&anvil, payee).await;
    let buying = tokio::spawn(present(stack.url("/services/weather"), header.clone()));
    while anvil.rpc("txpool_status", json!([])).await["pending"] == "0x0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stack.kill();
    assert_eq!(buying.await.expect("it ends"), (0, None));
    anvil.rpc("evm_setAutomine", json!([true])).await;
    anvil.rpc("anvil_mine", json!([])).await;

    stack.up().await;
    let receipt = present_until_known(&stack, &header).await;
    let transaction = receipt["transaction"].as_str().and_then(|hash| hash.parse().ok()).expect("a hash");
    assert!(anvil.succeeded(transaction).await);
    assert_eq!(anvil.balance(payee).await, PRICE);
    assert_eq!(count(&anvil).await, 1, "nothing was sent again");
}

/// A facilitator that settles, and whose answer is always lost.
async fn lossy(us: Arc<SelfFacilitator>, payment: MatchedPayment) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    let answer = async move |mut socket: TcpStream| {
        let mut head = [0; 16 * 1024];
        let read = socket.read(&mut head).await.unwrap_or(0);
        if head[..read].starts_with(b"POST /verify") {
            let body = format!(r#"{{"isValid":true,"payer":"{}"}}"#, payment.authorization.from);
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = socket.write_all(text.as_bytes()).await;
        } else if head[..read].starts_with(b"POST /settle") {
            us.settle(&payment).await;
        }
    };
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            answer(socket).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_answer_is_lost_is_found_on_the_chain() {
    let anvil = Anvil::start().await;
    let upstream = Upstream::start().await;
    let mut stack = Stack::with(&format!("networks:\n  base-sepolia:\n    rpc: [\"{}\"]\n", anvil.url));
    let payment = payment(&anvil, forge::fresh_address()).await;
    let body: serde_json::Value = serde_json::from_slice(&payment.facilitator_body).expect("JSON");
    let header = forge::header(&body["paymentPayload"]);
    let url = lossy(Arc::new(facilitator(&anvil, quick())), payment.clone()).await;
    sell(&stack, &upstream, payment.terms.pay_to, Some(&url));
    stack.up().await;
    stack.wait_for("/services/weather", 402).await;

    assert_eq!(present(stack.url("/services/weather"), header.clone()).await.0, 503);
    let receipt = present_until_known(&stack, &header).await;
    assert_eq!(receipt["success"], true);
    assert_eq!(anvil.balance(payment.terms.pay_to).await, PRICE);
    assert_eq!(upstream.take_seen().len(), 1);
}
