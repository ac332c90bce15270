//! "Free-Riding", cross-resource substitution: a payment for one thing, presented for another.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join;
use http::StatusCode;
use obol_offer::{Offer, PriceSpec, RouteSpec, Terms};
use serde_json::{Value, json};

use crate::support::*;

/// `cheap` and `twin` at 0.001, `dear` at 0.01, all for one payee; `cheap/gold` at 0.01 too.
async fn street() -> (Shop, Terms, Terms) {
    let shop = Shop::open().await;
    let price = |price: &str| {
        let mut spec = spec(shop.upstream.addr.port());
        spec.payment.as_mut().unwrap().price = PriceSpec { per_request: Some(price.into()), ..Default::default() };
        spec
    };
    let mut cheap = price("0.001");
    cheap.routes.push(RouteSpec { path: "/gold/*".into(), price: Some("0.01".into()), ..RouteSpec::default() });
    let offers: Vec<Arc<Offer>> = vec![offer("cheap", &cheap), offer("twin", &price("0.001")), offer("dear", &price("0.01"))];
    shop.table.store(Some(table(&offers.iter().collect::<Vec<_>>())));
    let (low, high) = (offers[0].payments[0].terms.clone(), offers[2].payments[0].terms.clone());
    (shop, low, high)
}

/// A payment of `low` bent: signed as it was, saying something else.
fn bent(low: &Terms, bend: impl FnOnce(&mut Value)) -> String {
    let mut payment = serde_json::from_slice(&STANDARD.decode(pay_v2(low)).unwrap()).unwrap();
    bend(&mut payment);
    STANDARD.encode(payment.to_string())
}

fn code(got: &Got) -> String {
    let json = got.json();
    let code = if got.status == StatusCode::PAYMENT_REQUIRED { &json["code"] } else { &json["error"] };
    code.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_cheap_payment_buys_nothing_dear() {
    let (shop, low, high) = street().await;
    for path in ["/services/dear/x", "/services/cheap/gold/x", "/services/cheap/./gold//x", "/services/cheap/%67old"] {
        let got = shop.get_paid(path, &pay_v2(&low)).await;
        assert_eq!((got.status, code(&got).as_str()), (StatusCode::PAYMENT_REQUIRED, "no_matching_requirement"), "{path}");
        let got = shop.send(shop.request("GET", path).header("x-payment", pay_v1(&low)), "").await;
        assert_eq!((got.status, code(&got).as_str()), (StatusCode::PAYMENT_REQUIRED, "authorization_mismatch"), "{path}");
        // It claims the dear terms; what is signed is the cheap amount.
        let claims = bent(&low, |payment| payment["accepted"]["amount"] = json!(high.amount.to_string()));
        assert_eq!(code(&shop.get_paid(path, &claims).await), "authorization_mismatch", "{path}");
        let claims = bent(&low, |payment| {
            payment["accepted"]["amount"] = json!(high.amount.to_string());
            payment["payload"]["authorization"]["value"] = json!(high.amount.to_string());
        });
        // Then the signature is not over what is said: only the facilitator can tell, and is asked.
        *shop.facilitator.invalid.lock().unwrap() = Some("invalid_exact_evm_payload_signature");
        assert_eq!(code(&shop.get_paid(path, &claims).await), "payment_invalid", "{path}");
        *shop.facilitator.invalid.lock().unwrap() = None;
    }
    // More than the price is not the price either: receipt and price would differ.
    assert_eq!(code(&shop.get_paid("/services/cheap/x", &pay_v2(&high)).await), "no_matching_requirement");
    assert_eq!((shop.upstream.heads(), shop.facilitator.begun()), (0, 0));
}

#[tokio::test]
async fn a_payment_that_names_its_resource_is_good_for_that_offer_only() {
    let (shop, low, _) = street().await;
    let named = bent(&low, |payment| payment["resource"] = json!({ "url": shop.url("/services/cheap/x") }));
    for path in ["/services/twin/x", "/services/dear/x"] {
        let got = shop.get_paid(path, &named).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{path}");
    }
    assert_eq!(code(&shop.get_paid("/services/twin/x", &named).await), "other_resource");
    for url in [
        "http://[::1",
        "javascript:alert(1)",
        "/services/twin",
        "https://a/services/cheap/%2e%2e/dear",
        "https://a/services/twin%2f..%2fcheap",
    ] {
        let named = bent(&low, |payment| payment["resource"] = json!({ "url": url }));
        assert_eq!(code(&shop.get_paid("/services/twin/x", &named).await), "other_resource", "{url}");
    }
    assert_eq!((shop.upstream.heads(), shop.facilitator.begun()), (0, 0));
    assert_eq!(shop.get_paid("/services/cheap/x", &named).await.status, StatusCode::OK);
}

#[tokio::test]
async fn two_offers_with_the_same_terms_share_no_payment() {
    let (shop, low, _) = street().await;
    let payment = pay_v2(&low);
    let (one, two) = join(shop.get_paid("/services/cheap/slow", &payment), shop.get_paid("/services/twin/slow", &payment)).await;
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!((statuses, shop.upstream.heads(), shop.facilitator.settles()), ([200, 409], 1, 1));
    for path in ["/services/cheap/y", "/services/twin/y", "/services/cheap/slow?more", "/services/twin/slow?"] {
        let got = shop.get_paid(path, &payment).await;
        assert_eq!(got.status, StatusCode::CONFLICT, "{path}");
    }
    let posted = shop.send(shop.request("POST", "/services/cheap/slow").header("payment-signature", &payment), "").await;
    assert_eq!((posted.status, code(&posted).as_str()), (StatusCode::CONFLICT, "payment_for_other_request"));
    assert_eq!((shop.upstream.heads(), shop.facilitator.settles()), (1, 1));
}
