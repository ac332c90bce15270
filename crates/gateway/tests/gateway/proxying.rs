//! What crosses the gateway, and what does not.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use obol_gateway::GatewayConfig;

use crate::support::*;

#[tokio::test]
async fn headers_are_cleaned_in_both_directions() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let request = shop
        .request("GET", "/services/a/headers")
        .header("payment-signature", payment)
        .header("x-obol-payer", "0xevil")
        .header("x_obol_payer", "0xevil")
        .header("settlement-overrides", "{}")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-host", "evil")
        .header("forwarded", "for=evil")
        .header("authorization", "Bearer mine")
        .header("cookie", "c=1")
        .header("x-request-id", "abc-1");
    let got = shop.send(request, "").await;
    let seen = shop.upstream.last().headers;
    let host = shop.addr.to_string();
    for (name, value) in [
        ("x-forwarded-for", "1.2.3.4, 127.0.0.1"),
        ("x-forwarded-host", host.as_str()),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/services/a"),
        ("authorization", "Bearer mine"),
        ("cookie", "c=1"),
        ("x-request-id", "abc-1"),
    ] {
        assert_eq!(seen.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
    }
    assert_eq!(seen["host"], shop.upstream.addr.to_string());
    assert_eq!(seen.get_all("x-obol-payer").iter().count(), 1);
    assert_ne!(seen["x-obol-payer"], "0xevil");
    for gone in ["payment-signature", "x_obol_payer", "settlement-overrides", "x-hop", "forwarded"] {
        assert!(!seen.contains_key(gone), "{gone}");
    }
    assert_eq!((got.status, got.decoded("payment-response")["success"].as_bool()), (StatusCode::OK, Some(true)));
    assert_eq!((got.header("cache-control"), got.header("x-request-id")), ("private, no-store", "abc-1"));
    assert_eq!(got.headers.get_all("set-cookie").iter().count(), 2);
    for gone in ["settlement-overrides", "x-internal", "cdn-cache-control"] {
        assert!(!got.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn a_free_answer_is_passed_on_without_the_upstreams_receipts() {
    let shop = Shop::open().await;
    let got = shop.get("/services/a/free/headers").await;
    assert_eq!((got.status, got.header("cache-control")), (StatusCode::OK, "public, max-age=3600"));
    for gone in ["payment-response", "x-payment-response", "settlement-overrides", "x-internal"] {
        assert!(!got.headers.contains_key(gone), "{gone}");
    }
    assert!(!shop.upstream.last().headers.contains_key("x-obol-payer"));
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let shop = Shop::open().await;
    let payment = shop.payment();
    let request =
        shop.request("GET", "/services/a/trailers").header("te", "trailers").header("host", "a").header("payment-signature", payment);
    let got = send_stream(&shop, request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let trailers = got.trailers.unwrap();
    assert_eq!((&trailers["x-sum"], trailers.contains_key("payment-response")), (&HeaderValue::from_static("42"), false));

    let mut sent = HeaderMap::new();
    sent.insert("x-check", HeaderValue::from_static("7"));
    sent.insert("x-obol-payer", HeaderValue::from_static("0xevil"));
    let frames = [Ok::<_, std::io::Error>(Frame::data(Bytes::from("data"))), Ok(Frame::trailers(sent))];
    let request = shop.request("POST", "/services/a/free/x").header("host", "a").header("trailer", "x-check, x-obol-payer");
    send_stream(&shop, request.body(StreamBody::new(stream::iter(frames))).unwrap()).await.unwrap();
    let seen = shop.upstream.last();
    assert_eq!((&*seen.body, seen.trailers.as_ref().map(|t| t.len())), (&b"data"[..], Some(1)));
    assert_eq!(seen.trailers.unwrap()["x-check"], "7");
}

#[tokio::test]
async fn http2_by_prior_knowledge_is_served_alike() {
    let shop = Shop::open().await;
    let client = client(true);
    let ask =
        async |request: http::request::Builder| collect(client.request(request.body(Full::from("body")).unwrap()).await.unwrap()).await;
    assert_eq!(ask(shop.request("POST", "/services/a")).await.status, StatusCode::PAYMENT_REQUIRED);
    let head = ask(shop.request("HEAD", "/services/a")).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::PAYMENT_REQUIRED, 0));
    let got = ask(shop.request("POST", "/services/a/x").header("payment-signature", shop.payment())).await;
    assert_eq!((got.status, got.text(), got.decoded("payment-response")["success"].as_bool()), (StatusCode::OK, "hello", Some(true)));
    assert_eq!(&*shop.upstream.last().body, b"body");
    assert_eq!(shop.upstream.last().headers["x-forwarded-host"], shop.addr.to_string());
}

#[tokio::test]
async fn http10_buyers_are_served() {
    let shop = Shop::open().await;
    let answer = shop.raw(b"GET /services/a HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains(" 402 ") && answer.contains("x402Version"), "{answer}");
    let payment = shop.payment();
    let request = format!("POST /services/a/echo HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nX-PAYMENT: {payment}\r\n\r\nhello");
    let answer = shop.raw(request.as_bytes()).await;
    assert!(answer.contains(" 200 ") && answer.ends_with("hello") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test]
async fn an_expected_100_continue_is_given() {
    let shop = Shop::open().await;
    let request =
        b"POST /services/a/free/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    let answer = shop.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), "{answer}");
    let unpaid =
        shop.raw(b"POST /services/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n").await;
    assert!(unpaid.starts_with("HTTP/1.1 402 "), "nobody uploads for nothing: {unpaid}");
    assert!(!shop.upstream.last().headers.contains_key("expect"));
}

#[tokio::test]
async fn upstreams_that_close_or_break_are_told_apart() {
    let (closing, _) = raw_upstream("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end").await;
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.upstream.host.as_mut().unwrap().port = closing.port()).await;
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a", &payment).await.text(), "until the end");

    for garbage in ["", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"] {
        let (broken, _) = raw_upstream(garbage).await;
        let shop = Shop::with(GatewayConfig::default(), |spec| spec.upstream.host.as_mut().unwrap().port = broken.port()).await;
        let payment = shop.payment();
        let got = shop.get_paid("/services/a", &payment).await;
        assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::BAD_GATEWAY, Some("upstream_failed")), "{garbage:?}");
        assert_eq!((shop.facilitator.begun(), shop.cashier.stats().released), (0, 1));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_owed() {
    let (short, _) = raw_upstream("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await;
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.upstream.host.as_mut().unwrap().port = short.port()).await;
    let request = format!("GET /services/a HTTP/1.1\r\nHost: a\r\nPAYMENT-SIGNATURE: {}\r\n\r\n", shop.payment());
    let answer = shop.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("only this"), "{answer}");
    until("owed", || shop.cashier.stats().owed == 1).await;
    assert_eq!(shop.cashier.stats().delivered, 0);
}

#[tokio::test]
async fn unreachable_and_slow_upstreams_are_not_charged() {
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.upstream.host.as_mut().unwrap().port = 1).await;
    let payment = shop.payment();
    let got = shop.get_paid("/services/a", &payment).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::BAD_GATEWAY, Some("upstream_unreachable")));
    let config = GatewayConfig { upstream_timeout: std::time::Duration::from_millis(200), ..GatewayConfig::default() };
    let shop = Shop::with(config, |_| {}).await;
    let payment = shop.payment();
    let got = shop.get_paid("/services/a/never", &payment).await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::GATEWAY_TIMEOUT, Some("upstream_timeout")));
    assert_eq!((got.json()["retriable"].as_bool(), shop.facilitator.begun()), (Some(true), 0));
    assert_eq!(shop.get_paid("/services/a", &payment).await.status, StatusCode::OK);
}

#[tokio::test]
async fn requests_without_a_body_stay_without_one() {
    let shop = Shop::open().await;
    shop.get("/services/a/free/x").await;
    let seen = shop.upstream.last().headers;
    assert!(!seen.contains_key("content-length") && !seen.contains_key("transfer-encoding"), "{seen:?}");
    let request = Request::builder().method("POST").uri(shop.url("/services/a/free/x")).header("content-length", "0");
    shop.send(request, "").await;
    assert_eq!(shop.upstream.last().headers["content-length"], "0");
}
