//! What `cargo metadata` says of this workspace and all below it, as far as anybody here asks.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{
    places::Places,
    run::{Error, Result, output},
};

#[derive(Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    /// Ids of our own packages.
    pub workspace_members: BTreeSet<String>,
    pub resolve: Resolve,
}

#[derive(Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    /// `None` for our own.
    pub source: Option<String>,
}

#[derive(Deserialize)]
pub struct Resolve {
    pub nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub struct Node {
    pub id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Metadata {
    /// Asks cargo, for the architecture called `arch` by Rust.
    pub fn of(places: &Places, arch: &str) -> Result<Self> {
        let triple = format!("{arch}-unknown-linux-gnu");
        let text = output(&mut places.cargo(&["metadata", "--locked", "--format-version=1", "--filter-platform", &triple]))?;
        serde_json::from_slice(&text).map_err(|error| Error::Check(format!("cargo metadata: {error}")))
    }
}

impl Node {
    /// Ids of what it is linked with; what only builds or tests it is in no binary.
    pub fn linked(&self) -> impl Iterator<Item = &str> {
        self.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none())).map(|dep| dep.pkg.as_str())
    }
}
