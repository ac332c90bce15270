//! Unpaid requests: what is asked for, of whom, in which form.

use http::StatusCode;
use obol_gateway::GatewayConfig;

use crate::support::*;

#[tokio::test]
async fn one_402_serves_clients_of_both_versions() {
    let shop = Shop::open().await;
    let got = shop.get("/services/a/x?q=1").await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED);
    let (v2, v1) = (got.decoded("payment-required"), got.json());
    let url = shop.url("/services/a/x?q=1");
    assert_eq!((v2["x402Version"].as_u64(), v1["x402Version"].as_u64()), (Some(2), Some(1)));
    assert_eq!((v2["resource"]["url"].as_str(), v1["accepts"][0]["resource"].as_str()), (Some(&*url), Some(&*url)));
    assert_eq!((v2["accepts"][0]["amount"].as_str(), v1["accepts"][0]["maxAmountRequired"].as_str()), (Some("1000"), Some("1000")));
    assert_eq!(got.header("cache-control"), "no-store");
    assert_eq!(got.header("link"), "</api/services.json>; rel=\"catalog\"");
    assert_eq!(got.header("access-control-allow-origin"), "*");
    for exposed in ["PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE"] {
        assert!(got.header("access-control-expose-headers").contains(exposed));
    }
    assert!(!got.header("x-request-id").is_empty());
    assert_eq!((shop.upstream.heads(), shop.facilitator.verifies.load(std::sync::atomic::Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn every_method_is_gated() {
    let shop = Shop::open().await;
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"] {
        let got = shop.send(shop.request(method, "/services/a"), "").await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{method}");
        assert_eq!(got.decoded("payment-required")["accepts"][0]["amount"], "1000");
        assert_eq!(got.body.is_empty(), method == "HEAD", "{method}");
    }
    assert_eq!(shop.upstream.heads(), 0);
    let head = shop.send(shop.request("HEAD", "/services/a"), "").await;
    let get = shop.get("/services/a").await;
    assert_eq!(head.header("content-length"), get.header("content-length"));
}

#[tokio::test]
async fn every_spelling_of_a_path_is_gated() {
    let shop = Shop::open().await;
    for path in [
        "/services/a",
        "/services/a/",
        "//services//a",
        "/services/./a",
        "/services/b/../a",
        "/services/%61",
        "/%73ervices/a/x",
        "/services/b/%2e%2e/a",
        "/services/b/%2E./a/x",
        "/services/a/free/../x",
        "/services/a/free/%2e%2e/x",
        "/services/a//free/..//x",
    ] {
        let answer = shop.raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 402 "), "{path}: {answer}");
    }
    for path in [
        "/services%2fa",
        "/services/a%2Ffree",
        "/services/a/free%2f..%2fx",
        "/services\\a",
        "/services/a/free/..\\x",
        "/services/a%5cx",
        "/services/a%00",
        "/services/a/%zz",
        "/../x",
    ] {
        let answer = shop.raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    for path in ["/Services/a", "/services/A", "/services/ab", "/services", "/", "/services/a;x", "/services/%41"] {
        assert_eq!(shop.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(shop.upstream.heads(), 0);
}

#[tokio::test]
async fn a_free_route_is_forwarded_by_the_path_it_was_judged_by() {
    let shop = Shop::open().await;
    let answer = shop.raw(b"GET /services/a/x/..//free/./%62?q=%2f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(shop.upstream.last().target, "/free/b?q=%2f");
}

#[tokio::test]
async fn a_browser_gets_a_page() {
    let shop = Shop::with(GatewayConfig::default(), |spec| {
        spec.registration = Some(obol_offer::RegistrationSpec {
            name: Some("Weather <b>".into()),
            description: Some("Rain & \"shine\"".into()),
            ..obol_offer::RegistrationSpec::default()
        });
    })
    .await;
    let browser = |accept: &str| {
        shop.request("GET", "/services/a?x=<script>'").header("accept", accept).header("user-agent", "Mozilla/5.0 (X11; Linux)")
    };
    let request = http::Request::builder().uri(shop.url("/services/a?x='1'"));
    let page = shop.send(request.header("accept", "text/html,*/*;q=0.8").header("user-agent", "Mozilla/5.0 (X11; Linux)"), "").await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::PAYMENT_REQUIRED, "text/html; charset=utf-8"));
    assert_eq!((page.header("vary"), page.header("cache-control")), ("Accept", "no-store"));
    assert_eq!(page.decoded("payment-required")["accepts"][0]["amount"], "1000");
    for part in ["Weather &lt;b&gt;", "Rain &amp; &quot;shine&quot;", "0.001 USDC", "base-sepolia", "play money", "obol pay", PAYEE] {
        assert!(page.text().contains(part), "{part} in {}", page.text());
    }
    assert!(!page.text().contains("<script") && !page.text().contains("='1'"));
    assert!(browser("text/html").body(()).is_err(), "a raw `<` never makes it into a request");
    let json =
        shop.send(shop.request("GET", "/services/a").header("accept", "application/json").header("user-agent", "Mozilla/5.0"), "").await;
    assert_eq!(json.json()["x402Version"], 1);
}

#[tokio::test]
async fn preflights_of_paid_routes_are_answered_here() {
    let shop = Shop::open().await;
    let ask = |path| shop.request("OPTIONS", path).header("origin", "https://x").header("access-control-request-method", "POST");
    let got = shop.send(ask("/services/a").header("access-control-request-headers", "payment-signature,content-type"), "").await;
    assert_eq!((got.status, shop.upstream.heads()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(got.header("access-control-allow-origin"), "*");
    assert_eq!(got.header("access-control-allow-methods"), "POST");
    assert_eq!(got.header("access-control-allow-headers"), "payment-signature,content-type");
    shop.send(ask("/services/a/free/x"), "").await;
    assert_eq!(shop.upstream.last().method, "OPTIONS");
}

#[tokio::test]
async fn documents_and_unknown_paths() {
    let shop = Shop::open().await;
    let got = shop.get("/api/services.json").await;
    assert_eq!((got.status, got.header("content-type"), got.text()), (StatusCode::OK, "application/json", "{\"services\":[]}"));
    assert_eq!(shop.send(shop.request("HEAD", "/api/services.json"), "").await.header("content-length"), "15");
    let post = shop.send(shop.request("POST", "/api/services.json"), "").await;
    assert_eq!((post.status, post.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    let missing = shop.get("/nothing").await;
    assert_eq!((missing.status, missing.json()["error"].as_str()), (StatusCode::NOT_FOUND, Some("not_found")));
    assert_eq!(missing.json()["retriable"], false);
}

#[tokio::test]
async fn the_resource_is_named_as_buyers_reach_it() {
    let config = GatewayConfig { public_url: Some("https://shop.example/".parse().unwrap()), ..GatewayConfig::default() };
    let shop = Shop::with(config, |_| {}).await;
    let url = |got: &Got| got.decoded("payment-required")["resource"]["url"].as_str().unwrap().to_owned();
    assert_eq!(url(&shop.get("/services/a/x").await), "https://shop.example/services/a/x");
    let shop = Shop::open().await;
    let got = shop.send(shop.request("GET", "/services/a").header("host", "tunnel.example").header("x-forwarded-proto", "https"), "").await;
    assert_eq!(url(&got), "https://tunnel.example/services/a");
    let got = shop.get(&format!("/services/a?{}", "q".repeat(3000))).await;
    assert_eq!(url(&got), shop.url("/services/a"), "a header must carry it");
}

#[tokio::test]
async fn an_offer_answers_on_its_own_host_only() {
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.hostname = Some("own.example".into())).await;
    let status = async |host: &str| shop.send(shop.request("GET", "/services/a").header("host", host), "").await.status;
    assert_eq!(status("OWN.example:8402").await, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(status("other.example").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stopped_offer_is_gone_and_a_stopping_one_still_serves() {
    let shop = Shop::with(GatewayConfig::default(), |spec| {
        spec.drain_at = Some("2020-01-01T00:00:00Z".into());
        spec.drain_grace_period = Some("1h".into());
    })
    .await;
    let got = shop.get("/services/a").await;
    assert_eq!((got.status, got.json()["error"].as_str()), (StatusCode::GONE, Some("offer_stopped")));
    let shop = Shop::with(GatewayConfig::default(), |spec| spec.drain_at = Some("2999-01-01T00:00:00Z".into())).await;
    assert_eq!(shop.get("/services/a").await.status, StatusCode::PAYMENT_REQUIRED);
    let payment = shop.payment();
    assert_eq!(shop.get_paid("/services/a", &payment).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_buyer_who_sends_a_large_body_unpaid_still_reads_the_402() {
    let shop = Shop::open().await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    let head = format!("POST /services/a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    // Sends everything before it reads anything.
    let answer = shop.raw(&[head.as_bytes(), &body].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 402 ") && answer.contains("x402Version"), "{answer}");
}
