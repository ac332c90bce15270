//! Request paths: one canonical form, and the gate judges exactly what is forwarded.

use std::sync::OnceLock;

use obol_offer::{CanonicalPath, Offer, OfferSpec, PaymentSpec, PriceSpec, UpstreamSpec};

use crate::PAYEE;

fn offer() -> &'static Offer {
    static OFFER: OnceLock<Offer> = OnceLock::new();
    OFFER.get_or_init(|| {
        let spec = OfferSpec {
            upstream: UpstreamSpec { url: Some("http://127.0.0.1:9000".into()), ..UpstreamSpec::default() },
            payment: Some(PaymentSpec {
                network: "base".into(),
                pay_to: PAYEE.into(),
                price: PriceSpec { per_request: Some("0.01".into()), ..Default::default() },
                ..PaymentSpec::default()
            }),
            ..OfferSpec::default()
        };
        Offer::validate(&"a".parse().expect("a name"), &spec).expect("a valid offer")
    })
}

pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (raw, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let Ok(path) = CanonicalPath::parse(raw) else { return };
    let canonical = path.as_str();
    assert_eq!(CanonicalPath::parse(canonical).as_ref(), Ok(&path), "a fixed point");
    assert!(canonical.starts_with('/') && !canonical.contains("//"), "{canonical}");
    let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    assert!(!canonical.split('/').any(dots), "{canonical}");
    // Another parser, that of browsers, finds nothing left to resolve.
    let other = url::Url::parse(&format!("http://h{canonical}")).expect("a URL");
    assert_eq!((other.path(), other.query(), other.fragment()), (canonical, None, None));

    let below = CanonicalPath::parse(&format!("/services/a{raw}")).ok().filter(|path| path.is_within("/services/a"));
    let Some(below) = below else { return };
    let Some(uri) = obol_gateway::fuzzing::upstream_uri(offer(), &below, query) else { return };
    let forwarded = below.as_str().strip_prefix("/services/a").filter(|rest| !rest.is_empty()).unwrap_or("/");
    assert_eq!(uri.path(), forwarded, "what was judged is what is forwarded");
    assert_eq!(uri.authority().map(|a| a.as_str()), Some("127.0.0.1:9000"));
}
