//! x402 as bytes and types: both wire versions, challenges, decoding, matching a payment against
//! an offer's own terms, and the signature check that needs no chain.
//!
//! Pure: no sockets, no storage, no clock; "now" is an argument in Unix seconds.
//! Sources: x402 specification v1 and v2, EIP-712, ERC-3009, Permit2.

mod authorization;
mod claim;
mod decode;
pub mod eip3009;
mod identifier;
mod keys;
mod matching;
pub mod permit2;
mod quote;
mod receipt;
mod received;
pub mod signing;
mod upto;
pub mod wire;

pub use authorization::{Authorization, AuthorizationKind, ReplayKey};
pub use decode::{DecodeError, MAX_HEADER_BYTES, Payment, PaymentHeaders, Version, decode, decode_json};
pub use identifier::{BadPaymentId, PAYMENT_IDENTIFIER, PaymentId};
pub use matching::{ChargeError, LocalCheck, MAX_VALIDITY, MIN_VALIDITY_LEFT, MatchedPayment, Mismatch, match_payment};
pub use quote::{Challenge, MAX_ERROR_CHARS, Quote, QuoteInfo};
pub use receipt::Receipt;
pub use received::{NotPayable, Offered, Received, ReceivedError};
pub use upto::{UptoDirectory, UptoFacilitators};
