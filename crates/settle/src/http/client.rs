//! The one HTTP client for all facilitators: TLS, redirects, bounds.

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::redirect::{Attempt, Policy};

/// Most redirects followed for one request; `x402.org` needs one.
const MAX_REDIRECTS: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer read.
const MAX_BODY: usize = 64 * 1024;

/// An HTTP client that trusts the public roots and those of the system, and follows few redirects.
///
/// # Errors
/// What TLS or the client's builder said.
pub fn client() -> Result<reqwest::Client, String> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("obol/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::custom(redirect))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(30))
        .build()
        .map_err(|error| error.to_string())
}

/// The public roots and those of the system.
pub(crate) fn roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Private authorities inside a cluster; a container without a certificate folder has none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Only redirects that repeat method and body, and only to where nobody can listen in.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same_request = matches!(attempt.status().as_u16(), 307 | 308);
    if same_request && attempt.previous().len() <= MAX_REDIRECTS && is_private(attempt.url()) { attempt.follow() } else { attempt.stop() }
}

/// TLS, or a connection that does not leave the machine.
fn is_private(url: &url::Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

/// Reads an answer's body up to 64 KiB.
pub(super) async fn bounded_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err("the answer is longer than 64 KiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes, without the URL, which may hold a secret.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { "broken".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    crate::outcome::tidy(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_only_to_tls_or_loopback() {
        for good in ["https://x.example/", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/"] {
            assert!(is_private(&good.parse().unwrap()), "{good}");
        }
        for bad in ["http://x.example/", "http://169.254.169.254/", "ftp://127.0.0.1/", "http://localhost.evil.example/"] {
            assert!(!is_private(&bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn the_client_builds() {
        client().unwrap();
    }
}
