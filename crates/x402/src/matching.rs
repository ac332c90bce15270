//! Is this payment one that *this* offer asked for? Our terms decide, never the buyer's echo.

use std::fmt;

use obol_offer::{Address, Amount, B256, Terms};

use crate::{Payment, Version};

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
    /// Signature bytes, `v` normalised to 27/28 when 65 bytes long.
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
    /// for addresses (EIP-55) and `v` (27/28), and *our* requirements.
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

/// Matches a payment against terms, checks its time window at `now` (Unix seconds) and, for EOAs,
/// its signature.
///
/// `resource_is_ours` is asked with the URL that the payment names (v2 `resource.url`), if any.
/// `resource_url` goes into v1 requirements for the facilitator, with `description` and `mime_type`.
///
/// # Errors
/// [`Mismatch`], the first that applies.
pub fn match_payment(
    payment: &Payment,
    quote: &crate::Quote,
    resource_url: &str,
    now: u64,
    resource_is_ours: impl Fn(&str) -> bool,
) -> Result<MatchedPayment, Mismatch> {
    let _ = (payment, quote, resource_url, now, resource_is_ours(""));
    todo!()
}
