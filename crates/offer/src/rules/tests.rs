use std::time::Duration;

use super::{bounds::parse_duration, *};
use crate::{AssetSpec, Gate, HostUpstream, ModelSpec, OfferSpec, PaymentSpec, PriceSpec, RouteSpec, UpstreamSpec};

fn spec() -> OfferSpec {
    OfferSpec {
        upstream: UpstreamSpec { host: Some(HostUpstream { port: 9000 }), ..UpstreamSpec::default() },
        payment: Some(PaymentSpec {
            network: "base-sepolia".into(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            price: PriceSpec { per_request: Some("0.001".into()), ..PriceSpec::default() },
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
    let terms = &offer.payments[0].terms;
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
    assert_eq!(routes[1].payments[0].terms.amount, Amount::from(500_000));
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
    assert_eq!(read(r#"{"onLost":"rerun"}"#).unwrap().on_lost, crate::OnLost::Rerun);
    assert!(read(r#"{"onLost":"refund"}"#).is_err() && read(r#"{"onlost":"receipt"}"#).is_err());
    let schema = serde_json::to_value(schemars::schema_for!(OfferSpec)).unwrap();
    let policies = &schema["$defs"]["OnLost"]["oneOf"];
    assert_eq!(
        policies.as_array().map(|list| list.iter().map(|p| p["const"].as_str().unwrap()).collect::<Vec<_>>()).unwrap(),
        ["receipt", "storedAnswer", "rerun"]
    );
}

fn model_offer() -> OfferSpec {
    let mut spec = spec();
    spec.kind = OfferKind::Inference;
    spec.model = Some(ModelSpec { name: "llama3.2:3b".into(), ..ModelSpec::default() });
    spec.payment.as_mut().unwrap().price =
        PriceSpec { per_m_tok: Some("0.15".into()), per_m_tok_output: Some("0.6".into()), ..PriceSpec::default() };
    spec
}

fn model_codes(change: impl FnOnce(&mut OfferSpec)) -> Vec<(&'static str, String)> {
    let mut spec = model_offer();
    change(&mut spec);
    Offer::validate(&name("llama"), &spec).err().unwrap_or_default().into_iter().map(|v| (v.code, v.field)).collect()
}

#[test]
fn a_price_per_token_asks_for_what_the_model_may_use() {
    let offer = Offer::validate(&name("llama"), &model_offer()).unwrap();
    let (model, tag) = (offer.model.as_ref().unwrap(), &offer.payments[0]);
    assert_eq!((model.upstream_name.as_str(), model.max_tokens, model.queue), ("llama3.2:3b", DEFAULT_MAX_TOKENS, 0));
    assert_eq!(tag.rate, Rate::PerToken { input: 150_000.into(), output: 600_000.into(), max_input: 262_144, max_output: 4096 });
    assert_eq!(tag.terms.amount, tag.rate.maximum());
    assert_eq!(offer.price(), "0.15 USDC per million tokens in, 0.6 USDC out");
    let mut spec = model_offer();
    spec.payment.as_mut().unwrap().price.per_m_tok_output = None;
    let one = Offer::validate(&name("llama"), &spec).unwrap();
    assert_eq!(one.price(), "0.15 USDC per million tokens");
    assert!(matches!(one.payments[0].rate, Rate::PerToken { input, output, .. } if input == output));
}

#[test]
fn a_route_of_a_metered_offer_may_have_a_price_of_its_own() {
    let mut spec = model_offer();
    spec.routes = vec![RouteSpec { path: "/v1/models".into(), gate: Gate::Paid, price: Some("0.5".into()) }];
    let routes = Offer::validate(&name("llama"), &spec).unwrap().routes;
    let [tag] = routes[0].payments.as_slice() else { panic!("{routes:?}") };
    assert_eq!((tag.terms.scheme, &tag.rate), (crate::Scheme::Exact, &Rate::PerRequest(500_000.into())));
}

#[test]
fn a_price_per_unit_asks_for_the_most_units() {
    let mut spec = spec();
    let price = PriceSpec { per_unit: Some("0.002".into()), unit: Some("page".into()), max_units: Some(50), ..PriceSpec::default() };
    spec.payment.as_mut().unwrap().price = price;
    let offer = Offer::validate(&name("ocr"), &spec).unwrap();
    assert_eq!((offer.payments[0].terms.amount, offer.price().as_str()), (100_000.into(), "0.002 USDC per page"));
}

#[test]
fn prices_that_are_not_one_price_are_refused() {
    let price = |f: fn(&mut PriceSpec)| model_codes(|s| f(&mut s.payment.as_mut().unwrap().price));
    let at = |code, field: &str| vec![(code, format!("spec.payment.price{field}"))];
    assert_eq!(price(|p| p.per_request = Some("1".into())), at("price_ambiguous", ""));
    assert_eq!(price(|p| p.per_unit = Some("1".into())), at("price_ambiguous", ""));
    assert_eq!(price(|p| p.per_hour = Some("1".into())), at("price_unsupported", ".perHour"));
    assert_eq!(price(|p| p.per_epoch = Some("1".into())), at("price_unsupported", ".perEpoch"));
    assert_eq!(price(|p| p.unit = Some("page".into())), at("price_incomplete", ".unit"));
    assert_eq!(price(|p| p.max_units = Some(1)), at("price_incomplete", ".maxUnits"));
    assert_eq!(price(|p| p.per_m_tok = None), at("price_incomplete", ".perMTokOutput"));
    assert_eq!(price(|p| p.per_m_tok = Some("0.0000001".into())), at("price", ".perMTok"));
    assert_eq!(price(|p| p.per_m_tok_output = Some("9".repeat(70)))[..1], at("too_long", ".perMTokOutput"));
    let unit = |f: fn(&mut PriceSpec)| {
        price(f).into_iter().map(|(code, field)| (code, field.trim_start_matches("spec.payment.price.").to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(
        unit(|p| *p = PriceSpec { per_unit: Some("1".into()), ..PriceSpec::default() }),
        [("price_incomplete", "maxUnits".to_owned())]
    );
    assert_eq!(
        unit(|p| *p = PriceSpec { per_unit: Some("1".into()), max_units: Some(0), ..PriceSpec::default() }),
        [("price_incomplete", "maxUnits".to_owned())]
    );
    assert_eq!(
        unit(|p| *p = PriceSpec { per_unit: Some("1".into()), max_units: Some(2), unit: Some("a b".into()), ..PriceSpec::default() }),
        [("price_unit", "unit".to_owned())]
    );
    let nothing = ("model_missing", "spec.model".to_owned());
    assert_eq!(model_codes(|s| s.model = None), [vec![nothing], at("price_per_token", ".perMTok")].concat());
}

#[test]
fn a_model_has_bounds_and_no_secrets() {
    let model = |f: fn(&mut ModelSpec)| model_codes(|s| f(s.model.as_mut().unwrap()));
    let at = |code, field: &str| vec![(code, format!("spec.model{field}"))];
    assert_eq!(model_codes(|s| s.kind = OfferKind::Http), at("model_kind", ""));
    assert_eq!(model(|m| m.upstream_name = Some(String::new())), at("model_name", ".upstreamName"));
    assert_eq!(model(|m| m.upstream_name = Some("a b".into())), at("model_name", ".upstreamName"));
    assert_eq!(model(|m| m.max_tokens = Some(0)), at("model_bound", ".maxTokens"));
    assert_eq!(model(|m| m.max_prompt_bytes = Some(u32::MAX)), at("model_bound", ".maxPromptBytes"));
    assert_eq!(model(|m| m.token_timeout = Some("0s".into())), at("model_timeout", ".tokenTimeout"));
    assert_eq!(model(|m| m.first_token_timeout = Some("soon".into())), at("model_timeout", ".firstTokenTimeout"));
    assert_eq!(model(|m| m.concurrency = Some(0)), at("limit_zero", ".concurrency"));
    for key in ["sk-proj-1234", "Bearer x", "", "hf_abc", "ref+file://", "a key"] {
        let refused = model_codes(|s| s.model.as_mut().unwrap().credential = Some(key.into()));
        assert_eq!(refused, at("model_credential", ".credential"), "{key:?}");
    }
    for reference in ["OPENAI_API_KEY", "api-key", "ref+file://secrets/openai"] {
        assert_eq!(model_codes(|s| s.model.as_mut().unwrap().credential = Some(reference.into())), [], "{reference:?}");
    }
}

#[test]
fn runtimes_have_the_words_people_know() {
    let words = |schema: &serde_json::Value| {
        schema["oneOf"].as_array().unwrap().iter().map(|w| w["const"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let schema = serde_json::to_value(schemars::schema_for!(OfferSpec)).unwrap();
    assert_eq!(words(&schema["$defs"]["Runtime"]), ["ollama", "vllm", "tgi", "llamacpp", "lmstudio", "litellm", "openai"]);
    assert_eq!(words(&schema["$defs"]["WhenUncounted"]), ["ceiling", "bytes"]);
    assert_eq!(words(&schema["$defs"]["Scheme"]), ["exact", "upto"]);
    let price = schema["$defs"]["PriceSpec"]["properties"].as_object().unwrap();
    assert!(["perMTok", "perMTokOutput", "perUnit", "unit", "maxUnits"].iter().all(|field| price.contains_key(*field)));
}

/// USDC on two networks, and on one of them by two means.
#[test]
fn several_payments_each_buy_the_same_answer() {
    let payment = |network: &str, method: TransferMethod| {
        let asset = Network::find(network).unwrap().default_asset();
        let spec = AssetSpec {
            address: asset.address.to_string(),
            symbol: asset.symbol,
            decimals: asset.decimals,
            transfer_method: method,
            eip712_name: asset.domain_name,
            eip712_version: asset.domain_version,
        };
        PaymentSpec { network: network.into(), asset: Some(spec), ..spec_payment() }
    };
    let offer = |payments: &[PaymentSpec]| {
        let spec = OfferSpec { payment: None, payments: payments.to_vec(), ..spec() };
        Offer::validate(&name("weather"), &spec).map_err(|problems| problems.iter().map(|p| (p.code, p.field.clone())).collect::<Vec<_>>())
    };
    let (usdc, permit2) = (TransferMethod::Eip3009, TransferMethod::Permit2);
    let list = [payment("base", usdc), payment("polygon", usdc), payment("base", permit2)];
    let accepted = offer(&list).unwrap().payments;
    let ways: Vec<_> = accepted.iter().map(|tag| (tag.terms.network.name, tag.terms.transfer_method())).collect();
    assert_eq!(ways, [("base", usdc), ("polygon", usdc), ("base", permit2)]);
    let twice = [payment("base", permit2), payment("polygon", usdc), payment("eip155:8453", permit2)];
    assert_eq!(offer(&twice).unwrap_err(), [("payment_twice", "spec.payments[2]".to_owned())]);
}

fn spec_payment() -> PaymentSpec {
    spec().payment.unwrap()
}

#[test]
fn what_is_metered_is_charged_up_to_a_ceiling_first_and_else_whole() {
    let ways = |scheme: Option<Scheme>, price: PriceSpec| {
        let mut spec = spec();
        let payment = spec.payment.as_mut().unwrap();
        (payment.scheme, payment.price) = (scheme, price);
        let offer = Offer::validate(&name("ocr"), &spec).map_err(|problems| problems[0].code)?;
        Ok::<_, &str>(offer.payments.iter().map(|tag| (tag.terms.scheme, tag.terms.transfer_method())).collect::<Vec<_>>())
    };
    let metered = || PriceSpec { per_unit: Some("0.002".into()), max_units: Some(50), ..PriceSpec::default() };
    let fixed = || PriceSpec { per_request: Some("0.002".into()), ..PriceSpec::default() };
    let (exact, upto) = ((Scheme::Exact, TransferMethod::Eip3009), (Scheme::Upto, TransferMethod::Permit2));
    assert_eq!(ways(None, metered()), Ok(vec![upto, exact]));
    assert_eq!(ways(Some(Scheme::Upto), metered()), Ok(vec![upto]));
    assert_eq!(ways(Some(Scheme::Exact), metered()), Ok(vec![exact]));
    assert_eq!(ways(None, fixed()), Ok(vec![exact]));
    assert_eq!(ways(Some(Scheme::Upto), fixed()), Err("scheme_upto"));
}
