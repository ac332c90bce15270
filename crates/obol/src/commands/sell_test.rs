//! `obol sell test`: what a buyer who does not pay is told.

use std::time::Duration;

use http::{HeaderMap, Method};
use obol_buyer::{PayError, Probe, quote};
use obol_offer::{Address, Amount, Network, Offer};
use serde::Serialize;
use url::Url;

use crate::{
    args::TestArgs,
    commands::{cluster, context::Context},
    error::{Error, Problem},
    exit::Exit,
    printer::{Printer, table},
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What the offer answered without payment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    name: String,
    url: String,
    status: u16,
    /// Whether every check passed.
    gated: bool,
    /// Accepted payments by the v2 header.
    accepts: Vec<Term>,
    /// What is wrong.
    problems: Vec<Problem>,
}

/// One accepted payment, in the one form in which both versions can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    network: String,
    amount: String,
    asset: String,
    pay_to: String,
}

/// Asks the running node for the offer and expects its terms.
pub async fn run(args: &TestArgs, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    let slice = context.slice(&args.name)?;
    let view = match context.is_cluster() {
        true => cluster::offer(&context, &slice.name).await?,
        false => context.need_node().await?.offer(&slice.name).await?,
    };
    let url: Url =
        view.url.parse().map_err(|_| Error::failed("url", format!("`{}` is no URL", view.url), "correct publicUrl in stack.yaml"))?;
    let probe = quote(&url, Method::GET, HeaderMap::new(), TIMEOUT).await.map_err(|error| unreachable(&error))?;
    let expected = slice.offer.as_ref().ok().filter(|_| view.current).map(|(_, offer)| offer);
    let problems = check(&probe, expected);
    let accepts = probe.v2.iter().flat_map(|v2| v2.accepts.iter()).map(|r| term(&r.network, r.amount, &r.asset, &r.pay_to)).collect();
    let report = Report {
        name: slice.name.to_string(),
        url: view.url,
        status: probe.status.as_u16(),
        gated: problems.is_empty(),
        accepts,
        problems,
    };
    printer.data(&report, || human(&report));
    if report.gated {
        printer.done("the v2 header and the v1 body ask for the offer's own terms");
        return Ok(Exit::Done);
    }
    for problem in report.problems.iter().filter(|_| printer.is_human()) {
        printer.problem(problem);
    }
    Ok(Exit::Failed)
}

fn human(report: &Report) -> String {
    let rows = report.accepts.iter().map(|t| [t.network.clone(), t.amount.clone(), t.asset.clone(), t.pay_to.clone()]);
    format!("{} answers {}\n{}", report.url, report.status, table(["network", "atomic units", "asset", "pay to"], rows))
}

/// Everything that is wrong with an unpaid answer.
fn check(probe: &Probe, expected: Option<&Offer>) -> Vec<Problem> {
    if probe.status.as_u16() != 402 {
        let fix = "type `obol sell status NAME` for its conditions";
        return vec![Problem::new("not_gated", format!("an unpaid request is answered with {}", probe.status), fix)];
    }
    let mut problems = Vec::new();
    let mut wrong = |code: &str, message: &str| {
        problems.push(Problem::new(code, message, "type `obol stack status`, and check what stands between buyers and the node"));
    };
    let v2 = probe.v2.as_ref().map(|v2| terms(v2.accepts.iter().map(|r| term(&r.network, r.amount, &r.asset, &r.pay_to))));
    let v1 = probe.v1.as_ref().map(|v1| terms(v1.accepts.iter().map(|r| term(&r.network, r.max_amount_required, &r.asset, &r.pay_to))));
    match &v2 {
        None => wrong("v2_missing", "the PAYMENT-REQUIRED header is missing or malformed"),
        Some(v2) if v2.is_empty() => wrong("v2_empty", "the PAYMENT-REQUIRED header accepts no payment"),
        Some(_) => {}
    }
    if v1.is_none() {
        wrong("v1_missing", "the body is no x402 version 1 challenge");
    }
    if let (Some(v2), Some(v1)) = (&v2, &v1) {
        let known_to_v1: Vec<_> = v2.iter().filter(|t| Network::find(&t.network).is_none_or(|n| n.in_v1)).cloned().collect();
        if known_to_v1 != *v1 {
            wrong("versions_differ", "the v2 header and the v1 body ask for different payments");
        }
    }
    if let (Some(v2), Some(offer)) = (&v2, expected) {
        let own = offer
            .payments
            .iter()
            .map(|tag| &tag.terms)
            .map(|t| term(t.network.name, t.amount, &t.asset.address.to_string(), &t.pay_to.to_string()));
        if terms(own) != *v2 {
            wrong("terms_differ", "the terms are not those of the offer on disk");
        }
    }
    problems
}

fn terms(list: impl Iterator<Item = Term>) -> Vec<Term> {
    let mut list: Vec<_> = list.collect();
    list.sort();
    list
}

fn term(network: &str, amount: Amount, asset: &str, pay_to: &str) -> Term {
    let address = |text: &str| text.parse::<Address>().map_or_else(|_| text.to_owned(), |a| a.to_string());
    let network = Network::find(network).map_or_else(|| network.to_owned(), Network::caip2);
    Term { network, amount: amount.to_string(), asset: address(asset), pay_to: address(pay_to) }
}

fn unreachable(error: &PayError) -> Error {
    Error::failed(error.code(), error.to_string(), "check publicUrl and listen in stack.yaml, and the way from here to there")
}
