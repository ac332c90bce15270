//! ERC-3009 `transferWithAuthorization`: hashing (EIP-712), signing, recovering.

use obol_offer::{Address, B256, Terms};
use secp256k1::SecretKey;

use crate::Authorization;

/// EIP-712 digest that the payer signs.
pub fn digest(terms: &Terms, authorization: &Authorization) -> B256 {
    let _ = (terms, authorization);
    todo!()
}

/// Address of a secret key.
pub fn address_of(key: &SecretKey) -> Address {
    let _ = key;
    todo!()
}

/// Signs an authorization over exactly `terms.amount` to `terms.pay_to`.
pub fn sign(key: &SecretKey, terms: &Terms, nonce: B256, valid_after: u64, valid_before: u64) -> Authorization {
    let _ = (key, terms, nonce, valid_after, valid_before);
    todo!()
}

/// Who signed, if the signature is a well-formed 65-byte ECDSA signature with low `s` (EIP-2).
pub fn recover(terms: &Terms, authorization: &Authorization) -> Option<Address> {
    let _ = (terms, authorization);
    todo!()
}
