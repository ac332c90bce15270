//! Permit2's `permitWitnessTransferFrom` through the proxies of x402: any ERC-20 token, once its
//! owner has let Permit2 spend it.
//!
//! The payer signs for a spender, which is a proxy, and for a witness, which binds the proxy to the
//! payee, to a time and, for `upto`, to the facilitator. Sources: Permit2 `SignatureTransfer`, x402
//! schemes `exact` and `upto` on EVM chains.

use alloy_primitives::address;
use alloy_sol_types::{Eip712Domain, SolStruct};
use obol_offer::{Address, B256, Terms, U256};

use crate::{Authorization, AuthorizationKind};

/// The Permit2 contract, the same on every chain.
pub const PERMIT2: Address = address!("000000000022D473030F116dDEE9F6B43aC78BA3");
/// x402's proxy for `exact`: it moves the whole authorised amount.
pub const EXACT_PROXY: Address = address!("402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// x402's proxy for `upto`: it moves what the named facilitator says, up to the authorised amount.
pub const UPTO_PROXY: Address = address!("4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");

mod exact {
    #![allow(missing_docs, reason = "the structs are Permit2's and x402's, documented there")]
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct Witness { address to; uint256 validAfter; }
        struct PermitWitnessTransferFrom {
            TokenPermissions permitted;
            address spender;
            uint256 nonce;
            uint256 deadline;
            Witness witness;
        }
    }
}

mod upto {
    #![allow(missing_docs, reason = "the structs are Permit2's and x402's, documented there")]
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct Witness { address to; address facilitator; uint256 validAfter; }
        struct PermitWitnessTransferFrom {
            TokenPermissions permitted;
            address spender;
            uint256 nonce;
            uint256 deadline;
            Witness witness;
        }
    }
}

/// EIP-712 digest that the payer signs. `facilitator` is named in `upto` only.
pub(crate) fn digest(terms: &Terms, authorization: &Authorization, facilitator: Option<Address>) -> B256 {
    // Permit2's domain has no version.
    let chain_id = U256::from(terms.network.chain_id);
    let domain = Eip712Domain::new(Some("Permit2".into()), None, Some(chain_id), Some(PERMIT2), None);
    let Authorization { to, value, .. } = *authorization;
    let (token, amount) = (terms.asset.address, value.0);
    let nonce = U256::from_be_bytes(authorization.nonce.0);
    let deadline = U256::from(authorization.deadline());
    let valid_after = U256::from(authorization.valid_after);
    match facilitator {
        None => exact::PermitWitnessTransferFrom {
            permitted: exact::TokenPermissions { token, amount },
            spender: EXACT_PROXY,
            nonce,
            deadline,
            witness: exact::Witness { to, validAfter: valid_after },
        }
        .eip712_signing_hash(&domain),
        Some(facilitator) => upto::PermitWitnessTransferFrom {
            permitted: upto::TokenPermissions { token, amount },
            spender: UPTO_PROXY,
            nonce,
            deadline,
            witness: upto::Witness { to, facilitator, validAfter: valid_after },
        }
        .eip712_signing_hash(&domain),
    }
}

impl Authorization {
    /// Permit2's `deadline`: the last Unix second at which it is valid.
    pub const fn deadline(&self) -> u64 {
        self.valid_before.saturating_sub(1)
    }
}

impl AuthorizationKind {
    /// The spender that a payer names to Permit2; the token itself needs none.
    pub const fn spender(self) -> Option<Address> {
        match self {
            Self::Eip3009 => None,
            Self::Permit2 => Some(EXACT_PROXY),
            Self::Upto { .. } => Some(UPTO_PROXY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Permit2 puts them together from its own stub and the witness type strings of the proxies.
    #[test]
    fn the_type_strings_are_those_of_the_contracts() {
        let whole = |witness: &str| {
            "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)\
             TokenPermissions(address token,uint256 amount)"
                .to_owned()
                + witness
        };
        assert_eq!(exact::PermitWitnessTransferFrom::eip712_encode_type(), whole("Witness(address to,uint256 validAfter)"));
        let witness = "Witness(address to,address facilitator,uint256 validAfter)";
        assert_eq!(upto::PermitWitnessTransferFrom::eip712_encode_type(), whole(witness));
    }
}
