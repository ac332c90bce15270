//! Flags over what an offer already says: only what is named changes.

use obol_offer::{AssetSpec, Gate, HostUpstream, Network, OfferSpec, PaymentSpec, PriceSpec, RouteSpec, TransferMethod, Violation};
use url::{Host, Url};

use crate::{
    args::SellHttpArgs,
    error::Problem,
    sell::pairs::{cut, parse},
};

/// What stack.yaml and the environment say for offers that say nothing. They fill gaps only: an
/// environment variable must not redirect the money of an offer that is there.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// Who is paid.
    pub pay_to: Option<String>,
    /// On which network.
    pub network: Option<String>,
}

/// `base` (an existing or given spec) with the flags laid over it, and defaults in what is left.
///
/// # Errors
/// Flags that cannot be read or contradict each other. Rules of the offer itself are not checked here.
pub fn merge(base: Option<OfferSpec>, args: &SellHttpArgs, defaults: &Defaults) -> Result<OfferSpec, Vec<Problem>> {
    let mut spec = base.unwrap_or_default();
    let mut problems = Vec::new();
    set_upstream(&mut spec, args);
    set_payments(&mut spec, args, defaults, &mut problems);
    if !args.facilitator.is_empty() {
        spec.facilitators.clone_from(&args.facilitator);
    }
    set(&mut spec.path, &args.path);
    set(&mut spec.hostname, &args.hostname);
    if !args.route.is_empty() {
        spec.routes = args.route.iter().filter_map(|text| route(text).map_err(|p| problems.push(p)).ok()).collect();
    }
    if args.max_in_flight.is_some() || args.rps.is_some() || args.max_body.is_some() {
        let limits = spec.limits.get_or_insert_default();
        set(&mut limits.max_in_flight, &args.max_in_flight);
        set(&mut limits.rps, &args.rps);
        set(&mut limits.max_body_bytes, &args.max_body);
    }
    if args.description.is_some() || args.no_register || args.register {
        let registration = spec.registration.get_or_insert_default();
        set(&mut registration.description, &args.description);
        if args.no_register || args.register {
            registration.enabled = Some(args.register);
        }
    }
    if problems.is_empty() { Ok(spec) } else { Err(problems) }
}

fn set<T: Clone>(field: &mut Option<T>, given: &Option<T>) {
    if given.is_some() {
        field.clone_from(given);
    }
}

fn set_upstream(spec: &mut OfferSpec, args: &SellHttpArgs) {
    let upstream = &mut spec.upstream;
    if let Some(text) = &args.upstream {
        (upstream.url, upstream.host, upstream.service, upstream.namespace, upstream.port) = Default::default();
        match loopback_port(text) {
            Some(port) => upstream.host = Some(HostUpstream { port }),
            None => upstream.url = Some(text.clone()),
        }
    }
    set(&mut upstream.health_path, &args.health_path);
}

/// The port of `http://localhost:9000` and its like. A port of the machine is the same slice on
/// every backend, a loopback URL is not.
fn loopback_port(text: &str) -> Option<u16> {
    let url = Url::parse(text).ok()?;
    let loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(ip) => ip == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(_) => false,
    };
    let bare =
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    (loopback && bare && url.scheme() == "http").then(|| url.port_or_known_default()).flatten()
}

fn set_payments(spec: &mut OfferSpec, args: &SellHttpArgs, defaults: &Defaults, problems: &mut Vec<Problem>) {
    if !args.accept.is_empty() {
        set_accepted(spec, args, defaults, problems);
        return;
    }
    if spec.payment.is_none() && spec.payments.is_empty() {
        spec.payment = Some(PaymentSpec::default());
    }
    let several = spec.payments.len() > 1;
    for (flag, given) in [("--price", args.price.is_some()), ("--per-unit", args.per_unit.is_some()), ("--network", args.network.is_some())]
    {
        if several && given {
            let message = format!("the offer takes {} payments, so {flag} could mean any of them", spec.payments.len());
            problems.push(Problem::new("payment_ambiguous", message, "pass --accept for each payment, or use `obol sell edit`").at(flag));
            return;
        }
    }
    for payment in spec.payment.iter_mut().chain(&mut spec.payments) {
        if let Some(network) = &args.network {
            if payment.asset.is_some() && Network::find(network) != Network::find(&payment.network) {
                let message = format!("the offer's own token is on {}", payment.network);
                problems.push(Problem::new("asset_network", message, "change both with `obol sell edit`").at("--network"));
            }
            payment.network.clone_from(network);
        }
        set_price(&mut payment.price, args);
        set(&mut payment.max_timeout_seconds, &args.max_timeout);
        if let Some(pay_to) = &args.pay_to {
            payment.pay_to.clone_from(pay_to);
        }
        fill(payment, defaults);
    }
}

/// The network's own token, moved by Permit2; `None` for no known network, which is told elsewhere.
fn by_permit2(network: &str) -> Option<AssetSpec> {
    let asset = Network::find(network)?.default_asset();
    Some(AssetSpec {
        address: asset.address.to_string(),
        symbol: asset.symbol,
        decimals: asset.decimals,
        transfer_method: TransferMethod::Permit2,
        eip712_name: asset.domain_name,
        eip712_version: asset.domain_version,
    })
}

/// A price of another kind takes the place of the one that is there.
fn set_price(price: &mut PriceSpec, args: &SellHttpArgs) {
    if args.price.is_some() {
        *price = PriceSpec { per_request: args.price.clone(), ..PriceSpec::default() };
    }
    if args.per_unit.is_some() {
        let PriceSpec { unit, max_units, .. } = std::mem::take(price);
        *price = PriceSpec { per_unit: args.per_unit.clone(), unit, max_units, ..PriceSpec::default() };
    }
    set(&mut price.unit, &args.unit);
    set(&mut price.max_units, &args.max_units);
}

fn set_accepted(spec: &mut OfferSpec, args: &SellHttpArgs, defaults: &Defaults, problems: &mut Vec<Problem>) {
    let keys = ["network", "price", "pay-to", "max-timeout", "method"];
    let mut payments = Vec::new();
    let mut used = [false; 2];
    for text in &args.accept {
        let [network, price, pay_to, timeout, method] = match parse("--accept", text, keys) {
            Ok(values) => values,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let max_timeout_seconds = match timeout.as_deref().map(str::parse).transpose() {
            Ok(seconds) => seconds.or(args.max_timeout),
            Err(_) => {
                problems.push(
                    Problem::new("max_timeout", format!("`{}` is no number of seconds", cut(text)), "write 10 to 86400").at("--accept"),
                );
                continue;
            }
        };
        let asset = match method.as_deref() {
            None | Some("eip3009") => None,
            Some("permit2") => network.as_deref().or(args.network.as_deref()).or(defaults.network.as_deref()).and_then(by_permit2),
            Some(other) => {
                let message = format!("`{}` is no way to move a token", cut(other));
                problems.push(Problem::new("method_unknown", message, "write method=eip3009 or method=permit2").at("--accept"));
                continue;
            }
        };
        used[0] |= price.is_none();
        used[1] |= network.is_none();
        let mut payment = PaymentSpec {
            network: network.or_else(|| args.network.clone()).unwrap_or_default(),
            pay_to: pay_to.or_else(|| args.pay_to.clone()).unwrap_or_default(),
            max_timeout_seconds,
            asset,
            ..PaymentSpec::default()
        };
        payment.price.per_request = price.or_else(|| args.price.clone());
        fill(&mut payment, defaults);
        payments.push(payment);
    }
    let given = [args.price.is_some(), args.network.is_some()];
    for ((flag, given), used) in ["--price", "--network"].into_iter().zip(given).zip(used) {
        if given && !used {
            let message = format!("{flag} has no effect: every --accept has its own");
            problems.push(Problem::new("flag_unused", message, format!("remove {flag}")).at(flag));
        }
    }
    (spec.payment, spec.payments) = match <[PaymentSpec; 1]>::try_from(payments) {
        Ok([only]) => (Some(only), Vec::new()),
        Err(payments) => (None, payments),
    };
}

fn fill(payment: &mut PaymentSpec, defaults: &Defaults) {
    if let Some(network) = defaults.network.as_ref().filter(|_| payment.network.is_empty()) {
        payment.network.clone_from(network);
    }
    if let Some(pay_to) = defaults.pay_to.as_ref().filter(|_| payment.pay_to.is_empty()) {
        payment.pay_to.clone_from(pay_to);
    }
}

fn route(text: &str) -> Result<RouteSpec, Problem> {
    let [path, gate, price] = parse("--route", text, ["path", "gate", "price"])?;
    let gate = match gate.as_deref() {
        None | Some("paid") => Gate::Paid,
        Some("free") => Gate::Free,
        Some(other) => {
            return Err(Problem::new("route_gate", format!("`{}` is no gate", cut(other)), "write gate=paid or gate=free").at("--route"));
        }
    };
    let path =
        path.ok_or_else(|| Problem::new("route_path", "the route has no path", "write --route 'path=/health,gate=free'").at("--route"))?;
    Ok(RouteSpec { path, gate, price })
}

/// The rule as the person at the command line sees it: by flag where a flag sets the field, and
/// with both ways to give what is missing.
pub fn explain(violation: Violation, spec: &OfferSpec) -> Problem {
    let mut problem = Problem::from(violation);
    let field = problem.at.clone().unwrap_or_default();
    let index = field.strip_prefix("spec.payments[").and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
    let payment = index.map_or(spec.payment.as_ref(), |index| spec.payments.get(index));
    let (network, pay_to) = payment.map_or(("", ""), |p| (p.network.as_str(), p.pay_to.as_str()));
    if problem.code == "network_unknown" && network.is_empty() {
        "network_missing".clone_into(&mut problem.code);
        problem.fix = "pass --network base-sepolia, or keep one for all offers: `obol stack init --network base-sepolia`".to_owned();
    } else if problem.code == "pay_to" && pay_to.is_empty() {
        "pay_to_missing".clone_into(&mut problem.code);
        problem.fix = "pass --pay-to 0x…, or keep one for all offers: `obol stack init --pay-to 0x…`".to_owned();
    }
    if let Some(flag) = flag_of(&field) {
        problem.at = Some(format!("{flag} ({field})"));
    }
    problem
}

fn flag_of(field: &str) -> Option<&'static str> {
    let flags = [
        ("spec.payment.price.perMTokOutput", "--per-mtok-output"),
        ("spec.payment.price.perMTok", "--per-mtok"),
        ("spec.model.name", "--model"),
        ("spec.model.upstreamName", "--upstream-model"),
        ("spec.model.maxTokens", "--max-tokens"),
        ("spec.model.maxPromptBytes", "--max-prompt-bytes"),
        ("spec.model.concurrency", "--concurrency"),
        ("spec.model.queue", "--queue"),
        ("spec.model.firstTokenTimeout", "--first-token-timeout"),
        ("spec.model.tokenTimeout", "--token-timeout"),
        ("spec.model.credential", "--credential"),
        ("spec.model", "--model"),
        ("name", "NAME"),
        ("spec.upstream.healthPath", "--health-path"),
        ("spec.upstream", "--upstream"),
        ("spec.payments", "--accept"),
        ("spec.payment.network", "--network"),
        ("spec.payment.payTo", "--pay-to"),
        ("spec.payment.maxTimeoutSeconds", "--max-timeout"),
        ("spec.payment.price", "--price"),
        ("spec.facilitators", "--facilitator"),
        ("spec.path", "--path"),
        ("spec.hostname", "--hostname"),
        ("spec.routes", "--route"),
        ("spec.limits.maxInFlight", "--max-in-flight"),
        ("spec.limits.rps", "--rps"),
        ("spec.limits.maxBodyBytes", "--max-body"),
        ("spec.registration.description", "--description"),
    ];
    flags.into_iter().find(|(prefix, _)| field.starts_with(prefix)).map(|(_, flag)| flag)
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
