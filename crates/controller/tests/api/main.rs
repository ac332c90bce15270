//! The custom resource, the controller and its rights against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod admit_serviceoffer;
mod apiserver;
