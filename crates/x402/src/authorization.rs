//! What a payer signed, whichever contract checks it.

use std::fmt;

use obol_offer::{Address, Amount, B256, Scheme, Terms, TransferMethod};
use serde::{Deserialize, Serialize};

use crate::permit2::PERMIT2;

/// A signed permission to move a token once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Payer.
    pub from: Address,
    /// Payee.
    pub to: Address,
    /// Atomic units; the most that may be moved when it is [`AuthorizationKind::Upto`].
    pub value: Amount,
    /// Valid after this Unix second.
    pub valid_after: u64,
    /// Valid before this Unix second; one more than Permit2's `deadline`.
    pub valid_before: u64,
    /// Used once. Permit2's is a number, big endian.
    pub nonce: B256,
    /// Who moves the money.
    pub kind: AuthorizationKind,
    /// Signature bytes; `v` is 27 or 28 when the payer's own key signed, else all is as sent.
    pub signature: Vec<u8>,
}

/// Which contract the payer lets move the money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthorizationKind {
    /// The token, by ERC-3009 `transferWithAuthorization`.
    #[default]
    Eip3009,
    /// Permit2, by x402's proxy for `exact`.
    Permit2,
    /// Permit2, by x402's proxy for `upto`, and that only for one facilitator.
    Upto {
        /// Who may settle: the `msg.sender` of the settlement.
        facilitator: Address,
    },
}

impl AuthorizationKind {
    /// What terms ask for; `None` when they are `upto` and no facilitator is known.
    pub fn of(terms: &Terms, facilitator: Option<Address>) -> Option<Self> {
        Some(match (terms.scheme, terms.transfer_method()) {
            (Scheme::Upto, _) => Self::Upto { facilitator: facilitator? },
            (Scheme::Exact, TransferMethod::Permit2) => Self::Permit2,
            (Scheme::Exact, TransferMethod::Eip3009) => Self::Eip3009,
        })
    }

    /// Who alone may settle, where the payer named somebody.
    pub const fn facilitator(self) -> Option<Address> {
        match self {
            Self::Upto { facilitator } => Some(facilitator),
            Self::Eip3009 | Self::Permit2 => None,
        }
    }

    /// Whether Permit2 keeps the nonce, and not the token.
    pub const fn is_permit2(self) -> bool {
        !matches!(self, Self::Eip3009)
    }
}

/// What makes a payment unique: a nonce is used once per payer and contract that keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplayKey {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Verifying contract: the token (ERC-3009), or Permit2.
    pub contract: Address,
    /// Who pays.
    pub payer: Address,
    /// The authorization's nonce.
    pub nonce: B256,
}

impl ReplayKey {
    /// The key of an authorization over `asset`.
    pub const fn new(chain_id: u64, asset: Address, kind: AuthorizationKind, payer: Address, nonce: B256) -> Self {
        let contract = if kind.is_permit2() { PERMIT2 } else { asset };
        Self { chain_id, contract, payer, nonce }
    }
}

impl fmt::Display for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{}/{}/{}/{}", self.chain_id, self.contract, self.payer, self.nonce)
    }
}
