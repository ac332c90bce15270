//! Offers as they are shown: from the node when one runs, else from the files alone.

use obol_backend::control::{NodeStatus, OfferView};
use obol_offer::{Condition, ConditionKind, ConditionStatus, Offer, OfferName};
use obol_reconcile::{Site, public_url};
use obol_stackdir::{Diagnostic, Severity, Slice, StackConfig, Walk};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{error::Problem, printer::table};

/// One offer, the same shape in `sell list`, `sell status` and `stack status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name.
    pub name: OfferName,
    /// `http`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// For people, e.g. `0.001 USDC`.
    pub price: String,
    /// Network names, comma separated.
    pub network: String,
    /// Where buyers find it.
    pub url: String,
    /// `ready`, `not_ready`, `draining`, `stopped`, `broken`, or `not_running`.
    pub state: &'static str,
    /// Whether what is served is what is on disk; absent when nothing is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// Observed conditions; empty when no node runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What is wrong with the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Where buyers would find an offer.
fn url(offer: &Offer, config: &StackConfig) -> String {
    let own = || format!("http://{}/", config.listen).parse().ok();
    let site = Site { loopback: true, public_url: config.public_url.clone().or_else(own), ..Site::default() };
    public_url(offer, &site).unwrap_or_default()
}

/// All offers, by name.
pub fn rows(walk: &Walk, node: Option<&NodeStatus>, config: &StackConfig) -> Vec<Row> {
    let mut rows: Vec<Row> = match node {
        Some(status) => status.offers.iter().map(served).collect(),
        None => walk.slices.iter().map(|slice| on_disk(slice, config)).collect(),
    };
    rows.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    rows
}

/// An offer as the node sees it.
pub fn served(view: &OfferView) -> Row {
    Row {
        name: view.name.clone(),
        kind: view.kind.as_str(),
        price: view.price.clone(),
        network: view.network.clone(),
        url: view.url.clone(),
        state: state(view),
        current: Some(view.current),
        conditions: view.status.conditions.clone(),
        problems: view.diagnostics.iter().map(Problem::from).collect(),
    }
}

fn is_error(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity == Severity::Error
}

fn state(view: &OfferView) -> &'static str {
    let draining = view.status.condition(ConditionKind::Draining);
    if view.diagnostics.iter().any(is_error) {
        "broken"
    } else if draining.is_some_and(|c| c.reason == "Drained") {
        "stopped"
    } else if draining.is_some_and(|c| c.status == ConditionStatus::True) {
        "draining"
    } else if view.status.is_ready() {
        "ready"
    } else {
        "not_ready"
    }
}

/// An offer as its file says it, with nothing running.
pub fn on_disk(slice: &Slice, config: &StackConfig) -> Row {
    let mut row = Row {
        name: slice.name.clone(),
        kind: slice.kind.as_str(),
        price: String::new(),
        network: String::new(),
        url: String::new(),
        state: "broken",
        current: None,
        conditions: Vec::new(),
        problems: Vec::new(),
    };
    match &slice.offer {
        Ok((_, offer)) => {
            row.price = offer.price();
            row.network = offer.payments.iter().map(|tag| tag.terms.network.name).collect::<Vec<_>>().join(", ");
            row.url = url(offer, config);
            row.state = if offer.is_drained(OffsetDateTime::now_utc()) { "stopped" } else { "not_running" };
        }
        Err(diagnostics) => row.problems = diagnostics.iter().map(Problem::from).collect(),
    }
    row
}

/// The table of `sell list`.
pub fn offers_table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no offers yet: type `obol sell http NAME --upstream URL --price 0.001`".to_owned();
    }
    let cells = rows.iter().map(|row| {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        [row.name.to_string(), row.kind.to_owned(), dash(&row.price), dash(&row.network), state_text(row), dash(&row.url)]
    });
    table(["name", "type", "price", "network", "state", "url"], cells)
}

fn state_text(row: &Row) -> String {
    let state = row.state.replace('_', " ");
    match why_not(&row.conditions) {
        Some(condition) if row.state == "not_ready" => format!("{state} ({})", condition.reason),
        _ => state,
    }
}

/// The first condition that keeps an offer from being ready.
pub fn why_not(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|c| match c.kind {
        ConditionKind::Draining => c.status == ConditionStatus::True,
        ConditionKind::Ready => false,
        _ => c.status != ConditionStatus::True,
    })
}

/// All that is known of one offer.
pub fn details(row: &Row) -> String {
    let fields = [
        ("name", row.name.as_str()),
        ("type", row.kind),
        ("price", &row.price),
        ("network", &row.network),
        ("url", &row.url),
        ("state", &row.state.replace('_', " ")),
    ];
    let mut text: String = fields.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key:8} {value}\n")).collect();
    if row.current == Some(false) {
        text.push_str("served   an earlier version; the one on disk is not applied\n");
    }
    if !row.conditions.is_empty() {
        let rows = row.conditions.iter().map(|c| [format!("{:?}", c.kind), format!("{:?}", c.status), c.reason.clone(), c.message.clone()]);
        text.push('\n');
        text.push_str(&table(["condition", "status", "reason", "message"], rows));
    }
    text
}
