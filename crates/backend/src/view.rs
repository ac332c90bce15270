//! Offers as the control socket shows them.

use obol_offer::{ModelState, Offer};
use obol_reconcile::{OfferState, Probe, Refusal, Site, public_url};
use obol_stackdir::Diagnostic;

use crate::{control::OfferView, tree::Loaded};

/// One offer. `site` has the address that people on this machine would use.
pub(crate) fn view(
    state: &OfferState,
    loaded: Option<&Loaded>,
    probe: Option<&Probe>,
    model: Option<&ModelState>,
    site: &Site,
) -> OfferView {
    let offer = state.shown().map(|version| version.offer.as_ref());
    let mut diagnostics = loaded.map(|loaded| loaded.diagnostics.clone()).unwrap_or_default();
    if let (Some(refusal), Some(loaded)) = (&state.refusal, loaded.filter(|loaded| loaded.slice.version.is_ok())) {
        diagnostics.push(diagnostic(refusal, loaded));
    }
    OfferView {
        name: state.name.clone(),
        kind: state.kind,
        price: offer.map(Offer::price).unwrap_or_default(),
        network: offer.map(networks).unwrap_or_default(),
        url: offer.and_then(|offer| public_url(offer, site)).unwrap_or_default(),
        status: state.status(probe, model),
        current: state.refusal.is_none(),
        diagnostics,
    }
}

/// A refusal that is not the file's own fault, told at the file.
fn diagnostic(refusal: &Refusal, loaded: &Loaded) -> Diagnostic {
    match &refusal.violation {
        Some(rule) => Diagnostic::file(&loaded.file, rule.code, rule.message.clone(), rule.fix.clone()),
        None => {
            let (message, fix) = refusal.message.split_once("; ").unwrap_or((&refusal.message, ""));
            Diagnostic::file(&loaded.file, &snake_case(refusal.reason), message, fix)
        }
    }
}

fn snake_case(reason: &str) -> String {
    let mut code = String::new();
    for (index, c) in reason.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            code.push('_');
        }
        code.push(c.to_ascii_lowercase());
    }
    code
}

/// Names of an offer's networks, comma separated.
pub(crate) fn networks(offer: &Offer) -> String {
    let mut names: Vec<&str> = offer.payments.iter().map(|tag| tag.terms.network.name).collect();
    names.dedup();
    names.join(", ")
}

/// The site as seen from this machine: its public URL, else the address it listens on.
pub(crate) fn local_site(site: &Site, listen: std::net::SocketAddr) -> Site {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let own = || format!("http://{address}/").parse().ok();
    Site { public_url: site.public_url.clone().or_else(own), ..site.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_codes() {
        assert_eq!(snake_case("SandboxNeedsLoopback"), "sandbox_needs_loopback");
    }

    #[test]
    fn people_get_an_address_they_can_open() {
        let site = Site::default();
        let url = |listen: &str| local_site(&site, listen.parse().unwrap()).public_url.map(String::from);
        assert_eq!(url("0.0.0.0:8402").as_deref(), Some("http://127.0.0.1:8402/"));
        assert_eq!(url("[::1]:8402").as_deref(), Some("http://[::1]:8402/"));
    }
}
