//! Prices by use: the same ceiling for the challenge and the payment, nothing held back, and charged what was used.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use obol_offer::{OfferSpec, Scheme};
use obol_reconcile::RouteTable;

use crate::support::*;

const BODY: &str = r#"{"model":"m","max_tokens":10,"stream":true}"#;
const EVENTS: [&str; 3] = ["data: {\"role\":1}\n\n", "data: a\n\n", "data: b\n\n"];
const TRAILERS: [(&str, &str); 1] = [("te", "trailers")];

/// 43 bytes of a body and 10 tokens.
const CEILING: u64 = 43 + 20;

#[tokio::test]
async fn the_ceiling_is_worked_out_from_the_body() {
    let (shop, _stage) = Shop::metered(per_token).await;
    assert_eq!(BODY.len(), 43);
    for (body, ceiling) in [
        (BODY, CEILING),
        (r#"{"max_tokens":10,"n":3}"#, 23 + 60),
        (r#"{"max_tokens":5000}"#, 19 + 200),
        ("not json", 1000 + 200),
        ("", 1000 + 200),
    ] {
        let offers = shop.offered(body).await;
        let entries: Vec<_> = offers.iter().map(|o| (o.scheme.as_str(), o.amount)).collect();
        assert_eq!(entries, [("upto", ceiling.into()), ("exact", ceiling.into())], "{body}");
        let got = shop.send(shop.request("POST", HOST_PATH), body).await;
        assert_eq!(got.json()["accepts"][0]["maxAmountRequired"], ceiling.to_string(), "{body}");
    }
    let long = "x".repeat(1001);
    assert_eq!(shop.send(shop.request("POST", HOST_PATH), long).await.json()["error"], "body_too_large");
    assert_eq!(shop.facilitator.settles(), 0);
}

#[tokio::test]
async fn a_stream_is_charged_what_was_used_and_tells_so_at_its_end() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    stage.stream(&EVENTS, "input=12, output=3, cached=2");
    let got = shop.buy(&payment, BODY, &TRAILERS).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, EVENTS.concat().as_str()));
    assert_eq!((got.header("trailer"), got.header("payment-response")), ("payment-response, x-payment-response", ""));
    assert_eq!(got.header("cache-control"), "private, no-store");
    let trailers = got.trailers.as_ref().unwrap();
    assert!(!trailers.contains_key("x-obol-usage"));
    let receipt = got.trailer("payment-response");
    assert_eq!((&receipt["success"], &receipt["amount"], &receipt["transaction"]), (&true.into(), &"18".into(), &HASH.into()));
    assert_eq!(got.trailer("x-payment-response")["network"], "base-sepolia");
    assert_eq!(shop.charges(), [18]);
    until("delivered", || shop.cashier.stats().delivered == 1).await;
    let again = shop.buy(&payment, BODY, &[]).await;
    assert_eq!((again.status, again.json()["error"].as_str()), (StatusCode::CONFLICT, Some("payment_already_used")));
    assert_eq!(again.decoded("payment-response")["amount"], "18");
}

#[tokio::test]
async fn nothing_is_held_back_and_nothing_settled_before_the_end() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    let say = stage.play(&SSE);
    let request = shop.request("POST", HOST_PATH).header("payment-signature", payment).body(http_body_util::Full::from(BODY)).unwrap();
    let mut answer = client(false).request(request).await.unwrap();
    for event in EVENTS {
        say.send(Say::Data(event)).ok().unwrap();
        let frame = tokio::time::timeout(Duration::from_secs(10), answer.body_mut().frame()).await.expect("held back").unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    assert_eq!(shop.facilitator.begun(), 0);
    say.send(Say::Trailer("input=1, output=1")).ok().unwrap();
    assert!(answer.body_mut().frame().await.is_none(), "no trailers without TE: trailers");
    until("settled", || shop.charges() == [3]).await;
}

#[tokio::test]
async fn a_buyer_may_have_the_receipt_as_an_event() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    stage.stream(&EVENTS, "input=12, output=3");
    let got = shop.buy(&payment, BODY, &[("x-obol-receipt", "event")]).await;
    let last = got.text().strip_prefix(EVENTS.concat().as_str()).unwrap().strip_prefix("event: x402.receipt\ndata: ").unwrap();
    let receipt: serde_json::Value = serde_json::from_str(last.strip_suffix("\n\n").unwrap()).unwrap();
    assert_eq!((&receipt["success"], &receipt["amount"], &receipt["network"]), (&true.into(), &"18".into(), &"eip155:84532".into()));
}

#[tokio::test]
async fn a_report_in_the_head_is_settled_before_the_answer_leaves() {
    let (shop, stage) = Shop::metered(per_unit).await;
    assert_eq!(shop.offered("").await[0].amount, 1000.into());
    let payment = shop.metered_payment("upto", "").await;
    let say = stage.play(&[("x-obol-usage", "units=7")]);
    say.send(Say::Data("seven pages")).ok().unwrap();
    drop(say);
    let got = shop.buy(&payment, "", &[("x-obol-usage", "units=1")]).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, "seven pages"));
    assert_eq!(got.decoded("payment-response")["amount"], "175");
    assert!(!got.headers.contains_key("x-obol-usage"));
    assert_eq!(shop.charges(), [175]);
    let total = shop.metrics().await;
    assert!(total.lines().any(|line| line.contains("captured") && line.ends_with(" 175.0")), "{total}");
}

#[tokio::test]
async fn who_knows_only_exact_pays_the_ceiling_before_the_first_byte() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("exact", BODY).await;
    stage.stream(&EVENTS, "input=12, output=3");
    let got = shop.buy(&payment, BODY, &[]).await;
    assert_eq!((got.text(), got.decoded("payment-response")["amount"].as_str()), (EVENTS.concat().as_str(), Some(&*CEILING.to_string())));
    assert_eq!(shop.charges(), [CEILING]);
    let other = r#"{"model":"m","max_tokens":11,"stream":true}"#;
    let cheap = shop.metered_payment("exact", BODY).await;
    let got = shop.buy(&cheap, other, &[]).await;
    assert_eq!((got.status, got.json()["code"].as_str()), (StatusCode::PAYMENT_REQUIRED, Some("no_matching_requirement")));
    assert_eq!(got.json()["accepts"][0]["maxAmountRequired"], (CEILING + 2).to_string());
}

#[tokio::test]
async fn nothing_used_costs_nothing_and_the_payment_stays_good() {
    let (shop, stage) = Shop::metered(per_token).await;
    let payment = shop.metered_payment("upto", BODY).await;
    stage.stream(&[], "input=0, output=0");
    let got = shop.buy(&payment, BODY, &TRAILERS).await;
    let receipt = got.trailer("payment-response");
    assert_eq!((&receipt["success"], &receipt["amount"], &receipt["transaction"]), (&true.into(), &"0".into(), &"".into()));
    assert_eq!(shop.facilitator.begun(), 0);
    stage.stream(&EVENTS, "input=1, output=1");
    assert_eq!(shop.buy(&payment, BODY, &TRAILERS).await.trailer("payment-response")["amount"], "3");
}

#[tokio::test]
async fn an_upstream_that_fails_is_not_charged() {
    let (shop, _) = Shop::metered(|spec| {
        per_unit(spec);
        spec.upstream.host = Some(obol_offer::HostUpstream { port: 9 });
    })
    .await;
    let payment = shop.metered_payment("upto", BODY).await;
    assert_eq!(shop.buy(&payment, BODY, &[]).await.json()["error"], "upstream_unreachable");
    assert_eq!(shop.facilitator.begun(), 0);
}

#[tokio::test]
async fn an_offer_by_upto_alone_waits_until_it_is_known_who_settles() {
    let upto = |spec: &mut OfferSpec| {
        per_token(spec);
        spec.payment.as_mut().unwrap().scheme = Some(Scheme::Upto);
    };
    let (shop, _stage) = Shop::metered(upto).await;
    assert_eq!(shop.offered(BODY).await.len(), 1);
    let offer = shop.entry().offer.clone();
    let mut builder = RouteTable::builder();
    builder.offer(&offer);
    shop.table.store(Some(std::sync::Arc::new(builder.build())));
    let got = shop.send(shop.request("POST", HOST_PATH), BODY).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("facilitator_unknown")));
    assert_eq!((got.header("retry-after"), got.header("payment-required")), ("5", ""));
}
