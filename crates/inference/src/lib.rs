//! An OpenAI-compatible surface before a model server: only the sold model, and usage counted truly.
//!
//! The x402 gateway sends paid requests here, with a secret that nobody else has. A request is one of
//! [`surface`]'s calls, spelled exactly so, or it is 404; its body is checked and rewritten
//! ([`request`]); the answer passes through a [`meter`] that reads the model server's own usage and
//! reports it in a trailer ([`usage`]). Money is not known here.
//!
//! `surface`, `request`, `sse`, `meter` and what they use know bytes only.

pub mod body;
pub mod config;
pub mod meter;
pub mod metrics;
pub mod model;
pub mod probe;
pub mod problem;
pub mod request;
pub mod serve;
pub mod service;
pub mod sse;
pub mod surface;
pub mod upstream;
pub mod usage;

mod fields;
mod json;
mod pull;
mod slots;
mod stream;
mod whole;

pub use config::{ModelConfig, Secret};
pub use model::Model;
pub use service::Directory;
