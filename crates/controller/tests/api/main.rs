//! The custom resource, the controller and its rights against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

mod admit_serviceoffer;
mod apiserver;
mod controller;
mod crash;
mod world;
