//! What the API server is told of the rules, by the code of the check in [`crate::rules`].
//!
//! Three things only the controller can tell, in the offer's status: the checksum of an address
//! (EIP-55 needs Keccak), whether a host in brackets is an IPv6 address and whether an
//! internationalised host name decodes.

use super::{bounds::MAX_DECIMALS, older::OLDER};
use crate::{
    RESERVED_PATHS, networks,
    rules::model::{KEYS, MAX_PROMPT_BYTES, MAX_TOKENS},
    rules::shape::{
        ADDRESS, CANONICAL, CREDENTIAL, DURATION, HOSTNAME, MODEL_NAME, NAME, ONE_LINE, PATH, PRICE, PRIVATE_URL, ROUTE, Shape, TIME, URL,
    },
};

/// One rule of one object.
pub(super) struct Rule {
    /// The check that refuses the same.
    #[cfg_attr(not(test), allow(dead_code))]
    pub code: &'static str,
    /// The type that it is about.
    pub of: &'static str,
    /// Its field; with `[]` each entry of it; the whole object when absent.
    pub field: Option<&'static str>,
    /// The rule in the Common Expression Language.
    pub cel: String,
    /// What is told when it is broken.
    pub message: String,
}

/// The rule on the name, which is no part of the spec.
pub(super) fn name_rule() -> Rule {
    let cel = format!("self.metadata.name.size() <= {} && self.metadata.name.matches({})", crate::OfferName::MAX, text(NAME.pattern));
    rule("name", "ServiceOffer", None, cel, "a name has at most 53 of a-z, 0-9 and `-`, and starts and ends with a letter or digit")
}

pub(super) fn rules() -> Vec<Rule> {
    let mut all = vec![
        rule("upstream_missing", "UpstreamSpec", None, "has(self.url) || has(self.host) || has(self.service)", "no upstream is given"),
        rule(
            "upstream_ambiguous",
            "UpstreamSpec",
            None,
            "[has(self.url), has(self.host), has(self.service)].filter(given, given).size() <= 1",
            "more than one upstream is given; keep one of url, host, service",
        ),
        rule(
            "upstream_ambiguous",
            "UpstreamSpec",
            None,
            "has(self.service) || (!has(self.__namespace__) && !has(self.port))",
            "`namespace` and `port` belong to `service`",
        ),
        rule("upstream_port", "UpstreamSpec", None, "!has(self.service) || has(self.port)", "a service needs its port"),
        rule("upstream_port", "UpstreamSpec", Some("port"), "self > 0", "port 0 is no port"),
        rule("upstream_port", "HostUpstream", Some("port"), "self > 0", "port 0 is no port"),
        shape(
            "upstream_url",
            "UpstreamSpec",
            "url",
            &URL,
            "write an absolute URL such as http://10.0.0.7:9000, without user, query or fragment",
        ),
        shape("upstream_service", "UpstreamSpec", "service", &HOSTNAME, "write a Kubernetes name"),
        shape("upstream_service", "UpstreamSpec", "namespace", &HOSTNAME, "write a Kubernetes name"),
        canonical("health_path", "UpstreamSpec", "healthPath", &CANONICAL, "write a path such as /health"),
        rule("network_unknown", "PaymentSpec", Some("network"), format!("self in {}", network_words(|_| true)), "is no known network"),
        shape("pay_to", "PaymentSpec", "payTo", &ADDRESS, "write 0x and 40 hex digits"),
        rule("pay_to", "PaymentSpec", Some("payTo"), "!self.matches('^0x0*$')", "the zero address burns every payment"),
        rule("max_timeout", "PaymentSpec", Some("maxTimeoutSeconds"), "10 <= self && self <= 86400", "write 10 to 86400"),
        rule(
            "scheme_upto",
            "PaymentSpec",
            None,
            format!("!has(self.scheme) || self.scheme != 'upto' || {}", metered("self")),
            "`upto` is for a price per token or unit; write perMTok or perUnit, or `scheme: exact`",
        ),
        rule(
            "price_unsupported",
            "PriceSpec",
            None,
            "!has(self.perHour) && !has(self.perEpoch)",
            "offers cannot be sold by time; write perRequest, perMTok or perUnit",
        ),
        rule(
            "price_missing",
            "PriceSpec",
            None,
            "has(self.perRequest) || has(self.perMTok) || has(self.perUnit)",
            "no price is given; write a quoted decimal such as \"0.001\"",
        ),
        rule(
            "price_ambiguous",
            "PriceSpec",
            None,
            "[has(self.perRequest), has(self.perMTok), has(self.perUnit)].filter(given, given).size() <= 1",
            "more than one price is given; keep one of perRequest, perMTok, perUnit",
        ),
        rule(
            "price_incomplete",
            "PriceSpec",
            None,
            "(has(self.perMTok) || !has(self.perMTokOutput)) && (has(self.perUnit) || (!has(self.unit) && !has(self.maxUnits)))",
            "perMTokOutput belongs to perMTok; unit and maxUnits belong to perUnit",
        ),
        rule(
            "price_incomplete",
            "PriceSpec",
            None,
            "!has(self.perUnit) || (has(self.maxUnits) && self.maxUnits > 0)",
            "a price per unit needs its maximum, 1 or more",
        ),
        rule(
            "price_unit",
            "PriceSpec",
            Some("unit"),
            "self.matches('^[\\\\p{L}\\\\p{M}\\\\p{N}-]+$')",
            "write one word of letters, e.g. page",
        ),
        rule(
            "price_per_token",
            "OfferSpec",
            None,
            "has(self.model) || (!(has(self.payment) && has(self.payment.price.perMTok)) && \
             !(has(self.payments) && self.payments.exists(p, has(p.price.perMTok))))",
            "only a model is sold by tokens; add `model:` with its name, or use perUnit",
        ),
        rule(
            "model_missing",
            "OfferSpec",
            None,
            "has(self.model) || self.type != 'inference'",
            "an inference offer sells one model; name it in `model:`",
        ),
        rule("model_kind", "OfferSpec", None, "!has(self.model) || self.type == 'inference'", "an http offer sells no model"),
        shape("model_name", "ModelSpec", "name", &MODEL_NAME, "write it as the model server lists it"),
        shape("model_name", "ModelSpec", "upstreamName", &MODEL_NAME, "write it as the model server lists it"),
        rule(
            "model_bound",
            "ModelSpec",
            Some("maxTokens"),
            format!("1 <= self && self <= {MAX_TOKENS}"),
            format!("write 1 to {MAX_TOKENS}"),
        ),
        rule(
            "model_bound",
            "ModelSpec",
            Some("maxPromptBytes"),
            format!("1 <= self && self <= {MAX_PROMPT_BYTES}"),
            format!("write 1 to {MAX_PROMPT_BYTES}"),
        ),
        rule("limit_zero", "ModelSpec", Some("concurrency"), "self > 0", "0 lets nobody in"),
        rule("model_timeout", "ModelSpec", Some("firstTokenTimeout"), wait(), "write e.g. 90s or 2m"),
        rule("model_timeout", "ModelSpec", Some("tokenTimeout"), wait(), "write e.g. 90s or 2m"),
        rule(
            "model_credential",
            "ModelSpec",
            Some("credential"),
            format!("self.matches({}) && !{KEYS:?}.exists(key, self.startsWith(key))", text(CREDENTIAL.pattern)),
            "write `ref+file://` and the path of a file that holds the key, or the name of an environment variable or Secret key",
        ),
        shape("asset_address", "AssetSpec", "address", &ADDRESS, "write 0x and 40 hex digits"),
        rule("asset", "AssetSpec", Some("symbol"), "self != ''", "symbol is needed; copy it from the token contract"),
        rule("asset", "AssetSpec", Some("eip712Name"), "self != ''", "eip712Name is needed; copy it from the token contract"),
        rule("asset", "AssetSpec", Some("eip712Version"), "self != ''", "eip712Version is needed; copy it from the token contract"),
        rule(
            "asset",
            "AssetSpec",
            Some("decimals"),
            format!("self <= {MAX_DECIMALS}"),
            format!("an asset has at most {MAX_DECIMALS} decimals"),
        ),
        rule(
            "payment_missing",
            "OfferSpec",
            None,
            "has(self.payment) || (has(self.payments) && self.payments.size() > 0)",
            "no payment is asked for; write network, payTo and price.perRequest",
        ),
        rule(
            "payments_differ",
            "OfferSpec",
            None,
            "!has(self.payment) || !has(self.payments) || self.payments.size() == 0 || dyn(self.payment) == dyn(self.payments[0])",
            "payments[0] differs from payment; keep only payments, or make both equal",
        ),
        rule(
            "payment_twice",
            "OfferSpec",
            Some("payments"),
            format!("self.all(p, self.exists_one(q, {} == {} && {}))", token("p"), token("q"), same_way("p", "q")),
            "the same token on the same network is listed twice",
        ),
        rule(
            "sandbox_mixed",
            "OfferSpec",
            Some("payments"),
            format!("self.all(p, p.network in {0}) || !self.exists(p, p.network in {0})", network_words(crate::Network::is_sandbox)),
            "play money and real networks are mixed",
        ),
        shape(
            "facilitator_url",
            "OfferSpec",
            "facilitators[]",
            &PRIVATE_URL,
            "write https://…; plain http is allowed for loopback and for Services (http://NAME.NAMESPACE.svc)",
        ),
        shape("hostname", "OfferSpec", "hostname", &HOSTNAME, "write a lower-case host name without port"),
        canonical("path", "OfferSpec", "path", &PATH, "write a path such as /services/weather, in its one spelling without escapes"),
        rule(
            "path_reserved",
            "OfferSpec",
            Some("path"),
            format!("self != '/services' && !{RESERVED_PATHS:?}.exists(root, self == root || self.startsWith(root + '/'))"),
            "this path belongs to the stack itself",
        ),
        rule(
            "path_reserved",
            "OfferSpec",
            None,
            "!has(self.path) || self.path != '/' || has(self.hostname)",
            "`/` belongs to the stack itself, unless the offer has a hostname",
        ),
        rule("route_twice", "OfferSpec", Some("routes"), "self.all(r, self.exists_one(s, r.path == s.path))", "a route is listed twice"),
        canonical("route_path", "RouteSpec", "path", &ROUTE, "write `/path` or `/path/*`"),
        rule("route_price", "RouteSpec", None, "!has(self.price) || self.gate != 'free'", "a free route has no price"),
        rule(
            "route_price",
            "OfferSpec",
            None,
            "!has(self.routes) || !has(self.payments) || self.payments.size() <= 1 || !self.routes.exists(r, has(r.price))",
            "a route's own price needs an offer with one payment",
        ),
        shape("price", "RouteSpec", "price", &PRICE, "is no decimal number such as 0.001"),
        rule("price", "RouteSpec", Some("price"), "self.matches('[1-9]')", "a price must be above zero"),
        rule(
            "price",
            "OfferSpec",
            None,
            format!("!has(self.routes) || self.routes.all(r, !has(r.price) || {})", fits("r.price", OFFER_DECIMALS)),
            "a route's price has more decimals than the asset",
        ),
        rule("limit_zero", "LimitsSpec", Some("maxInFlight"), "self > 0", "0 lets nobody in"),
        rule("limit_zero", "LimitsSpec", Some("rps"), "self > 0", "0 lets nobody in"),
        rule(
            "drain_at",
            "OfferSpec",
            Some("drainAt"),
            format!("self.matches({}) && timestamp(self) == timestamp(self)", text(TIME.pattern)),
            "write RFC 3339, e.g. 2026-11-23T12:00:00Z",
        ),
        rule(
            "drain_grace_period",
            "OfferSpec",
            Some("drainGracePeriod"),
            format!("self.matches({}) && duration(self) <= duration('720h')", text(DURATION.pattern)),
            "write a duration of at most 30 days, e.g. 1h, 90s or 0s",
        ),
    ];
    for field in ["perRequest", "perMTok", "perMTokOutput", "perUnit"] {
        all.push(shape("price", "PriceSpec", field, &PRICE, "is no decimal number such as 0.001"));
        all.push(rule("price", "PriceSpec", Some(field), "self.matches('[1-9]')", "a price must be above zero"));
        let price = format!("self.price.{field}");
        let fits = fits(&price, "(has(self.asset) ? self.asset.decimals : 6)");
        all.push(rule("price", "PaymentSpec", None, format!("!has({price}) || {fits}"), "the price has more decimals than the asset"));
    }
    for field in ["name", "description", "mimeType"] {
        all.push(shape("registration_text", "RegistrationSpec", field, &ONE_LINE, "write one plain line"));
    }
    for older in OLDER {
        if let Some(refusal) = &older.refusal {
            all.push(rule("older_field", older.of, Some(older.field), refusal.cel, refusal.message));
        }
    }
    all
}

/// Decimals of the one asset that an offer with priced routes has.
const OFFER_DECIMALS: &str = "(has(self.payments) && self.payments.size() > 0 \
     ? (has(self.payments[0].asset) ? self.payments[0].asset.decimals : 6) \
     : (has(self.payment) && has(self.payment.asset) ? self.payment.asset.decimals : 6))";

fn rule(code: &'static str, of: &'static str, field: Option<&'static str>, cel: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule { code, of, field, cel: cel.into(), message: message.into() }
}

fn shape(code: &'static str, of: &'static str, field: &'static str, shape: &Shape, message: &str) -> Rule {
    rule(code, of, Some(field), format!("self.matches({})", text(shape.pattern)), message)
}

/// A path of a shape without `.` and `..` segments, for which RE2 has no words.
fn canonical(code: &'static str, of: &'static str, field: &'static str, shape: &Shape, message: &str) -> Rule {
    let cel = format!("self.matches({}) && !(self + '/').contains('/./') && !(self + '/').contains('/../')", text(shape.pattern));
    rule(code, of, Some(field), cel, message)
}

/// Whether a price has at most so many decimals, zeros at the end not counted.
fn fits(price: &str, decimals: &str) -> String {
    format!("{price}.find('[.][0-9]*[1-9]').size() <= {decimals} + 1")
}

/// A duration above zero.
fn wait() -> String {
    format!("self.matches({}) && duration(self) > duration('0s') && duration(self) <= duration('720h')", text(DURATION.pattern))
}

/// A list of every spelling of some networks.
fn network_words(which: impl Fn(&crate::Network) -> bool) -> String {
    let words = networks().iter().filter(|n| which(n)).flat_map(spellings);
    format!("[{}]", words.map(|word| text(&word)).collect::<Vec<_>>().join(", "))
}

fn spellings(network: &'static crate::Network) -> Vec<String> {
    let mut words: Vec<String> = network.aliases.iter().map(|alias| (*alias).to_owned()).collect();
    words.extend([network.name.to_owned(), network.caip2()]);
    words
}

/// Whether a payment's amount depends on what is used.
fn metered(payment: &str) -> String {
    format!("(has({payment}.price.perMTok) || has({payment}.price.perUnit))")
}

/// Whether two payments offer the same scheme, moved by the same means. A metered price without a scheme
/// offers both.
fn same_way(p: &str, q: &str) -> String {
    let upto = |p: &str| format!("(has({p}.scheme) ? {p}.scheme == 'upto' : {})", metered(p));
    let exact = |p: &str| format!("(!has({p}.scheme) || {p}.scheme == 'exact')");
    let permit2 = |p: &str| format!("(has({p}.asset) && has({p}.asset.transferMethod) && {p}.asset.transferMethod == 'permit2')");
    format!("(({} && {}) || ({} && {} && {} == {}))", upto(p), upto(q), exact(p), exact(q), permit2(p), permit2(q))
}

/// Chain and contract of a payment's token as one text.
fn token(payment: &str) -> String {
    let map = |of: &dyn Fn(&crate::Network) -> String| {
        let entries = networks().iter().flat_map(|n| spellings(n).into_iter().map(|word| format!("{}: {}", text(&word), text(&of(n)))));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
    };
    let chain = map(&|n| n.chain_id.to_string());
    let usdc = map(&|n| n.default_asset().address.to_string().to_lowercase());
    format!("({chain}[{payment}.network] + (has({payment}.asset) ? {payment}.asset.address.lowerAscii() : {usdc}[{payment}.network]))")
}

/// A string literal.
fn text(of: &str) -> String {
    format!("\"{}\"", of.replace('\\', "\\\\").replace('"', "\\\""))
}
