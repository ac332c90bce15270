//! The pass: from slices and what was served before to what is served now.

use std::{collections::BTreeMap, sync::Arc};

use obol_offer::Offer;
use time::{Duration, OffsetDateTime};

use crate::{
    Entry, RouteTable,
    claims::{Claim, settle},
    discovery::{SERVICES_PATH, listing, services},
    state::{Key, OfferState, Phase, Refusal, Site, Slice, State, Version},
};

/// How long a quote stays good after a price edit, so that a buyer who has just signed is served.
pub const QUOTE_GRACE: Duration = Duration::seconds(60);

/// Works out what is served. Depends on its arguments alone; the order of `slices` does not matter.
///
/// A broken or refused slice keeps its last good version, and its neighbours do not notice.
pub fn reconcile<'a>(slices: impl IntoIterator<Item = &'a Slice>, previous: &State, site: &Site, now: OffsetDateTime) -> State {
    let slices: BTreeMap<Key, &Slice> = slices.into_iter().map(|slice| ((slice.name.clone(), slice.kind), slice)).collect();
    let mut claims = Vec::with_capacity(slices.len());
    let mut settled: Vec<(Key, Option<Version>, Option<Refusal>)> = Vec::new();
    for (key, slice) in &slices {
        let (version, refusal) = candidate(slice, previous.offers.get(key), site);
        match version {
            Some(version) if !version.offer.is_drained(now) => {
                claims.push(Claim { key: key.clone(), since: slice.since.clone(), version, refusal })
            }
            version => settled.push((key.clone(), version, refusal)),
        }
    }
    let outcome = settle(claims, previous, site);
    settled.extend(outcome.winners.into_iter().map(|claim| (claim.key, Some(claim.version), claim.refusal)));
    settled.extend(outcome.losers.into_iter().map(|claim| (claim.key, None, claim.refusal)));

    let mut state = State { site: site.clone(), ..State::default() };
    let round = Round::new(&previous.site, site, now);
    for (key, served, refusal) in settled {
        let before = previous.offers.get(&key);
        let wanted = refusal.as_ref().and_then(|_| slices.get(&key)?.version.as_ref().ok().cloned());
        let offer = offer_state(key.clone(), served, wanted, refusal, before, &round);
        state.offers.insert(key, offer);
    }
    state.wake = state.offers.values().filter_map(|offer| offer.wake()).min();
    state.table = Arc::new(table(&state));
    state
}

/// The version to serve if its place is free, and why that is not the one on disk.
fn candidate(slice: &Slice, before: Option<&Arc<OfferState>>, site: &Site) -> (Option<Version>, Option<Refusal>) {
    let refusal = match &slice.version {
        Ok(version) => match site.refuses(&version.offer) {
            None => return (Some(version.clone()), None),
            Some(refusal) => refusal,
        },
        Err(refusal) => refusal.clone(),
    };
    let last_good = before.and_then(|before| before.served.clone()).filter(|version| site.refuses(&version.offer).is_none());
    (last_good, Some(refusal))
}

/// What all offers of a pass share.
struct Round<'a> {
    site: &'a Site,
    /// Of the pass before.
    was: &'a Site,
    /// Whether both are alike but for who settles.
    same_site: bool,
    same_upto: bool,
    now: OffsetDateTime,
}

impl<'a> Round<'a> {
    fn new(was: &'a Site, site: &'a Site, now: OffsetDateTime) -> Self {
        let same_upto = was.upto == site.upto;
        let same_site = (was.cluster, was.loopback, &was.public_url) == (site.cluster, site.loopback, &site.public_url);
        Self { site, was, same_site, same_upto, now }
    }

    /// Whether an offer is where it was, and the same facilitators settle for it.
    fn is_as_before(&self, served: Option<&Version>) -> bool {
        let known = |site: &Site, offer: &Offer| site.upto.of(offer.facilitators.iter().map(url::Url::as_str));
        self.same_site && (self.same_upto || served.is_none_or(|Version { offer, .. }| known(self.was, offer) == known(self.site, offer)))
    }
}

fn offer_state(
    key: Key,
    served: Option<Version>,
    wanted: Option<Version>,
    refusal: Option<Refusal>,
    before: Option<&Arc<OfferState>>,
    round: &Round<'_>,
) -> Arc<OfferState> {
    let Round { site, now, .. } = *round;
    let phase = served.as_ref().map_or(Phase::Active, |version| Phase::of(&version.offer, now));
    let expires = |state: &OfferState| state.wake().is_some_and(|at| at <= now);
    let same = |a: &Option<Version>, b: &Option<Version>| match (a, b) {
        (Some(a), Some(b)) => a.same(b),
        (None, None) => true,
        _ => false,
    };
    if let Some(before) = before.filter(|b| round.is_as_before(served.as_ref()) && b.phase == phase && b.refusal == refusal && !expires(b))
        && same(&before.served, &served)
        && same(&before.wanted, &wanted)
    {
        return before.clone();
    }
    let routed = served.as_ref().filter(|_| !matches!(phase, Phase::Drained(_)));
    let entries = routed.map(|version| entries(version, before, site, now)).unwrap_or_default();
    let listing = routed.filter(|version| version.offer.is_listed()).and_then(|version| listing(&version.offer, phase, site));
    let (name, kind) = key;
    Arc::new(OfferState { name, kind, served, wanted, refusal, phase, entries, listing })
}

/// The offer's entries, with the quotes of before the last price edit while they are good.
fn entries(version: &Version, before: Option<&Arc<OfferState>>, site: &Site, now: OffsetDateTime) -> Vec<Arc<Entry>> {
    let old = before.map(|before| before.entries.as_slice()).unwrap_or_default();
    let mut entries = Entry::of_offer(&version.offer, &site.upto);
    for entry in &mut entries {
        let same_place = |old: &&Arc<Entry>| old.path == entry.path && old.subtree == entry.subtree && old.host() == entry.host();
        if let Some(old) = old.iter().find(same_place)
            && let Some(previous) = previous_quote(old, entry, now)
        {
            *entry = Arc::new(Entry { previous: Some(previous), ..Entry::clone(entry) });
        }
    }
    entries
}

fn previous_quote(old: &Arc<Entry>, new: &Entry, now: OffsetDateTime) -> Option<(Arc<Entry>, OffsetDateTime)> {
    let (was, is) = (old.quote.as_ref()?, new.quote.as_ref()?);
    if was.asks_for_the_same(is) && old.tags() == new.tags() {
        return old.previous.clone().filter(|(_, until)| *until > now);
    }
    // It remembers no third one.
    Some((Arc::new(Entry { previous: None, ..Entry::clone(old) }), now.saturating_add(QUOTE_GRACE)))
}

fn table(state: &State) -> RouteTable {
    let mut builder = RouteTable::builder();
    builder.reserve(state.offers.len());
    for base in state.offers.values().filter_map(|offer| offer.entries.first()) {
        builder.insert(base.clone());
    }
    for exception in state.offers.values().flat_map(|offer| offer.entries.iter().skip(1)) {
        builder.insert_exception(exception.clone());
    }
    builder.document(SERVICES_PATH, services(state));
    builder.build()
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
