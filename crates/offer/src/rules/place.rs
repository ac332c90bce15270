//! Where buyers find an offer: host, path, and the exceptions below it.

use super::{Checker, PriceTag, RESERVED_PATHS, Route, Terms};
use crate::{CanonicalPath, Gate, Hostname, OfferName, Rate, RouteSpec, Scheme};

impl Checker {
    pub(super) fn hostname(&mut self, text: Option<&str>) -> Option<Hostname> {
        match text?.parse() {
            Ok(hostname) => Some(hostname),
            Err(error) => {
                self.refuse("hostname", "spec.hostname", format!("`{}`: {error}", text?), "write a lower-case host name without port");
                None
            }
        }
    }

    pub(super) fn path(&mut self, name: &OfferName, text: Option<&str>, own_host: bool) -> CanonicalPath {
        let default = format!("/services/{name}");
        let text = text.unwrap_or(&default);
        let fix = format!("write a path such as {default}");
        let path = match CanonicalPath::parse(text) {
            Ok(path) => path,
            Err(error) => {
                self.refuse("path", "spec.path", format!("`{text}`: {error}"), fix);
                return CanonicalPath::root();
            }
        };
        if path.as_str() != text || (text.len() > 1 && text.ends_with('/')) {
            let plain = path.as_str().trim_end_matches('/');
            self.refuse("path", "spec.path", format!("`{text}` has several spellings"), format!("write `{plain}`"));
        } else if text.len() > 512 || text.contains('%') {
            self.refuse("path", "spec.path", "at most 512 characters without escapes", fix);
        } else if (text == "/" && !own_host) || text == "/services" || RESERVED_PATHS.iter().any(|root| path.is_within(root)) {
            self.refuse("path_reserved", "spec.path", format!("`{text}` belongs to the stack itself"), fix);
        }
        path
    }

    pub(super) fn routes(&mut self, list: &[RouteSpec], base: &CanonicalPath, payments: &[PriceTag]) -> Vec<Route> {
        if list.len() > 128 {
            self.refuse("routes", "spec.routes", "at most 128 routes", "split the offer");
            return Vec::new();
        }
        let mut routes: Vec<Route> = Vec::new();
        for (index, spec) in list.iter().enumerate() {
            let field = format!("spec.routes[{index}]");
            let (text, subtree) = match spec.path.strip_suffix("/*") {
                Some(prefix) => (prefix, true),
                None => (spec.path.as_str(), false),
            };
            let full = format!("{}{text}", base.as_str().trim_end_matches('/'));
            let path = match CanonicalPath::parse(if full.is_empty() { "/" } else { &full }) {
                Ok(path) if (path.as_str() == full || full.is_empty()) && is_route(text) => path,
                _ => {
                    self.refuse(
                        "route_path",
                        format!("{field}.path"),
                        format!("`{}` is no route", spec.path),
                        "write `/path` or `/path/*`",
                    );
                    continue;
                }
            };
            if routes.iter().any(|r| r.path == path && r.subtree == subtree) {
                self.refuse("route_twice", format!("{field}.path"), format!("`{}` is listed twice", spec.path), "remove one of them");
                continue;
            }
            // The two schemes of a metered price are one payment.
            let only = payments.first().filter(|first| {
                let same = |a: &Terms, b: &Terms| a.network == b.network && a.asset == b.asset && a.pay_to == b.pay_to;
                payments.iter().all(|tag| same(&tag.terms, &first.terms))
            });
            let payments = match (spec.gate, &spec.price, only) {
                (Gate::Free, None, _) => Vec::new(),
                (Gate::Free, Some(_), _) => {
                    self.refuse(
                        "route_price",
                        format!("{field}.price"),
                        "a free route has no price",
                        "remove `price`, or write `gate: paid`",
                    );
                    continue;
                }
                (Gate::Paid, None, _) => payments.to_vec(),
                (Gate::Paid, Some(price), Some(only)) => match self.amount(&format!("{field}.price"), price, &only.terms.asset) {
                    Some(amount) => {
                        let terms = Terms { scheme: Scheme::Exact, ..only.terms_at(amount) };
                        vec![PriceTag { terms, rate: Rate::PerRequest(amount) }]
                    }
                    None => continue,
                },
                (Gate::Paid, Some(_), None) => {
                    self.refuse(
                        "route_price",
                        format!("{field}.price"),
                        "a route's own price needs an offer with one payment",
                        "remove it",
                    );
                    continue;
                }
            };
            routes.push(Route { path, subtree, payments });
        }
        routes
    }
}

/// `` or `/a/b`: what stands before an optional `/*`.
fn is_route(text: &str) -> bool {
    text.is_empty() || (text.starts_with('/') && !text.ends_with('/') && !text.contains('*'))
}
