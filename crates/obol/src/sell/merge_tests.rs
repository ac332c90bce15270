use super::*;

fn args(change: impl FnOnce(&mut SellHttpArgs)) -> SellHttpArgs {
    let mut args = SellHttpArgs::default();
    change(&mut args);
    args
}

fn merged(base: Option<OfferSpec>, change: impl FnOnce(&mut SellHttpArgs)) -> OfferSpec {
    merge(base, &args(change), &Defaults::default()).unwrap()
}

fn codes(base: Option<OfferSpec>, change: impl FnOnce(&mut SellHttpArgs)) -> Vec<String> {
    merge(base, &args(change), &Defaults::default()).unwrap_err().into_iter().map(|p| p.code).collect()
}

fn weather() -> OfferSpec {
    merged(None, |a| {
        a.upstream = Some("http://localhost:9000".into());
        (a.price, a.network, a.pay_to) = (Some("0.001".into()), Some("base".into()), Some("0xab".into()));
        a.rps = Some(5);
    })
}

#[test]
fn a_loopback_upstream_is_a_port_and_any_other_a_url() {
    let upstream = |text: &str| merged(None, |a| a.upstream = Some(text.into())).upstream;
    assert_eq!(upstream("http://localhost:9000").host.map(|h| h.port), Some(9000));
    assert_eq!(upstream("http://127.0.0.1:9000/").host.map(|h| h.port), Some(9000));
    assert_eq!(upstream("http://localhost").host.map(|h| h.port), Some(80));
    for url in [
        "http://localhost:9000/v1",
        "https://localhost:9000",
        "http://a:9000",
        "http://[::1]:9000",
        "http://u:p@localhost:1",
        "localhost:9000",
    ] {
        assert_eq!(upstream(url).url.as_deref(), Some(url));
        assert_eq!(upstream(url).host, None);
    }
}

#[test]
fn only_what_a_flag_names_changes() {
    let before = weather();
    assert_eq!(merged(Some(before.clone()), |_| ()), before);
    let mut expected = before.clone();
    expected.payment.as_mut().unwrap().price.per_request = Some("0.002".into());
    expected.limits.as_mut().unwrap().max_in_flight = Some(3);
    let after = merged(Some(before), |a| (a.price, a.max_in_flight) = (Some("0.002".into()), Some(3)));
    assert_eq!(after, expected);
}

#[test]
fn another_kind_of_upstream_replaces_the_old_one() {
    let mut before = weather();
    before.upstream.health_path = Some("/up".into());
    let after = merged(Some(before), |a| a.upstream = Some("https://x.example/v1".into()));
    assert_eq!((after.upstream.host, after.upstream.url.as_deref()), (None, Some("https://x.example/v1")));
    assert_eq!(after.upstream.health_path.as_deref(), Some("/up"));
}

#[test]
fn defaults_fill_gaps_and_redirect_nothing() {
    let defaults = Defaults { pay_to: Some("0xcd".into()), network: Some("polygon".into()) };
    assert_eq!(merge(Some(weather()), &args(|_| ()), &defaults).unwrap(), weather());
    let fresh = merge(None, &args(|a| a.price = Some("1".into())), &defaults).unwrap().payment.unwrap();
    assert_eq!((fresh.pay_to.as_str(), fresh.network.as_str()), ("0xcd", "polygon"));
}

#[test]
fn accept_replaces_the_payments_and_falls_back_to_the_single_flags() {
    let after = merged(Some(weather()), |a| {
        a.accept = vec!["network=base,price=0.1".into(), "network=polygon,pay-to=0xef".into()];
        (a.price, a.pay_to) = (Some("0.2".into()), Some("0xaa".into()));
    });
    assert_eq!(after.payment, None);
    let rows: Vec<_> = after.payments.iter().map(|p| (p.network.as_str(), p.price.per_request.as_deref(), p.pay_to.as_str())).collect();
    assert_eq!(rows, [("base", Some("0.1"), "0xaa"), ("polygon", Some("0.2"), "0xef")]);
    let both = merged(None, |a| a.accept = vec!["network=base,price=0.1".into(), "network=base,price=0.1,method=permit2".into()]);
    let methods: Vec<_> = both.payments.iter().map(|p| p.asset.as_ref().map(|asset| asset.transfer_method)).collect();
    assert_eq!(methods, [None, Some(obol_offer::TransferMethod::Permit2)]);
    assert!(
        obol_offer::Offer::validate(&"weather".parse().unwrap(), &OfferSpec { upstream: weather().upstream, ..both }).is_err(),
        "no payee"
    );
    let one = merged(None, |a| a.accept = vec!["network=base,price=0.1".into()]);
    assert!(one.payment.is_some() && one.payments.is_empty());
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let two = merged(None, |a| a.accept = vec!["network=base,price=1".into(), "network=polygon,price=1".into()]);
    assert_eq!(codes(Some(two.clone()), |a| a.price = Some("2".into())), ["payment_ambiguous"]);
    assert_eq!(codes(Some(two), |a| a.accept = vec!["network=base,prize=1".into()]), ["pair_unknown"]);
    assert_eq!(codes(None, |a| a.accept = vec!["network=base,price=1,method=cash".into()]), ["method_unknown"]);
    let unused = |a: &mut SellHttpArgs| (a.accept, a.network) = (vec!["network=base,price=1".into()], Some("polygon".into()));
    assert_eq!(codes(None, unused), ["flag_unused"]);
    let mut own_token = weather();
    own_token.payment.as_mut().unwrap().asset = Some(obol_offer::AssetSpec::default());
    assert_eq!(codes(Some(own_token), |a| a.network = Some("polygon".into())), ["asset_network"]);
    assert_eq!(codes(None, |a| a.route = vec!["gate=open,path=/x".into(), "gate=free".into()]), ["route_gate", "route_path"]);
}

#[test]
fn register_and_no_register_are_opposites() {
    let off = merged(Some(weather()), |a| a.no_register = true);
    assert_eq!(off.registration.as_ref().unwrap().enabled, Some(false));
    let on = merged(Some(off), |a| (a.register, a.description) = (true, Some("Rain or not".into())));
    assert_eq!(on.registration.unwrap().enabled, Some(true));
}
