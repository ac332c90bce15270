//! x402 as bytes and types: both wire versions, challenges, decoding, matching a payment against
//! an offer's own terms, and the signature check that needs no chain.
//!
//! Pure: no sockets, no storage, no clock; "now" is an argument in Unix seconds.
//! Sources: x402 specification v1 and v2, EIP-712, ERC-3009.

pub mod eip3009;
mod decode;
mod matching;
mod quote;
pub mod wire;

pub use decode::{DecodeError, Payment, PaymentHeaders, Version, decode};
pub use matching::{Authorization, LocalCheck, MatchedPayment, Mismatch, ReplayKey, match_payment};
pub use quote::{Challenge, Quote, QuoteInfo};
