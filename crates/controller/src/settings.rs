//! What a controller is told.

use std::time::Duration;

use obol_reconcile::Site;
use url::Url;

use crate::object::Home;

/// How a controller works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where offers, controller and gateway are.
    pub home: Home,
    /// What offers are served on.
    pub site: Site,
    /// The Gateway that routes are attached to.
    pub ingress: Ingress,
    /// The x402 gateway.
    pub gate: Gate,
    /// Who this is, unique over all controllers: the Pod's name.
    pub identity: String,
    /// How the one that writes is chosen.
    pub lease: LeaseTimes,
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The listener; all of them when absent.
    pub section: Option<String>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self { namespace: "traefik".to_owned(), name: "traefik-gateway".to_owned(), section: Some("web".to_owned()) }
    }
}

/// The x402 gateway as a Service of the system namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Service.
    pub service: String,
    /// Its port for buyers.
    pub port: u16,
    /// Base URL of its admin listener.
    pub admin: Url,
    /// How often it is asked what it has loaded while nothing changes.
    pub interval: Duration,
}

/// Times of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long a lease holds that nobody renews.
    pub duration: Duration,
    /// How often it is renewed, and how often others look.
    pub interval: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), interval: Duration::from_secs(4) }
    }
}
