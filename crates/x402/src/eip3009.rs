//! ERC-3009 `transferWithAuthorization`: hashing (EIP-712), signing, recovering.

use std::sync::LazyLock;

use alloy_primitives::keccak256;
use alloy_sol_types::{Eip712Domain, SolStruct};
use obol_offer::{Address, B256, Terms, U256};
use secp256k1::{
    All, Message, PublicKey, Secp256k1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};

use crate::Authorization;

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

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Half the order of secp256k1: the largest `s` that EIP-2, OpenZeppelin and USDC accept.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4,
    0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

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

/// Address of a secret key.
pub fn address_of(key: &SecretKey) -> Address {
    address(&key.public_key(&SECP))
}

/// Signs an authorization over exactly `terms.amount` to `terms.pay_to`.
pub fn sign(key: &SecretKey, terms: &Terms, nonce: B256, valid_after: u64, valid_before: u64) -> Authorization {
    let mut authorization = Authorization {
        from: address_of(key),
        to: terms.pay_to,
        value: terms.amount,
        valid_after,
        valid_before,
        nonce,
        signature: Vec::new(),
    };
    let message = Message::from_digest(digest(terms, &authorization).0);
    let (id, compact) = SECP.sign_ecdsa_recoverable(message, key).serialize_compact();
    let v = if id == RecoveryId::One { 28 } else { 27 };
    authorization.signature = [compact.as_slice(), &[v]].concat();
    authorization
}

/// Who signed, if the signature is a well-formed 65-byte ECDSA signature with low `s` (EIP-2) and
/// `v` 27 or 28. A token refuses everything else unless the payer is a contract (ERC-1271).
pub fn recover(terms: &Terms, authorization: &Authorization) -> Option<Address> {
    let (v, compact) = authorization.signature.split_last()?;
    let id = match v {
        27 => RecoveryId::Zero,
        28 => RecoveryId::One,
        _ => return None,
    };
    let s = compact.get(32..).filter(|s| s.len() == 32)?;
    if s > HALF_ORDER.as_slice() {
        return None;
    }
    let signature = RecoverableSignature::from_compact(compact, id).ok()?;
    let message = Message::from_digest(digest(terms, authorization).0);
    SECP.recover_ecdsa(message, &signature).ok().map(|key| address(&key))
}

fn address(key: &PublicKey) -> Address {
    let [_, point @ ..] = key.serialize_uncompressed();
    Address::from_word(keccak256(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is printed in ERC-3009.
    #[test]
    fn the_type_hash_is_the_standards() {
        let type_name = <typed::TransferWithAuthorization as SolStruct>::eip712_encode_type();
        let expected = "0x7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267";
        assert_eq!(keccak256(type_name.as_bytes()).to_string(), expected);
    }
}
