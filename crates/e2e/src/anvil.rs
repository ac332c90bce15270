//! A real EVM node with our token where Base Sepolia has its USDC, so that unmodified clients,
//! which only spend assets they know, pay with it.

use std::{process::Command, time::Duration};

use alloy_primitives::{Address, B256, U256, address, hex};
use alloy_sol_types::{SolCall, sol};
use obol_x402::permit2::{EXACT_PROXY, PERMIT2, UPTO_PROXY};
use serde_json::{Value, json};

use crate::{http, part, process::Process, repository};

/// Chain id and CAIP-2 reference of Base Sepolia, which Anvil poses as.
pub const CHAIN_ID: u64 = 84_532;
/// USDC on Base Sepolia.
pub const USDC: Address = address!("036CbD53842c5426634e7929541eC2318f3dCF7e");
/// What each of Anvil's accounts owns at the start, in atomic units (1,000 USDC).
pub const ENDOWMENT: u64 = 1_000_000_000;

/// Anvil's public default keys, all funded: never money.
pub const KEYS: [&str; 10] = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    "0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
];

/// The validator of ERC-6492 signatures, which x402-rs wants to see on a chain before it starts. No test
/// calls it.
const VALIDATOR: Address = address!("dAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B");
/// The last default account, which no facilitator uses: it sets up what tests need.
const MINTER: Address = address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720");
/// Multicall3, the same on every chain that has it.
pub const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
/// Where tests put our factory of smart wallets.
pub const WALLET_FACTORY: Address = address!("0000000000000000000000000000000facade001");
/// Our stand-ins for contracts that other software calls, by the name of their `.json`.
const CONTRACTS: [(&str, Address); 3] = [("Permit2", PERMIT2), ("ExactPermit2Proxy", EXACT_PROXY), ("UptoPermit2Proxy", UPTO_PROXY)];

sol! {
    function initialize(string name, string version, string symbol);
    function mint(address to, uint256 value);
    function balanceOf(address owner) returns (uint256);
    function approve(address spender, uint256 value);
}

/// A running Anvil.
#[derive(Debug)]
pub struct Anvil {
    /// JSON-RPC endpoint.
    pub url: String,
    client: reqwest::Client,
    _process: Process,
}

impl Anvil {
    /// Starts one with the token in place and [`ENDOWMENT`] in every default account.
    ///
    /// # Panics
    /// When any of that fails.
    pub async fn start() -> Self {
        let binary = part("node/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        let mut command = Command::new(binary);
        command.args(["--chain-id", &CHAIN_ID.to_string(), "--host", "127.0.0.1", "--port", "0"]);
        let mut process = Process::start("anvil", &mut command);
        let listening = |line: &str| line.strip_prefix("Listening on ").map(|at| format!("http://{}", at.trim()));
        let url = process.wait_for(Duration::from_secs(30), listening);
        let anvil = Self { url, client: http(), _process: process };
        anvil.place_token().await;
        anvil
    }

    async fn place_token(&self) {
        self.place("TestUsd", USDC).await;
        for (name, at) in CONTRACTS {
            self.place(name, at).await;
        }
        self.rpc("anvil_setCode", json!([VALIDATOR, "0x00"])).await;
        let named = initializeCall { name: "USDC".into(), version: "2".into(), symbol: "USDC".into() };
        self.send(named.abi_encode()).await;
        let accounts: Vec<Address> = serde_json::from_value(self.rpc("eth_accounts", json!([])).await).expect("accounts");
        for to in accounts {
            self.send(mintCall { to, value: U256::from(ENDOWMENT) }.abi_encode()).await;
        }
    }

    async fn send(&self, data: Vec<u8>) {
        self.transact(MINTER, USDC, data).await;
    }

    /// Sends a transaction of one of its accounts and waits until it is in a block: the node answers with the
    /// hash before it has mined.
    ///
    /// # Panics
    /// When it reverts.
    pub async fn transact(&self, from: Address, to: Address, data: Vec<u8>) -> B256 {
        let sent = self.rpc("eth_sendTransaction", json!([{ "from": from, "to": to, "data": hex::encode_prefixed(data) }])).await;
        let hash = serde_json::from_value(sent).expect("a transaction hash");
        assert!(self.succeeded(hash).await, "a transaction to {to} has reverted");
        hash
    }

    /// Puts a contract of ours at an address.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn place(&self, name: &str, at: Address) {
        let compiled = fs_err::read(repository().join(format!("contracts/{name}.json"))).expect("it is in the repository");
        let compiled: Value = serde_json::from_slice(&compiled).expect("it is JSON");
        self.rpc("anvil_setCode", json!([at, compiled["runtime"]])).await;
    }

    /// Puts the code of Permit2 as it is deployed in the place of our stand-in.
    ///
    /// # Panics
    /// When it is not provisioned.
    pub async fn place_deployed_permit2(&self) {
        let file = part("permit2/node_modules/@uniswap/v4-periphery/lib/permit2/test/utils/DeployPermit2.sol");
        let text = fs_err::read_to_string(file).expect("a text");
        let code = text.split("hex\"").nth(1).and_then(|rest| rest.split('"').next()).expect("the code as a hex literal");
        assert!(code.len() > 18_000, "Permit2 has 9 KiB");
        self.rpc("anvil_setCode", json!([PERMIT2, format!("0x{code}")])).await;
    }

    /// Puts Multicall3 where it is on other chains; the code is viem's.
    ///
    /// # Panics
    /// When it is not provisioned.
    pub async fn place_multicall3(&self) {
        let file = part("node/node_modules/viem/_esm/constants/contracts.js");
        let text = fs_err::read_to_string(file).expect("a text");
        let code = text.split("multicall3Bytecode = '").nth(1).and_then(|rest| rest.split('\'').next()).expect("the code as a hex literal");
        let made = self.rpc("eth_sendTransaction", json!([{ "from": MINTER, "data": code }])).await;
        let made = serde_json::from_value(made).expect("a transaction hash");
        assert!(self.succeeded(made).await, "Multicall3 is not made");
        let receipt = self.rpc("eth_getTransactionReceipt", json!([made])).await;
        let code = self.code(serde_json::from_value(receipt["contractAddress"].clone()).expect("an address")).await;
        self.rpc("anvil_setCode", json!([MULTICALL3, code])).await;
    }

    /// The code at an address, `0x` when there is none.
    pub async fn code(&self, at: Address) -> Value {
        self.rpc("eth_getCode", json!([at, "latest"])).await
    }

    /// Lets Permit2 spend all that one of Anvil's accounts owns of the token.
    pub async fn approve_permit2(&self, owner: Address, value: U256) {
        self.transact(owner, USDC, approveCall { spender: PERMIT2, value }.abi_encode()).await;
    }

    /// Balance of `owner` in atomic units of the token.
    pub async fn balance(&self, owner: Address) -> U256 {
        let data = hex::encode_prefixed(balanceOfCall { owner }.abi_encode());
        serde_json::from_value(self.rpc("eth_call", json!([{ "to": USDC, "data": data }, "latest"])).await).expect("a balance")
    }

    /// Whether the transaction is on chain, if need be a moment later, and did not revert.
    pub async fn succeeded(&self, hash: B256) -> bool {
        for _ in 0..200 {
            let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
            if !receipt.is_null() {
                return receipt["status"] == "0x1";
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// The chain's own time, in Unix seconds.
    pub async fn now(&self) -> u64 {
        let block = self.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
        let hex = block["timestamp"].as_str().expect("a block has a time").trim_start_matches("0x").to_owned();
        u64::from_str_radix(&hex, 16).expect("a time is a number")
    }

    /// One JSON-RPC call.
    ///
    /// # Panics
    /// When the node answers with an error.
    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.client.post(&self.url).json(&body).send().await.expect("anvil answers");
        let mut answer: Value = answer.json().await.expect("anvil answers in JSON");
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }
}
