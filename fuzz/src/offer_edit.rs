//! Edits of a file that a person wrote: the file then says exactly what was wanted, or would have
//! to be written anew. Behind the text stand a NUL and edits, each a field's number and a value.

use obol_offer::{Gate, LimitsSpec, OfferSpec, RegistrationSpec, RouteSpec};
use obol_stackdir::fuzzing;

pub fn target(data: &[u8]) {
    let Some(at) = data.iter().rposition(|b| *b == 0) else { return };
    let (Ok(text), Ok(edits)) = (std::str::from_utf8(&data[..at]), std::str::from_utf8(&data[at + 1..])) else { return };
    let Some(mut wanted) = fuzzing::read(text) else { return };
    for edit in edits.split('\x01').take(8) {
        let mut chars = edit.chars();
        if let Some(field) = chars.next() {
            apply(&mut wanted.spec, field, chars.as_str());
        }
    }
    let (edited, fresh) = fuzzing::rewrite(text, &wanted).expect("it was read before");
    // Whichever is taken says it; an edit that does not is thrown away.
    assert_eq!(fuzzing::read(&fresh).as_ref(), Some(&wanted), "{fresh}");
    if let Some(after) = edited.filter(|after| fuzzing::read(after).as_ref() == Some(&wanted)) {
        // To edit back, and to edit nothing, is possible and right too.
        let (same, _) = fuzzing::rewrite(&after, &wanted).expect("it was read before");
        assert!(same.is_none_or(|same| same.trim_end() == after.trim_end()), "an edit of nothing changes something");
    }
}

fn apply(spec: &mut OfferSpec, field: char, value: &str) {
    let value = value.to_owned();
    let optional = Some(value.clone()).filter(|value| !value.is_empty());
    match field {
        'u' => spec.upstream.url = optional,
        'h' => spec.upstream.health_path = optional,
        'p' => spec.path = optional,
        'o' => spec.hostname = optional,
        'd' => spec.drain_at = optional,
        'n' => spec.registration.get_or_insert_with(RegistrationSpec::default).name = optional,
        'D' => spec.registration.get_or_insert_with(RegistrationSpec::default).description = optional,
        'R' => spec.registration = None,
        'l' => spec.limits = Some(LimitsSpec { rps: value.parse().ok(), ..LimitsSpec::default() }),
        'L' => spec.limits = None,
        'f' => spec.facilitators.push(value),
        'F' => spec.facilitators.clear(),
        'r' => spec.routes.push(RouteSpec { path: value, gate: Gate::Free, price: None }),
        'x' => drop(spec.routes.pop()),
        'm' => {
            if let Some(payment) = &mut spec.payment {
                payment.price.per_request = optional;
            }
        }
        't' => {
            if let Some(payment) = &mut spec.payment {
                payment.pay_to = value;
            }
        }
        'P' => spec.payment = None,
        _ => {}
    }
}
