//! `obol payments`: asks the node, or the gateway in a cluster, that has the journal; never opens it.

mod csv;
mod when;

use std::collections::{BTreeMap, HashSet};

use obol_backend::control::{Client, ControlError, PaymentPage, PaymentQuery, PaymentRecord, PaymentState, Refund};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    args::{ExportArgs, ExportFormat, PaymentsCommand, PaymentsListArgs, PaymentsShowArgs, RefundArgs},
    commands::context::Context,
    error::{Error, Problem},
    exit::Exit,
    printer::{Printer, table},
};

/// Lists, shows or exports.
pub async fn run(command: PaymentsCommand, printer: &Printer) -> Result<Exit, Error> {
    match command {
        PaymentsCommand::List(args) => list(&args, printer).await,
        PaymentsCommand::Show(args) => show(&args, printer).await,
        PaymentsCommand::Export(args) => export(&args, printer).await,
        PaymentsCommand::Owed => owed(printer).await,
        PaymentsCommand::Refund(args) => refund(args, printer).await,
    }
}

fn refused(code: &'static str, what: &str, value: &str, fix: String, at: &str) -> Error {
    let shown: String = value.chars().take(80).collect();
    Error::Refused(vec![Problem::new(code, format!("`{shown}` is no {what}"), fix).at(at)])
}

async fn list(args: &PaymentsListArgs, printer: &Printer) -> Result<Exit, Error> {
    let state = |text: &String| {
        let words = || PaymentState::ALL.map(PaymentState::code).join(", ");
        let known = PaymentState::ALL.into_iter().find(|state| state.code() == text);
        known.ok_or_else(|| refused("state", "state of a payment", text, format!("write one of {}", words()), "--state"))
    };
    let offer = args.offer.as_ref().map(|name| {
        name.parse().map_err(|_| refused("offer_name", "offer's name", name, "type `obol sell list` for the names".into(), "--offer"))
    });
    let payer = args
        .payer
        .as_ref()
        .map(|text| text.parse().map_err(|_| refused("address", "address", text, "write 0x and 40 hex digits".into(), "--payer")));
    let query = PaymentQuery {
        states: args.state.iter().map(state).collect::<Result<_, _>>()?,
        offer: offer.transpose()?,
        payer: payer.transpose()?,
        since: when::parse(args.since.as_deref(), "--since")?,
        limit: args.limit.into(),
        cursor: args.cursor.clone(),
        ..PaymentQuery::default()
    };
    let page = Context::open()?.need_books().await?.payments(&query).await?;
    printer.data(&page, || listed(&page.payments));
    if let Some(next) = page.next.as_ref().filter(|_| printer.is_human()) {
        printer.hint(&format!("there are more: add --cursor {next}"));
    }
    Ok(Exit::Done)
}

fn listed(payments: &[PaymentRecord]) -> String {
    if payments.is_empty() {
        return "no payments".to_owned();
    }
    table(
        ["time", "offer", "state", "amount", "network", "payer", "payment", "transaction"],
        payments.iter().map(|payment| {
            [
                moment(payment.created),
                payment.offer.to_string(),
                payment.state.to_string(),
                amount(payment),
                payment.network.clone(),
                payment.payer.to_string(),
                short(nonce(payment)),
                payment.transaction.as_deref().map_or_else(|| "-".to_owned(), short),
            ]
        }),
    )
}

/// `0.001 USDC`; atomic units where the token is not known. Of a ceiling, what was charged: `0.0018 of 0.1 USDC`.
fn amount(payment: &PaymentRecord) -> String {
    let authorised = match (&payment.amount_decimal, &payment.symbol) {
        (Some(amount), Some(symbol)) => format!("{amount} {symbol}"),
        _ => format!("{} of {}", payment.amount, payment.asset),
    };
    match payment.settled.filter(|settled| *settled != payment.amount) {
        Some(settled) => format!("{} of {authorised}", payment.settled_decimal.clone().unwrap_or_else(|| settled.to_string())),
        None => authorised,
    }
}

fn nonce(payment: &PaymentRecord) -> &str {
    payment.key.rsplit('/').next().unwrap_or_default()
}

fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn moment(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

async fn refund(args: RefundArgs, printer: &Printer) -> Result<Exit, Error> {
    let node = Context::open()?.need_books().await?;
    let mut payment = find(&node, &args.key).await?;
    if !args.dry_run {
        let refund = Refund { transaction: args.transaction, note: args.note };
        payment = node.note_refund(&payment.key, refund).await.map_err(not_refunded)?;
    }
    printer.data(&payment, || details(&payment));
    if args.dry_run {
        printer.hint(if payment.state.is_owed() { "nothing was changed" } else { "nothing is owed for it; nothing was changed" });
    }
    Ok(Exit::Done)
}

fn not_refunded(error: ControlError) -> Error {
    const FIXES: [(&str, &str); 3] = [
        ("payment_not_owed", "type `obol payments owed` for what is"),
        ("refund_transaction", "write the hash of the transaction that sent the money back"),
        ("refund_note", "write a shorter note, in one line"),
    ];
    match &error {
        ControlError::Refused(problem) => match FIXES.iter().find(|(code, _)| *code == problem.code) {
            Some((code, fix)) => Error::failed(*code, problem.message.clone(), *fix),
            None => error.into(),
        },
        _ => error.into(),
    }
}

async fn show(args: &PaymentsShowArgs, printer: &Printer) -> Result<Exit, Error> {
    let payment = find(&Context::open()?.need_books().await?, &args.key).await?;
    printer.data(&payment, || details(&payment));
    Ok(Exit::Done)
}

/// The one payment that begins like that.
async fn find(node: &Client, key: &str) -> Result<PaymentRecord, Error> {
    if key.len() < 4 {
        return Err(refused("payment_key", "payment's key", key, "write at least 4 characters of it".into(), "KEY"));
    }
    let found = all(node, PaymentQuery { find: Some(key.to_owned()), ..PaymentQuery::default() }).await?;
    let found = match <[PaymentRecord; 1]>::try_from(found) {
        Ok([payment]) => return Ok(payment),
        Err(found) => found,
    };
    match found.as_slice() {
        [] => Err(Error::failed("payment_unknown", "there is no such payment", "type `obol payments list`")),
        several => {
            let keys: Vec<_> = several.iter().take(5).map(|payment| payment.key.as_str()).collect();
            Err(Error::failed(
                "payment_ambiguous",
                format!("{} payments begin like that", several.len()),
                format!("write more of it; they are {}", keys.join(", ")),
            ))
        }
    }
}

fn details(payment: &PaymentRecord) -> String {
    let settled = payment.settled.filter(|settled| *settled != payment.amount).map(|settled| format!("{settled} of "));
    let atomic = format!("{} ({}{} atomic units)", amount(payment), settled.unwrap_or_default(), payment.amount);
    let lines = [
        ("payment", Some(payment.key.clone())),
        ("state", Some(format!("{}: {}", payment.state, payment.state.meaning()))),
        ("offer", Some(payment.offer.to_string())),
        ("amount", Some(atomic)),
        ("network", Some(payment.network.clone())),
        ("token", Some(payment.asset.to_string())),
        ("payer", Some(payment.payer.to_string())),
        ("paid to", Some(payment.pay_to.to_string())),
        ("transaction", payment.transaction.clone()),
        ("reason", payment.reason.clone()),
        ("identifier", payment.identifier.clone()),
        ("refunded in", payment.refund.as_ref().and_then(|refund| refund.transaction.clone())),
        ("note", payment.refund.as_ref().and_then(|refund| refund.note.clone())),
        ("facilitator", Some(payment.facilitator.clone())),
        ("first seen", Some(moment(payment.created))),
        ("changed", Some(moment(payment.updated))),
        ("asked again", payment.next_attempt.map(moment)),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name:<12} {}", crate::printer::clean(&value))));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every payment of a query, archived ones too, the oldest first and each once.
async fn all(node: &Client, query: PaymentQuery) -> Result<Vec<PaymentRecord>, Error> {
    let (mut payments, mut seen) = (Vec::new(), HashSet::new());
    let mut query = PaymentQuery { limit: PaymentQuery::MAX_LIMIT, ..query };
    loop {
        let PaymentPage { payments: page, next } = node.export(&query).await?;
        payments.extend(page.into_iter().filter(|payment| seen.insert(payment.key.clone())));
        query.cursor = next;
        if query.cursor.is_none() {
            payments.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
            return Ok(payments);
        }
    }
}

async fn export(args: &ExportArgs, printer: &Printer) -> Result<Exit, Error> {
    let since = when::parse(args.since.as_deref(), "--since")?;
    let until = when::parse(args.until.as_deref(), "--until")?;
    let node = Context::open()?.need_books().await?;
    let payments = all(&node, PaymentQuery { since, until, ..PaymentQuery::default() }).await?;
    let text = match args.format {
        ExportFormat::Csv => csv::render(&payments),
        ExportFormat::Json => serde_json::to_string_pretty(&payments).unwrap_or_default() + "\n",
    };
    // A reader that has gone away is no error of ours.
    let _ = printer.bytes(text.as_bytes());
    Ok(Exit::Done)
}

async fn owed(printer: &Printer) -> Result<Exit, Error> {
    let node = Context::open()?.need_books().await?;
    let states = PaymentState::ALL.into_iter().filter(|state| state.is_owed()).collect();
    let payments = all(&node, PaymentQuery { states, ..PaymentQuery::default() }).await?;
    let mut totals: BTreeMap<(String, String), obol_offer::Amount> = BTreeMap::new();
    for payment in &payments {
        let total = totals.entry((payment.network.clone(), payment.asset.to_string())).or_default();
        total.0 = total.0.saturating_add(payment.settled.unwrap_or(payment.amount).0);
    }
    let totals: Vec<_> =
        totals.iter().map(|((network, asset), amount)| json!({ "network": network, "asset": asset, "amount": amount })).collect();
    printer.data(&json!({ "payments": payments, "totals": totals }), || listed(&payments));
    if printer.is_human() && !payments.is_empty() {
        printer.hint("each was paid and its answer did not reach the buyer; send the amount back to the payer, from your own wallet, then type `obol payments refund`");
    }
    Ok(Exit::Done)
}
