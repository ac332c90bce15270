//! `/verify`, for proxies that ask before they forward.

use http::{StatusCode, request::Builder};
use obol_gateway::GatewayConfig;

use crate::support::*;

async fn shop() -> Shop {
    Shop::with(GatewayConfig { verify: true, ..GatewayConfig::default() }, |_| {}).await
}

fn about(shop: &Shop, query: &str, method: &str, uri: &str) -> Builder {
    http::Request::builder()
        .uri(format!("http://{}/verify{query}", shop.admin))
        .header("x-forwarded-method", method)
        .header("x-forwarded-uri", uri)
        .header("x-forwarded-host", "shop.example")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-for", "192.0.2.7")
}

async fn ask(shop: &Shop, uri: &str, payment: Option<&str>) -> Got {
    let request = about(shop, "", "GET", uri);
    shop.send(payment.into_iter().fold(request, |request, payment| request.header("payment-signature", payment)), "").await
}

#[tokio::test]
async fn a_paid_request_is_settled_before_it_may_go_on_and_pays_once() {
    let shop = shop().await;
    let asked = ask(&shop, "/services/a/x?y=1", None).await;
    assert_eq!(asked.status, StatusCode::PAYMENT_REQUIRED);
    assert!(asked.headers.contains_key("payment-required"));
    assert_eq!(asked.json()["accepts"][0]["payTo"], PAYEE);

    let payment = shop.payment();
    let paid = ask(&shop, "/services/a/x?y=1", Some(&payment)).await;
    assert_eq!((paid.status, shop.facilitator.settles()), (StatusCode::OK, 1));
    assert!(paid.headers.contains_key("payment-response") && paid.headers.contains_key("x-obol-payer"), "{:?}", paid.headers);
    let again = ask(&shop, "/services/a/x?y=1", Some(&payment)).await;
    assert_eq!((again.status, shop.facilitator.settles()), (StatusCode::CONFLICT, 1));
    let elsewhere = ask(&shop, "/services/a/z", Some(&payment)).await;
    assert_eq!((elsewhere.status, shop.facilitator.settles()), (StatusCode::CONFLICT, 1));
    assert_eq!(shop.upstream.heads(), 0);
}

#[tokio::test]
async fn what_is_no_leave_is_never_a_success() {
    let shop = shop().await;
    assert_eq!(ask(&shop, "/services/a/free/x", None).await.status, StatusCode::OK);
    for (uri, status) in [
        ("/services/b", StatusCode::NOT_FOUND),
        ("/services/a/free/../x", StatusCode::PAYMENT_REQUIRED),
        ("/services/a/%2e%2e/free%2fx", StatusCode::BAD_REQUEST),
        // The gateway's own documents are not the proxy's to serve.
        ("/api/services.json", StatusCode::FORBIDDEN),
        ("http://evil.example/services/a/free/x", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(&shop, uri, None).await.status, status, "{uri}");
    }
    let preflight = about(&shop, "", "OPTIONS", "/services/a").header("origin", "https://x").header("access-control-request-method", "GET");
    assert_eq!(shop.send(preflight, "").await.status, StatusCode::FORBIDDEN);
    let twice = about(&shop, "", "GET", "/services/a").header("x-forwarded-uri", "/services/a/free/x");
    assert_eq!(shop.send(twice, "").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(shop.admin_status("/verify").await, StatusCode::BAD_REQUEST);
    // nginx passes on nothing but a 401.
    assert_eq!(shop.send(about(&shop, "?deny=401", "GET", "/services/a"), "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nobody_is_answered_unless_it_is_asked_for() {
    let shop = Shop::open().await;
    assert_eq!(ask(&shop, "/services/a/free/x", None).await.status, StatusCode::NOT_FOUND);
}
