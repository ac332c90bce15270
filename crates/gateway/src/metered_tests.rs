use obol_offer::{Network, Scheme};

use super::*;

fn meter(rate: Rate, ceiling: u64, when_uncounted: WhenUncounted) -> Meter {
    let network = Network::find("base-sepolia").unwrap();
    let terms = Terms {
        scheme: Scheme::Upto,
        network,
        asset: network.default_asset(),
        pay_to: [1; 20].into(),
        amount: ceiling.into(),
        max_timeout_seconds: 60,
    };
    Meter { terms, rate, when_uncounted, prompt_bytes: 400 }
}

/// One atomic unit for a prompt token, two for a completion token.
fn tokens() -> Rate {
    Rate::PerToken { input: 1_000_000.into(), output: 2_000_000.into(), max_input: 1000, max_output: 1000 }
}

fn tally(bytes: &[u8], events: bool) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    Counter::new(tally.clone(), events).count(bytes);
    tally
}

#[test]
fn what_was_used_is_charged_up_to_the_ceiling() {
    let meter = meter(tokens(), 1000, WhenUncounted::Ceiling);
    let used = |input, output| meter.whole(Some(Usage::Tokens { input, output }), &Tally::default());
    assert_eq!((used(10, 20), used(0, 0), used(900, 51)), (50.into(), 0.into(), 1000.into()));
    assert_eq!(used(u64::MAX, u64::MAX), 1000.into());
}

#[test]
fn what_nobody_counted_is_never_free() {
    let body = tally(&[b'x'; 30], false);
    let whole = |meter: &Meter, usage| meter.whole(usage, &body);
    let ceiling = meter(tokens(), 1000, WhenUncounted::Ceiling);
    assert_eq!(whole(&ceiling, None), 1000.into());
    assert_eq!(whole(&ceiling, Some(Usage::Units(1))), 1000.into(), "units are not what is sold");
    assert_eq!(whole(&meter(tokens(), 1000, WhenUncounted::Bytes), None), 460.into(), "400 + 2 × 30");
    assert_eq!(whole(&meter(tokens(), 450, WhenUncounted::Bytes), None), 450.into());
    let units = Rate::PerUnit { price: 7.into(), unit: "page".into(), max: 10 };
    assert_eq!(whole(&meter(units, 70, WhenUncounted::Bytes), None), 70.into());
}

#[test]
fn a_cut_answer_is_charged_for_what_left() {
    let meter_of = |rate| meter(rate, 1000, WhenUncounted::Ceiling);
    let cut = |bytes: &[u8], events| meter_of(tokens()).cut(&tally(bytes, events), events);
    assert_eq!(cut(b"", true), 0.into());
    assert_eq!(cut(b"data: 1\n\n", true), 100.into(), "the prompt's quarter");
    assert_eq!(cut(b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata", true), 104.into());
    assert_eq!(cut(&[b'x'; 40], false), 120.into(), "100 + 2 × 10");
    let units = meter_of(Rate::PerUnit { price: 7.into(), unit: "page".into(), max: 10 });
    assert_eq!((units.cut(&tally(b"x", false), false), units.cut(&tally(b"", false), false)), (7.into(), 0.into()));
}

#[test]
fn two_reports_are_none() {
    let report = |values: &[&'static str]| {
        let mut fields = HeaderMap::new();
        values.iter().for_each(|value| _ = fields.append(USAGE_FIELD, HeaderValue::from_static(value)));
        reported(&fields)
    };
    assert_eq!(report(&[]), None);
    assert_eq!(report(&["units=3"]), Some(Some(Usage::Units(3))));
    for garbled in [&["units=3", "units=3"][..], &["input=1", "output=2"], &["units=-3"], &[""]] {
        assert_eq!(report(garbled), Some(None), "{garbled:?}");
    }
}

#[test]
fn only_trailers_that_the_buyer_gets_are_announced() {
    let announced = |trailer: &'static str, way| {
        let mut head = HeaderMap::new();
        head.append(header::TRAILER, HeaderValue::from_static(trailer));
        head.append(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
        announce(&mut head, way);
        let list = head.get(header::TRAILER).map(|value| value.to_str().unwrap().to_owned());
        (list, head.contains_key(header::CONTENT_LENGTH))
    };
    let plain = ReceiptWay::default();
    assert_eq!(announced("x-obol-usage", plain), (None, true));
    assert_eq!(announced("X-Obol-Usage, x-sum, payment-response", plain), (Some("x-sum".into()), true));
    let trailers = ReceiptWay { trailers: true, event: false };
    assert_eq!(announced("x-obol-usage", trailers), (Some("payment-response, x-payment-response".into()), false));
}
