//! What only the whole stack can tell: names and places held twice.

use std::collections::HashMap;

use super::{Offer, Violation, violation};

/// Names and public places held twice. For each loser its index in `offers` and the rule; the
/// earlier offer keeps the name or place.
pub fn find_collisions(offers: &[&Offer]) -> Vec<(usize, Violation)> {
    let (mut names, mut places) = (HashMap::new(), HashMap::new());
    let mut losers = Vec::new();
    for (index, offer) in offers.iter().enumerate() {
        let holder = *names.entry(&offer.name).or_insert(*offer);
        if !std::ptr::eq(holder, *offer) {
            let message = format!("`{}` is already sold as {}", offer.name, holder.kind.as_str());
            losers.push((index, violation("name_taken", "name", message, "choose another name")));
            continue;
        }
        let holder = *places.entry((&offer.hostname, offer.path.as_str())).or_insert(*offer);
        if !std::ptr::eq(holder, *offer) {
            let message = format!("`{}` is already served by offer `{}`", offer.endpoint(), holder.name);
            let code = if offer.hostname.is_some() { "host_taken" } else { "path_taken" };
            losers.push((index, violation(code, "spec.path", message, "choose another --path or --hostname")));
        }
    }
    losers
}
