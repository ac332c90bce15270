//! Is this payment one that *this* offer asked for? Our terms decide, never the buyer's echo.

use std::{fmt, ops::Range};

use alloy_primitives::hex;
use obol_offer::{Address, Amount, B256, Terms, TransferMethod};

use crate::{
    Payment, Quote, Version,
    claim::{Accepted, Choice, SignedClaim},
    eip3009,
    quote::extra,
};

/// What makes a payment unique: an ERC-3009 nonce is used once per token and payer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ReplayKey {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Verifying contract: the token.
    pub contract: Address,
    /// Who pays.
    pub payer: Address,
    /// The authorization's nonce.
    pub nonce: B256,
}

impl fmt::Display for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{}/{}/{}/{}", self.chain_id, self.contract, self.payer, self.nonce)
    }
}

/// ERC-3009 `TransferWithAuthorization`, as signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Payer.
    pub from: Address,
    /// Payee.
    pub to: Address,
    /// Atomic units.
    pub value: Amount,
    /// Valid after this Unix second.
    pub valid_after: u64,
    /// Valid before this Unix second.
    pub valid_before: u64,
    /// Used once.
    pub nonce: B256,
    /// Signature bytes; `v` is 27 or 28 when the payer's own key signed, else all is as sent.
    pub signature: Vec<u8>,
}

/// Outcome of the signature check that needs no chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalCheck {
    /// The payer's own key signed: the replay key may be claimed at once.
    SignedByPayer,
    /// Perhaps a smart wallet (ERC-1271), perhaps a forgery: only the facilitator can tell.
    Undecided,
}

/// A payment that is one of the offer's own terms.
#[derive(Clone, Debug)]
pub struct MatchedPayment {
    /// Protocol version, for receipts and the facilitator.
    pub version: Version,
    /// The terms it meets: ours.
    pub terms: Terms,
    /// What the payer signed.
    pub authorization: Authorization,
    /// Whether the payer's key did.
    pub local_check: LocalCheck,
    /// SHA-256 of the decoded payload, the claim key while `local_check` is undecided.
    pub payload_digest: [u8; 32],
    /// Body for a facilitator's `/verify` and `/settle`, the same bytes for both: JSON of
    /// `{x402Version, paymentPayload, paymentRequirements}` with the buyer's payload as sent but
    /// for addresses (EIP-55), `accepted.network` (CAIP-2) and `v` (27/28), and *our* requirements.
    pub facilitator_body: Vec<u8>,
}

impl MatchedPayment {
    /// What makes it unique.
    pub fn replay_key(&self) -> ReplayKey {
        ReplayKey {
            chain_id: self.terms.network.chain_id,
            contract: self.terms.asset.address,
            payer: self.authorization.from,
            nonce: self.authorization.nonce,
        }
    }
}

/// Why a payment is not one of the offer's terms. Answered with a fresh 402.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// No accepted payment has this scheme, network, asset, payee and amount.
    #[error("no accepted payment has this scheme, network, asset, payee and amount")]
    NoSuchTerms,
    /// The signed authorization differs from the accepted terms in a field.
    #[error("the signed authorization has another `{0}` than the accepted terms")]
    Authorization(&'static str),
    /// `validBefore` has passed, or leaves no time to settle.
    #[error("the authorization expires too soon")]
    Expired,
    /// `validAfter` is in the future.
    #[error("the authorization is not valid yet; check the clock")]
    NotYetValid,
    /// It names another resource.
    #[error("the payment was made for another resource")]
    OtherResource,
}

impl Mismatch {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchTerms => "no_matching_requirement",
            Self::Authorization(_) => "authorization_mismatch",
            Self::Expired => "authorization_expired",
            Self::NotYetValid => "authorization_not_yet_valid",
            Self::OtherResource => "other_resource",
        }
    }
}

/// Seconds that must be left of a payment's validity when it arrives: facilitators refuse less
/// than 6, and the upstream needs some.
pub const MIN_VALIDITY_LEFT: u64 = 10;

/// Seconds after which a validity is absurd: an unsettled payment is remembered until it ends.
pub const MAX_VALIDITY: u64 = 366 * 24 * 3600;

/// Matches a payment against terms, checks its time window at `now` (Unix seconds) and, for EOAs,
/// its signature.
///
/// - v2 repeats the requirements: scheme, network (in any spelling), amount, asset and payee must
///   be those of one of our terms, and our `extra` be part of the repeated one, if there is any.
/// - v1 says scheme and network only; of several terms there, the one that was signed is taken.
/// - The signed amount must be *equal* to ours in both versions. v1 would allow more, but then
///   receipt and price would differ.
/// - A signature with high `s`, or of another length than 65 bytes, is
///   [`Undecided`](LocalCheck::Undecided): tokens refuse it from an EOA, a smart wallet may use it.
///
/// `resource_is_ours` is asked with the URL that the payment names (v2 `resource.url`), if any.
/// `resource_url` goes into v1 requirements for the facilitator, with `description` and `mime_type`.
///
/// # Errors
/// [`Mismatch`], the first that applies.
pub fn match_payment(
    payment: &Payment,
    quote: &Quote,
    resource_url: &str,
    now: u64,
    resource_is_ours: impl Fn(&str) -> bool,
) -> Result<MatchedPayment, Mismatch> {
    let claim = &payment.claim;
    let candidates = candidates(&claim.choice, quote);
    let first = *candidates.first().ok_or(Mismatch::NoSuchTerms)?;
    if claim.resource_url.as_deref().is_some_and(|url| !resource_is_ours(url)) {
        return Err(Mismatch::OtherResource);
    }
    let signed = claim.authorization.as_ref().ok_or(Mismatch::Authorization("authorization"))?;
    if signed.ambiguous {
        return Err(Mismatch::Authorization("payload"));
    }
    let fitting: Vec<_> = candidates.iter().copied().filter(|(_, terms)| differing_field(signed, terms).is_none()).collect();
    let (index, terms) = *fitting.first().ok_or_else(|| Mismatch::Authorization(differing_field(signed, first.1).unwrap_or("value")))?;
    check_window(signed, now)?;

    // Terms that differ in the asset only cannot be told apart in v1 but by the signature.
    let recovered = fitting.iter().find_map(|(index, terms)| Some((*index, *terms, signed_by_payer(signed, terms)?)));
    let (index, terms, authorization, local_check) = match recovered {
        Some((index, terms, authorization)) => (index, terms, authorization, LocalCheck::SignedByPayer),
        None => (index, terms, authorization(signed, signed.signature.clone()), LocalCheck::Undecided),
    };
    let requirements = quote.requirements(index, payment.version, resource_url).ok_or(Mismatch::NoSuchTerms)?;
    let payload = normalised(payment, signed, &authorization.signature);
    let facilitator_body =
        format!(r#"{{"x402Version":{},"paymentPayload":{payload},"paymentRequirements":{requirements}}}"#, payment.version.number());
    Ok(MatchedPayment {
        version: payment.version,
        terms: terms.clone(),
        authorization,
        local_check,
        payload_digest: payment.digest(),
        facilitator_body: facilitator_body.into_bytes(),
    })
}

/// Our terms that the buyer's choice may mean, with their place in the quote.
fn candidates<'q>(choice: &Choice, quote: &'q Quote) -> Vec<(usize, &'q Terms)> {
    let terms = quote.terms().iter().enumerate().filter(|(_, terms)| terms.asset.transfer_method == TransferMethod::Eip3009);
    match choice {
        Choice::V1 { scheme, network } => {
            terms.filter(|(index, terms)| scheme == "exact" && terms.network.name == network && quote.in_v1(*index)).collect()
        }
        Choice::V2(accepted) => terms.filter(|(_, terms)| is_echo(accepted, terms)).collect(),
    }
}

fn is_echo(accepted: &Accepted, terms: &Terms) -> bool {
    accepted.scheme == "exact"
        && accepted.network == Some(terms.network)
        && accepted.amount == Some(terms.amount)
        && accepted.asset == Some(terms.asset.address)
        && accepted.pay_to == Some(terms.pay_to)
        && accepted.extra.as_ref().is_none_or(|echoed| extra(terms).iter().all(|(key, value)| echoed.get(key) == Some(value)))
}

fn differing_field(signed: &SignedClaim, terms: &Terms) -> Option<&'static str> {
    if signed.to != terms.pay_to {
        Some("to")
    } else if signed.value != terms.amount {
        Some("value")
    } else {
        None
    }
}

fn check_window(signed: &SignedClaim, now: u64) -> Result<(), Mismatch> {
    if signed.valid_after > now {
        return Err(Mismatch::NotYetValid);
    }
    match signed.valid_before.checked_sub(now) {
        Some(left) if left > MAX_VALIDITY => Err(Mismatch::Authorization("validBefore")),
        Some(left) if left >= MIN_VALIDITY_LEFT => Ok(()),
        _ => Err(Mismatch::Expired),
    }
}

/// The authorization with `v` as tokens want it, if the payer's own key signed it.
///
/// Some wallets write `v` as 0 or 1. That is changed only where it then recovers to the payer: in
/// a smart wallet's 65 bytes the last one may mean something else.
fn signed_by_payer(signed: &SignedClaim, terms: &Terms) -> Option<Authorization> {
    let mut signature = signed.signature.clone();
    if let Some(v @ (0 | 1)) = signature.last_mut() {
        *v += 27;
    }
    let authorization = authorization(signed, signature);
    (eip3009::recover(terms, &authorization) == Some(signed.from)).then_some(authorization)
}

fn authorization(signed: &SignedClaim, signature: Vec<u8>) -> Authorization {
    let SignedClaim { from, to, value, valid_after, valid_before, nonce, .. } = *signed;
    Authorization { from, to, value, valid_after, valid_before, nonce, signature }
}

/// The buyer's JSON with addresses, network and `v` respelled and every other byte as sent.
fn normalised(payment: &Payment, signed: &SignedClaim, signature: &[u8]) -> String {
    let text = payment.raw.get();
    let mut edits: Vec<(Range<usize>, String)> = payment.claim.edits.iter().map(|edit| (edit.at.clone(), edit.text.clone())).collect();
    if signature != signed.signature {
        edits.push((signed.signature_at.clone(), format!("\"{}\"", hex::encode_prefixed(signature))));
    }
    edits.sort_by_key(|(at, _)| at.start);
    let mut out = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    for (at, replacement) in edits {
        out.push_str(text.get(copied..at.start).unwrap_or_default());
        out.push_str(&replacement);
        copied = at.end;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
