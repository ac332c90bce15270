//! One HTTP client per call: it must not follow redirects, for a payment belongs to one host.

use std::time::Duration;

use reqwest::{Client, redirect};
use url::{Host, Url};

use crate::{PayError, error::explain};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn client(url: &Url) -> Result<Client, PayError> {
    // Fails when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("obol/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        // A bare machine has no root certificates, and none are needed here.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(url) {
        // $HTTP_PROXY rarely excepts the own machine, and never means it.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|e| PayError::Client(explain(e)))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}
