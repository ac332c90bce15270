//! `values-offer.yaml` and `stack.yaml` as somebody else may have written them.

use std::path::Path;

use obol_offer::OfferKind;
use obol_stackdir::{fuzzing, parse_offer, parse_stack};

pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let place = Path::new("values-offer.yaml");
    let _ = parse_stack(text, place);
    let name = "weather".parse().expect("a name");
    for kind in [OfferKind::Http, OfferKind::Inference] {
        if let Err(findings) = parse_offer(text, place, kind, &name) {
            assert!(!findings.is_empty(), "a refusal without a reason");
        }
    }
    let Some(file) = fuzzing::read(text) else { return };
    let written = fuzzing::write(&file).expect("what was read can be written");
    assert_eq!(fuzzing::read(&written).as_ref(), Some(&file), "{written}");
}
