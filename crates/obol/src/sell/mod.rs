//! From flags and JSON to the spec of an offer.

mod found;
mod from_json;
mod merge;
mod model;
mod pairs;

pub use found::{Place, Server, base, places, scan};
pub use from_json::{Given, read as read_json};
pub use merge::{Defaults, explain, merge};
pub use model::lay;
