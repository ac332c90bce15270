//! What an offer *is*: the `ServiceOffer` spec and status, prices and amounts, networks and
//! assets, names and paths, and the rules that all of them obey.
//!
//! This crate is pure. It knows no files, sockets or clocks; whoever needs "now" passes it in.
//! The same types serve the parser of `values-offer.yaml`, the command line, the standalone node
//! and the custom resource, so a rule is written once.
//!
//! The way of a value through the crate: [`OfferSpec`] (as written, all strings) →
//! [`Offer::validate`] → [`Offer`] (typed, cannot be wrong) or a list of [`Violation`]s that name
//! the field, the rule and the fix.

pub mod admission;
mod amount;
mod model;
mod model_state;
mod name;
mod network;
mod path;
mod rate;
mod rules;
mod spec;
mod status;
mod usage;

pub use alloy_primitives::{Address, B256, U256};
pub use amount::{Amount, AmountError, Price, PriceError};
pub use model::{Model, ModelSpec, Runtime, WhenUncounted};
pub use model_state::ModelState;
pub use name::{Hostname, NameError, Namespace, OfferName};
pub use network::{Asset, Network, SANDBOX, TransferMethod, networks};
pub use path::{CanonicalPath, PathError};
pub use rate::{Demand, Rate};
pub use rules::{
    DEFAULT_MAX_PROMPT_BYTES, DEFAULT_MAX_TIMEOUT_SECONDS, DEFAULT_MAX_TOKENS, Offer, PriceTag, RESERVED_PATHS, Route, Terms, Upstream,
    Violation, find_collisions, is_facilitator_url,
};
pub use spec::{
    AssetSpec, DeliverySpec, Gate, HostUpstream, LimitsSpec, OfferKind, OfferSpec, OnLost, PaymentIdentifier, PaymentSpec, PriceSpec,
    RegistrationSpec, RouteSpec, Scheme, UpstreamSpec,
};
pub use status::{Condition, ConditionKind, ConditionStatus, OfferStatus};
pub use usage::{USAGE_FIELD, Usage};
