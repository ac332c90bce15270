use obol_offer::{Address, ConditionKind, ConditionStatus, Gate, Network, OfferKind, OfferSpec, OfferStatus};
use obol_x402::UptoDirectory;
use proptest::prelude::*;

use super::*;
use crate::{Health, Probe, fixtures::*};

fn site() -> Site {
    Site { loopback: true, ..Site::default() }
}

fn pass(slices: &[Slice], previous: &State) -> State {
    reconcile(slices, previous, &site(), at("12:00:00"))
}

fn state_of<'a>(state: &'a State, name: &str) -> &'a OfferState {
    state.offers.get(&(name.parse().unwrap(), OfferKind::Http)).unwrap()
}

fn reasons(status: &OfferStatus) -> Vec<String> {
    status.conditions.iter().map(|c| format!("{:?} {:?}/{}", c.kind, c.status, c.reason)).collect()
}

fn reason(state: &State, name: &str, kind: ConditionKind) -> String {
    let status = state_of(state, name).status(None, None);
    let condition = status.condition(kind).unwrap();
    format!("{:?}/{}", condition.status, condition.reason)
}

fn catalog(state: &State) -> serde_json::Value {
    serde_json::from_slice(&state.table.document(SERVICES_PATH).unwrap().body).unwrap()
}

fn listed(state: &State) -> Vec<String> {
    catalog(state)["services"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_offer_that_is_well_is_ready() {
    let state = pass(&[slice("a", spec("/a"))], &State::default());
    let probe = Probe { health: Health::Healthy, at: at("12:00:01") };
    let status = state_of(&state, "a").status(Some(&probe), None);
    assert_eq!(
        reasons(&status),
        [
            "ModelReady True/Skipped",
            "UpstreamHealthy True/Healthy",
            "Draining False/Active",
            "PaymentGateReady True/Reconciled",
            "RoutePublished True/Reconciled",
            "Registered True/Reconciled",
            "Ready True/Reconciled",
        ]
    );
    assert_eq!((status.endpoint.as_str(), status.is_ready()), ("/a", true));
    assert_eq!((found(&state, "/a/x"), state.wake), (Some("a".into()), None));
}

#[test]
fn a_sick_upstream_shows_and_keeps_its_route() {
    let state = pass(&[slice("a", spec("/a"))], &State::default());
    let probe = Probe { health: Health::Unhealthy("connection refused".into()), at: at("12:00:01") };
    let status = state_of(&state, "a").status(Some(&probe), None);
    let upstream = status.condition(ConditionKind::UpstreamHealthy).unwrap();
    assert_eq!((upstream.status, upstream.reason.as_str()), (ConditionStatus::False, "Unhealthy"));
    assert_eq!(upstream.message, "connection refused at 2026-11-23T12:00:01Z");
    assert_eq!(status.condition(ConditionKind::Ready).unwrap().reason, "Unhealthy");
    assert_eq!(found(&state, "/a"), Some("a".into()));
    assert_eq!(reason(&state, "a", ConditionKind::UpstreamHealthy), "Unknown/NotProbed");
    assert_eq!(reason(&state, "a", ConditionKind::Ready), "Unknown/NotProbed");
}

#[test]
fn a_broken_slice_keeps_its_last_good_version_and_its_neighbours() {
    let first = pass(&[slice("a", priced("/a", "0.001")), slice("b", spec("/b"))], &State::default());
    let second = pass(&[broken("a"), slice("b", priced("/b", "0.5")), broken("new")], &first);
    assert_eq!(found(&second, "/a/x"), Some("a".into()));
    assert_eq!(reason(&second, "a", ConditionKind::RoutePublished), "True/LastGood");
    assert!(state_of(&second, "a").refusal.is_some() && state_of(&second, "b").refusal.is_none());
    assert_eq!(found(&second, "/services/new"), None);
    assert_eq!(reason(&second, "new", ConditionKind::RoutePublished), "False/InvalidSlice");
    assert_eq!(reason(&second, "new", ConditionKind::Ready), "False/InvalidSlice");
    assert_eq!(listed(&second), ["a", "b"]);
    // And it stays over more passes, until it is mended or deleted.
    let third = pass(&[broken("a")], &second);
    assert_eq!((found(&third, "/a"), found(&third, "/b")), (Some("a".into()), None));
    let mended = pass(&[slice("a", spec("/new-a"))], &third);
    assert_eq!((found(&mended, "/a"), found(&mended, "/new-a")), (None, Some("a".into())));
    assert!(pass(&[], &mended).table.is_empty());
}

#[test]
fn who_serves_a_place_keeps_it() {
    let fresh = pass(&[slice("b", spec("/x")), slice("a", spec("/x"))], &State::default());
    assert_eq!(found(&fresh, "/x"), Some("a".into()));
    assert_eq!(reason(&fresh, "b", ConditionKind::RoutePublished), "False/PathConflict");
    let rule = state_of(&fresh, "b").refusal.clone().unwrap().violation.unwrap();
    assert_eq!((rule.code, rule.field.as_str()), ("path_taken", "spec.path"));

    let alone = pass(&[slice("b", spec("/x"))], &fresh);
    assert_eq!(found(&alone, "/x"), Some("b".into()));
    let late = pass(&[slice("a", spec("/x")), slice("b", spec("/x"))], &alone);
    assert_eq!(found(&late, "/x"), Some("b".into()));
    assert_eq!(reason(&late, "a", ConditionKind::Ready), "False/PathConflict");
}

#[test]
fn a_move_to_a_taken_place_leaves_the_offer_where_it_was() {
    let before = pass(&[slice("a", spec("/a")), slice("b", spec("/b"))], &State::default());
    let after = pass(&[slice("a", spec("/b")), slice("b", spec("/b")), slice("c", spec("/a"))], &before);
    assert_eq!((found(&after, "/a"), found(&after, "/b")), (Some("a".into()), Some("b".into())));
    assert_eq!(reason(&after, "a", ConditionKind::RoutePublished), "True/LastGood");
    assert!(state_of(&after, "a").refusal.as_ref().unwrap().message.contains("`/b`"));
    assert_eq!(reason(&after, "c", ConditionKind::RoutePublished), "False/PathConflict");
    // Two offers may swap places in one pass.
    let swapped = pass(&[slice("a", spec("/b")), slice("b", spec("/a"))], &before);
    assert_eq!((found(&swapped, "/b"), found(&swapped, "/a")), (Some("a".into()), Some("b".into())));
}

#[test]
fn a_name_is_sold_once_over_both_kinds() {
    let mut twin = slice("a", spec("/other"));
    twin.kind = OfferKind::Inference;
    let state = pass(&[twin, slice("a", spec("/a"))], &State::default());
    let twin = state.offers.get(&("a".parse().unwrap(), OfferKind::Inference)).unwrap();
    assert_eq!(twin.refusal.as_ref().unwrap().reason, "NameConflict");
    assert_eq!((found(&state, "/a"), found(&state, "/other")), (Some("a".into()), None));
}

#[test]
fn a_drain_serves_until_its_end() {
    let draining = |s: &mut OfferSpec| {
        s.drain_at = Some("2026-11-23T12:00:00Z".into());
        s.drain_grace_period = Some("1h".into());
    };
    let slices = [slice("a", with("/a", draining)), slice("b", spec("/a"))];
    let first = reconcile(&slices, &pass(&[slice("a", spec("/a"))], &State::default()), &site(), at("12:30:00"));
    assert_eq!((found(&first, "/a"), first.wake), (Some("a".into()), Some(at("13:00:00"))));
    assert_eq!(reason(&first, "a", ConditionKind::Draining), "True/Draining");
    assert_eq!(catalog(&first)["services"][0]["status"], "draining");
    assert_eq!(catalog(&first)["services"][0]["drainEndsAt"], "2026-11-23T13:00:00Z");

    let last = reconcile(&slices, &first, &site(), at("13:00:00"));
    assert_eq!((found(&last, "/a"), last.wake), (Some("b".into()), None));
    assert_eq!(reason(&last, "a", ConditionKind::Draining), "False/Drained");
    assert_eq!(reason(&last, "a", ConditionKind::Ready), "False/Drained");
    assert_eq!(listed(&last), ["b"]);

    let again = reconcile(&[slice("a", spec("/back"))], &last, &site(), at("13:00:01"));
    assert_eq!((found(&again, "/back"), reason(&again, "a", ConditionKind::Draining)), (Some("a".into()), "False/Active".into()));
}

#[test]
fn a_quote_stays_good_for_a_minute_after_a_price_edit() {
    let run = |price: &str, before: &State, now: &str| reconcile(&[slice("a", priced("/a", price))], before, &site(), at(now));
    let amount = |state: &State| {
        let entry = &state_of(state, "a").entries[0];
        let amounts = |q: &obol_x402::Quote| q.terms()[0].amount.to_string();
        (
            entry.quote.as_ref().map(amounts).unwrap(),
            entry.previous.as_ref().map(|(old, until)| (amounts(old.quote.as_ref().unwrap()), *until)),
        )
    };
    let first = run("0.001", &State::default(), "12:00:00");
    assert_eq!(amount(&first), ("1000".into(), None));
    let edited = run("0.002", &first, "12:01:00");
    assert_eq!(amount(&edited), ("2000".into(), Some(("1000".into(), at("12:02:00")))));
    assert_eq!(edited.wake, Some(at("12:02:00")));
    // An edit of something else does not prolong it; the end of the minute removes it.
    let other = [slice("a", {
        let mut s = priced("/a", "0.002");
        unlisted(&mut s);
        s
    })];
    let kept = reconcile(&other, &edited, &site(), at("12:01:30"));
    assert_eq!(amount(&kept), ("2000".into(), Some(("1000".into(), at("12:02:00")))));
    let over = reconcile(&other, &kept, &site(), at("12:02:00"));
    assert_eq!((amount(&over), over.wake), (("2000".into(), None), None));
}

#[test]
fn what_the_site_cannot_serve_is_refused_with_the_reason() {
    let service = with("/a", |s| {
        s.upstream.host = None;
        s.upstream.service = Some("web".into());
        s.upstream.port = Some(80);
    });
    let play = with("/p", |s| s.payment.as_mut().unwrap().network = "obol-sandbox".into());
    let slices = [slice("a", service), slice("p", play)];
    let state = pass(&slices, &State::default());
    assert_eq!(reason(&state, "a", ConditionKind::Ready), "False/NeedsCluster");
    assert_eq!(found(&state, "/p"), Some("p".into()));
    let open = Site { cluster: true, ..Site::default() };
    let state = reconcile(&slices, &state, &open, at("12:00:00"));
    assert_eq!(reason(&state, "p", ConditionKind::RoutePublished), "False/SandboxNeedsLoopback");
    assert_eq!((found(&state, "/p"), found(&state, "/a")), (None, Some("a".into())));
}

#[test]
fn an_offer_below_another_is_its_own() {
    let outer = with("/a", |s| s.routes = vec![route("/b", Gate::Free), route("/b/health", Gate::Free), route("/c/*", Gate::Free)]);
    let state = pass(&[slice("outer", outer), slice("inner", spec("/a/b"))], &State::default());
    for (path, name) in [("/a/b", "inner"), ("/a/b/health", "inner"), ("/a/c/x", "outer"), ("/a/x", "outer")] {
        assert_eq!(found(&state, path), Some(name.into()), "{path}");
    }
}

#[test]
fn unchanged_offers_are_shared_between_passes() {
    let slices = [slice("a", spec("/a")), slice("b", spec("/b"))];
    let first = pass(&slices, &State::default());
    let second = pass(&[slice("a", spec("/a")), slice("b", priced("/b", "7"))], &first);
    let ptr = |state: &State, name: &str| Arc::as_ptr(&state_of(state, name).entries[0]);
    assert_eq!(ptr(&first, "a"), ptr(&second, "a"));
    assert_ne!(ptr(&first, "b"), ptr(&second, "b"));
}

#[test]
fn the_catalog_has_public_fields_only() {
    let secretive = with("/a", |s| {
        s.upstream.host.as_mut().unwrap().port = 48_151;
        s.upstream.health_path = Some("/hidden-health".into());
        s.facilitators = vec!["https://hidden-facilitator.example".into()];
        s.limits = Some(obol_offer::LimitsSpec { rps: Some(62_342), ..Default::default() });
    });
    let site = Site { public_url: Some("https://shop.example/x/".parse().unwrap()), ..site() };
    let slices =
        [slice("b", with("/b", |s| s.hostname = Some("own.example".into()))), slice("a", secretive), slice("hidden", with("/h", unlisted))];
    let state = reconcile(&slices, &State::default(), &site, at("12:00:00"));
    let body = String::from_utf8(state.table.document(SERVICES_PATH).unwrap().body.to_vec()).unwrap();
    for secret in ["48151", "hidden", "62342", "upstream"] {
        assert!(!body.contains(secret), "{secret} in {body}");
    }
    assert_eq!(reason(&state, "hidden", ConditionKind::Registered), "True/Disabled");
    insta::assert_snapshot!(serde_json::to_string_pretty(&catalog(&state)).unwrap());
}

#[test]
fn ten_thousand_offers_cost_little_more_than_one() {
    let mut slices: Vec<Slice> = (0..10_000).map(|i| slice(&format!("o{i}"), spec(&format!("/services/o{i}")))).collect();
    let started = std::time::Instant::now();
    let first = pass(&slices, &State::default());
    let cold = started.elapsed();
    slices[5000] = slice("o5000", priced("/services/o5000", "7"));
    let started = std::time::Instant::now();
    let second = pass(&slices, &first);
    println!("10,000 offers: first pass {cold:?}, one edit {:?}", started.elapsed());
    assert_eq!(second.table.len(), 10_000);
    let shared = first.offers.iter().filter(|(key, offer)| Arc::ptr_eq(offer, &second.offers[key])).count();
    assert_eq!(shared, 9_999);
}

/// With many offers the memory of them all is kept twice while they are made anew.
#[test]
fn who_settles_concerns_only_the_offers_that_name_him() {
    let named = |path: &str, url: &str| with(path, |s| s.facilitators = vec![url.into()]);
    let slices = [slice("a", named("/a", "https://a.example")), slice("b", named("/b", "https://b.example/"))];
    let first = pass(&slices, &State::default());
    let mut known = obol_x402::UptoFacilitators::default();
    known.add(Network::find("base-sepolia").unwrap(), Address::repeat_byte(7));
    let upto = UptoDirectory { remote: [("https://a.example".to_owned(), known)].into(), ..UptoDirectory::default() };
    let second = reconcile(&slices, &first, &Site { upto, ..site() }, at("12:00:00"));
    let is_same = |name: &str| std::ptr::eq(state_of(&first, name), state_of(&second, name));
    assert_eq!(["a", "b"].map(is_same), [false, true]);
    let third = reconcile(&slices, &second, &Site { public_url: Some("https://shop.example".parse().unwrap()), ..site() }, at("12:00:00"));
    assert!(!std::ptr::eq(state_of(&second, "b"), state_of(&third, "b")), "where it is found concerns all");
}

fn any_slice() -> impl Strategy<Value = Slice> {
    let priced_at = (0..6_u8, 0..5_u8, 1..3_u8, any::<bool>());
    (priced_at, 0..8_u8).prop_map(|((name, path, price, drained), kind)| {
        let name = format!("n{name}");
        if kind == 0 {
            return broken(&name);
        }
        let mut spec = priced(&format!("/p{path}"), &price.to_string());
        if kind == 1 {
            spec.drain_at = Some(if drained { "2026-11-23T01:00:00Z".into() } else { "2026-11-23T11:59:00Z".into() });
        }
        slice(&name, spec)
    })
}

fn tree() -> impl Strategy<Value = Vec<Slice>> {
    proptest::collection::vec(any_slice(), 0..8).prop_map(|slices| {
        let by_name: BTreeMap<_, _> = slices.into_iter().map(|slice| (slice.name.clone(), slice)).collect();
        by_name.into_values().collect()
    })
}

/// All that can be seen of a state.
fn seen(state: &State) -> String {
    let routes: Vec<_> = (0..5).map(|p| found(state, &format!("/p{p}/x"))).collect();
    let statuses: Vec<_> = state.offers.values().map(|offer| reasons(&offer.status(None, None))).collect();
    format!("{routes:?} {statuses:?} {:?} {}", state.wake, catalog(state))
}

proptest! {
    #[test]
    fn the_order_of_slices_does_not_matter(
        trees in proptest::collection::vec(tree().prop_flat_map(|tree| (Just(tree.clone()), Just(tree).prop_shuffle())), 1..4)
    ) {
        let (mut straight, mut shuffled) = (State::default(), State::default());
        for (tree, other) in &trees {
            straight = pass(tree, &straight);
            shuffled = pass(other, &shuffled);
            prop_assert_eq!(seen(&straight), seen(&shuffled));
        }
    }

    #[test]
    fn a_pass_changes_nothing_the_second_time(trees in proptest::collection::vec(tree(), 1..4)) {
        let mut state = State::default();
        for tree in &trees {
            state = pass(tree, &state);
        }
        let again = pass(trees.last().unwrap(), &state);
        prop_assert_eq!(seen(&again), seen(&state));
        prop_assert!(again.offers.iter().all(|(key, offer)| Arc::ptr_eq(offer, &state.offers[key])));
    }

    #[test]
    fn every_route_is_sold_by_who_holds_it_and_no_valid_offer_vanishes(trees in proptest::collection::vec(tree(), 1..4)) {
        let mut state = State::default();
        for tree in &trees {
            let next = pass(tree, &state);
            for (key, offer) in &next.offers {
                if let (true, Some(served)) = (offer.is_routed(), &offer.served) {
                    prop_assert_eq!(found(&next, served.offer.path.as_str()), Some(key.0.to_string()));
                } else {
                    prop_assert!(offer.refusal.is_some() || matches!(offer.phase, Phase::Drained(_)));
                }
            }
            prop_assert_eq!(next.offers.len(), tree.len());
            state = next;
        }
    }
}
