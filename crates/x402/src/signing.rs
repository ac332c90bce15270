//! Signatures of accounts with a key: made, and recovered.

use std::{ops::Range, sync::LazyLock};

use alloy_primitives::keccak256;
use obol_offer::{Address, B256, Terms};
use secp256k1::{
    All, Message, PublicKey, Secp256k1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};

use crate::{Authorization, AuthorizationKind, eip3009, permit2};

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Half the order of secp256k1: the largest `s` that EIP-2, OpenZeppelin and USDC accept.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4,
    0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// EIP-712 digest that the payer signs, of whichever kind it is.
pub fn digest(terms: &Terms, authorization: &Authorization) -> B256 {
    match authorization.kind {
        AuthorizationKind::Eip3009 => eip3009::digest(terms, authorization),
        AuthorizationKind::Permit2 => permit2::digest(terms, authorization, None),
        AuthorizationKind::Upto { facilitator } => permit2::digest(terms, authorization, Some(facilitator)),
    }
}

/// Address of a secret key.
pub fn address_of(key: &SecretKey) -> Address {
    address(&key.public_key(&SECP))
}

/// Signs an authorization over exactly `terms.amount` to `terms.pay_to`. `valid` is in Unix seconds: valid
/// after its start, and before its end. For Permit2 the nonce is a number, big endian.
pub fn sign(key: &SecretKey, terms: &Terms, kind: AuthorizationKind, nonce: B256, valid: Range<u64>) -> Authorization {
    let mut authorization = Authorization {
        from: address_of(key),
        to: terms.pay_to,
        value: terms.amount,
        valid_after: valid.start,
        valid_before: valid.end,
        nonce,
        kind,
        signature: Vec::new(),
    };
    let message = Message::from_digest(digest(terms, &authorization).0);
    let (id, compact) = SECP.sign_ecdsa_recoverable(message, key).serialize_compact();
    let v = if id == RecoveryId::One { 28 } else { 27 };
    authorization.signature = [compact.as_slice(), &[v]].concat();
    authorization
}

/// Who signed, if the signature is a well-formed 65-byte ECDSA signature with low `s` (EIP-2) and
/// `v` 27 or 28. A token refuses everything else unless the payer is a contract (ERC-1271); Permit2 takes
/// more, which is left to the facilitator to find out.
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
