//! Whether Permit2 may spend the payer's tokens, as far as a node can be asked.

use alloy_primitives::hex;
use obol_offer::{Address, Amount, Network, Terms, U256};
use obol_x402::permit2::PERMIT2;
use reqwest::Client;
use serde_json::{Value, json};
use url::Url;

use crate::{PayError, answer::read_some, client::client, pay::TIMEOUT_OF_NODE};

/// Selector of ERC-20 `allowance(address,address)`.
const ALLOWANCE: &str = "dd62ed3e";
const MAX_ANSWER: usize = 64 * 1024;

/// What is missing, and what gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Who must approve.
    pub payer: Address,
    /// Token contract.
    pub token: Address,
    /// Atomic units that a payment needs.
    pub amount: Amount,
    /// The same for people, e.g. `0.1 USDC`.
    pub shown: String,
    /// Where.
    pub network: &'static Network,
}

impl Approval {
    pub(crate) fn of(payer: Address, terms: &Terms) -> Self {
        Self { payer, token: terms.asset.address, amount: terms.amount, shown: terms.price(), network: terms.network }
    }

    /// The shell command that lets Permit2 spend this much, with Foundry's `cast`. It asks for the node
    /// and the key.
    pub fn command(&self) -> String {
        let Self { token, amount, .. } = self;
        format!("cast send {token} 'approve(address,uint256)' {PERMIT2} {amount} --rpc-url $RPC_URL --interactive")
    }
}

/// What Permit2 may spend; `None` when the node gives no usable answer, which forbids nothing.
pub(crate) async fn allowed(node: &Url, payer: Address, terms: &Terms) -> Result<Option<Amount>, PayError> {
    let client = client(node)?;
    let chain = ask(&client, node, "eth_chainId", json!([])).await;
    if chain != Some(U256::from(terms.network.chain_id)) {
        return Ok(None);
    }
    let word = |address: Address| hex::encode(address.into_word());
    let data = format!("0x{ALLOWANCE}{}{}", word(payer), word(PERMIT2));
    let call = json!([{ "to": terms.asset.address, "data": data }, "latest"]);
    Ok(ask(&client, node, "eth_call", call).await.map(Amount))
}

async fn ask(client: &Client, node: &Url, method: &str, params: Value) -> Option<U256> {
    let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let request = client.post(node.clone()).header("content-type", "application/json").body(question);
    let mut response = tokio::time::timeout(TIMEOUT_OF_NODE, request.send()).await.ok()?.ok()?;
    let text = read_some(&mut response, MAX_ANSWER, TIMEOUT_OF_NODE).await;
    let answer: Value = serde_json::from_slice(&text).ok()?;
    let digits = answer.get("result")?.as_str()?.strip_prefix("0x")?;
    U256::from_str_radix(digits, 16).ok()
}
