//! The gateway as buyers, upstreams and operators meet it.
// Helpers outside `#[test]` functions are test code too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod challenge;
mod hostile;
mod kept;
mod limits;
mod metered;
mod metered_hostile;
mod money;
mod named;
mod operate;
mod proxying;
mod rerun;
mod upgrades;
mod verify;
