//! Conditions: what was observed of an offer, in a fixed order.

use obol_offer::{Condition, ConditionKind, ConditionStatus, ModelState, OfferKind, OfferStatus};
use time::OffsetDateTime;

use crate::{
    SERVICES_PATH,
    discovery::rfc3339,
    state::{OfferState, Phase},
};

/// What a health probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// A 2xx answer.
    Healthy,
    /// Some HTTP answer, where the offer names no path that would have to be well.
    Reachable,
    /// Anything else.
    Unhealthy(String),
}

/// The last health probe of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it found.
    pub health: Health,
    /// When.
    pub at: OffsetDateTime,
}

/// A condition but for its kind: status, reason, message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding(pub ConditionStatus, pub &'static str, pub String);

impl From<&ModelState> for Finding {
    fn from(state: &ModelState) -> Self {
        Self(state.status(), state.reason(), state.message())
    }
}

/// What others than the pass found out about an offer that has a route. Where nothing is said, the
/// pass speaks for itself: its table is what is served.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Whether the model is there.
    pub model: Option<Finding>,
    /// Whether the upstream is well.
    pub upstream: Option<Finding>,
    /// Whether a gateway elsewhere has loaded the offer.
    pub gate: Option<Finding>,
    /// Whether a router elsewhere sends buyers to it.
    pub route: Option<Finding>,
}

impl OfferState {
    /// The offer's status, given the last probe of its upstream and of its model (none: nobody has
    /// looked yet).
    pub fn status(&self, probe: Option<&Probe>, model: Option<&ModelState>) -> OfferStatus {
        let model = (self.kind == OfferKind::Inference).then(|| model.unwrap_or(&ModelState::Unknown).into());
        self.observed(Observed { model, upstream: Some(upstream(probe)), ..Observed::default() })
    }

    /// The offer's status, given what was observed elsewhere.
    pub fn observed(&self, seen: Observed) -> OfferStatus {
        let whole = self.is_routed() && self.refusal.is_none();
        let gate = seen.gate.filter(|_| whole).unwrap_or_else(|| self.route("the gate stands before every paid route"));
        let published = seen.route.filter(|_| self.is_routed()).unwrap_or_else(|| self.route("buyers reach the offer"));
        let mut findings = vec![
            (ConditionKind::ModelReady, seen.model.unwrap_or_else(|| self.model())),
            (ConditionKind::UpstreamHealthy, seen.upstream.unwrap_or_else(|| upstream(None))),
            (ConditionKind::Draining, self.draining()),
            (ConditionKind::PaymentGateReady, gate),
            (ConditionKind::RoutePublished, published),
            (ConditionKind::Registered, self.registered()),
        ];
        findings.push((ConditionKind::Ready, ready(&findings)));
        let conditions = findings
            .into_iter()
            .map(|(kind, Finding(status, reason, message))| Condition { kind, status, reason: reason.to_owned(), message })
            .collect();
        OfferStatus { conditions, endpoint: self.shown().map(|version| version.offer.endpoint()).unwrap_or_default() }
    }

    fn model(&self) -> Finding {
        match self.kind {
            OfferKind::Http => Finding(ConditionStatus::True, "Skipped", "no model is needed".into()),
            OfferKind::Inference => Finding(ConditionStatus::True, "Declared", "the model server is the offer's upstream".into()),
        }
    }

    fn draining(&self) -> Finding {
        match self.phase {
            Phase::Active => Finding(ConditionStatus::False, "Active", "the offer is sold".into()),
            Phase::Draining(end) => Finding(ConditionStatus::True, "Draining", format!("served until {}", rfc3339(end))),
            Phase::Drained(end) => Finding(ConditionStatus::False, "Drained", format!("served until {}", rfc3339(end))),
        }
    }

    /// Gate and route go together on one table: either both are there or none is.
    fn route(&self, holds: &str) -> Finding {
        match (&self.refusal, self.phase) {
            (_, Phase::Drained(end)) => Finding(ConditionStatus::False, "Drained", format!("served until {}", rfc3339(end))),
            (None, _) => Finding(ConditionStatus::True, "Reconciled", holds.into()),
            (Some(refusal), _) if self.is_routed() => {
                let message = format!("the last good version is served; on disk: {}", refusal.message);
                Finding(ConditionStatus::True, "LastGood", message)
            }
            (Some(refusal), _) => Finding(ConditionStatus::False, refusal.reason, refusal.message.clone()),
        }
    }

    fn registered(&self) -> Finding {
        match self.shown() {
            Some(version) if !version.offer.is_listed() => {
                Finding(ConditionStatus::True, "Disabled", "the offer asks not to be listed".into())
            }
            _ if self.listing.is_some() => Finding(ConditionStatus::True, "Reconciled", format!("listed in {SERVICES_PATH}")),
            _ => Finding(ConditionStatus::False, "NotListed", "only offers with a route are listed".into()),
        }
    }
}

fn upstream(probe: Option<&Probe>) -> Finding {
    let Some(Probe { health, at }) = probe else {
        return Finding(ConditionStatus::Unknown, "NotProbed", "nobody has looked yet".into());
    };
    let at = rfc3339(*at);
    match health {
        Health::Healthy => Finding(ConditionStatus::True, "Healthy", format!("well at {at}")),
        Health::Reachable => Finding(ConditionStatus::True, "Reachable", format!("answered at {at}; name a healthPath to know more")),
        Health::Unhealthy(cause) => Finding(ConditionStatus::False, "Unhealthy", format!("{cause} at {at}")),
    }
}

/// True when all others hold (draining aside); else the first that does not.
fn ready(findings: &[(ConditionKind, Finding)]) -> Finding {
    let counts = findings.iter().filter(|(kind, _)| *kind != ConditionKind::Draining);
    let mut unknown = None;
    for (kind, Finding(status, reason, message)) in counts {
        match status {
            ConditionStatus::True => {}
            ConditionStatus::False => return Finding(ConditionStatus::False, reason, format!("{kind:?}: {message}")),
            ConditionStatus::Unknown => {
                unknown = unknown.or(Some(Finding(ConditionStatus::Unknown, reason, format!("{kind:?}: {message}"))))
            }
        }
    }
    unknown.unwrap_or_else(|| Finding(ConditionStatus::True, "Reconciled", "the offer can be bought".into()))
}
