//! The chains we settle on and the assets we know there.
//!
//! Source: `eip155` ids by CAIP-2; USDC contracts and their EIP-712 domains as the issuer deploys
//! them. The domain's name differs per chain (`USDC` on Base Sepolia, `USD Coin` on mainnets), and
//! a signature made for the wrong one is void, so it is data here and not a constant.

use alloy_primitives::{Address, address};
use serde::{Deserialize, Serialize};

use crate::Amount;

/// How a payer's signature moves the asset (x402 `extra.assetTransferMethod`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransferMethod {
    /// ERC-3009 `transferWithAuthorization`; the default, and absent on the wire.
    #[default]
    Eip3009,
    /// Uniswap Permit2 with x402's proxy as spender.
    Permit2,
}

/// A token on a chain, with all that a payer must know to sign for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Token contract.
    pub address: Address,
    /// Ticker for people, e.g. `USDC`.
    pub symbol: String,
    /// Digits behind the point of one whole unit.
    pub decimals: u8,
    /// EIP-712 domain name of the contract.
    pub domain_name: String,
    /// EIP-712 domain version of the contract.
    pub domain_version: String,
    /// How it is moved.
    pub transfer_method: TransferMethod,
}

impl Asset {
    /// An amount as people read it, e.g. `0.001 USDC`.
    pub fn show(&self, amount: Amount) -> String {
        format!("{} {}", amount.to_decimal(self.decimals), self.symbol)
    }
}

/// A chain by its names.
#[derive(Debug, PartialEq, Eq)]
pub struct Network {
    /// Canonical short name, also x402 v1's name where v1 has one.
    pub name: &'static str,
    /// Other accepted spellings.
    pub aliases: &'static [&'static str],
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Whether x402 v1 clients know [`Network::name`]; others see no v1 terms for it.
    pub in_v1: bool,
    /// Play money: shown as such wherever a person looks.
    pub testnet: bool,
    usdc: UsdcAt,
}

#[derive(Debug, PartialEq, Eq)]
struct UsdcAt {
    address: Address,
    symbol: &'static str,
    domain_name: &'static str,
}

/// The in-process chain of `obol quickstart`. Its id is "obol" in ASCII, registered to no real
/// chain; its token is called `PLAY`, so it cannot be mistaken for money.
pub const SANDBOX: &str = "obol-sandbox";

const fn at(
    name: &'static str,
    aliases: &'static [&'static str],
    chain_id: u64,
    in_v1: bool,
    testnet: bool,
    address: Address,
    domain_name: &'static str,
) -> Network {
    Network { name, aliases, chain_id, in_v1, testnet, usdc: UsdcAt { address, symbol: "USDC", domain_name } }
}

static NETWORKS: [Network; 10] = [
    at("base", &["base-mainnet"], 8453, true, false, address!("833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), "USD Coin"),
    at("base-sepolia", &[], 84532, true, true, address!("036CbD53842c5426634e7929541eC2318f3dCF7e"), "USDC"),
    at("ethereum", &["ethereum-mainnet", "mainnet"], 1, false, false, address!("A0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"), "USD Coin"),
    at("polygon", &["polygon-mainnet"], 137, true, false, address!("3c499c542cEF5E3811e1192ce70d8cC03d5c3359"), "USD Coin"),
    at("polygon-amoy", &[], 80002, true, true, address!("41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582"), "USD Coin"),
    at("avalanche", &["avalanche-mainnet"], 43114, true, false, address!("B97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E"), "USD Coin"),
    at("avalanche-fuji", &[], 43113, true, true, address!("5425890298aed601595a70AB815c96711a31Bc65"), "USD Coin"),
    at("arbitrum-one", &["arbitrum"], 42161, false, false, address!("af88d065e77c8cC2239327C5EDb3A432268e5831"), "USD Coin"),
    at("arbitrum-sepolia", &[], 421_614, false, true, address!("75faf114eafb1BDbe2F0316DF893fd58CE46AA4d"), "USD Coin"),
    Network {
        name: SANDBOX,
        aliases: &["sandbox"],
        chain_id: 0x6f62_6f6c,
        in_v1: false,
        testnet: true,
        usdc: UsdcAt { address: address!("0b01000000000000000000000000000000000402"), symbol: "PLAY", domain_name: "Obol Play Money" },
    },
];

/// Every network we know, in the order they are listed to people.
pub fn networks() -> &'static [Network] {
    &NETWORKS
}

impl Network {
    /// Finds a network by canonical name, alias or CAIP-2 id (`eip155:8453`).
    pub fn find(text: &str) -> Option<&'static Self> {
        let chain_id = text.strip_prefix("eip155:").filter(|id| !id.starts_with(['0', '+'])).and_then(|id| id.parse::<u64>().ok());
        NETWORKS.iter().find(|n| n.name == text || n.aliases.contains(&text) || chain_id == Some(n.chain_id))
    }

    /// The CAIP-2 id, e.g. `eip155:8453`, as x402 v2 writes it.
    pub fn caip2(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }

    /// The asset used when an offer names none: USDC, or play money in the sandbox.
    pub fn default_asset(&self) -> Asset {
        Asset {
            address: self.usdc.address,
            symbol: self.usdc.symbol.to_owned(),
            decimals: 6,
            domain_name: self.usdc.domain_name.to_owned(),
            domain_version: "2".to_owned(),
            transfer_method: TransferMethod::Eip3009,
        }
    }

    /// Whether this is the in-process sandbox, which never leaves loopback.
    pub fn is_sandbox(&self) -> bool {
        self.name == SANDBOX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_networks_name_finds_it() {
        for network in networks() {
            let forms = network.aliases.iter().map(|a| (*a).to_owned()).chain([network.name.to_owned(), network.caip2()]);
            for form in forms {
                assert_eq!(Network::find(&form), Some(network), "{form}");
            }
        }
        assert_eq!(Network::find("eip155:99999999"), None);
        assert_eq!(Network::find("solana"), None);
    }

    #[test]
    fn the_domain_name_trap_of_base_sepolia_is_data() {
        let domain = |n: &str| Network::find(n).map(|n| n.default_asset().domain_name);
        assert_eq!(domain("base-sepolia").as_deref(), Some("USDC"));
        assert_eq!(domain("base").as_deref(), Some("USD Coin"));
    }
}
