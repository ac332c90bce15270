//! The Kubernetes loop round the reconcile core: `ServiceOffer`s in, routes and conditions out.
//!
//! dereference ([`Mirror`]) → read ([`Reader`]) → pass ([`obol_reconcile::reconcile`]) → plan (pure) →
//! apply (the one place that writes, and only while the lease is held). A pass that finds everything
//! as it should be writes nothing.

mod admin;
mod apply;
mod build;
mod gate;
mod http;
mod lease;
mod metrics;
mod mirror;
mod models;
mod object;
mod plan;
mod run;
mod settings;
mod status;

pub use admin::serve_admin;
pub use build::{GRANT, MANAGED_BY, MANAGER, OFFER, grants, route_name, routes};
pub use gate::{Loaded, REPORT_PATH, Report};
pub use metrics::Metrics;
pub use mirror::{Mirror, Objects};
pub use models::INFERENCE_ADMIN_PORT;
pub use object::{HOST_SERVICE, Home, Id, Read, Reader, ServiceOffer, id};
pub use run::Controller;
pub use settings::{Gate, Ingress, LeaseTimes, Settings};
