//! The gateway as buyers, upstreams and operators meet it.

#[path = "../support/mod.rs"]
mod support;

mod challenge;
mod hostile;
mod limits;
mod money;
mod operate;
mod proxying;
mod upgrades;
