//! Which headers cross the gateway, and which it speaks itself.

use std::{fmt::Write as _, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Request id, both ways.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Who paid, told to the upstream.
pub(crate) const PAYER: HeaderName = HeaderName::from_static("x-obol-payer");
/// Which payment, told to the upstream: `eip155:<chain>/<contract>/<payer>/<nonce>`.
pub(crate) const PAYMENT: HeaderName = HeaderName::from_static("x-obol-payment");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
];
/// x402's own, and those that only its servers and facilitators exchange.
const PAYMENT_PREFIXES: [&str; 3] = ["payment-", "x-payment", "x-obol-"];
const PAYMENT_NAMES: [&str; 2] = ["settlement-overrides", "extension-responses"];
/// Claims about the connection that only the last proxy can make.
const FORWARDED_NAMES: [&str; 4] = ["forwarded", "x-real-ip", "via", "x-original-url"];

/// Payment headers in any spelling: many servers read `_` as `-` (CGI), so a buyer could
/// otherwise name a payer of their own.
fn is_payment_header(name: &str) -> bool {
    PAYMENT_PREFIXES.iter().any(|p| name.starts_with(p)) || PAYMENT_NAMES.contains(&name)
}

fn dashed<T>(name: &HeaderName, test: impl Fn(&str) -> T) -> T {
    let name = name.as_str();
    if name.contains('_') { test(&name.replace('_', "-")) } else { test(name) }
}

/// Not to be passed on to an upstream.
pub(crate) fn is_private_request_header(name: &HeaderName) -> bool {
    dashed(name, |name| {
        is_payment_header(name)
            || HOP_BY_HOP.contains(&name)
            || FORWARDED_NAMES.contains(&name)
            || name.starts_with("x-forwarded-")
            || matches!(name, "host" | "content-length" | "x-request-id" | "x-rewrite-url" | "access-control-expose-headers")
    })
}

/// Not to be passed on to a buyer.
pub(crate) fn is_private_response_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    is_payment_header(name) || HOP_BY_HOP.contains(&name) || name == "x-request-id"
}

pub(crate) fn remove_if(headers: &mut HeaderMap, test: impl Fn(&HeaderName) -> bool) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| test(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Names listed in `Connection` (RFC 9110 §7.6.1).
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(header::CONNECTION).into_iter().filter_map(|v| v.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// What the upstream is told about the connection.
#[derive(Debug)]
pub(crate) struct Forwarded<'a> {
    pub peer: IpAddr,
    pub proto: &'static str,
    pub host: &'a str,
    pub prefix: &'a str,
    pub request_id: &'a HeaderValue,
}

/// Turns a buyer's headers into those for the upstream. `Host` and framing are left to the client.
pub(crate) fn to_upstream(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) {
    let wants_trailers = headers.get_all(header::TE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let chain = forwarded_for(headers, forwarded.peer);
    for name in nominated(headers) {
        headers.remove(name);
    }
    remove_if(headers, is_private_request_header);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.reserve(8);
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(forwarded.proto));
    for (name, value) in [(FORWARDED_HOST, forwarded.host), (FORWARDED_PREFIX, forwarded.prefix)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(REQUEST_ID, forwarded.request_id.clone());
}

fn forwarded_for(headers: &HeaderMap, peer: IpAddr) -> String {
    let mut chain = String::new();
    for hop in headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()) {
        // A client can claim anything; what it cannot do is grow the header without bound.
        if chain.len() + hop.len() < 1024 {
            chain.push_str(hop);
            chain.push_str(", ");
        }
    }
    // Writing to a string cannot fail.
    let _ = write!(chain, "{peer}");
    chain
}

/// Removes from an upstream's answer what is not meant for buyers.
pub(crate) fn to_buyer(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    remove_if(headers, is_private_response_header);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn forwarded(id: &HeaderValue) -> Forwarded<'_> {
        Forwarded { peer: [10, 0, 0, 1].into(), proto: "https", host: "shop.example", prefix: "/services/a", request_id: id }
    }

    #[test]
    fn upstreams_see_only_end_to_end_headers() {
        let mut headers = map(&[
            ("accept", "a"),
            ("authorization", "Bearer x"),
            ("cookie", "c=1"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("proxy-authorization", "p"),
            ("payment-signature", "s"),
            ("x-payment", "s"),
            ("x-payment-extra", "s"),
            ("settlement-overrides", "{}"),
            ("extension-responses", "e"),
            ("x-obol-payer", "0xevil"),
            ("x_obol_payer", "0xevil"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x_forwarded_proto", "https"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=evil"),
            ("x-real-ip", "6.6.6.6"),
            ("expect", "100-continue"),
            ("host", "shop.example"),
        ]);
        let id = HeaderValue::from_static("r1");
        to_upstream(&mut headers, &forwarded(&id));
        let mut left: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: a",
                "authorization: Bearer x",
                "cookie: c=1",
                "te: trailers",
                "x-forwarded-for: 1.2.3.4, 10.0.0.1",
                "x-forwarded-host: shop.example",
                "x-forwarded-prefix: /services/a",
                "x-forwarded-proto: https",
                "x-request-id: r1",
            ]
        );
    }

    #[test]
    fn buyers_do_not_see_the_upstreams_payment_headers() {
        let mut headers = map(&[
            ("content-type", "text/plain"),
            ("payment-required", "forged"),
            ("payment-response", "forged"),
            ("x-payment-response", "forged"),
            ("settlement-overrides", "{}"),
            ("connection", "x-internal"),
            ("x-internal", "1"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
        ]);
        to_buyer(&mut headers);
        assert_eq!(headers, map(&[("content-type", "text/plain"), ("trailer", "x-sum")]));
    }
}
