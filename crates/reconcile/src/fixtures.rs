//! Offers for the tests of this crate.

use std::sync::Arc;

use obol_offer::{
    Gate, HostUpstream, Offer, OfferKind, OfferName, OfferSpec, PaymentSpec, PriceSpec, RegistrationSpec, RouteSpec, UpstreamSpec,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Slice, State, Version};

pub fn spec(path: &str) -> OfferSpec {
    OfferSpec {
        upstream: UpstreamSpec { host: Some(HostUpstream { port: 9000 }), ..UpstreamSpec::default() },
        payment: Some(PaymentSpec {
            network: "base-sepolia".into(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            price: PriceSpec { per_request: Some("0.001".into()), ..Default::default() },
            ..PaymentSpec::default()
        }),
        path: Some(path.into()),
        ..OfferSpec::default()
    }
}

pub fn with(path: &str, change: impl FnOnce(&mut OfferSpec)) -> OfferSpec {
    let mut spec = spec(path);
    change(&mut spec);
    spec
}

pub fn priced(path: &str, price: &str) -> OfferSpec {
    with(path, |s| s.payment.as_mut().unwrap().price.per_request = Some(price.into()))
}

pub fn route(path: &str, gate: Gate) -> RouteSpec {
    RouteSpec { path: path.into(), gate, price: None }
}

pub fn unlisted(spec: &mut OfferSpec) {
    spec.registration = Some(RegistrationSpec { enabled: Some(false), ..RegistrationSpec::default() });
}

pub fn offer(name: &str, spec: &OfferSpec) -> Arc<Offer> {
    let name: OfferName = name.parse().unwrap();
    Arc::new(Offer::validate(&name, spec).unwrap())
}

pub fn slice(name: &str, spec: OfferSpec) -> Slice {
    let version = Version { offer: offer(name, &spec), spec: Arc::new(spec) };
    Slice { name: name.parse().unwrap(), kind: OfferKind::Http, version: Ok(version), since: None }
}

pub fn broken(name: &str) -> Slice {
    let problem = crate::Refusal::new("InvalidSlice", "values-offer.yaml:3: no YAML");
    Slice { name: name.parse().unwrap(), kind: OfferKind::Http, version: Err(problem), since: None }
}

pub fn at(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(&format!("2026-11-23T{text}Z"), &Rfc3339).unwrap()
}

/// Which offer answers at a path.
pub fn found(state: &State, path: &str) -> Option<String> {
    let path = obol_offer::CanonicalPath::parse(path).unwrap();
    state.table.find(None, &path).map(|entry| entry.offer.name.to_string())
}
