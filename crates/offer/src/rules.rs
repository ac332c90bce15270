//! The rules of an offer, each written once: from [`OfferSpec`] to [`Offer`], or what is wrong.

use std::{collections::HashMap, fmt, time::Duration};

use alloy_primitives::Address;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::Url;

use crate::{
    Amount, Asset, AssetSpec, CanonicalPath, Gate, Hostname, LimitsSpec, Network, OfferKind, OfferName, OfferSpec, PaymentSpec, Price,
    RegistrationSpec, RouteSpec, UpstreamSpec,
};

/// Validity of a buyer's signature when the offer says nothing, in seconds.
pub const DEFAULT_MAX_TIMEOUT_SECONDS: u32 = 300;
const DEFAULT_DRAIN: Duration = Duration::from_secs(3600);

/// Path roots that belong to the stack itself; nothing below them can be sold.
pub const RESERVED_PATHS: [&str; 5] = ["/api", "/openapi.json", "/skill.md", "/rpc", "/.well-known"];

/// A rule that an offer breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Stable identifier of the rule, e.g. `path_reserved`.
    pub code: &'static str,
    /// The field by its path in the file, e.g. `spec.payment.payTo`.
    pub field: String,
    /// What is wrong, as a sentence.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}); {}", self.field, self.message, self.code, self.fix)
    }
}

/// A valid offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Unique over all offers of the stack.
    pub name: OfferName,
    /// What is sold.
    pub kind: OfferKind,
    /// Where paid requests go.
    pub upstream: Upstream,
    /// Path of the health probe at the upstream, canonical.
    pub health_path: CanonicalPath,
    /// Accepted payments, at least one; each buys the same answer.
    pub payments: Vec<Terms>,
    /// Facilitator base URLs in order of preference; empty means the stack's own list.
    pub facilitators: Vec<Url>,
    /// Public path prefix, canonical, without trailing slash (`/` itself excepted).
    pub path: CanonicalPath,
    /// Host the offer answers on; any when absent.
    pub hostname: Option<Hostname>,
    /// Exceptions below `path`.
    pub routes: Vec<Route>,
    /// Bounds on use.
    pub limits: LimitsSpec,
    /// What buyers are told.
    pub registration: RegistrationSpec,
    /// When serving ends, for an offer that is being stopped.
    pub drain_until: Option<OffsetDateTime>,
}

/// Where paid requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// An absolute `http` or `https` URL without query or fragment.
    Url(Url),
    /// A port of the stack's own machine.
    Host {
        /// TCP port.
        port: u16,
    },
    /// A Kubernetes Service.
    Service {
        /// Service name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Its port.
        port: u16,
    },
}

/// One accepted payment, fully resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The chain.
    pub network: &'static Network,
    /// The token.
    pub asset: Asset,
    /// Who is paid.
    pub pay_to: Address,
    /// How much, in atomic units of `asset`.
    pub amount: Amount,
    /// How long a buyer's signature stays valid, in seconds.
    pub max_timeout_seconds: u32,
}

/// An exception below the offer's path, with its full public path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Full public path, canonical, without trailing slash.
    pub path: CanonicalPath,
    /// Whether everything below `path` is meant too.
    pub subtree: bool,
    /// What this route costs; empty when it is free.
    pub payments: Vec<Terms>,
}

impl Offer {
    /// Checks every rule of a single offer.
    ///
    /// # Errors
    /// All broken rules, not only the first, in the order of the fields.
    pub fn validate(name: &OfferName, spec: &OfferSpec) -> Result<Self, Vec<Violation>> {
        let mut check = Checker::default();
        let upstream = check.upstream(&spec.upstream);
        let health_path = check.health_path(spec.upstream.health_path.as_deref());
        let payments = check.payments(spec);
        let facilitators = check.facilitators(&spec.facilitators);
        let hostname = check.hostname(spec.hostname.as_deref());
        let path = check.path(name, spec.path.as_deref(), hostname.is_some());
        let routes = check.routes(&spec.routes, &path, &payments);
        let drain_until = check.drain(spec);
        check.limits(spec.limits.as_ref());
        check.registration(spec.registration.as_ref());
        match (upstream, check.violations) {
            (Some(upstream), violations) if violations.is_empty() => Ok(Self {
                name: name.clone(),
                kind: spec.kind,
                upstream,
                health_path,
                payments,
                facilitators,
                path,
                hostname,
                routes,
                limits: spec.limits.clone().unwrap_or_default(),
                registration: spec.registration.clone().unwrap_or_default(),
                drain_until,
            }),
            (_, violations) => Err(violations),
        }
    }

    /// Where the offer is found: its host, if it has one, and its path.
    pub fn endpoint(&self) -> String {
        format!("{}{}", self.hostname.as_ref().map_or("", Hostname::as_str), self.path)
    }

    /// Whether buyers may be told of the offer.
    pub fn is_listed(&self) -> bool {
        self.registration.enabled.unwrap_or(true)
    }

    /// Whether serving has ended at `now`.
    pub fn is_drained(&self, now: OffsetDateTime) -> bool {
        self.drain_until.is_some_and(|end| end <= now)
    }
}

/// Names and public places held twice. For each loser its index in `offers` and the rule; the
/// earlier offer keeps the name or place.
pub fn find_collisions(offers: &[&Offer]) -> Vec<(usize, Violation)> {
    let (mut names, mut places) = (HashMap::new(), HashMap::new());
    let mut losers = Vec::new();
    for (index, offer) in offers.iter().enumerate() {
        let holder = *names.entry(&offer.name).or_insert(*offer);
        if !std::ptr::eq(holder, *offer) {
            let message = format!("`{}` is already sold as {}", offer.name, holder.kind.as_str());
            losers.push((index, violation("name_taken", "name", message, "choose another name")));
            continue;
        }
        let holder = *places.entry((&offer.hostname, offer.path.as_str())).or_insert(*offer);
        if !std::ptr::eq(holder, *offer) {
            let message = format!("`{}` is already served by offer `{}`", offer.endpoint(), holder.name);
            losers.push((index, violation("path_taken", "spec.path", message, "choose another --path or --hostname")));
        }
    }
    losers
}

fn violation(code: &'static str, field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Violation {
    Violation { code, field: field.into(), message: message.into(), fix: fix.into() }
}

#[derive(Default)]
struct Checker {
    violations: Vec<Violation>,
}

impl Checker {
    fn refuse(&mut self, code: &'static str, field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.violations.push(violation(code, field, message, fix));
    }

    fn upstream(&mut self, spec: &UpstreamSpec) -> Option<Upstream> {
        let stray = spec.service.is_none() && (spec.namespace.is_some() || spec.port.is_some());
        match (&spec.url, &spec.host, &spec.service) {
            _ if stray => {
                self.refuse(
                    "upstream_ambiguous",
                    "spec.upstream",
                    "`namespace` and `port` belong to `service`",
                    "remove them, or name a service",
                );
                None
            }
            (Some(url), None, None) => self.upstream_url(url),
            (None, Some(host), None) if host.port > 0 => Some(Upstream::Host { port: host.port }),
            (None, Some(_), None) => {
                self.refuse("upstream_port", "spec.upstream.host.port", "port 0 is no port", "write a port from 1 to 65535");
                None
            }
            (None, None, Some(service)) => self.upstream_service(service, spec),
            (None, None, None) => {
                self.refuse(
                    "upstream_missing",
                    "spec.upstream",
                    "no upstream is given",
                    "write `url: http://127.0.0.1:9000`, or pass --upstream",
                );
                None
            }
            _ => {
                self.refuse("upstream_ambiguous", "spec.upstream", "more than one upstream is given", "keep one of url, host, service");
                None
            }
        }
    }

    fn upstream_url(&mut self, text: &str) -> Option<Upstream> {
        let field = "spec.upstream.url";
        let fix = "write an absolute URL such as http://127.0.0.1:9000";
        let url = match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => url,
            Ok(_) => {
                self.refuse("upstream_url", field, format!("`{text}` is no http or https URL"), fix);
                return None;
            }
            Err(error) => {
                self.refuse("upstream_url", field, format!("`{text}` is no URL: {error}"), fix);
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.refuse("upstream_credentials", field, "the URL carries a password", "slices hold no secrets; remove `user:password@`");
        } else if url.query().is_some() || url.fragment().is_some() {
            self.refuse("upstream_url", field, "the URL has a query or fragment", "a buyer's own query is forwarded; give only the base");
        } else if url.port() == Some(0) {
            self.refuse("upstream_port", field, "port 0 is no port", "write a port from 1 to 65535");
        } else {
            return Some(Upstream::Url(url));
        }
        None
    }

    fn upstream_service(&mut self, service: &str, spec: &UpstreamSpec) -> Option<Upstream> {
        let namespace = spec.namespace.as_deref().unwrap_or("default");
        for (field, text) in [("service", service), ("namespace", namespace)] {
            if let Err(error) = text.parse::<Hostname>() {
                self.refuse("upstream_service", format!("spec.upstream.{field}"), format!("`{text}`: {error}"), "write a Kubernetes name");
            }
        }
        match spec.port {
            Some(port) if port > 0 => Some(Upstream::Service { name: service.to_owned(), namespace: namespace.to_owned(), port }),
            _ => {
                self.refuse("upstream_port", "spec.upstream.port", "a service needs its port", "write a port from 1 to 65535");
                None
            }
        }
    }

    fn health_path(&mut self, text: Option<&str>) -> CanonicalPath {
        let text = text.unwrap_or("/health");
        CanonicalPath::parse(text).unwrap_or_else(|error| {
            self.refuse("health_path", "spec.upstream.healthPath", format!("`{text}`: {error}"), "write a path such as /health");
            CanonicalPath::root()
        })
    }

    fn payments(&mut self, spec: &OfferSpec) -> Vec<Terms> {
        let (list, list_name) = match (&spec.payment, spec.payments.first()) {
            (None, None) => {
                self.refuse("payment_missing", "spec.payment", "no payment is asked for", "write network, payTo and price.perRequest");
                return Vec::new();
            }
            (Some(one), None) => (std::slice::from_ref(one), None),
            (Some(one), Some(first)) if one != first => {
                self.refuse(
                    "payments_differ",
                    "spec.payments[0]",
                    "differs from `spec.payment`",
                    "keep only `payments`, or make both equal",
                );
                return Vec::new();
            }
            (_, Some(_)) => (spec.payments.as_slice(), Some("spec.payments")),
        };
        let mut terms: Vec<Terms> = Vec::new();
        for (index, payment) in list.iter().enumerate() {
            let field = list_name.map_or_else(|| "spec.payment".to_owned(), |list| format!("{list}[{index}]"));
            let Some(next) = self.payment(&field, payment) else { continue };
            if terms.iter().any(|t| t.network == next.network && t.asset.address == next.asset.address) {
                self.refuse("payment_twice", field, "the same token on the same network is listed twice", "remove one of them");
            } else if terms.first().is_some_and(|t| t.network.is_sandbox() != next.network.is_sandbox()) {
                self.refuse("sandbox_mixed", field, "play money and real networks are mixed", "keep only one kind of network");
            } else {
                terms.push(next);
            }
        }
        terms
    }

    fn payment(&mut self, field: &str, spec: &PaymentSpec) -> Option<Terms> {
        let before = self.violations.len();
        let network = Network::find(&spec.network);
        if network.is_none() {
            let known: Vec<_> = crate::networks().iter().map(|n| n.name).collect();
            let message =
                if spec.network.is_empty() { "no network is given".to_owned() } else { format!("`{}` is no known network", spec.network) };
            self.refuse("network_unknown", format!("{field}.network"), message, format!("use one of {}", known.join(", ")));
        }
        let pay_to = self.address(&format!("{field}.payTo"), &spec.pay_to, "pay_to");
        if pay_to == Some(Address::ZERO) {
            self.refuse("pay_to", format!("{field}.payTo"), "the zero address burns every payment", "write your own address");
        }
        let timeout = spec.max_timeout_seconds.unwrap_or(DEFAULT_MAX_TIMEOUT_SECONDS);
        if !(10..=86_400).contains(&timeout) {
            self.refuse("max_timeout", format!("{field}.maxTimeoutSeconds"), format!("{timeout} is out of bounds"), "write 10 to 86400");
        }
        let asset = match (&spec.asset, network) {
            (Some(asset), _) => self.asset(&format!("{field}.asset"), asset),
            (None, Some(network)) => Some(network.default_asset()),
            (None, None) => None,
        };
        let price_field = format!("{field}.price.perRequest");
        let amount = match &spec.price.per_request {
            Some(price) => asset.as_ref().and_then(|asset| self.amount(&price_field, price, asset)),
            None => {
                self.refuse("price_missing", price_field, "no price is given", "write a quoted decimal such as \"0.001\", or pass --price");
                None
            }
        };
        if self.violations.len() > before {
            return None;
        }
        Some(Terms { network: network?, asset: asset?, pay_to: pay_to?, amount: amount?, max_timeout_seconds: timeout })
    }

    fn address(&mut self, field: &str, text: &str, code: &'static str) -> Option<Address> {
        let hex = text.strip_prefix("0x").filter(|hex| hex.len() == 40 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = hex else {
            let message = if text.is_empty() { "no address is given".to_owned() } else { format!("`{text}` is no address") };
            self.refuse(code, field, message, "write 0x and 40 hex digits");
            return None;
        };
        let address: Address = text.parse().ok()?;
        // EIP-55: mixed capitals are a checksum; a wrong one means a mistyped address, and money lost.
        let mixed = hex.bytes().any(|b| b.is_ascii_uppercase()) && hex.bytes().any(|b| b.is_ascii_lowercase());
        if mixed && address.to_checksum(None) != text {
            self.refuse(
                code,
                field,
                format!("the checksum of `{text}` is wrong (EIP-55)"),
                "copy the address again; one letter is mistyped",
            );
            return None;
        }
        Some(address)
    }

    fn asset(&mut self, field: &str, spec: &AssetSpec) -> Option<Asset> {
        let address = self.address(&format!("{field}.address"), &spec.address, "asset_address")?;
        if spec.symbol.is_empty() || spec.symbol.len() > 16 || spec.eip712_name.is_empty() || spec.eip712_version.is_empty() {
            self.refuse("asset", field, "symbol, eip712Name and eip712Version are needed", "copy them from the token contract");
            return None;
        }
        if spec.transfer_method == crate::TransferMethod::Permit2 {
            self.refuse(
                "asset_permit2",
                format!("{field}.transferMethod"),
                "permit2 assets cannot be sold yet",
                "use an eip3009 token such as USDC",
            );
            return None;
        }
        Some(Asset {
            address,
            symbol: spec.symbol.clone(),
            decimals: spec.decimals,
            domain_name: spec.eip712_name.clone(),
            domain_version: spec.eip712_version.clone(),
            transfer_method: spec.transfer_method,
        })
    }

    fn amount(&mut self, field: &str, price: &str, asset: &Asset) -> Option<Amount> {
        match price.parse::<Price>().and_then(|price| price.to_amount(asset.decimals)) {
            Ok(amount) => Some(amount),
            Err(error) => {
                self.refuse(
                    "price",
                    field,
                    error.to_string(),
                    format!("write a decimal above zero with at most {} decimals", asset.decimals),
                );
                None
            }
        }
    }

    fn facilitators(&mut self, list: &[String]) -> Vec<Url> {
        let mut urls = Vec::new();
        for (index, text) in list.iter().enumerate() {
            match Url::parse(text) {
                Ok(url) if is_private_channel(&url) => urls.push(url),
                _ => self.refuse(
                    "facilitator_url",
                    format!("spec.facilitators[{index}]"),
                    format!("`{text}` is no https URL"),
                    "write https://…; plain http is allowed for loopback only",
                ),
            }
        }
        urls
    }

    fn hostname(&mut self, text: Option<&str>) -> Option<Hostname> {
        match text?.parse() {
            Ok(hostname) => Some(hostname),
            Err(error) => {
                self.refuse("hostname", "spec.hostname", format!("`{}`: {error}", text?), "write a lower-case host name without port");
                None
            }
        }
    }

    fn path(&mut self, name: &OfferName, text: Option<&str>, own_host: bool) -> CanonicalPath {
        let default = format!("/services/{name}");
        let text = text.unwrap_or(&default);
        let fix = format!("write a path such as {default}");
        let path = match CanonicalPath::parse(text) {
            Ok(path) => path,
            Err(error) => {
                self.refuse("path", "spec.path", format!("`{text}`: {error}"), fix);
                return CanonicalPath::root();
            }
        };
        if path.as_str() != text || (text.len() > 1 && text.ends_with('/')) {
            let plain = path.as_str().trim_end_matches('/');
            self.refuse("path", "spec.path", format!("`{text}` has several spellings"), format!("write `{plain}`"));
        } else if text.len() > 512 || text.contains('%') {
            self.refuse("path", "spec.path", "at most 512 characters without escapes", fix);
        } else if (text == "/" && !own_host) || text == "/services" || RESERVED_PATHS.iter().any(|root| path.is_within(root)) {
            self.refuse("path_reserved", "spec.path", format!("`{text}` belongs to the stack itself"), fix);
        }
        path
    }

    fn routes(&mut self, list: &[RouteSpec], base: &CanonicalPath, payments: &[Terms]) -> Vec<Route> {
        if list.len() > 128 {
            self.refuse("routes", "spec.routes", "at most 128 routes", "split the offer");
            return Vec::new();
        }
        let mut routes: Vec<Route> = Vec::new();
        for (index, spec) in list.iter().enumerate() {
            let field = format!("spec.routes[{index}]");
            let (text, subtree) = match spec.path.strip_suffix("/*") {
                Some(prefix) => (prefix, true),
                None => (spec.path.as_str(), false),
            };
            let full = format!("{}{text}", base.as_str().trim_end_matches('/'));
            let path = match CanonicalPath::parse(if full.is_empty() { "/" } else { &full }) {
                Ok(path) if (path.as_str() == full || full.is_empty()) && is_route(text) => path,
                _ => {
                    self.refuse(
                        "route_path",
                        format!("{field}.path"),
                        format!("`{}` is no route", spec.path),
                        "write `/path` or `/path/*`",
                    );
                    continue;
                }
            };
            if routes.iter().any(|r| r.path == path && r.subtree == subtree) {
                self.refuse("route_twice", format!("{field}.path"), format!("`{}` is listed twice", spec.path), "remove one of them");
                continue;
            }
            let payments = match (spec.gate, &spec.price, payments) {
                (Gate::Free, None, _) => Vec::new(),
                (Gate::Free, Some(_), _) => {
                    self.refuse(
                        "route_price",
                        format!("{field}.price"),
                        "a free route has no price",
                        "remove `price`, or write `gate: paid`",
                    );
                    continue;
                }
                (Gate::Paid, None, all) => all.to_vec(),
                (Gate::Paid, Some(price), [only]) => match self.amount(&format!("{field}.price"), price, &only.asset) {
                    Some(amount) => vec![Terms { amount, ..only.clone() }],
                    None => continue,
                },
                (Gate::Paid, Some(_), _) => {
                    self.refuse(
                        "route_price",
                        format!("{field}.price"),
                        "a route's own price needs an offer with one payment",
                        "remove it",
                    );
                    continue;
                }
            };
            routes.push(Route { path, subtree, payments });
        }
        routes
    }

    fn drain(&mut self, spec: &OfferSpec) -> Option<OffsetDateTime> {
        let grace = spec.drain_grace_period.as_deref().map_or(Some(DEFAULT_DRAIN), parse_duration);
        let Some(grace) = grace else {
            let text: String = spec.drain_grace_period.iter().flat_map(|text| text.chars()).take(40).collect();
            let message = format!("`{text}` is no duration of at most 30 days");
            self.refuse("drain_grace_period", "spec.drainGracePeriod", message, "write e.g. 1h, 90s or 0s");
            return None;
        };
        let at = spec.drain_at.as_deref()?;
        match OffsetDateTime::parse(at, &Rfc3339) {
            Ok(at) => Some(at.saturating_add(time::Duration::try_from(grace).unwrap_or(time::Duration::ZERO))),
            Err(_) => {
                self.refuse("drain_at", "spec.drainAt", format!("`{at}` is no time"), "write RFC 3339, e.g. 2026-11-23T12:00:00Z");
                None
            }
        }
    }

    fn limits(&mut self, limits: Option<&LimitsSpec>) {
        let Some(limits) = limits else { return };
        for (field, zero) in [("maxInFlight", limits.max_in_flight == Some(0)), ("rps", limits.rps == Some(0))] {
            if zero {
                self.refuse("limit_zero", format!("spec.limits.{field}"), "0 lets nobody in", "write 1 or more, or use `obol sell stop`");
            }
        }
    }

    fn registration(&mut self, registration: Option<&RegistrationSpec>) {
        let Some(registration) = registration else { return };
        let long =
            |text: &Option<String>, max: usize| text.as_ref().is_some_and(|t| t.chars().count() > max || t.chars().any(char::is_control));
        for (field, bad, max) in [
            ("name", long(&registration.name, 128), 128),
            ("description", long(&registration.description, 1024), 1024),
            ("mimeType", long(&registration.mime_type, 128), 128),
        ] {
            if bad {
                let message = format!("longer than {max} characters, or has control characters");
                self.refuse("registration_text", format!("spec.registration.{field}"), message, "shorten it to one plain line");
            }
        }
    }
}

/// `` or `/a/b`: what stands before an optional `/*`.
fn is_route(text: &str) -> bool {
    text.is_empty() || (text.starts_with('/') && !text.ends_with('/') && !text.contains('*'))
}

/// Payments are sent to facilitators, so the channel is https, or does not leave the machine.
fn is_private_channel(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

/// `1h`, `90s`, `1h30m`, `0s`; at most 30 days.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.get(digits..digits + 1)? {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(digits + 1..)?;
    }
    (!text.is_empty() && total <= 30 * 86_400).then(|| Duration::from_secs(total))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
