//! A row of the journal: small JSON, so that it can be read without us.

use alloy_primitives::Bytes;
use obol_offer::{Address, Amount, Asset, B256, Network, OfferName, Scheme, Terms, TransferMethod};
use obol_payment::State;
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, PaymentId, ReplayKey, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Receipt, Refund, refusal::Known};

/// Length of a key in bytes.
pub(crate) const KEY_LEN: usize = 80;

/// The replay key as bytes: chain id (big endian), contract, payer, nonce. Chain and asset of a
/// payment are in its key and not again in its row, unless Permit2 keeps the nonce.
pub(crate) fn key_bytes(key: &ReplayKey) -> [u8; KEY_LEN] {
    let parts = [&key.chain_id.to_be_bytes()[..], key.contract.as_slice(), key.payer.as_slice(), key.nonce.as_slice()];
    let mut bytes = [0; KEY_LEN];
    for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    bytes
}

/// Reverse of [`key_bytes`].
pub(crate) fn key_from_bytes(bytes: &[u8; KEY_LEN]) -> Option<ReplayKey> {
    let (chain_id, rest) = bytes.split_first_chunk::<8>()?;
    let (contract, rest) = rest.split_first_chunk::<20>()?;
    let (payer, nonce) = rest.split_first_chunk::<20>()?;
    Some(ReplayKey {
        chain_id: u64::from_be_bytes(*chain_id),
        contract: Address::from(*contract),
        payer: Address::from(*payer),
        nonce: B256::try_from(nonce).ok()?,
    })
}

/// Where a payer's own name for a purchase is looked up: no other payer can take it.
pub(crate) fn name_of(payer: Address, id: &str) -> B256 {
    let mut hash = Sha256::new();
    hash.update(payer);
    hash.update(id);
    B256::from_slice(&hash.finalize())
}

/// A key in hexadecimal, for cursors.
pub(crate) fn key_hex(key: &ReplayKey) -> String {
    alloy_primitives::hex::encode(key_bytes(key))
}

/// Reverse of [`key_hex`].
pub(crate) fn key_from_hex(text: &str) -> Option<ReplayKey> {
    let bytes = alloy_primitives::hex::decode(text).ok()?;
    key_from_bytes(bytes.as_slice().try_into().ok()?)
}

/// One payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Version of this row.
    pub v: u8,
    pub state: State,
    pub offer: OfferName,
    /// Who verified it, and the only one that is asked to settle it.
    pub facilitator: String,
    pub fingerprint: B256,
    /// SHA-256 of the buyer's payload.
    pub payload: B256,
    pub version: Version,
    pub pay_to: Address,
    /// Token contract, where it is not the contract in the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<Address>,
    pub amount: Amount,
    pub valid_before: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// The facilitator's word for a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Unix milliseconds.
    pub created: u64,
    /// Unix milliseconds.
    pub updated: u64,
    /// When the facilitator is asked again (Unix milliseconds); only while the outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
    /// Ticker and decimals of the token; absent in rows of format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// The payer's own name for the purchase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the seller says of sending the money back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// Bytes of the answer that is kept with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<u64>,
    /// Of a payment whose answer may leave before it is settled: what such answers came to that were never paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpaid: Option<Amount>,
    /// What is needed to ask again; only while the outcome is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<Box<Ask>>,
}

/// All that is needed to ask the facilitator again, byte for byte as before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub body: String,
    pub signature: Bytes,
    pub value: Amount,
    pub valid_after: u64,
    pub signed_by_payer: bool,
    pub max_timeout_seconds: u32,
    pub symbol: String,
    pub decimals: u8,
    pub domain_name: String,
    pub domain_version: String,
    pub transfer_method: TransferMethod,
    #[serde(default, skip_serializing_if = "is_default")]
    pub scheme: Scheme,
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: AuthorizationKind,
    /// Atomic units to settle, where they are fewer than were authorised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Amount>,
    /// Whether the answer has left before the money was asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delivered: bool,
}

/// What rows of before do not say.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Ask {
    /// `None` when the facilitator's body is not text, which no JSON is.
    pub fn of(payment: &MatchedPayment) -> Option<Self> {
        let MatchedPayment { terms, authorization, .. } = payment;
        Some(Self {
            body: std::str::from_utf8(&payment.facilitator_body).ok()?.to_owned(),
            signature: Bytes::copy_from_slice(&authorization.signature),
            value: authorization.value,
            valid_after: authorization.valid_after,
            signed_by_payer: payment.local_check == LocalCheck::SignedByPayer,
            max_timeout_seconds: terms.max_timeout_seconds,
            symbol: terms.asset.symbol.clone(),
            decimals: terms.asset.decimals,
            domain_name: terms.asset.domain_name.clone(),
            domain_version: terms.asset.domain_version.clone(),
            transfer_method: terms.asset.transfer_method,
            scheme: terms.scheme,
            kind: authorization.kind,
            charge: Some(payment.charge).filter(|charge| *charge != terms.amount),
            delivered: false,
        })
    }
}

impl Row {
    /// A row before it is reserved; the journal sets state and times.
    pub fn new(offer: &OfferName, facilitator: &str, fingerprint: B256, payment: &MatchedPayment) -> Self {
        Self {
            v: 1,
            state: State::Reserved,
            offer: offer.clone(),
            facilitator: facilitator.to_owned(),
            fingerprint,
            payload: B256::from(payment.payload_digest),
            version: payment.version,
            pay_to: payment.terms.pay_to,
            asset: payment.authorization.kind.is_permit2().then_some(payment.terms.asset.address),
            amount: payment.terms.amount,
            valid_before: payment.authorization.valid_before,
            transaction: None,
            receipt: None,
            reason: None,
            created: 0,
            updated: 0,
            next_attempt: None,
            id: None,
            refund: None,
            answer: None,
            symbol: Some(payment.terms.asset.symbol.clone()),
            decimals: Some(payment.terms.asset.decimals),
            unpaid: (payment.terms.scheme != Scheme::Exact).then_some(Amount::ZERO),
            ask: None,
        }
    }

    /// With the payer's own name for the purchase.
    pub fn named(mut self, id: Option<&PaymentId>) -> Self {
        self.id = id.map(ToString::to_string);
        self
    }

    pub fn known(&self) -> Known {
        Known { state: self.state, fingerprint: self.fingerprint, receipt: self.receipt.clone(), transaction: self.transaction.clone() }
    }

    /// The token.
    pub fn asset(&self, key: &ReplayKey) -> Address {
        self.asset.unwrap_or(key.contract)
    }

    /// What is, or was, to be settled for it.
    pub fn charge(&self) -> Amount {
        self.ask.as_ref().and_then(|ask| ask.charge).unwrap_or(self.amount)
    }

    /// What its payer may owe for answers that leave, or have left, before they are paid.
    pub fn exposure(&self) -> Amount {
        let under_way = if self.state == State::Reserved || self.state.is_unsettled() { self.charge() } else { Amount::ZERO };
        self.unpaid.map_or(Amount::ZERO, |unpaid| unpaid.saturating_add(under_way))
    }

    /// The payment as it was, for asking again; `None` when the row is closed, or its network is
    /// not one this program knows.
    pub fn payment(&self, key: &ReplayKey) -> Option<MatchedPayment> {
        let ask = self.ask.as_deref()?;
        let network = Network::find(&format!("eip155:{}", key.chain_id))?;
        let asset = Asset {
            address: self.asset(key),
            symbol: ask.symbol.clone(),
            decimals: ask.decimals,
            domain_name: ask.domain_name.clone(),
            domain_version: ask.domain_version.clone(),
            transfer_method: ask.transfer_method,
        };
        Some(MatchedPayment {
            version: self.version,
            terms: Terms {
                scheme: ask.scheme,
                network,
                asset,
                pay_to: self.pay_to,
                amount: self.amount,
                max_timeout_seconds: ask.max_timeout_seconds,
            },
            authorization: Authorization {
                from: key.payer,
                to: self.pay_to,
                value: ask.value,
                valid_after: ask.valid_after,
                valid_before: self.valid_before,
                nonce: key.nonce,
                kind: ask.kind,
                signature: ask.signature.to_vec(),
            },
            local_check: if ask.signed_by_payer { LocalCheck::SignedByPayer } else { LocalCheck::Undecided },
            charge: ask.charge.unwrap_or(self.amount),
            payload_digest: self.payload.0,
            facilitator_body: ask.body.clone().into_bytes(),
        })
    }
}
