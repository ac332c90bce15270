use std::time::Duration;

use super::{bounds::parse_duration, *};
use crate::{Gate, HostUpstream, OfferSpec, PaymentSpec, PriceSpec, RouteSpec, UpstreamSpec};

fn spec() -> OfferSpec {
    OfferSpec {
        upstream: UpstreamSpec { host: Some(HostUpstream { port: 9000 }), ..UpstreamSpec::default() },
        payment: Some(PaymentSpec {
            network: "base-sepolia".into(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            price: PriceSpec { per_request: Some("0.001".into()) },
            ..PaymentSpec::default()
        }),
        ..OfferSpec::default()
    }
}

fn name(text: &str) -> OfferName {
    text.parse().unwrap()
}

fn codes(change: impl FnOnce(&mut OfferSpec)) -> Vec<(&'static str, String)> {
    let mut spec = spec();
    change(&mut spec);
    Offer::validate(&name("weather"), &spec).err().unwrap_or_default().into_iter().map(|v| (v.code, v.field)).collect()
}

#[test]
fn a_minimal_offer_is_resolved_in_full() {
    let offer = Offer::validate(&name("weather"), &spec()).unwrap();
    let terms = &offer.payments[0];
    assert_eq!(offer.path.as_str(), "/services/weather");
    assert_eq!(terms.amount, Amount::from(1000));
    assert_eq!((terms.network.chain_id, terms.asset.domain_name.as_str()), (84532, "USDC"));
    assert_eq!(terms.max_timeout_seconds, DEFAULT_MAX_TIMEOUT_SECONDS);
    assert!(offer.is_listed());
}

#[test]
fn every_bad_field_is_named_with_its_rule() {
    let payment = |f: fn(&mut PaymentSpec)| codes(|s| f(s.payment.as_mut().unwrap()));
    assert_eq!(payment(|p| p.network = "basee".into()), [("network_unknown", "spec.payment.network".into())]);
    assert_eq!(payment(|p| p.pay_to = "0x12".into()), [("pay_to", "spec.payment.payTo".into())]);
    assert_eq!(payment(|p| p.pay_to = format!("0x{}", "0".repeat(40))), [("pay_to", "spec.payment.payTo".into())]);
    assert_eq!(payment(|p| p.pay_to = p.pay_to.replace("3C44C", "3c44C")), [("pay_to", "spec.payment.payTo".into())]);
    assert_eq!(payment(|p| p.price.per_request = Some("0".into())), [("price", "spec.payment.price.perRequest".into())]);
    assert_eq!(payment(|p| p.price.per_request = None), [("price_missing", "spec.payment.price.perRequest".into())]);
    assert_eq!(payment(|p| p.max_timeout_seconds = Some(5)), [("max_timeout", "spec.payment.maxTimeoutSeconds".into())]);
    assert_eq!(codes(|s| s.payment = None), [("payment_missing", "spec.payment".into())]);
    assert_eq!(codes(|s| s.upstream.host = None), [("upstream_missing", "spec.upstream".into())]);
    assert_eq!(codes(|s| s.upstream.url = Some("http://a".into())), [("upstream_ambiguous", "spec.upstream".into())]);
    assert_eq!(codes(|s| s.hostname = Some("A:80".into())), [("hostname", "spec.hostname".into())]);
    assert_eq!(codes(|s| s.facilitators = vec!["http://f.example".into()]), [("facilitator_url", "spec.facilitators[0]".into())]);
    assert_eq!(codes(|s| s.drain_at = Some("soon".into())), [("drain_at", "spec.drainAt".into())]);
}

#[test]
fn all_broken_rules_are_told_at_once() {
    let all = codes(|s| {
        s.path = Some("/api/x".into());
        s.payment.as_mut().unwrap().network = String::new();
        s.upstream = UpstreamSpec { url: Some("ftp://x".into()), ..UpstreamSpec::default() };
    });
    assert_eq!(all.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["upstream_url", "network_unknown", "path_reserved"]);
}

#[test]
fn paths_of_the_stack_itself_cannot_be_sold() {
    for path in ["/", "/services", "/api", "/api/x", "/openapi.json", "/skill.md", "/rpc", "/rpc/base", "/.well-known/x402"] {
        assert_eq!(codes(|s| s.path = Some(path.into())), [("path_reserved", "spec.path".into())], "{path}");
    }
    for path in ["services/x", "/a//b", "/a/../b", "/a%20b", "/a/", "/a\\b", "/a b", "/x/%2e"] {
        assert_eq!(codes(|s| s.path = Some(path.into())), [("path", "spec.path".into())], "{path}");
    }
    assert_eq!(codes(|s| s.path = Some("/apis".into())), []);
    let own_host = |s: &mut OfferSpec| (s.path, s.hostname) = (Some("/".into()), Some("weather.example".into()));
    assert_eq!(codes(own_host), []);
}

#[test]
fn routes_are_resolved_below_the_offers_path() {
    let mut spec = spec();
    spec.routes = vec![
        RouteSpec { path: "/health".into(), gate: Gate::Free, price: None },
        RouteSpec { path: "/deep/*".into(), gate: Gate::Paid, price: Some("0.5".into()) },
    ];
    let routes = Offer::validate(&name("weather"), &spec).unwrap().routes;
    assert_eq!((routes[0].path.as_str(), routes[0].subtree, routes[0].payments.len()), ("/services/weather/health", false, 0));
    assert_eq!((routes[1].path.as_str(), routes[1].subtree), ("/services/weather/deep", true));
    assert_eq!(routes[1].payments[0].amount, Amount::from(500_000));
    for bad in ["health", "/a/*/b", "/../x", "/a/", "*"] {
        let route = RouteSpec { path: bad.into(), ..RouteSpec::default() };
        assert_eq!(codes(|s| s.routes = vec![route])[0].0, "route_path", "{bad}");
    }
}

#[test]
fn the_second_holder_of_a_name_or_place_loses() {
    let offer = |n: &str, path: Option<&str>| {
        let spec = OfferSpec { path: path.map(str::to_owned), ..spec() };
        Offer::validate(&name(n), &spec).unwrap()
    };
    let (a, b, c) = (offer("a", None), offer("b", Some("/services/a")), offer("a", Some("/else")));
    let losers = find_collisions(&[&a, &b, &c]);
    assert_eq!(losers.iter().map(|(i, v)| (*i, v.code)).collect::<Vec<_>>(), [(1, "path_taken"), (2, "name_taken")]);
}

#[test]
fn durations_are_bounded() {
    assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
    assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
    for bad in ["", "1", "h", "-1s", "1d", "721h", "99999999999999999999s"] {
        assert_eq!(parse_duration(bad), None, "{bad}");
    }
}

#[test]
fn unknown_fields_are_errors() {
    let error = serde_json::from_str::<OfferSpec>(r#"{"upstream":{"url":"http://a"},"maxInflight":3}"#).unwrap_err();
    assert!(error.to_string().contains("maxInflight"), "{error}");
}

#[test]
fn what_is_owed_to_a_buyer_is_a_receipt_unless_the_offer_says_more() {
    let read = |text: &str| serde_json::from_str::<crate::DeliverySpec>(text);
    assert_eq!(read("{}").unwrap().on_lost, crate::OnLost::Receipt);
    assert_eq!(read(r#"{"onLost":"storedAnswer"}"#).unwrap().on_lost, crate::OnLost::StoredAnswer);
    assert!(read(r#"{"onLost":"refund"}"#).is_err() && read(r#"{"onlost":"receipt"}"#).is_err());
    let schema = serde_json::to_value(schemars::schema_for!(OfferSpec)).unwrap();
    let policies = &schema["$defs"]["OnLost"]["oneOf"];
    assert_eq!(
        policies.as_array().map(|list| list.iter().map(|p| p["const"].as_str().unwrap()).collect::<Vec<_>>()).unwrap(),
        ["receipt", "storedAnswer"]
    );
}
