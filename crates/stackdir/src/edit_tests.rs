//! What an edit leaves alone: everything but the difference.

use obol_offer::{Gate, HostUpstream, LimitsSpec, OfferSpec, PaymentSpec, RegistrationSpec, RouteSpec, UpstreamSpec};
use proptest::prelude::*;

use crate::{
    edit::{OFFER_HEAD, edit, fresh},
    parse::{OfferFile, decode_offer},
    slice_tests::spec,
    value::Value,
};

/// A file as people write them, with every awkward thing in it.
const FILE: &str = "\
# SPDX-License-Identifier: Apache-2.0

#   The weather,   sold by the city.
name:   'weather'      # the folder's name

spec:
    payment: # who and how much
        price:
            # Half of what the others take.
            perRequest:   '0.001'   # USDC

        payTo:   0x209693Bc6afc0C5328bA36FaF03C514EF312287C
        network: \"base-sepolia\"


    upstream: {  url: http://127.0.0.1:9000 ,   healthPath: /up }  # our own

    registration:
        description: >-
            Weather for
            a city.
        # the name comes last
        name: |
            Weather

    routes:
    # open to all
    - path: /docs/*   # documentation
      gate: free

    -   gate: free
        path: /health
    # the end
    facilitators: [ https://a.example, 'https://b.example' ]
    # nothing more
";

fn decoded(text: &str) -> OfferFile {
    decode_offer(text).unwrap_or_else(|found| panic!("{found:?}\n{text}")).1
}

fn edited(text: &str, change: impl FnOnce(&mut OfferSpec)) -> String {
    let base = decoded(text);
    let mut wanted = base.clone();
    change(&mut wanted.spec);
    let after = edit(text, &Value::of(&base).unwrap(), &Value::of(&wanted).unwrap()).expect("an edit is possible");
    assert_eq!(decoded(&after), wanted, "{after}");
    after
}

/// The lines that an edit of `text` removes and adds.
fn diff(text: &str, change: impl FnOnce(&mut OfferSpec)) -> String {
    let after = edited(text, change);
    let lines = similar::TextDiff::from_lines(text, &after);
    let mut diff = lines.unified_diff();
    diff.context_radius(0).to_string().lines().filter(|line| !line.starts_with("@@")).map(|line| format!("{line}\n")).collect()
}

fn payment(spec: &mut OfferSpec) -> &mut PaymentSpec {
    spec.payment.as_mut().unwrap()
}

fn route(path: &str) -> RouteSpec {
    RouteSpec { path: path.into(), gate: Gate::Free, price: None }
}

#[test]
fn no_change_is_no_change() {
    assert_eq!(edited(FILE, |_| {}), FILE);
}

#[test]
fn a_value_changes_in_its_place_and_quotes() {
    let after = diff(FILE, |spec| payment(spec).price.per_request = Some("0.0025".into()));
    assert_eq!(after, "-            perRequest:   '0.001'   # USDC\n+            perRequest:   '0.0025'   # USDC\n");
    let after = diff(FILE, |spec| payment(spec).network = "base".into());
    assert_eq!(after, "-        network: \"base-sepolia\"\n+        network: \"base\"\n");
    let after = diff(FILE, |spec| spec.upstream.url = Some("http://127.0.0.1:9001/a".into()));
    let line = "    upstream: {  url: http://127.0.0.1:9000 ,   healthPath: /up }  # our own\n";
    assert_eq!(after, format!("-{line}+{}", line.replace("http://127.0.0.1:9000", "\"http://127.0.0.1:9001/a\"")));
    let after = diff(FILE, |spec| spec.routes[1].path = "/ready".into());
    assert_eq!(after, "-        path: /health\n+        path: /ready\n");
    let after = diff(FILE, |spec| spec.facilitators[1] = "https://c.example".into());
    assert_eq!(after.matches("'https://c.example' ]").count(), 1, "{after}");
}

#[test]
fn a_plain_value_is_quoted_when_it_must_be() {
    let after = diff(FILE, |spec| payment(spec).pay_to = "0x0000000000000000000000000000000000000001".into());
    assert!(after.ends_with("+        payTo:   \"0x0000000000000000000000000000000000000001\"\n"), "{after}");
}

#[test]
fn new_fields_come_last_in_their_block() {
    insta::assert_snapshot!(diff(FILE, |spec| {
        payment(spec).max_timeout_seconds = Some(60);
        spec.upstream.health_path = Some("/well".into());
        spec.limits = Some(LimitsSpec { rps: Some(5), max_in_flight: Some(2), max_body_bytes: None });
        spec.drain_at = Some("2026-11-23T12:00:00Z".into());
        spec.routes[0].price = None;
        spec.routes[1].price = Some("0.5".into());
        spec.registration.as_mut().unwrap().mime_type = Some("application/json".into());
    }));
}

#[test]
fn fields_that_go_take_only_their_own_lines() {
    insta::assert_snapshot!(diff(FILE, |spec| {
        spec.upstream.health_path = None;
        spec.registration.as_mut().unwrap().description = None;
        spec.facilitators.clear();
    }));
    insta::assert_snapshot!(diff(FILE, |spec| {
        spec.registration = None;
        spec.routes.clear();
    }));
}

#[test]
fn lists_keep_what_stays() {
    insta::assert_snapshot!(diff(FILE, |spec| drop(spec.routes.remove(0))));
    insta::assert_snapshot!(diff(FILE, |spec| spec.routes.insert(0, route("/first"))));
    insta::assert_snapshot!(diff(FILE, |spec| spec.routes.insert(1, route("/middle"))));
    insta::assert_snapshot!(diff(FILE, |spec| spec.routes.extend([route("/a"), route("/b/*")])));
    insta::assert_snapshot!(diff(FILE, |spec| spec.facilitators.push("https://c.example".into())));
}

#[test]
fn blocks_turn_into_others() {
    insta::assert_snapshot!(diff(FILE, |spec| {
        spec.upstream = UpstreamSpec { host: Some(HostUpstream { port: 9000 }), ..Default::default() };
    }));
    insta::assert_snapshot!(diff(FILE, |spec| {
        let registration = spec.registration.as_mut().unwrap();
        registration.name = Some("Weather, and more: \"all\"".into());
        registration.description = Some("One line".into());
    }));
    insta::assert_snapshot!(diff(FILE, |spec| spec.registration = Some(RegistrationSpec::default())));
    insta::assert_snapshot!(diff(FILE, |spec| {
        let one = spec.payment.take().unwrap();
        spec.payments = vec![one.clone(), PaymentSpec { network: "base".into(), ..one }];
    }));
}

#[test]
fn windows_line_ends_stay() {
    let text = FILE.replace('\n', "\r\n");
    let after = edited(&text, |spec| {
        spec.limits = Some(LimitsSpec { rps: Some(5), ..Default::default() });
        payment(spec).price.per_request = Some("2".into());
        spec.routes.push(route("/a"));
    });
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
}

#[test]
fn small_shapes() {
    let flow = "{name: weather, spec: {upstream: {url: 'http://a'}, payment: {network: base, payTo: '0x1', price: {perRequest: '1'}}}}";
    let after = edited(flow, |spec| {
        payment(spec).price.per_request = Some("2".into());
        spec.path = Some("/x".into());
        spec.upstream.url = None;
        spec.upstream.service = Some("svc".into());
    });
    assert!(after.starts_with("{name: weather, spec: {upstream: {service: svc}, payment:") && after.contains("'2'"), "{after}");
    let null = "name: a\nspec:\n  limits: # none\n  path: ~ # none\n  upstream: {}\n";
    let after = edited(null, |spec| {
        spec.limits = Some(LimitsSpec { rps: Some(1), ..Default::default() });
        spec.path = Some("/x".into());
        spec.upstream.url = Some("http://a".into());
    });
    assert_eq!(after, "name: a\nspec:\n  limits: # none\n    rps: 1\n  path: /x # none\n  upstream: {url: \"http://a\"}\n");
    let unended = "name: a\nspec:\n  upstream:\n    url: http://a";
    assert_eq!(edited(unended, |spec| spec.upstream.port = Some(1)), format!("{unended}\n    port: 1\n"));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9./:-]{0,12}",
        "\\PC{0,16}",
        Just("yes".into()),
        Just("0.10".into()),
        Just("a: b # c".into()),
        Just("- x".into()),
        Just("line\nline\n".into())
    ]
}

prop_compose! {
    fn any_payment()(network in text(), pay_to in text(), price in prop::option::of(text()), max_timeout_seconds in prop::option::of(any::<u32>())) -> PaymentSpec {
        PaymentSpec { network, pay_to, price: obol_offer::PriceSpec { per_request: price, ..Default::default() }, max_timeout_seconds, ..Default::default() }
    }
}

prop_compose! {
    /// Any spec, valid or not: the edit has to be right for all of them.
    pub(crate) fn any_spec()(
        url in prop::option::of(text()), port in prop::option::of(any::<u16>()), host in prop::option::of(any::<u16>()),
        payment in prop::option::of(any_payment()), payments in prop::collection::vec(any_payment(), 0..3),
        facilitators in prop::collection::vec(text(), 0..4), path in prop::option::of(text()),
        routes in prop::collection::vec((text(), any::<bool>(), prop::option::of(text())), 0..5),
        limits in prop::option::of((prop::option::of(any::<u32>()), prop::option::of(any::<u64>()))),
        registration in prop::option::of((prop::option::of(any::<bool>()), prop::option::of(text()), prop::option::of(text()))),
        drain_at in prop::option::of(text()),
    ) -> OfferSpec {
        OfferSpec {
            upstream: UpstreamSpec { url, port, host: host.map(|port| HostUpstream { port }), ..Default::default() },
            payment, payments, facilitators, path, drain_at,
            routes: routes.into_iter().map(|(path, paid, price)| RouteSpec { path, price, gate: if paid { Gate::Paid } else { Gate::Free } }).collect(),
            limits: limits.map(|(rps, max_body_bytes)| LimitsSpec { rps, max_body_bytes, max_in_flight: None }),
            registration: registration.map(|(enabled, name, description)| RegistrationSpec { enabled, name, description, mime_type: None }),
            ..Default::default()
        }
    }
}

fn file(spec: OfferSpec) -> OfferFile {
    OfferFile { name: "weather".into(), spec }
}

proptest! {
    /// What is written anew says what was meant.
    #[test]
    fn fresh_text_reads_back(spec in any_spec()) {
        let wanted = file(spec);
        let text = fresh(OFFER_HEAD, &Value::of(&wanted).unwrap());
        prop_assert_eq!(decoded(&text), wanted, "{}", text);
    }

    /// From any file of ours to any other meaning, by edits alone.
    #[test]
    fn any_edit_of_our_own_files_says_what_was_meant(from in any_spec(), to in any_spec()) {
        let (from, to) = (file(from), file(to));
        let (base, wanted) = (Value::of(&from).unwrap(), Value::of(&to).unwrap());
        let before = fresh(OFFER_HEAD, &base);
        let after = edit(&before, &base, &wanted).expect("our own layout can be edited");
        prop_assert_eq!(decoded(&after), to, "{}\n=>\n{}", before, after);
    }

    /// The same from a file that a person wrote, and every comment outside of what went away stays.
    #[test]
    fn any_edit_of_a_persons_file_says_what_was_meant(to in any_spec()) {
        let (base, to) = (decoded(FILE), file(to));
        let after = edit(FILE, &Value::of(&base).unwrap(), &Value::of(&to).unwrap()).expect("an edit is possible");
        prop_assert_eq!(decoded(&after), to, "{}", after);
        for comment in ["# SPDX", "#   The weather,", "# the folder's name", "# nothing more"] {
            prop_assert!(after.contains(comment), "{comment} is gone: {after}");
        }
    }

    #[test]
    fn small_edits_are_small(price in "[0-9]{1,5}") {
        let after = edited(&fresh("", &Value::of(&file(spec("0.001"))).unwrap()), |spec| payment(spec).price.per_request = Some(price));
        let before = fresh("", &Value::of(&file(spec("0.001"))).unwrap());
        prop_assert_eq!(after.lines().zip(before.lines()).filter(|(a, b)| a != b).count(), 1);
    }
}
