//! From offers to what is served: the route table, conditions and discovery documents. Pure: the
//! same core is fed from files on the standalone backend and from the API server in a cluster.
//!
//! [`reconcile`] is the pass: slices and the [`State`] before in, the [`State`] after out.
//! [`OfferState::status`] turns one offer of it, and the last health probe, into conditions.

mod claims;
mod conditions;
mod discovery;
#[cfg(test)]
mod fixtures;
mod pass;
mod plan;
mod state;
mod table;

pub use conditions::{Finding, Health, Observed, Probe};
pub use discovery::{SERVICES_PATH, public_url};
pub use pass::{QUOTE_GRACE, reconcile};
pub use plan::{Action, FieldChange, PlanItem, PlannedChange, plan};
pub use state::{Key, OfferState, Phase, Refusal, Site, Slice, State, Version};
pub use table::{Document, Entry, RouteTable, RouteTableBuilder};
