//! The tour itself: every step with what it found and how long it took, without a terminal.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use hyper::{HeaderMap, Method, StatusCode};
use obol_buyer::{PayRequest, Probe, pay, quote};
use obol_offer::{Amount, Price, Terms};
use obol_x402::wire::Requirements;
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::{
    demo::{Demo, REPORT},
    stage::{Running, Shop, wallet, write_shop},
};
use crate::error::Error;

/// What the buyer is given: one PLAY.
const FUNDS: u64 = 1_000_000;
const MAX_BODY: usize = 64 * 1024;

/// Where the tour takes place; whatever is absent is chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder for stack, data and state.
    pub root: Option<PathBuf>,
    /// Public address.
    pub listen: Option<SocketAddr>,
    /// Admin address.
    pub admin: Option<SocketAddr>,
}

/// One finished step.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was done.
    pub title: &'static str,
    /// How long it took.
    pub milliseconds: u64,
    /// What came of it, for people.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// All that a tour has found, as `--output json` prints it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Folder with `config`, `data` and `state`.
    pub directory: PathBuf,
    /// The offer's own file.
    pub file: PathBuf,
    /// Private key of the buyer, who has play money only.
    pub key_file: PathBuf,
    /// Where buyers ask.
    pub url: String,
    /// Public address.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// Always the sandbox.
    pub network: &'static str,
    /// Ticker of the play money.
    pub symbol: String,
    /// Digits behind the point of one whole unit.
    pub decimals: u8,
    /// Atomic units per request.
    pub price: Amount,
    /// Status without a payment.
    pub unpaid_status: u16,
    /// What the 402 asks for.
    pub accepts: Vec<Requirements>,
    /// Status with a payment.
    pub paid_status: u16,
    /// The answer that was bought.
    pub answer: Value,
    /// Hash of the transaction that paid.
    pub transaction: String,
    /// Who bought.
    pub buyer: Account,
    /// Who sold.
    pub seller: Account,
    /// Requests that reached the demo service.
    pub upstream_requests: u64,
    /// All steps.
    pub steps: Vec<Step>,
    /// The whole tour.
    pub milliseconds: u64,
}

/// An account and how the payment changed it, in atomic units.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// Its address, EIP-55 checksum.
    pub address: String,
    /// Balance before the paid request.
    pub before: Amount,
    /// Balance after it.
    pub after: Amount,
}

/// A tour that has ended well; node and demo service still run.
pub struct Toured {
    /// What it found.
    pub facts: Facts,
    /// The node.
    pub node: Running,
    /// The service that is sold; ends when dropped.
    pub demo: Demo,
}

/// Goes through all steps and tells each to `show` when it is done.
///
/// # Errors
/// The first step that failed, or whose outcome is not exactly the expected one.
pub async fn tour(options: &Options, show: &mut (dyn FnMut(&Step) + Send)) -> Result<Toured, Error> {
    let mut steps = Steps { begun: Instant::now(), last: Instant::now(), done: Vec::new(), show };

    let demo = Demo::start().await.map_err(|source| Error::io("127.0.0.1", source))?;
    steps.done("A service: the weather, free of charge", vec![format!("http://{}", demo.address)]);

    let shop = write_shop(options.root.as_deref(), options.listen, options.admin, demo.address).await?;
    steps.done("An offer of it, in plain files", vec![shop.file.display().to_string()]);

    let node = Running::start(&shop, options.listen, options.admin).await?;
    let found = Buying { shop: &shop, node: &node, demo: &demo }.run(&mut steps).await;
    match found {
        Ok(facts) => Ok(Toured { facts, node, demo }),
        Err(error) => {
            node.stop().await?;
            Err(error)
        }
    }
}

struct Steps<'a> {
    begun: Instant,
    last: Instant,
    done: Vec<Step>,
    show: &'a mut (dyn FnMut(&Step) + Send),
}

impl Steps<'_> {
    fn done(&mut self, title: &'static str, lines: Vec<String>) {
        let step = Step { title, milliseconds: millis(self.last.elapsed()), lines };
        self.last = Instant::now();
        (self.show)(&step);
        self.done.push(step);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The part of the tour that needs a node.
struct Buying<'a> {
    shop: &'a Shop,
    node: &'a Running,
    demo: &'a Demo,
}

impl Buying<'_> {
    async fn run(&self, steps: &mut Steps<'_>) -> Result<Facts, Error> {
        let Self { shop, node, demo } = self;
        let terms = shop.offer.payments.first().map(|tag| &tag.terms).ok_or_else(|| unexpected("the offer has no price"))?;
        let money = |amount: Amount| terms.asset.show(amount);
        let url: Url = format!("http://{}{}", node.addresses.public, shop.offer.path).parse().map_err(unexpected)?;
        let chain = format!("its chain: {} ({}), where {} is worth nothing", terms.network.name, terms.network.caip2(), terms.asset.symbol);
        steps.done("A node that serves it for money", vec![url.to_string(), chain]);

        let (wallet, key_file) = wallet(&shop.dirs)?;
        let (payer, payee) = (wallet.address(), terms.pay_to);
        let (payer_before, payee_before) =
            (node.client.sandbox_mint(payer, Amount::from(FUNDS)).await?, node.client.sandbox_balance(payee).await?);
        steps.done("A buyer with play money", vec![format!("{payer} has {}", money(payer_before))]);

        let probe = quote(&url, Method::GET, HeaderMap::new(), Duration::from_secs(10)).await.map_err(buying_failed)?;
        let accepts = expect_challenge(&probe, terms)?;
        expect(demo.reports() == 0, || "the service was asked by a request that was not paid".to_owned())?;
        let asks = format!("{} for each request, to {payee}, within {} s", money(terms.amount), terms.max_timeout_seconds);
        steps.done("A request without payment", vec![format!("GET {url}"), format!("{}: {asks}", probe.status)]);

        let max: Price = terms.amount.to_decimal(terms.asset.decimals).parse().map_err(unexpected)?;
        let request = PayRequest { network: Some(terms.network), ..PayRequest::get(url.clone(), max) };
        let answer = pay(&wallet, request).await.map_err(buying_failed)?;
        let (status, receipt, paid) = (answer.status, answer.receipt, answer.paid);
        let body = answer.body.bytes(MAX_BODY).await.map_err(buying_failed)?;
        let (payer_after, payee_after) = (node.client.sandbox_balance(payer).await?, node.client.sandbox_balance(payee).await?);

        expect(status == StatusCode::OK, || format!("the paid request is answered {status}"))?;
        expect(body == REPORT.as_bytes(), || format!("the answer is not the service's: {}", String::from_utf8_lossy(&body)))?;
        expect(demo.reports() == 1, || format!("the service was asked {} times, not once", demo.reports()))?;
        let receipt = receipt.filter(|receipt| receipt.success).ok_or_else(|| unexpected("there is no receipt of a payment"))?;
        expect(receipt.transaction.len() == 66, || format!("the receipt's transaction is `{}`", receipt.transaction))?;
        expect(paid.is_some_and(|paid| paid.amount == terms.amount), || "the receipt is not over the price".to_owned())?;
        let moved = (payer_before.0.checked_sub(terms.amount.0), payee_before.0.checked_add(terms.amount.0));
        expect(moved == (Some(payer_after.0), Some(payee_after.0)), || {
            format!("not exactly the price moved: buyer {payer_before} to {payer_after}, seller {payee_before} to {payee_after}")
        })?;
        let lines = vec![
            format!("{status}: {REPORT}"),
            format!("receipt {}", receipt.transaction),
            format!("buyer   {} → {}", money(payer_before), money(payer_after)),
            format!("seller  {} → {}", money(payee_before), money(payee_after)),
        ];
        steps.done("The same request, paid", lines);

        Ok(Facts {
            directory: shop.dirs.config.parent().unwrap_or(&shop.dirs.config).to_owned(),
            file: shop.file.clone(),
            key_file,
            url: url.into(),
            listen: node.addresses.public,
            admin: node.addresses.admin,
            network: terms.network.name,
            symbol: terms.asset.symbol.clone(),
            decimals: terms.asset.decimals,
            price: terms.amount,
            unpaid_status: probe.status.as_u16(),
            accepts,
            paid_status: status.as_u16(),
            answer: serde_json::from_slice(&body).map_err(unexpected)?,
            transaction: receipt.transaction,
            buyer: Account { address: payer.to_string(), before: payer_before, after: payer_after },
            seller: Account { address: payee.to_string(), before: payee_before, after: payee_after },
            upstream_requests: demo.reports(),
            steps: steps.done.clone(),
            milliseconds: millis(steps.begun.elapsed()),
        })
    }
}

/// The 402 must ask for exactly the terms on disk.
fn expect_challenge(probe: &Probe, terms: &Terms) -> Result<Vec<Requirements>, Error> {
    expect(probe.status == StatusCode::PAYMENT_REQUIRED, || format!("the unpaid request is answered {}", probe.status))?;
    let challenge = probe.v2.as_ref().ok_or_else(|| unexpected("the 402 has no PAYMENT-REQUIRED header"))?;
    let same = |r: &Requirements| {
        r.scheme == "exact" && r.network == terms.network.caip2() && r.amount == terms.amount && r.pay_to == terms.pay_to.to_string()
    };
    expect(challenge.accepts.iter().any(same), || "the 402 does not ask for what is on disk".to_owned())?;
    Ok(challenge.accepts.clone())
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(unexpected(otherwise())) }
}

fn unexpected(what: impl ToString) -> Error {
    Error::failed("quickstart_unexpected", what.to_string(), "this is a fault of obol: please report it, with this text")
}

fn buying_failed(error: obol_buyer::PayError) -> Error {
    unexpected(error)
}
