//! What goes into a pass and what comes out of it.

use std::{collections::BTreeMap, sync::Arc};

use obol_offer::{Offer, OfferKind, OfferName, OfferSpec, Upstream, Violation};
use obol_x402::UptoDirectory;
use time::OffsetDateTime;
use url::Url;

use crate::{Entry, PlanItem, RouteTable};

/// A slice: by name, then kind, which is also the order in which newcomers get their places.
pub type Key = (OfferName, OfferKind);

/// An offer as written and as resolved.
#[derive(Clone, Debug)]
pub struct Version {
    /// As resolved.
    pub offer: Arc<Offer>,
    /// As written.
    pub spec: Arc<OfferSpec>,
}

impl Version {
    pub(crate) fn same(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.offer, &other.offer) || self.offer == other.offer)
            && (Arc::ptr_eq(&self.spec, &other.spec) || self.spec == other.spec)
    }
}

/// One slice as the pass found it.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Name.
    pub name: OfferName,
    /// Kind.
    pub kind: OfferKind,
    /// The offer, or what is wrong with the slice.
    pub version: Result<Version, Refusal>,
    /// Since when it exists, then its namespace and name, where these decide who gets a place: in a cluster.
    pub since: Option<(OffsetDateTime, String)>,
}

/// What offers are served on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Whether Kubernetes Services can be reached.
    pub cluster: bool,
    /// Whether only this machine can reach the public address.
    pub loopback: bool,
    /// Where buyers find the site; unknown when absent.
    pub public_url: Option<Url>,
    /// Who settles `upto` payments, as facilitators said last.
    pub upto: UptoDirectory,
}

impl Site {
    /// Why this site cannot serve an offer.
    pub(crate) fn refuses(&self, offer: &Offer) -> Option<Refusal> {
        if !self.cluster && matches!(offer.upstream, Upstream::Service { .. }) {
            return Some(Refusal::new("NeedsCluster", "a Kubernetes Service needs a cluster backend; give `url` or `host.port` here"));
        }
        if !self.loopback && offer.payments.iter().any(|tag| tag.terms.network.is_sandbox()) {
            let message = "play money is taken on loopback only; listen on 127.0.0.1, or sell on another network";
            return Some(Refusal::new("SandboxNeedsLoopback", message));
        }
        None
    }
}

/// Why the version on disk is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One CamelCase word, stable.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// The rule, where it is one between offers.
    pub violation: Option<Violation>,
}

impl Refusal {
    /// A refusal that is no rule between offers.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), violation: None }
    }

    /// From a rule of [`obol_offer::find_collisions`].
    pub(crate) fn collision(violation: Violation) -> Self {
        let reason = match violation.code {
            "name_taken" => "NameConflict",
            "host_taken" => "HostnameConflict",
            _ => "PathConflict",
        };
        Self { reason, message: format!("{}; {}", violation.message, violation.fix), violation: Some(violation) }
    }
}

/// Where an offer is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is sold.
    Active,
    /// It is still served, until then.
    Draining(OffsetDateTime),
    /// It is served no more, since then.
    Drained(OffsetDateTime),
}

impl Phase {
    pub(crate) fn of(offer: &Offer, now: OffsetDateTime) -> Self {
        match offer.drain_until {
            None => Self::Active,
            Some(end) if end <= now => Self::Drained(end),
            Some(end) => Self::Draining(end),
        }
    }
}

/// One offer after a pass.
#[derive(Clone, Debug)]
pub struct OfferState {
    /// Name.
    pub name: OfferName,
    /// Kind.
    pub kind: OfferKind,
    /// The last good version: what is served, or was until it was drained.
    pub served: Option<Version>,
    /// The version on disk, where it was refused though it is valid by itself.
    pub wanted: Option<Version>,
    /// Why the version on disk is not the served one; absent when it is.
    pub refusal: Option<Refusal>,
    /// Of the served version.
    pub phase: Phase,
    /// Its places; none when it has no route.
    pub entries: Vec<Arc<Entry>>,
    /// Its part of `/api/services.json`; absent when it is not listed.
    pub(crate) listing: Option<Arc<str>>,
}

impl OfferState {
    /// A slice that cannot even be called by its name.
    pub fn nameless(kind: OfferKind, refusal: Refusal) -> Self {
        let state = |name| Self {
            name,
            kind,
            served: None,
            wanted: None,
            refusal: Some(refusal),
            phase: Phase::Active,
            entries: Vec::new(),
            listing: None,
        };
        state(OfferName::unknown())
    }

    /// The version to tell people about: the served one, else the one on disk.
    pub fn shown(&self) -> Option<&Version> {
        self.served.as_ref().or(self.wanted.as_ref())
    }

    /// Whether buyers reach it.
    pub fn is_routed(&self) -> bool {
        !self.entries.is_empty()
    }

    /// When something about it changes by itself.
    pub(crate) fn wake(&self) -> Option<OffsetDateTime> {
        let drain = match self.phase {
            Phase::Draining(end) => Some(end),
            _ => None,
        };
        self.entries.iter().filter_map(|entry| entry.previous.as_ref().map(|(_, until)| *until)).chain(drain).min()
    }
}

/// Everything that a pass works out; also what the next pass starts from.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Every slice.
    pub offers: BTreeMap<Key, Arc<OfferState>>,
    /// What is served.
    pub table: Arc<RouteTable>,
    /// When the next pass is due though no file changes: a drain ends, an old quote expires.
    pub wake: Option<OffsetDateTime>,
    pub(crate) site: Site,
}

impl State {
    /// The specs that are served, for a plan.
    pub fn observed(&self) -> Vec<PlanItem> {
        let item = |state: &Arc<OfferState>| {
            let served = state.served.as_ref()?;
            Some(PlanItem::new(&state.name, state.kind, Some(&served.spec)))
        };
        self.offers.values().filter_map(item).collect()
    }
}
