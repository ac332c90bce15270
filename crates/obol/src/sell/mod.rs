//! From flags and JSON to the spec of an offer.

mod from_json;
mod merge;
mod pairs;

pub use from_json::{Given, read as read_json};
pub use merge::{Defaults, explain, merge};
