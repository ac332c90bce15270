//! Receipts: what a buyer is told about the settlement, for both versions at once.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Address, Network};

use crate::{
    decode::from_base64,
    quote::{json, truncate},
    wire::SettleResponse,
};

/// Longest reason in a receipt, in characters: some facilitators quote whole RPC errors.
const MAX_REASON_CHARS: usize = 120;
/// Longest payer or transaction in a receipt, in characters; on EVM chains they have 42 and 66.
const MAX_ID_CHARS: usize = 128;
/// Longest receipt header that is read.
const MAX_RECEIPT_BYTES: usize = 16 * 1024;

/// Values of both receipt headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// `PAYMENT-RESPONSE`.
    pub v2: String,
    /// `X-PAYMENT-RESPONSE`.
    pub v1: String,
}

impl Receipt {
    /// The receipt of a settlement on `network`, whatever name the facilitator gives that.
    pub fn new(settled: &SettleResponse, network: &Network) -> Self {
        let mut receipt = settled.clone();
        receipt.error_reason = receipt.error_reason.map(|reason| truncate(&reason, MAX_REASON_CHARS).to_owned());
        receipt.payer = receipt.payer.map(|payer| truncate(&payer, MAX_ID_CHARS).to_owned());
        receipt.transaction = truncate(&receipt.transaction, MAX_ID_CHARS).to_owned();
        receipt.network = network.caip2();
        let v2 = STANDARD.encode(json(&receipt));
        if network.in_v1 {
            network.name.clone_into(&mut receipt.network);
        }
        Self { v2, v1: STANDARD.encode(json(&receipt)) }
    }

    /// The receipt of a payment that moved no money.
    pub fn failed(reason: &str, payer: Option<Address>, network: &Network) -> Self {
        let failed = SettleResponse {
            success: false,
            error_reason: Some(reason.to_owned()),
            payer: payer.map(|payer| payer.to_string()),
            ..SettleResponse::default()
        };
        Self::new(&failed, network)
    }

    /// Reads a receipt header of either version; `None` if it is none.
    pub fn decode(header: &[u8]) -> Option<SettleResponse> {
        if header.len() > MAX_RECEIPT_BYTES {
            return None;
        }
        serde_json::from_slice(&from_base64(header)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> &'static Network {
        Network::find(name).unwrap()
    }

    #[test]
    fn each_version_reads_its_own_network_name() {
        let settled = SettleResponse { success: true, transaction: "0xab".into(), network: "whatever".into(), ..Default::default() };
        let receipt = Receipt::new(&settled, network("base-sepolia"));
        assert_eq!(Receipt::decode(receipt.v2.as_bytes()).unwrap().network, "eip155:84532");
        assert_eq!(Receipt::decode(receipt.v1.as_bytes()).unwrap().network, "base-sepolia");
        let unknown_in_v1 = Receipt::new(&settled, network("ethereum"));
        assert_eq!(unknown_in_v1.v1, unknown_in_v1.v2);
    }

    #[test]
    fn a_failed_receipt_says_why_in_bounds() {
        let receipt = Receipt::failed(&"é".repeat(5000), Some(Address::ZERO), network("base"));
        let read = Receipt::decode(receipt.v2.as_bytes()).unwrap();
        assert!(!read.success);
        assert_eq!(read.transaction, "");
        assert_eq!(read.error_reason.unwrap().chars().count(), MAX_REASON_CHARS);
        assert!(receipt.v2.len() < 1024);
    }

    #[test]
    fn garbage_is_no_receipt() {
        for garbage in ["", "e30", "====", "bm8", &"A".repeat(20_000)] {
            assert_eq!(Receipt::decode(garbage.as_bytes()), None, "{garbage:.20}");
        }
    }
}
