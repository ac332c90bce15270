//! Who settles `upto` payments. A payer signs for one facilitator, so a challenge must name it, and
//! nobody is asked for a challenge: what facilitators said last is known beforehand.

use std::collections::BTreeMap;

use obol_offer::{Address, Network};

/// Who settles the `upto` payments of one offer, by network: a facilitator's `facilitatorAddress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UptoFacilitators(Vec<(u64, Address)>);

impl UptoFacilitators {
    /// Who settles on a network.
    pub fn on(&self, network: &Network) -> Option<Address> {
        self.0.iter().find(|(chain_id, _)| *chain_id == network.chain_id).map(|(_, address)| *address)
    }

    /// Adds one; the first of a network is kept.
    pub fn add(&mut self, network: &Network, facilitator: Address) {
        if self.on(network).is_none() {
            self.0.push((network.chain_id, facilitator));
        }
    }
}

/// What is known of all facilitators of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UptoDirectory {
    /// Those inside this process, which go before any other on their network.
    pub local: UptoFacilitators,
    /// The stack's own list, for offers that name none, in order of preference.
    pub defaults: Vec<String>,
    /// By base URL without trailing slash.
    pub remote: BTreeMap<String, UptoFacilitators>,
}

impl UptoDirectory {
    /// Who settles for an offer that names these facilitators (base URLs, in order of preference).
    pub fn of<'a>(&'a self, facilitators: impl IntoIterator<Item = &'a str>) -> UptoFacilitators {
        let named: Vec<&str> = facilitators.into_iter().collect();
        let list = if named.is_empty() { self.defaults.iter().map(String::as_str).collect() } else { named };
        let mut found = self.local.clone();
        for known in list.into_iter().filter_map(|url| self.remote.get(url.trim_end_matches('/'))) {
            for (chain_id, address) in &known.0 {
                // The sandbox's payments never leave the process.
                let network = Network::find(&format!("eip155:{chain_id}")).filter(|network| !network.is_sandbox());
                network.into_iter().for_each(|network| found.add(network, *address));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_finds_its_own_facilitators_in_their_order() {
        let (base, polygon) = (Network::find("base").unwrap(), Network::find("polygon").unwrap());
        let known = |entries: &[(&Network, u8)]| {
            let mut known = UptoFacilitators::default();
            entries.iter().for_each(|(network, n)| known.add(network, Address::repeat_byte(*n)));
            known
        };
        let remote = [("https://a", known(&[(base, 1)])), ("https://b", known(&[(base, 2), (polygon, 3)]))];
        let directory = UptoDirectory {
            local: UptoFacilitators::default(),
            defaults: vec!["https://b/".into()],
            remote: remote.into_iter().map(|(url, known)| (url.to_owned(), known)).collect(),
        };
        let on = |list: &[&str], network| directory.of(list.iter().copied()).on(network);
        assert_eq!(on(&["https://a/", "https://b/"], base), Some(Address::repeat_byte(1)));
        assert_eq!(on(&["https://a/", "https://b/"], polygon), Some(Address::repeat_byte(3)));
        assert_eq!(on(&["https://b/", "https://a/"], base), Some(Address::repeat_byte(2)));
        assert_eq!(on(&["https://a/"], polygon), None);
        assert_eq!(on(&["https://c/"], base), None);
        assert_eq!(on(&[], base), Some(Address::repeat_byte(2)));
        let local = UptoDirectory { local: known(&[(base, 9)]), ..directory.clone() };
        assert_eq!(local.of(["https://a/"]).on(base), Some(Address::repeat_byte(9)));
    }
}
