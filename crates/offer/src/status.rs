//! `ServiceOffer.status`: what was observed, as conditions in a fixed order.

use serde::{Deserialize, Serialize};

/// The conditions of an offer, in the order they are worked out and shown
/// (Kubernetes API conventions: `type`, `status`, `reason`, `message`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionKind {
    /// The model is there, or none is needed.
    ModelReady,
    /// The upstream answered its last health probe.
    UpstreamHealthy,
    /// The offer is being stopped.
    Draining,
    /// The gate stands before the route, so nothing is served unpaid.
    PaymentGateReady,
    /// Buyers can reach the route.
    RoutePublished,
    /// The offer is listed for buyers, or asked not to be.
    Registered,
    /// All of the above.
    Ready,
}

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody has looked yet.
    Unknown,
}

/// One observed fact about an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which fact.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word, stable.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// What is known of an offer right now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferStatus {
    /// In the order of [`ConditionKind`].
    pub conditions: Vec<Condition>,
    /// Public path (and host, if the offer has one) at which buyers find it.
    pub endpoint: String,
}

impl OfferStatus {
    /// The condition of a kind, if it was worked out.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Whether the offer can be bought now.
    pub fn is_ready(&self) -> bool {
        self.condition(ConditionKind::Ready).is_some_and(|c| c.status == ConditionStatus::True)
    }
}
