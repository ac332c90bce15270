//! Whole slices: written, read back, edited by hand and written again.

use std::fs;

use obol_offer::{OfferKind, OfferName, OfferSpec, PaymentSpec, PriceSpec, UpstreamSpec};

use crate::{Change, StackConfig, StackDir};

pub(crate) fn name(text: &str) -> OfferName {
    text.parse().unwrap()
}

pub(crate) fn spec(price: &str) -> OfferSpec {
    OfferSpec {
        upstream: UpstreamSpec { url: Some("http://127.0.0.1:9000".into()), ..Default::default() },
        payment: Some(PaymentSpec {
            network: "base-sepolia".into(),
            pay_to: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C".into(),
            price: PriceSpec { per_request: Some(price.into()), ..Default::default() },
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn stack() -> (tempfile::TempDir, StackDir) {
    let dir = tempfile::tempdir().unwrap();
    let stack = StackDir::at(dir.path().join("config"));
    stack.init(&StackConfig::default()).unwrap();
    (dir, stack)
}

#[test]
fn a_new_slice_is_what_a_person_would_write() {
    let (_dir, stack) = stack();
    let lock = stack.lock().unwrap();
    let change = stack.put(&lock, OfferKind::Http, &name("weather"), &spec("0.001")).unwrap();
    let Change::Created { text } = change else { panic!("{change:?}") };
    insta::assert_snapshot!(text);
    insta::assert_snapshot!(fs::read_to_string(stack.root().join("applications/sell-http/weather/helmfile.yaml")).unwrap());
    insta::assert_snapshot!(fs::read_to_string(stack.root().join("stack.yaml")).unwrap().replace(&stack.stack().unwrap().id, "<id>"));
    let slice = stack.read(OfferKind::Http, &name("weather")).unwrap().unwrap();
    assert_eq!(slice.offer.unwrap().0, spec("0.001"));
    assert_eq!(stack.put(&lock, OfferKind::Http, &name("weather"), &spec("0.001")).unwrap(), Change::Unchanged);
    let change = stack.put(&lock, OfferKind::Http, &name("weather"), &spec("0.002")).unwrap();
    let Change::Updated { diff, rewritten: false, .. } = change else { panic!("{change:?}") };
    insta::assert_snapshot!(diff);
    assert!(stack.remove(&lock, OfferKind::Http, &name("weather")).unwrap());
    assert!(!stack.remove(&lock, OfferKind::Http, &name("weather")).unwrap());
    assert_eq!(fs::read_dir(stack.root().join("applications/sell-http")).unwrap().count(), 0);
}
