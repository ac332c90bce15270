//! Nodes that fail and lie, behind a real socket.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::{Address, B256, U256, address};
use alloy_sol_types::SolEvent;
use obol_offer::{Amount, Network, Scheme, Terms};
use obol_settle::{ChainFinding, ChainView, Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::{LocalCheck, MatchedPayment, Version, eip3009};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

use crate::{
    Chain, ChainConfig, Rpc, RpcError, SelfFacilitator, SettleConfig, SigningKey,
    token::Token::{AuthorizationCanceled, AuthorizationUsed, Transfer},
};

const PAYEE: Address = address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
const HASH: B256 = B256::repeat_byte(0xaa);

/// What a node says to one method.
#[derive(Clone)]
enum Says {
    Result(Value),
    Error(i64, &'static str),
    /// Instead of the body.
    Body(String),
    Flood,
    Nothing,
}

type Script = Arc<Mutex<HashMap<&'static str, Says>>>;

struct Node {
    url: Url,
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// A node at block 100, second 1,000,000 of chain 84532, where nothing ever happened.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret", listener.local_addr().unwrap()).parse().unwrap();
        let script: Script = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let node = Self { url, script: Arc::clone(&script), asked: Arc::clone(&asked) };
        node.says("eth_chainId", Says::Result(json!("0x14a34")));
        node.says("eth_getBlockByNumber", Says::Result(block(100, 1_000_000)));
        node.says("eth_call", Says::Result(word(0)));
        node.says("eth_getLogs", Says::Result(json!([])));
        node.says("eth_getTransactionReceipt", Says::Result(Value::Null));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&script), Arc::clone(&asked)));
            }
        });
        node
    }

    fn says(&self, method: &'static str, says: Says) {
        self.script.lock().unwrap().insert(method, says);
    }

    fn asked(&self, method: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == method).count()
    }
}

fn word(number: u64) -> Value {
    json!(B256::from(U256::from(number)))
}

fn block(number: u64, timestamp: u64) -> Value {
    json!({ "number": format!("0x{number:x}"), "timestamp": format!("0x{timestamp:x}"), "baseFeePerGas": "0x7" })
}

async fn serve(mut socket: TcpStream, script: Script, asked: Arc<Mutex<Vec<String>>>) {
    let mut data = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let Ok(read) = socket.read(&mut chunk).await else { return };
        if read == 0 {
            return;
        }
        data.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&data).into_owned();
        let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
        let Ok(question) = serde_json::from_str::<Value>(body) else { continue };
        data.clear();
        let method = question["method"].as_str().unwrap().to_owned();
        let says = script.lock().unwrap().get(method.as_str()).cloned().unwrap_or(Says::Error(-32601, "no such method"));
        asked.lock().unwrap().push(method);
        let body = match says {
            Says::Result(result) => json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }).to_string(),
            Says::Error(code, message) => {
                json!({ "jsonrpc": "2.0", "id": question["id"], "error": { "code": code, "message": message } }).to_string()
            }
            Says::Body(body) => body,
            Says::Nothing => std::future::pending().await,
            Says::Flood => {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while socket.write_all(&[b' '; 8192]).await.is_ok() {}
                return;
            }
        };
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if socket.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn network() -> &'static Network {
    Network::find("base-sepolia").unwrap()
}

fn chain(nodes: &[&Node]) -> Chain {
    let rpc = nodes.iter().map(|node| node.url.clone()).collect();
    Chain::new(ChainConfig { timeout: Duration::from_millis(500), ..ChainConfig::new(network(), rpc) }).unwrap()
}

/// A payment signed with a key of its own, void from the second 4,000,000,000 on.
fn payment() -> MatchedPayment {
    let terms = Terms {
        scheme: Scheme::Exact,
        network: network(),
        asset: network().default_asset(),
        pay_to: PAYEE,
        amount: Amount::from(1000),
        max_timeout_seconds: 300,
    };
    let key = secp256k1::SecretKey::from_byte_array([7; 32]).unwrap();
    let authorization = eip3009::sign(&key, &terms, B256::repeat_byte(1), 0, 4_000_000_000);
    MatchedPayment {
        version: Version::V2,
        terms,
        authorization,
        local_check: LocalCheck::SignedByPayer,
        charge: Amount::from(1000),
        payload_digest: [0; 32],
        facilitator_body: Vec::new(),
    }
}

fn log(token: Address, event: &impl SolEvent) -> Value {
    let data = event.encode_log_data();
    json!({ "address": token, "topics": data.topics(), "data": data.data, "transactionHash": HASH })
}

fn used(payment: &MatchedPayment) -> AuthorizationUsed {
    AuthorizationUsed { authorizer: payment.authorization.from, nonce: payment.authorization.nonce }
}

fn transfer(payment: &MatchedPayment) -> Transfer {
    Transfer { from: payment.authorization.from, to: PAYEE, value: U256::from(1000) }
}

fn receipt(status: u8, logs: &[Value]) -> Value {
    json!({ "transactionHash": HASH, "blockNumber": "0x60", "status": format!("0x{status}"), "logs": logs })
}

#[tokio::test]
async fn answers_that_are_none_are_errors_and_the_next_node_is_asked() {
    let (bad, good) = (Node::start().await, Node::start().await);
    good.says("eth_gasPrice", Says::Result(json!("0x5")));
    let cases = [
        (Says::Body("<html>".into()), "rpc_garbage"),
        (Says::Body("[".repeat(100_000)), "rpc_garbage"),
        (Says::Body("{}".into()), "rpc_garbage"),
        (Says::Body(r#"{"jsonrpc":"2.0","id":123456,"result":"0x5"}"#.into()), "rpc_garbage"),
        (Says::Body(r#"{"jsonrpc":"2.0","id":null,"result":"0x5"}"#.into()), "rpc_garbage"),
        (Says::Result(json!({ "not": "a number" })), "rpc_garbage"),
        (Says::Result(json!("0x1ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")), "rpc_garbage"),
        (Says::Error(-32005, "limit exceeded \u{7}\n"), "rpc_node"),
        (Says::Flood, "rpc_too_long"),
        (Says::Nothing, "rpc_no_answer"),
    ];
    for (says, code) in cases {
        bad.says("eth_gasPrice", says);
        let rpc = |nodes: &[&Node]| {
            let urls: Vec<_> = nodes.iter().map(|node| node.url.clone()).collect();
            Rpc::new(&urls, 84532, Duration::from_millis(500)).unwrap()
        };
        let error = rpc(&[&bad]).call::<U256>("eth_gasPrice", json!([])).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().len() < 400 && !error.to_string().contains("secret") && !error.to_string().contains('\n'));
        assert_eq!(rpc(&[&bad, &good]).call::<U256>("eth_gasPrice", json!([])).await.unwrap(), U256::from(5));
    }
    assert_eq!(Rpc::new(&[], 1, Duration::ZERO).unwrap_err().code(), "rpc_no_node");
}

#[tokio::test]
async fn a_node_of_another_chain_is_asked_nothing() {
    let other = Node::start().await;
    other.says("eth_chainId", Says::Result(json!("0x2105")));
    let error = chain(&[&other]).head().await.unwrap_err();
    assert_eq!(error, RpcError::WrongChain { expected: 84532, found: 8453 });
    assert_eq!(other.asked("eth_getBlockByNumber"), 0);
}

#[tokio::test]
async fn logs_are_believed_only_as_part_of_a_receipt_that_shows_the_transfer_next_to_the_nonce() {
    let node = Node::start().await;
    let payment = payment();
    let token = payment.terms.asset.address;
    let (used, transfer) = (used(&payment), transfer(&payment));
    node.says("eth_call", Says::Result(word(1)));
    node.says("eth_getLogs", Says::Result(json!([log(token, &used)])));
    let settled = ChainFinding::Settled { transaction: HASH.to_string(), amount: Amount::from(1000), is_final: true };
    let elsewhere = ChainFinding::UsedElsewhere { is_final: true };
    let cancelled = AuthorizationCanceled { authorizer: used.authorizer, nonce: used.nonce };
    let cheaper = Transfer { value: U256::from(999), ..transfer.clone() };
    let other_payee = Transfer { to: Address::ZERO, ..transfer.clone() };
    let other_nonce = AuthorizationUsed { nonce: B256::ZERO, ..used.clone() };
    let fake = Address::repeat_byte(9);
    let good = [log(token, &used), log(token, &transfer)];

    // What a receipt shows, and what is made of it; `None` is "nothing can be said".
    let cases: Vec<(Value, Option<&ChainFinding>)> = vec![
        (receipt(1, &good), Some(&settled)),
        (receipt(0, &good), None),
        (Value::Null, None),
        (receipt(1, &[]), None),
        (receipt(1, &[log(token, &transfer)]), None),
        (receipt(1, &[log(fake, &used), log(fake, &transfer)]), None),
        (receipt(1, &[log(token, &used), log(fake, &transfer)]), None),
        (receipt(1, &[log(token, &used), log(token, &cheaper)]), Some(&elsewhere)),
        (receipt(1, &[log(token, &used), log(token, &other_payee)]), Some(&elsewhere)),
        (receipt(1, &[log(token, &cancelled)]), Some(&elsewhere)),
        // Another payment of the same payer in the same transaction proves nothing of this one.
        (receipt(1, &[log(token, &used), log(token, &other_payee), log(token, &other_nonce), log(token, &transfer)]), None),
        (receipt(1, &[log(token, &other_nonce), log(token, &other_payee), log(token, &used), log(token, &transfer)]), Some(&settled)),
    ];
    for (index, (receipt, expected)) in cases.into_iter().enumerate() {
        node.says("eth_getTransactionReceipt", Says::Result(receipt));
        let found = chain(&[&node]).look(&payment, 1_000_600, None).await;
        match expected {
            Some(expected) => assert_eq!(found, *expected, "case {index}"),
            None => assert!(matches!(found, ChainFinding::Unavailable { .. }), "case {index}: {found:?}"),
        }
    }
    // The receipt of another transaction.
    let mut other = receipt(1, &good);
    other["transactionHash"] = json!(B256::ZERO);
    node.says("eth_getTransactionReceipt", Says::Result(other));
    assert!(matches!(chain(&[&node]).look(&payment, 1_000_600, None).await, ChainFinding::Unavailable { .. }));
}

#[tokio::test]
async fn unused_is_final_only_when_the_final_block_is_past_its_validity() {
    let node = Node::start().await;
    let mut payment = payment();
    let unused = |is_final| ChainFinding::Unused { as_of: 1_000_000, is_final };
    assert_eq!(chain(&[&node]).look(&payment, 0, None).await, unused(false));
    payment.authorization.valid_before = 1_000_000;
    assert_eq!(chain(&[&node]).look(&payment, 0, None).await, unused(true));
    node.says("eth_getBlockByNumber", Says::Error(-32000, "unknown block"));
    assert!(matches!(chain(&[&node]).look(&payment, 0, None).await, ChainFinding::Unavailable { .. }));
    // A question about the nonce that is not answered is no answer.
    node.says("eth_getBlockByNumber", Says::Result(block(100, 1_000_000)));
    for says in [Says::Error(-32000, "header not found"), Says::Result(json!("0x")), Says::Result(word(2))] {
        node.says("eth_call", says);
        assert!(matches!(chain(&[&node]).look(&payment, 0, None).await, ChainFinding::Unavailable { .. }));
    }
}

fn facilitator(node: &Node) -> SelfFacilitator {
    let key = SigningKey::parse(&format!("0x{}", "11".repeat(32))).unwrap();
    let config = SettleConfig {
        patience: Duration::from_secs(2),
        bump_after: Duration::from_millis(300),
        poll_first: Duration::from_millis(20),
        poll_longest: Duration::from_millis(50),
        max_fee_per_gas: 1_000,
        ..SettleConfig::default()
    };
    SelfFacilitator::new(Arc::new(chain(&[node])), key, config)
}

#[tokio::test]
async fn what_was_not_sent_is_not_asked_and_what_may_have_been_sent_is_pending() {
    let node = Node::start().await;
    node.says("eth_estimateGas", Says::Result(json!("0x10000")));
    node.says("eth_maxPriorityFeePerGas", Says::Result(json!("0x1")));
    node.says("eth_getTransactionCount", Says::Result(json!("0x0")));
    let settle = async || facilitator(&node).settle(&payment()).await;
    let not_asked = |outcome: &SettleOutcome| matches!(outcome, SettleOutcome::NotAsked { .. });

    // Refused by the node before anything moved: no money for gas, say.
    node.says("eth_sendRawTransaction", Says::Error(-32000, "insufficient funds for gas"));
    assert!(not_asked(&settle().await));
    // A node that asks for all we have.
    node.says("eth_maxPriorityFeePerGas", Says::Result(json!("0xffffffffffffffffffffffffffffffff")));
    assert!(not_asked(&settle().await));
    node.says("eth_maxPriorityFeePerGas", Says::Result(json!("0x1")));
    node.says("eth_estimateGas", Says::Result(json!("0xffffffff")));
    assert!(matches!(settle().await, SettleOutcome::Refused { .. }));
    for words in ["gas required exceeds allowance (1000000)", "Out of gas: gas required exceeds allowance: 1000000", "EVM error OutOfGas"] {
        node.says("eth_estimateGas", Says::Error(-32000, words));
        assert_eq!(settle().await, SettleOutcome::Refused { reason: "gas_above_bound".into() });
    }
    node.says("eth_estimateGas", Says::Error(-32000, "busy"));
    assert!(not_asked(&settle().await));
    node.says("eth_estimateGas", Says::Error(3, "execution reverted: ERC20: transfer amount exceeds balance"));
    assert_eq!(settle().await, SettleOutcome::Refused { reason: "insufficient_funds".into() });
    assert_eq!(node.asked("eth_sendRawTransaction"), 1);

    // The node takes it and says nothing, then garbage: it may be in a block any moment.
    node.says("eth_estimateGas", Says::Result(json!("0x10000")));
    for says in [Says::Nothing, Says::Body("garbage".into())] {
        node.says("eth_sendRawTransaction", says);
        let outcome = settle().await;
        assert!(matches!(outcome, SettleOutcome::Pending { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_block_without_the_transfer_is_unknown_and_a_final_revert_is_a_refusal() {
    let node = Node::start().await;
    let payment = payment();
    node.says("eth_estimateGas", Says::Result(json!("0x10000")));
    node.says("eth_maxPriorityFeePerGas", Says::Result(json!("0x1")));
    node.says("eth_getTransactionCount", Says::Result(json!("0x0")));
    node.says("eth_sendRawTransaction", Says::Result(json!(HASH)));
    // The hash is ours, whatever the node says; a receipt of another one is garbage, and we wait.
    node.says("eth_getTransactionReceipt", Says::Result(receipt(1, &[])));
    let SettleOutcome::Pending { transaction } = facilitator(&node).settle(&payment).await else { panic!("nothing can be settled") };
    assert_ne!(transaction, HASH.to_string());
    // The node lies that the very transaction is in a block, without the transfer. It is signed
    // deterministically, so its hash is known.
    let first = crate::transaction::Call {
        chain_id: 84532,
        nonce: 0,
        fees: crate::transaction::Fees { tip: 1, max: 15 },
        gas: 0x10000 + 0x4000,
        to: payment.terms.asset.address,
        data: crate::facilitator::transfer_call(&payment, payment.charge.0).1.into(),
    };
    let hash = first.sign(&SigningKey::parse(&format!("0x{}", "11".repeat(32))).unwrap()).hash;
    let says = |status: u8, block: &str| {
        let mut receipt = receipt(status, &[]);
        receipt["transactionHash"] = json!(hash);
        receipt["blockNumber"] = json!(block);
        node.says("eth_getTransactionReceipt", Says::Result(receipt));
    };
    let unknown =
        |outcome: &SettleOutcome| matches!(outcome, SettleOutcome::Unknown { transaction: Some(t), .. } if *t == hash.to_string());
    says(1, "0x60");
    assert!(unknown(&facilitator(&node).settle(&payment).await));
    // Reverted, in a block that is final here, and the nonce unused: nothing moved.
    says(0, "0x60");
    assert_eq!(facilitator(&node).settle(&payment).await, SettleOutcome::Refused { reason: "transaction_reverted".into() });
}

#[tokio::test]
async fn without_gas_money_no_payment_is_taken() {
    let node = Node::start().await;
    node.says("eth_getBalance", Says::Result(json!("0x0")));
    let verified = facilitator(&node).verify(&payment()).await;
    // The token's balance is 0 too in this node's world, and that is the buyer's to mend.
    assert_eq!(verified, VerifyOutcome::Invalid { reason: "insufficient_funds".into() });
    assert!(matches!(facilitator(&node).settle(&payment()).await, SettleOutcome::NotAsked { .. }));
}
