//! Payments for tests.

use obol_offer::{Address, Amount, B256, Network, Scheme, Terms};
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version};

/// A payment of 1000 units on Base Sepolia; `n` makes it unique.
pub(crate) fn payment(n: u8) -> MatchedPayment {
    let network = Network::find("base-sepolia").unwrap();
    let from: Address = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap();
    let pay_to: Address = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
    let amount = Amount::from(1000);
    MatchedPayment {
        version: Version::V2,
        terms: Terms { scheme: Scheme::Exact, network, asset: network.default_asset(), pay_to, amount, max_timeout_seconds: 300 },
        authorization: Authorization {
            from,
            to: pay_to,
            value: amount,
            valid_after: 0,
            valid_before: 4_000_000_000,
            nonce: B256::repeat_byte(n),
            kind: AuthorizationKind::Eip3009,
            signature: vec![n; 65],
        },
        local_check: LocalCheck::SignedByPayer,
        charge: amount,
        payload_digest: [n; 32],
        facilitator_body: format!(r#"{{"x402Version":2,"n":{n}}}"#).into_bytes(),
    }
}
