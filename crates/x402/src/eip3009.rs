//! ERC-3009 `transferWithAuthorization`: the token itself checks the signature and moves the money.

use alloy_sol_types::{Eip712Domain, SolStruct};
use obol_offer::{B256, Terms, U256};
use secp256k1::SecretKey;

pub use crate::signing::{address_of, recover};
use crate::{Authorization, AuthorizationKind, signing};

mod typed {
    #![allow(missing_docs, reason = "the struct is ERC-3009's, documented there")]
    alloy_sol_types::sol! {
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
    }
}

/// EIP-712 digest that the payer signs.
pub fn digest(terms: &Terms, authorization: &Authorization) -> B256 {
    let domain = Eip712Domain::new(
        Some(terms.asset.domain_name.clone().into()),
        Some(terms.asset.domain_version.clone().into()),
        Some(U256::from(terms.network.chain_id)),
        Some(terms.asset.address),
        None,
    );
    typed::TransferWithAuthorization {
        from: authorization.from,
        to: authorization.to,
        value: authorization.value.0,
        validAfter: U256::from(authorization.valid_after),
        validBefore: U256::from(authorization.valid_before),
        nonce: authorization.nonce,
    }
    .eip712_signing_hash(&domain)
}

/// Signs an authorization over exactly `terms.amount` to `terms.pay_to`.
pub fn sign(key: &SecretKey, terms: &Terms, nonce: B256, valid_after: u64, valid_before: u64) -> Authorization {
    signing::sign(key, terms, AuthorizationKind::Eip3009, nonce, valid_after..valid_before)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    /// The hash is printed in ERC-3009.
    #[test]
    fn the_type_hash_is_the_standards() {
        let type_name = <typed::TransferWithAuthorization as SolStruct>::eip712_encode_type();
        let expected = "0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267";
        assert_eq!(keccak256(type_name.as_bytes()).to_string(), expected);
    }
}
