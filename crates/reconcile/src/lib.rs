//! From offers to what is served: the route table, conditions and discovery documents. Pure: the
//! same core is fed from files on the standalone backend and from the API server in a cluster.

mod plan;
mod table;

pub use plan::{Action, FieldChange, PlanItem, PlannedChange, plan};
pub use table::{Document, Entry, RouteTable, RouteTableBuilder};
