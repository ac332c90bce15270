//! The custom resource, the controller and its rights against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

mod apiserver;
mod e2e_cluster_admit_serviceoffer;
mod e2e_cluster_controller;
mod e2e_cluster_crash;
mod e2e_cluster_gateway;
mod e2e_cluster_rights;
mod world;
