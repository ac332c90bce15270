//! Metered answers that go wrong: upstreams that lie or break, buyers that leave, streams that never end.

use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::support::*;

const BODY: &str = r#"{"model":"m","max_tokens":10,"stream":true}"#;
/// 43 bytes of a body and 10 tokens.
const CEILING: u64 = 43 + 20;
const EVENTS: [&str; 3] = ["data: {\"role\":1}\n\n", "data: a\n\n", "data: b\n\n"];

/// A paid request whose answer has begun.
async fn begun(shop: &Shop, payment: &str) -> http::Response<Incoming> {
    let request = shop.request("POST", HOST_PATH).header("payment-signature", payment).body(Full::from(BODY)).unwrap();
    client(false).request(request).await.unwrap()
}

async fn read(answer: &mut http::Response<Incoming>, events: &[&str]) {
    for event in events {
        assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), *event);
    }
}

#[tokio::test]
async fn a_report_that_is_none_is_the_ceiling_and_none_is_above_it() {
    let (shop, stage) = Shop::metered(per_token).await;
    for report in [
        "input=999999999999999, output=999999999999999",
        "input=-1, output=-1",
        "input=1",
        "units=1",
        "input=0, output=0, output=0",
        "lots",
        "",
    ] {
        let payment = shop.metered_payment("upto", BODY).await;
        stage.stream(&EVENTS, report);
        let got = shop.buy(&payment, BODY, &[("te", "trailers")]).await;
        assert_eq!(got.trailer("payment-response")["amount"], CEILING.to_string(), "{report:?}");
    }
    assert_eq!(shop.charges(), [CEILING; 7]);
}

#[tokio::test]
async fn two_reports_are_none_and_the_heads_goes_before_the_trailers() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    say.send(Say::Trailers(vec![("x-obol-usage", "input=1, output=1"), ("x-obol-usage", "input=0, output=0")])).ok().unwrap();
    assert_eq!(shop.buy(&payment, BODY, &[("te", "trailers")]).await.trailer("payment-response")["amount"], CEILING.to_string());

    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&[("trailer", "x-obol-usage"), ("x-obol-usage", "input=5, output=5")]);
    say.send(Say::Data("hello")).ok().unwrap();
    say.send(Say::Trailer("input=0, output=0")).ok().unwrap();
    let got = shop.buy(&payment, BODY, &[]).await;
    assert_eq!((got.text(), got.decoded("payment-response")["amount"].as_str()), ("hello", Some("15")));
    assert!(got.trailers.is_none_or(|trailers| !trailers.contains_key("x-obol-usage")));
    assert_eq!(shop.charges(), [CEILING, 15]);
}

#[tokio::test]
async fn no_trailer_is_smuggled_past_the_receipt() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&[("trailer", "x-obol-usage, payment-response, x-sum, content-length"), ("content-type", "text/event-stream")]);
    say.send(Say::Data(EVENTS[0])).ok().unwrap();
    let fields = vec![
        ("x-obol-usage", "input=1, output=1"),
        ("payment-response", "forged"),
        ("x-payment-response", "forged"),
        ("x-obol-payer", "0x1"),
        ("x-sum", "42"),
    ];
    say.send(Say::Trailers(fields)).ok().unwrap();
    let got = shop.buy(&payment, BODY, &[("te", "trailers")]).await;
    let trailers = got.trailers.as_ref().unwrap();
    assert_eq!((trailers["x-sum"].as_bytes(), trailers.len()), (&b"42"[..], 3), "{trailers:?}");
    assert_eq!(got.trailer("payment-response")["amount"], "3");
    assert_eq!(got.trailer("x-payment-response")["success"], true);
}

#[tokio::test]
async fn a_buyer_who_leaves_is_charged_for_what_left() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    EVENTS.iter().for_each(|event| say.send(Say::Data(event)).ok().unwrap());
    let mut answer = begun(&shop, &payment).await;
    read(&mut answer, &EVENTS).await;
    drop(answer);
    // 43 bytes / 4, and two events behind the first.
    until("settled", || shop.charges() == [10 + 4]).await;
    until("delivered", || shop.cashier.stats().delivered == 1).await;
    until("the upstream was let go", || say.is_closed()).await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_charged_for_what_left_and_for_nothing_where_nothing_left() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    EVENTS.iter().for_each(|event| say.send(Say::Data(event)).ok().unwrap());
    let mut answer = begun(&shop, &payment).await;
    read(&mut answer, &EVENTS).await;
    say.send(Say::Break).ok().unwrap();
    assert!(answer.body_mut().frame().await.unwrap().is_err(), "a buyer can tell a cut from an end");
    until("settled", || shop.charges() == [10 + 4]).await;

    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    let mut answer = begun(&shop, &payment).await;
    say.send(Say::Break).ok().unwrap();
    assert!(answer.body_mut().frame().await.unwrap().is_err());
    until("given back", || shop.cashier.stats().released == 1).await;
    assert_eq!(shop.charges(), [10 + 4]);
}

#[tokio::test]
async fn a_stream_that_never_ends_is_stopped_before_its_payment_ends() {
    let (shop, stage) = Shop::metered(per_token).await;
    let offered = shop.offered(BODY).await.into_iter().find(|offered| offered.scheme == "upto").unwrap();
    let payment = shop.sign(&offered, now() + 14);
    let say = stage.play(&SSE);
    EVENTS.iter().for_each(|event| say.send(Say::Data(event)).ok().unwrap());
    let mut answer = begun(&shop, &payment).await;
    read(&mut answer, &EVENTS).await;
    let cut = tokio::time::timeout(Duration::from_secs(12), answer.body_mut().frame()).await.expect("never stopped");
    assert!(cut.unwrap().is_err());
    until("settled", || shop.charges() == [10 + 4]).await;
    until("the upstream was let go", || say.is_closed()).await;
}

#[tokio::test]
async fn a_copy_while_it_streams_waits_or_comes_back_and_buys_nothing_more() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    say.send(Say::Data(EVENTS[0])).ok().unwrap();
    let mut answer = begun(&shop, &payment).await;
    read(&mut answer, &EVENTS[..1]).await;
    let copy = shop.buy(&payment, BODY, &[]).await;
    assert_eq!((copy.status, copy.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_in_progress")));
    say.send(Say::Trailer("input=1, output=1")).ok().unwrap();
    assert!(answer.body_mut().frame().await.is_none());
    until("settled", || shop.charges() == [3]).await;
    until("known to copies", || shop.cashier.stats().delivered == 1).await;
    assert_eq!(shop.buy(&payment, BODY, &[]).await.json()["error"], "payment_already_used");
    assert_eq!(shop.charges(), [3]);
}

#[tokio::test]
async fn an_unknown_settlement_after_the_answer_is_never_a_402() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    *shop.facilitator.settle.lock().unwrap() = Settle::UnknownWithHash;
    stage.stream(&EVENTS, "input=1, output=1");
    let got = shop.buy(&payment, BODY, &[("te", "trailers")]).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, EVENTS.concat().as_str()));
    let receipt = got.trailer("payment-response");
    assert_eq!((&receipt["success"], &receipt["errorReason"]), (&false.into(), &"settlement_unknown".into()));
    assert_eq!(shop.buy(&payment, BODY, &[]).await.json()["error"], "settlement_unknown");
    let second = shop.metered_payment("upto", BODY).await;
    assert_eq!(shop.buy(&second, BODY, &[]).await.json()["error"], "settlement_unknown", "the same request by the same payer");
}

#[tokio::test]
async fn a_drain_settles_what_has_left() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    EVENTS.iter().for_each(|event| say.send(Say::Data(event)).ok().unwrap());
    let mut answer = begun(&shop, &payment).await;
    read(&mut answer, &EVENTS).await;
    shop.shutdown.cancel();
    say.send(Say::Trailer("input=2, output=2")).ok().unwrap();
    assert!(answer.body_mut().frame().await.is_none());
    shop.running.await.unwrap().unwrap();
    assert_eq!(shop.facilitator.charges.lock().unwrap().as_slice(), [6]);
    assert_eq!(shop.cashier.stats().delivered, 1);
}

#[tokio::test]
async fn what_one_payer_may_owe_is_bounded_and_what_was_refused_stays_owed() {
    let (shop, stage) = Shop::metered(|spec| {
        per_unit(spec);
        let price = obol_offer::PriceSpec { per_unit: Some("60".into()), max_units: Some(1), ..Default::default() };
        spec.payment.as_mut().unwrap().price = price;
    })
    .await;
    let say = stage.play(&SSE);
    say.send(Say::Data(EVENTS[0])).ok().unwrap();
    let payment = shop.metered_payment("upto", BODY).await;
    let mut first = begun(&shop, &payment).await;
    read(&mut first, &EVENTS[..1]).await;
    // 60 under way and 60 more are above 100.
    let second = shop.metered_payment("upto", "other").await;
    let got = shop.buy(&second, "other", &[]).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("too_much_unsettled")));
    *shop.facilitator.settle.lock().unwrap() = Settle::Refuse;
    say.send(Say::Trailer("units=1")).ok().unwrap();
    assert!(first.body_mut().frame().await.is_none());
    until("refused", || shop.cashier.stats().settle_refused == 1).await;
    *shop.facilitator.settle.lock().unwrap() = Settle::Pay;
    assert_eq!(shop.buy(&second, "other", &[]).await.json()["error"], "too_much_unsettled");
    assert_eq!(shop.buy(&payment, BODY, &[]).await.json()["error"], "too_much_unsettled", "what was refused may not go on for ever");
    assert_eq!(shop.charges(), [60_000_000]);
}
