//! Which crate may depend on what: the list of the architecture, checked against the truth.

use std::collections::BTreeMap;

use crate::{
    metadata::Metadata,
    places::Places,
    run::{Error, Result},
};

/// Our crates, top to bottom: a crate depends on crates above it only.
/// Keep in step with ARCHITECTURE.md.
const ORDER: &[&str] = &[
    "obol-offer",
    "obol-x402",
    "obol-payment",
    "obol-reconcile",
    "obol-stackdir",
    "obol-settle",
    "obol-chain",
    "obol-sandbox",
    "obol-gateway",
    "obol-inference",
    "obol-controller",
    "obol-buyer",
    "obol-backend",
    "obol",
    "obol-e2e",
    "obol-sim",
    "obol-bench",
    "xtask",
];

/// Crates that do no I/O.
const PURE: &[&str] = &["obol-offer", "obol-x402", "obol-payment", "obol-reconcile"];

/// What brings I/O, a runtime or a store; by itself or through something else.
const IMPURE: &[&str] = &["axum", "fs-err", "hyper", "kube", "mio", "notify", "redb", "reqwest", "rustix", "socket2", "tempfile", "tokio"];

/// What nothing of ours may depend on, and why.
const BANNED: &[(&str, &str)] = &[("aws-lc-rs", "ring is our one cryptography provider"), ("serde_yaml", "unmaintained")];

/// The graph by package id, of what is linked: no dev-dependencies, no build scripts.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
    ours: Vec<String>,
}

/// `cargo xtask layers`
pub fn check() -> Result {
    let broken = violations(&Graph::new(Metadata::of(&Places::find()?, "x86_64")?));
    if broken.is_empty() {
        println!("{} crates in order, {} of them pure", ORDER.len(), PURE.len());
        return Ok(());
    }
    Err(Error::Check(broken.join("\n")))
}

impl Graph {
    fn new(metadata: Metadata) -> Self {
        let edges = metadata.resolve.nodes.iter().map(|node| (node.id.clone(), node.linked().map(str::to_owned).collect()));
        let edges = edges.collect();
        Self {
            names: metadata.packages.into_iter().map(|package| (package.id, package.name)).collect(),
            edges,
            ours: metadata.workspace_members.into_iter().collect(),
        }
    }

    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    fn direct(&self, id: &str) -> impl Iterator<Item = &String> {
        self.edges.get(id).into_iter().flatten()
    }

    /// Everything below `id` by name, each with the chain that leads there.
    fn all_below<'a>(&'a self, id: &'a str) -> BTreeMap<&'a str, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![(id, self.name(id).to_owned())];
        while let Some((id, chain)) = open.pop() {
            for next in self.direct(id) {
                let name = self.name(next);
                if !found.contains_key(name) {
                    let chain = format!("{chain} -> {name}");
                    found.insert(name, chain.clone());
                    open.push((next, chain));
                }
            }
        }
        found
    }
}

fn violations(graph: &Graph) -> Vec<String> {
    let place = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut broken = Vec::new();
    for id in &graph.ours {
        let name = graph.name(id);
        let Some(own) = place(name) else {
            broken.push(format!("{name} has no place among the layers; give it one in xtask/src/layers.rs"));
            continue;
        };
        let upward = graph.direct(id).map(|next| graph.name(next)).filter(|next| place(next).is_some_and(|other| other >= own));
        broken.extend(upward.map(|next| format!("{name} depends on {next}, which is not above it")));

        let below = graph.all_below(id);
        if PURE.contains(&name) {
            broken.extend(IMPURE.iter().filter_map(|impure| below.get(impure)).map(|chain| format!("{name} must be pure: {chain}")));
        }
        let banned = BANNED.iter().filter_map(|(bad, why)| Some((below.get(bad)?, why)));
        broken.extend(banned.map(|(chain, why)| format!("{chain}: {why}")));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let ids = edges.iter().flat_map(|(id, next)| std::iter::once(id).chain(*next));
        Graph {
            names: ids.map(|id| ((*id).to_owned(), (*id).to_owned())).collect(),
            edges: edges.iter().map(|(id, next)| ((*id).to_owned(), next.iter().map(|n| (*n).to_owned()).collect())).collect(),
            ours: edges.iter().map(|(id, _)| (*id).to_owned()).filter(|id| id.starts_with("obol")).collect(),
        }
    }

    #[test]
    fn a_pure_crate_that_reaches_tokio_through_another_is_found_with_the_chain() {
        let broken = violations(&graph(&[("obol-x402", &["innocent"]), ("innocent", &["tokio"])]));
        assert_eq!(broken, ["obol-x402 must be pure: obol-x402 -> innocent -> tokio"]);
    }

    #[test]
    fn a_dependency_against_the_order_is_found() {
        let broken = violations(&graph(&[("obol-offer", &["obol-x402"]), ("obol-x402", &[])]));
        assert_eq!(broken, ["obol-offer depends on obol-x402, which is not above it"]);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        let broken = violations(&graph(&[("obol-extra", &[])]));
        assert_eq!(broken, ["obol-extra has no place among the layers; give it one in xtask/src/layers.rs"]);
    }

    #[test]
    fn what_is_in_order_is_quiet() {
        let fine = graph(&[("obol-settle", &["obol-x402", "tokio"]), ("obol-x402", &["obol-offer"]), ("obol-offer", &["serde"])]);
        assert_eq!(violations(&fine), Vec::<String>::new());
    }
}
