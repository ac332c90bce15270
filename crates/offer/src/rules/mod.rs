//! The rules of an offer, each written once: from [`OfferSpec`] to [`Offer`], or what is wrong.

mod bounds;
mod collisions;
pub(crate) mod model;
mod payment;
mod place;
mod price;
pub(crate) mod shape;
mod upstream;

use std::fmt;

use alloy_primitives::Address;
use serde::Serialize;
use time::OffsetDateTime;
use url::Url;

use crate::admission::bounds::check as bounds_of;
use crate::{
    Amount, Asset, CanonicalPath, DeliverySpec, Hostname, LimitsSpec, Model, Network, OfferKind, OfferName, OfferSpec, Rate,
    RegistrationSpec, Scheme, TransferMethod,
};

pub use collisions::find_collisions;
pub use model::{DEFAULT_MAX_PROMPT_BYTES, DEFAULT_MAX_TOKENS};
pub use payment::is_facilitator_url;

/// Validity of a buyer's signature when the offer says nothing, in seconds.
pub const DEFAULT_MAX_TIMEOUT_SECONDS: u32 = 300;

/// Path roots that belong to the stack itself; nothing below them can be sold.
pub const RESERVED_PATHS: [&str; 5] = ["/api", "/openapi.json", "/skill.md", "/rpc", "/.well-known"];

/// A rule that an offer breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Stable identifier of the rule, e.g. `path_reserved`.
    pub code: &'static str,
    /// The field by its path in the file, e.g. `spec.payment.payTo`.
    pub field: String,
    /// What is wrong, as a sentence.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}); {}", self.field, self.message, self.code, self.fix)
    }
}

/// A valid offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Unique over all offers of the stack.
    pub name: OfferName,
    /// What is sold.
    pub kind: OfferKind,
    /// Where paid requests go.
    pub upstream: Upstream,
    /// Path of the health probe at the upstream, canonical.
    pub health_path: CanonicalPath,
    /// The model that is sold.
    pub model: Option<Model>,
    /// Accepted payments, at least one; each buys the same answer.
    pub payments: Vec<PriceTag>,
    /// Facilitator base URLs in order of preference; empty means the stack's own list.
    pub facilitators: Vec<Url>,
    /// Public path prefix, canonical, without trailing slash (`/` itself excepted).
    pub path: CanonicalPath,
    /// Host the offer answers on; any when absent.
    pub hostname: Option<Hostname>,
    /// Exceptions below `path`.
    pub routes: Vec<Route>,
    /// Bounds on use.
    pub limits: LimitsSpec,
    /// What is owed to a buyer who paid.
    pub delivery: DeliverySpec,
    /// What buyers are told.
    pub registration: RegistrationSpec,
    /// When serving ends, for an offer that is being stopped.
    pub drain_until: Option<OffsetDateTime>,
}

/// Where paid requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// An absolute `http` or `https` URL without query or fragment.
    Url(Url),
    /// A port of the stack's own machine.
    Host {
        /// TCP port.
        port: u16,
    },
    /// A Kubernetes Service.
    Service {
        /// Service name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Its port.
        port: u16,
    },
}

/// One accepted payment of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceTag {
    /// What is asked for. The amount is that of [`Rate::maximum`]; where the rate is metered, a request gets its own.
    pub terms: Terms,
    /// How the amount is worked out.
    pub rate: Rate,
}

/// What is asked for one request, fully resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether `amount` is the price, or the most that may be charged.
    pub scheme: Scheme,
    /// The chain.
    pub network: &'static Network,
    /// The token.
    pub asset: Asset,
    /// Who is paid.
    pub pay_to: Address,
    /// How much, in atomic units of `asset`.
    pub amount: Amount,
    /// How long a buyer's signature stays valid, in seconds.
    pub max_timeout_seconds: u32,
}

/// An exception below the offer's path, with its full public path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Full public path, canonical, without trailing slash.
    pub path: CanonicalPath,
    /// Whether everything below `path` is meant too.
    pub subtree: bool,
    /// What this route costs; empty when it is free.
    pub payments: Vec<PriceTag>,
}

impl PriceTag {
    /// The price as people read it, e.g. `0.001 USDC`, or `0.15 USDC per million tokens in, 0.6 USDC out`.
    pub fn price(&self) -> String {
        let show = |amount| self.terms.asset.show(amount);
        match &self.rate {
            Rate::PerRequest(amount) => show(*amount),
            Rate::PerToken { input, output, .. } if input == output => format!("{} per million tokens", show(*input)),
            Rate::PerToken { input, output, .. } => format!("{} per million tokens in, {} out", show(*input), show(*output)),
            Rate::PerUnit { price, unit, .. } => format!("{} per {unit}", show(*price)),
        }
    }

    /// What one request is asked for, at an amount of [`Rate::ceiling`].
    pub fn terms_at(&self, amount: Amount) -> Terms {
        Terms { amount, ..self.terms.clone() }
    }
}

impl Terms {
    /// The price as people read it, e.g. `0.001 USDC`.
    pub fn price(&self) -> String {
        self.asset.show(self.amount)
    }

    /// How the money is moved: `upto` always goes through Permit2.
    pub const fn transfer_method(&self) -> TransferMethod {
        match self.scheme {
            Scheme::Exact => self.asset.transfer_method,
            Scheme::Upto => TransferMethod::Permit2,
        }
    }
}

impl Offer {
    /// Checks every rule of a single offer.
    ///
    /// # Errors
    /// All broken rules, not only the first, in the order of the fields.
    pub fn validate(name: &OfferName, spec: &OfferSpec) -> Result<Self, Vec<Violation>> {
        let mut check = Checker { violations: bounds_of(spec) };
        let upstream = check.upstream(&spec.upstream);
        let health_path = check.health_path(spec.upstream.health_path.as_deref());
        let model = check.model(spec);
        let payments = check.payments(spec, model.as_ref());
        let facilitators = check.facilitators(&spec.facilitators);
        let hostname = check.hostname(spec.hostname.as_deref());
        let path = check.path(name, spec.path.as_deref(), hostname.is_some());
        let routes = check.routes(&spec.routes, &path, &payments);
        let drain_until = check.drain(spec);
        check.limits(spec.limits.as_ref());
        check.registration(spec.registration.as_ref());
        match (upstream, check.violations) {
            (Some(upstream), violations) if violations.is_empty() => Ok(Self {
                name: name.clone(),
                kind: spec.kind,
                upstream,
                health_path,
                model,
                payments,
                facilitators,
                path,
                hostname,
                routes,
                limits: spec.limits.clone().unwrap_or_default(),
                delivery: spec.delivery.unwrap_or_default(),
                registration: spec.registration.clone().unwrap_or_default(),
                drain_until,
            }),
            (_, violations) => Err(violations),
        }
    }

    /// Where the offer is found: its host, if it has one, and its path.
    pub fn endpoint(&self) -> String {
        format!("{}{}", self.hostname.as_ref().map_or("", Hostname::as_str), self.path)
    }

    /// The price of each accepted payment as people read it, e.g. `0.1 USDC, 0.2 USDC`; one that is offered in two schemes once.
    pub fn price(&self) -> String {
        let mut prices: Vec<_> = self.payments.iter().map(PriceTag::price).collect();
        prices.dedup();
        prices.join(", ")
    }

    /// Whether buyers may be told of the offer.
    pub fn is_listed(&self) -> bool {
        self.registration.enabled.unwrap_or(true)
    }

    /// Whether serving has ended at `now`.
    pub fn is_drained(&self, now: OffsetDateTime) -> bool {
        self.drain_until.is_some_and(|end| end <= now)
    }
}

pub(crate) fn violation(code: &'static str, field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Violation {
    Violation { code, field: field.into(), message: message.into(), fix: fix.into() }
}

#[derive(Default)]
struct Checker {
    violations: Vec<Violation>,
}

impl Checker {
    fn refuse(&mut self, code: &'static str, field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.violations.push(violation(code, field, message, fix));
    }
}

#[cfg(test)]
mod tests;
