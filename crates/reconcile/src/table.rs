//! The route table: what answers a request, found by host and longest path prefix.

use std::{
    borrow::{Borrow, Cow},
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use obol_offer::{Amount, CanonicalPath, Demand, Model, Offer, PriceTag, Rate, Terms, WhenUncounted};
use obol_x402::{Quote, QuoteInfo, UptoDirectory};
use time::OffsetDateTime;

/// One place that buyers can reach.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The offer it belongs to.
    pub offer: Arc<Offer>,
    /// Full public path, without trailing slash.
    pub path: CanonicalPath,
    /// Whether everything below `path` is meant too.
    pub subtree: bool,
    /// Which of the offer's routes it is; `None` is its base.
    pub route: Option<usize>,
    /// What it costs, at most where the price is metered; `None` is free.
    pub quote: Option<Quote>,
    /// The same place before the last price edit, whose quote is good for 60 s, until the instant given.
    pub previous: Option<(Arc<Self>, OffsetDateTime)>,
}

impl Entry {
    /// The entries of one offer: its base first (with everything below it), then its exceptions.
    /// A route `/*` of the offer takes the base's place.
    pub fn of_offer(offer: &Arc<Offer>, upto: &UptoDirectory) -> Vec<Arc<Self>> {
        let info = quote_info(offer, upto);
        let at = |path: &CanonicalPath, subtree, route: Option<usize>| {
            let tags = tags(offer, route);
            let terms = || tags.iter().map(|tag| tag.terms.clone()).collect();
            let quote = (!tags.is_empty()).then(|| Quote::new(terms(), info.clone()));
            Arc::new(Self { offer: offer.clone(), path: path.clone(), subtree, route, quote, previous: None })
        };
        let is_base = |route: &obol_offer::Route| route.subtree && route.path == offer.path;
        let base = offer.routes.iter().position(is_base);
        let exceptions = offer.routes.iter().enumerate().filter(|(_, route)| !is_base(route));
        let exceptions = exceptions.map(|(index, route)| at(&route.path, route.subtree, Some(index)));
        std::iter::once(at(&offer.path, true, base)).chain(exceptions).collect()
    }

    /// The accepted payments and how their amounts are worked out; empty on a free route.
    pub fn tags(&self) -> &[PriceTag] {
        tags(&self.offer, self.route)
    }

    /// Whether the amount depends on the request's body.
    pub fn is_priced_by_body(&self) -> bool {
        self.tags().iter().any(|tag| matches!(tag.rate, Rate::PerToken { .. }))
    }

    /// What one request costs at most, if it is known what it demands; `None` is free.
    pub fn quote_at(&self, demand: Option<Demand>) -> Option<Cow<'_, Quote>> {
        let most = self.quote.as_ref()?;
        let Some(demand) = demand else { return Some(Cow::Borrowed(most)) };
        let amounts: Vec<Amount> = self.tags().iter().map(|tag| tag.rate.ceiling(demand)).collect();
        Some(Cow::Owned(most.at(&amounts)))
    }

    /// How what was used is charged under terms of this place, now or before the last price edit.
    pub fn rate_of(&self, terms: &Terms, demand: Option<Demand>) -> Option<&Rate> {
        let asks = |tag: &&PriceTag| {
            let amount = demand.map_or(tag.terms.amount, |demand| tag.rate.ceiling(demand));
            amount == terms.amount && tag.terms_at(amount) == *terms
        };
        let previous = self.previous.as_ref().map(|(entry, _)| entry.tags()).unwrap_or_default();
        self.tags().iter().chain(previous).find(asks).map(|tag| &tag.rate)
    }

    /// Host it answers on; any when absent.
    pub fn host(&self) -> Option<&str> {
        self.offer.hostname.as_ref().map(AsRef::as_ref)
    }

    /// The path as a key: the root is empty, so that prefixes of a request are its own slices.
    fn key(&self) -> &str {
        self.path.as_str().trim_end_matches('/')
    }
}

fn tags(offer: &Offer, route: Option<usize>) -> &[PriceTag] {
    match route {
        Some(route) => offer.routes.get(route).map(|route| route.payments.as_slice()).unwrap_or_default(),
        None => &offer.payments,
    }
}

fn quote_info(offer: &Offer, upto: &UptoDirectory) -> QuoteInfo {
    let told = &offer.registration;
    QuoteInfo {
        description: description(offer),
        mime_type: told.mime_type.clone().unwrap_or_default(),
        service_name: told.name.clone().unwrap_or_else(|| offer.name.plain().to_owned()),
        facilitators: upto.of(offer.facilitators.iter().map(url::Url::as_str)),
        payment_identifier: offer.delivery.payment_identifier,
    }
}

/// The seller's words, and for a metered price how it is charged: that is part of what is bought.
fn description(offer: &Offer) -> String {
    let told = offer.registration.description.clone().unwrap_or_default();
    let rules = offer.payments.iter().find_map(|tag| charged(tag, offer.model.as_ref()));
    match (rules, told.is_empty()) {
        (None, _) => told,
        (Some(rules), true) => rules,
        (Some(rules), false) => format!("{told} {rules}"),
    }
}

/// How a metered price is charged, as buyers read it; `None` for a price per request. The rules are those of docs/metering.md.
pub(crate) fn charged(tag: &PriceTag, model: Option<&Model>) -> Option<String> {
    let price = tag.price();
    let uncounted = match model.map(|model| model.when_uncounted) {
        Some(WhenUncounted::Bytes) => "a byte counts as a token",
        Some(WhenUncounted::Ceiling) | None => "the amount asked for is charged",
    };
    let cut = match &tag.rate {
        Rate::PerRequest(_) => return None,
        Rate::PerToken { .. } => "a quarter of the prompt's bytes and each event that left but the first count as tokens",
        Rate::PerUnit { .. } => "one unit is charged",
    };
    Some(format!(
        "{price}. With `upto` what was used is charged, at most the amount asked for; with `exact` that amount. Where nobody counts, {uncounted}; of an answer that is cut, {cut}."
    ))
}

/// A prepared public document, e.g. `/api/services.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Media type.
    pub content_type: &'static str,
    /// Body.
    pub body: Arc<[u8]>,
}

/// Immutable; replaced as a whole when an offer changes. Entries are shared between versions.
#[derive(Debug, Default)]
pub struct RouteTable {
    any_host: Places,
    hosts: HashMap<Box<str>, Places>,
    documents: HashMap<Box<str>, Document>,
    entries: usize,
}

/// The places of one host.
#[derive(Debug, Default)]
struct Places {
    slots: HashMap<Key, Slot>,
    /// Segments of the deepest place: a request's further segments are never looked at, so the
    /// work per request is bounded by what is sold and not by what is asked.
    depth: usize,
}

#[derive(Debug, Default)]
struct Slot {
    exact: Option<Arc<Entry>>,
    subtree: Option<Arc<Entry>>,
}

/// A path borrowed from its entry, so that ten thousand keys cost no allocation on a rebuild.
#[derive(Debug)]
struct Key(Arc<Entry>);

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.0.key()
    }
}
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}
impl Eq for Key {}

impl Places {
    /// Whether the place was free.
    fn insert(&mut self, entry: Arc<Entry>) -> bool {
        self.depth = self.depth.max(entry.key().matches('/').count());
        let slot = self.slots.entry(Key(entry.clone())).or_default();
        let place = if entry.subtree { &mut slot.subtree } else { &mut slot.exact };
        let free = place.is_none();
        place.get_or_insert(entry);
        free
    }

    fn find(&self, path: &str) -> Option<&Arc<Entry>> {
        if self.slots.is_empty() {
            return None;
        }
        let whole = path.strip_suffix('/').unwrap_or(path);
        let mut prefix = match whole.match_indices('/').nth(self.depth) {
            Some((end, _)) => whole.get(..end)?,
            None => whole,
        };
        loop {
            if let Some(slot) = self.slots.get(prefix) {
                let exact = slot.exact.as_ref().filter(|entry| entry.path.as_str() == path);
                if let Some(entry) = exact.or(slot.subtree.as_ref()) {
                    return Some(entry);
                }
            }
            prefix = prefix.get(..prefix.rfind('/')?)?;
        }
    }
}

impl RouteTable {
    /// An empty table to fill.
    pub fn builder() -> RouteTableBuilder {
        RouteTableBuilder::default()
    }

    /// The entry for a request: its own host before any host, longest path first. `host` is lower
    /// case, without port.
    pub fn find(&self, host: Option<&str>, path: &CanonicalPath) -> Option<&Arc<Entry>> {
        let own = host.filter(|_| !self.hosts.is_empty()).and_then(|host| self.hosts.get(host));
        own.and_then(|places| places.find(path.as_str())).or_else(|| self.any_host.find(path.as_str()))
    }

    /// The public document at exactly this path.
    pub fn document(&self, path: &str) -> Option<&Document> {
        self.documents.get(path)
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing is sold.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// Fills a [`RouteTable`].
#[derive(Debug, Default)]
pub struct RouteTableBuilder {
    table: RouteTable,
}

impl RouteTableBuilder {
    /// Makes room for entries on any host, so that filling a large table does not grow it in steps.
    pub fn reserve(&mut self, entries: usize) {
        self.table.any_host.slots.reserve(entries);
    }

    /// Adds an entry. Who comes first keeps the place; says whether the place was free.
    pub fn insert(&mut self, entry: Arc<Entry>) -> bool {
        let places = match entry.host() {
            None => &mut self.table.any_host,
            Some(host) => self.table.hosts.entry(host.into()).or_default(),
        };
        let free = places.insert(entry);
        self.table.entries += usize::from(free);
        free
    }

    /// Adds an exception, unless another offer has its base between this offer's base and the
    /// exception: what is below an offer's base is that offer's own. Bases go in first.
    pub fn insert_exception(&mut self, entry: Arc<Entry>) -> bool {
        let owner = self.table.find(entry.host(), &entry.path);
        owner.is_some_and(|owner| owner.offer.name == entry.offer.name) && self.insert(entry)
    }

    /// Adds all entries of an offer.
    pub fn offer(&mut self, offer: &Arc<Offer>) -> &mut Self {
        for entry in Entry::of_offer(offer, &UptoDirectory::default()) {
            self.insert(entry);
        }
        self
    }

    /// Adds a public document at an exact path.
    pub fn document(&mut self, path: &str, document: Document) -> &mut Self {
        self.table.documents.insert(path.into(), document);
        self
    }

    /// The finished table.
    pub fn build(self) -> RouteTable {
        self.table
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
