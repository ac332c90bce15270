//! The custom resource `serviceoffers.obol.org/v1alpha1`: its schema and its admission rules, made
//! from the same types, bounds and rules that check a file.

pub(crate) mod bounds;
mod crd;
mod older;
mod rules;
mod schema;

pub use crd::{crd, crd_yaml};
pub use older::read_spec;

#[cfg(test)]
mod tests;
