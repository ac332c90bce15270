//! Who gets a place that two offers want. From files: whoever has it already, then by name. In a
//! cluster: the older object, which everybody who looks can tell without a memory.

use std::collections::BTreeMap;

use obol_offer::{Offer, find_collisions};

use time::OffsetDateTime;

use crate::{
    Key, Refusal, Site, Version,
    state::{OfferState, State},
};

/// One offer that wants a place.
pub(crate) struct Claim {
    pub key: Key,
    pub since: Option<(OffsetDateTime, String)>,
    pub version: Version,
    /// Why this is not the version on disk, if it is not.
    pub refusal: Option<Refusal>,
}

/// What came of the claims.
#[derive(Default)]
pub(crate) struct Settled {
    pub winners: Vec<Claim>,
    pub losers: Vec<Claim>,
}

/// Settles all claims. Three ranks go one after the other: offers that stay where they are, offers
/// that move (and go back where they were if that fails), newcomers; each rank by name and kind.
pub(crate) fn settle(mut claims: Vec<Claim>, previous: &State, site: &Site) -> Settled {
    if site.cluster {
        claims.sort_by(|a, b| (&a.since, &a.key).cmp(&(&b.since, &b.key)));
        return contest(claims);
    }
    let mut ranks: [Vec<Claim>; 3] = Default::default();
    for claim in claims {
        let rank = match previous.offers.get(&claim.key).and_then(|state| held(state)) {
            Some(old) if place(old) == place(&claim.version.offer) => 0,
            Some(_) => 1,
            None => 2,
        };
        if let Some(rank) = ranks.get_mut(rank) {
            rank.push(claim);
        }
    }
    let [staying, moving, new] = ranks;
    if moving.is_empty() && new.is_empty() {
        // Whoever stays held its place before, and no place is held twice.
        return Settled { winners: staying, losers: Vec::new() };
    }
    if moving.is_empty() {
        return contest(staying.into_iter().chain(new).collect());
    }
    let first = contest(staying.into_iter().chain(moving).collect());
    let mut lost: BTreeMap<Key, Claim> = BTreeMap::new();
    let back = first.losers.into_iter().map(|loser| {
        let old = previous.offers.get(&loser.key).and_then(|state| state.served.clone());
        let key = loser.key.clone();
        let refusal = loser.refusal.clone();
        let version = old.unwrap_or_else(|| loser.version.clone());
        lost.insert(key.clone(), loser);
        Claim { key, since: None, version, refusal }
    });
    let second = first.winners.into_iter().chain(back.collect::<Vec<_>>()).chain(new).collect();
    let mut settled = contest(second);
    // Whoever fell back is told why the place it asked for was taken.
    for claim in settled.losers.iter_mut().chain(&mut settled.winners) {
        if let Some(asked) = lost.remove(&claim.key) {
            claim.refusal = asked.refusal;
        }
    }
    settled
}

fn held(state: &OfferState) -> Option<&Offer> {
    state.served.as_ref().filter(|_| state.is_routed()).map(|version| version.offer.as_ref())
}

fn place(offer: &Offer) -> (Option<&str>, &str) {
    (offer.hostname.as_ref().map(AsRef::as_ref), offer.path.as_str())
}

/// The earlier claim wins.
fn contest(claims: Vec<Claim>) -> Settled {
    let offers: Vec<&Offer> = claims.iter().map(|claim| claim.version.offer.as_ref()).collect();
    let mut collisions: BTreeMap<usize, _> = find_collisions(&offers).into_iter().collect();
    let mut settled = Settled::default();
    for (index, mut claim) in claims.into_iter().enumerate() {
        match collisions.remove(&index) {
            None => settled.winners.push(claim),
            Some(violation) => {
                // What is wrong with the file itself is more use to its owner than the collision.
                claim.refusal.get_or_insert_with(|| Refusal::collision(violation));
                settled.losers.push(claim);
            }
        }
    }
    settled
}
