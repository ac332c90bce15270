//! Is this payment one that *this* offer asked for? Our terms decide, never the buyer's echo.

use std::ops::Range;

use alloy_primitives::hex;
use obol_offer::{Amount, Scheme, Terms};

use crate::{
    Authorization, AuthorizationKind, Payment, Quote, ReplayKey, Version,
    claim::{Accepted, Choice, SignedClaim},
    quote::{TRANSFER_METHOD, extra, json, method_word},
    signing,
    wire::Requirements,
};

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
    /// Atomic units to settle: all of `terms.amount`, or for `upto` what [`MatchedPayment::charging`] said.
    pub charge: Amount,
    /// SHA-256 of the decoded payload, the claim key while `local_check` is undecided.
    pub payload_digest: [u8; 32],
    /// Body for a facilitator's `/verify` and `/settle`, the same bytes for both (but for the amount of an
    /// `upto` payment that is [charged](MatchedPayment::charging) less): JSON of
    /// `{x402Version, paymentPayload, paymentRequirements}` with the buyer's payload as sent but
    /// for addresses (EIP-55), `accepted.network` (CAIP-2) and `v` (27/28), and *our* requirements.
    pub facilitator_body: Vec<u8>,
}

/// What stands before our requirements in a facilitator's body. It is last there, and no JSON string can
/// hold it, as quotes within strings are escaped.
const REQUIREMENTS: &str = r#","paymentRequirements":"#;

/// Why a payment cannot be charged with some amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChargeError {
    /// More than the payer signed for.
    #[error("{charge} atomic units are more than the {ceiling} that were authorised")]
    AboveCeiling {
        /// What was asked for.
        charge: Amount,
        /// What was signed.
        ceiling: Amount,
    },
    /// The scheme `exact` knows no other amount.
    #[error("an exact payment of {price} atomic units cannot be charged with {charge}")]
    Exact {
        /// What was asked for.
        charge: Amount,
        /// What was signed.
        price: Amount,
    },
    /// The body holds no requirements that could be changed.
    #[error("the facilitator's body has no v2 requirements")]
    Body,
}

impl MatchedPayment {
    /// What makes it unique.
    pub fn replay_key(&self) -> ReplayKey {
        let Authorization { from, nonce, kind, .. } = self.authorization;
        ReplayKey::new(self.terms.network.chain_id, self.terms.asset.address, kind, from, nonce)
    }

    /// The same payment to be settled with the amount that was used: `charge` and the `amount` of our
    /// requirements become it. It is at most the ceiling that was verified, which is the facilitator's
    /// rule too; a charge of zero is never sent to anybody.
    ///
    /// # Errors
    /// [`ChargeError`].
    pub fn charging(mut self, charge: Amount) -> Result<Self, ChargeError> {
        let ceiling = self.terms.amount;
        if charge > ceiling {
            return Err(ChargeError::AboveCeiling { charge, ceiling });
        }
        if self.charge == charge {
            return Ok(self);
        }
        if self.terms.scheme == Scheme::Exact {
            return Err(ChargeError::Exact { charge, price: ceiling });
        }
        let body = std::str::from_utf8(&self.facilitator_body).ok().and_then(|text| {
            let (head, requirements) = text.strip_suffix('}')?.rsplit_once(REQUIREMENTS)?;
            let mut requirements: Requirements = serde_json::from_str(requirements).ok()?;
            requirements.amount = charge;
            Some(format!("{head}{REQUIREMENTS}{}}}", json(&requirements)))
        });
        self.facilitator_body = body.ok_or(ChargeError::Body)?.into_bytes();
        self.charge = charge;
        Ok(self)
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
/// - What is signed for Permit2 names the token, x402's proxy for the scheme, and for `upto` the facilitator
///   that was offered; a payload that holds a second authorization of another kind is refused.
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
    let fitting: Vec<_> = candidates.iter().copied().filter(|candidate| candidate.differing_field(signed).is_none()).collect();
    let Some(&(mut meant)) = fitting.first() else {
        return Err(Mismatch::Authorization(first.differing_field(signed).unwrap_or("value")));
    };
    check_window(signed, now)?;

    // Terms that differ in the asset only cannot be told apart in v1 but by the signature.
    let recovered = fitting.iter().find_map(|candidate| Some((*candidate, candidate.signed_by_payer(signed)?)));
    let (authorization, local_check) = match recovered {
        Some((candidate, authorization)) => {
            meant = candidate;
            (authorization, LocalCheck::SignedByPayer)
        }
        None => (meant.authorization(signed, signed.signature.clone()), LocalCheck::Undecided),
    };
    let Candidate { index, terms, .. } = meant;
    let requirements = quote.requirements(index, payment.version, resource_url).ok_or(Mismatch::NoSuchTerms)?;
    let payload = normalised(payment, signed, &authorization.signature);
    let facilitator_body =
        format!(r#"{{"x402Version":{},"paymentPayload":{payload}{REQUIREMENTS}{requirements}}}"#, payment.version.number());
    Ok(MatchedPayment {
        version: payment.version,
        terms: terms.clone(),
        authorization,
        local_check,
        charge: terms.amount,
        payload_digest: payment.digest(),
        facilitator_body: facilitator_body.into_bytes(),
    })
}

/// One of our terms that the buyer's choice may mean.
#[derive(Clone, Copy)]
struct Candidate<'q> {
    /// Its place in the quote.
    index: usize,
    terms: &'q Terms,
    kind: AuthorizationKind,
}

fn candidates<'q>(choice: &Choice, quote: &'q Quote) -> Vec<Candidate<'q>> {
    let all = quote.payable().enumerate().map(|(index, (terms, kind))| Candidate { index, terms, kind });
    match choice {
        Choice::V1 { scheme, network } => all
            .filter(|Candidate { index, terms, .. }| {
                scheme == terms.scheme.as_str() && terms.network.name == network && quote.in_v1(*index)
            })
            .collect(),
        Choice::V2(accepted) => all.filter(|candidate| candidate.is_echo(accepted)).collect(),
    }
}

impl Candidate<'_> {
    fn is_echo(&self, accepted: &Accepted) -> bool {
        let Self { terms, kind, .. } = *self;
        let extra_fits = accepted.extra.as_ref().is_none_or(|echoed| {
            // Absent means ERC-3009, so another word beside our terms for that contradicts them.
            let method = echoed.get(TRANSFER_METHOD).is_none_or(|word| *word == method_word(kind));
            method && extra(terms, kind).iter().all(|(key, value)| echoed.get(key) == Some(value))
        });
        accepted.scheme == terms.scheme.as_str()
            && accepted.network == Some(terms.network)
            && accepted.amount == Some(terms.amount)
            && accepted.asset == Some(terms.asset.address)
            && accepted.pay_to == Some(terms.pay_to)
            && extra_fits
    }

    /// The first field of what was signed that is not as these terms ask for.
    fn differing_field(&self, signed: &SignedClaim) -> Option<&'static str> {
        let permit = match (self.kind.spender(), signed.permit2) {
            (None, None) => None,
            (Some(spender), Some(permit)) if permit.spender != spender => Some("spender"),
            (Some(_), Some(permit)) if permit.token != self.terms.asset.address => Some("permitted.token"),
            (Some(_), Some(permit)) if permit.facilitator != self.kind.facilitator() => Some("witness.facilitator"),
            (Some(_), Some(_)) => None,
            (None, Some(_)) | (Some(_), None) => Some("assetTransferMethod"),
        };
        permit.or_else(|| {
            if signed.to != self.terms.pay_to {
                Some("to")
            } else if signed.value != self.terms.amount {
                Some("value")
            } else {
                None
            }
        })
    }

    /// The authorization with `v` as tokens want it, if the payer's own key signed it.
    ///
    /// Some wallets write `v` as 0 or 1. That is changed only where it then recovers to the payer: in
    /// a smart wallet's 65 bytes the last one may mean something else.
    fn signed_by_payer(&self, signed: &SignedClaim) -> Option<Authorization> {
        let mut signature = signed.signature.clone();
        if let Some(v @ (0 | 1)) = signature.last_mut() {
            *v += 27;
        }
        let authorization = self.authorization(signed, signature);
        (signing::recover(self.terms, &authorization) == Some(signed.from)).then_some(authorization)
    }

    fn authorization(&self, signed: &SignedClaim, signature: Vec<u8>) -> Authorization {
        let SignedClaim { from, to, value, valid_after, valid_before, nonce, .. } = *signed;
        Authorization { from, to, value, valid_after, valid_before, nonce, kind: self.kind, signature }
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
#[path = "permit2_tests.rs"]
mod permit2_tests;
#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
