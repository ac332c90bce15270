//! The route table: what answers a request, found by host and longest path prefix.

use std::{collections::HashMap, sync::Arc};

use obol_offer::{CanonicalPath, Offer};
use obol_x402::Quote;
use time::OffsetDateTime;

/// One place that buyers can reach.
#[derive(Debug)]
pub struct Entry {
    /// The offer it belongs to.
    pub offer: Arc<Offer>,
    /// Full public path, without trailing slash.
    pub path: CanonicalPath,
    /// Whether everything below `path` is meant too.
    pub subtree: bool,
    /// What it costs; `None` is free.
    pub quote: Option<Quote>,
    /// The quote before the last price edit, good for 60 s, until the instant given.
    pub previous: Option<(Quote, OffsetDateTime)>,
}

/// A prepared public document, e.g. `/api/services.json`.
#[derive(Clone, Debug)]
pub struct Document {
    /// Media type.
    pub content_type: &'static str,
    /// Body.
    pub body: Arc<[u8]>,
}

/// Immutable; replaced as a whole when an offer changes.
#[derive(Debug, Default)]
pub struct RouteTable {
    entries: HashMap<Option<String>, HashMap<String, Vec<Arc<Entry>>>>,
    documents: HashMap<String, Document>,
}

impl RouteTable {
    /// The entry for a request: its own host before any host, longest path first. `host` is lower
    /// case, without port.
    pub fn find(&self, host: Option<&str>, path: &CanonicalPath) -> Option<&Arc<Entry>> {
        let _ = (host, path, &self.entries);
        todo!()
    }

    /// The public document at exactly this path.
    pub fn document(&self, path: &str) -> Option<&Document> {
        self.documents.get(path)
    }
}
