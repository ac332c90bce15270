//! `obol pay`: body to stdout, receipt to stderr.

use std::{io::Read, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use obol_buyer::{Answer, PayError, PayRequest, Wallet, WalletError, pay, quote};
use obol_offer::{Network, Price, Terms};
use serde_json::json;
use url::Url;

use crate::{
    args::PayArgs,
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Holds the payer's private key.
const KEY_VARIABLE: &str = "OBOL_PAY_KEY";
/// The body is kept in memory, since a paid request is sent a second time.
const MAX_DATA: u64 = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Does a paid request.
pub async fn run(args: PayArgs, printer: &Printer) -> Result<Exit, Error> {
    let request = request(&args)?;
    if args.dry_run {
        return show_price(request, printer).await;
    }
    let wallet = wallet(&args)?;
    let mut answer = pay(&wallet, request).await.map_err(explain)?;
    let status = answer.status;
    show_head(&answer, &args, printer);
    // A receipt may come behind the body.
    let early = answer.receipt.is_some() || !answer.sent_payment;
    if early {
        report(&answer, printer);
    }
    let streamed = stream(&mut answer, printer).await;
    if !early {
        answer.close();
        report(&answer, printer);
    }
    streamed?;
    Ok(if status.as_u16() < 400 { Exit::Done } else { Exit::Failed })
}

async fn stream(answer: &mut Answer, printer: &Printer) -> Result<(), Error> {
    while let Some(part) = answer.body.chunk().await.map_err(explain)? {
        if printer.bytes(&part).is_err() {
            break;
        }
    }
    Ok(())
}

fn show_head(answer: &Answer, args: &PayArgs, printer: &Printer) {
    if args.include {
        let mut head = format!("HTTP {}\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        printer.line(&head);
    }
}

fn report(answer: &Answer, printer: &Printer) {
    let receipt = answer.receipt.as_ref();
    if printer.is_human() {
        match (&answer.paid, answer.sent_payment) {
            (Some(paid), _) => {
                let hash = receipt.map(|r| r.transaction.as_str()).filter(|hash| !hash.is_empty()).unwrap_or("none given");
                printer.done(&format!("paid {paid}, transaction {hash}"));
            }
            (None, true) => {
                printer.warn(&format!("a payment was sent, the answer is {}, and no receipt says that money moved", answer.status))
            }
            (None, false) => printer.note("nothing was asked for, nothing was paid"),
        }
        if answer.status.as_u16() >= 400 {
            printer.warn(&format!("the answer is {}", answer.status));
        }
        return;
    }
    let paid = answer.paid.as_ref().map(|paid| {
        json!({
            "amount": paid.amount,
            "price": paid.amount.to_decimal(paid.decimals),
            "authorised": paid.authorised,
            "symbol": paid.symbol,
            "network": paid.network.name,
        })
    });
    printer.receipt(&json!({ "status": answer.status.as_u16(), "paid": paid, "paymentSent": answer.sent_payment, "receipt": receipt }));
}

async fn show_price(request: PayRequest, printer: &Printer) -> Result<Exit, Error> {
    let probe = quote(&request.url, request.method, request.headers, request.timeout).await.map_err(explain)?;
    let offers: Vec<_> = probe
        .offers
        .iter()
        .map(|offer| {
            let terms = offer.terms().ok();
            json!({
                "scheme": offer.scheme,
                "price": terms.as_ref().map(Terms::price),
                "amount": offer.amount,
                "asset": offer.asset,
                "network": offer.network,
                "payTo": offer.pay_to,
                "payable": terms.is_some(),
            })
        })
        .collect();
    printer.data(&json!({ "status": probe.status.as_u16(), "accepts": offers }), || {
        let lines = offers.iter().map(|offer| {
            let text = |key: &str| offer.get(key).and_then(|v| v.as_str()).unwrap_or("?").to_owned();
            let price = if text("scheme") == "upto" { format!("at most {}", text("price")) } else { text("price") };
            [price, text("amount"), text("network"), text("payTo")]
        });
        format!("HTTP {}\n{}", probe.status, crate::printer::table(["price", "atomic units", "network", "pay to"], lines))
    });
    printer.hint("dry run: nothing was paid");
    Ok(Exit::Done)
}

fn request(args: &PayArgs) -> Result<PayRequest, Error> {
    let mut problems = Vec::new();
    let mut refuse = |code: &str, flag: &str, message: String, fix: &str| problems.push(Problem::new(code, message, fix).at(flag));
    let url = Url::parse(&args.url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        refuse("url", "URL", format!("`{}` is no http or https URL", cut(&args.url)), "write http://… or https://…");
    }
    let max = args.max.parse::<Price>();
    if let Err(error) = &max {
        refuse("max", "--max", error.to_string(), "write a decimal above zero such as 0.01");
    }
    let network = args.network.as_deref().map(|text| (text, Network::find(text)));
    if let Some((text, None)) = network {
        let known: Vec<_> = obol_offer::networks().iter().map(|n| n.name).collect();
        refuse("network_unknown", "--network", format!("`{}` is no known network", cut(text)), &format!("use one of {}", known.join(", ")));
    }
    let default_method = if args.data.is_some() { "POST" } else { "GET" };
    let method = Method::from_bytes(args.method.as_deref().unwrap_or(default_method).as_bytes());
    if method.is_err() {
        refuse("method", "--method", "this is no HTTP method".to_owned(), "write e.g. POST");
    }
    let mut headers = HeaderMap::new();
    for text in &args.header {
        match header(text) {
            Some((name, value)) => {
                headers.append(name, value);
            }
            None => refuse("header", "--header", format!("`{}` is no header", cut(text)), "write 'name: value'"),
        }
    }
    let node = args.rpc.as_deref().and_then(|text| {
        let node = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if node.is_none() {
            // Not repeated: it may hold a secret.
            refuse("rpc_url", "--rpc", "this is no http or https URL".to_owned(), "write the URL of a node of the network");
        }
        node
    });
    match (url, max, method) {
        (Some(url), Ok(max), Ok(method)) if problems.is_empty() => {
            let body = args.data.as_deref().map(data).transpose()?;
            let network = network.and_then(|(_, known)| known);
            Ok(PayRequest { url, method, headers, body, max, network, scheme: args.scheme.map(Into::into), node, timeout: TIMEOUT })
        }
        _ => Err(Error::Refused(problems)),
    }
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

fn data(text: &str) -> Result<Bytes, Error> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.as_bytes().to_vec().into()) };
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_DATA + 1).read_to_end(&mut bytes)
    } else {
        fs_err::File::open(file).and_then(|f| f.take(MAX_DATA + 1).read_to_end(&mut bytes))
    };
    read.map_err(|source| Error::io(if file == "-" { "stdin" } else { file }, source))?;
    if bytes.len() as u64 > MAX_DATA {
        return Err(Error::Refused(vec![Problem::new("data_too_large", "the data is larger than 64 MiB", "send less").at("--data")]));
    }
    Ok(bytes.into())
}

fn wallet(args: &PayArgs) -> Result<Wallet, Error> {
    let key = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
    let wallet = match (&args.key_file, key) {
        (Some(file), _) => Wallet::from_file(file),
        (None, Some(key)) => Wallet::from_hex(&key),
        (None, None) => {
            let fix = format!("pass --key-file FILE, or set {KEY_VARIABLE}");
            return Err(Error::Usage { code: "key_missing", message: "there is no key to pay with".to_owned(), fix });
        }
    };
    wallet.map_err(|error| {
        let fix = match &error {
            WalletError::Exposed { path } => format!("type `chmod 600 {path}`"),
            _ => "give 64 hexadecimal digits".to_owned(),
        };
        let place = args.key_file.as_ref().map_or_else(|| KEY_VARIABLE.to_owned(), |file| file.display().to_string());
        Error::Refused(vec![Problem::new(error.code(), error.to_string(), fix).at(place)])
    })
}

/// The buyer's errors, with what to type next apart from the sentence.
fn explain(error: PayError) -> Error {
    let approve;
    let fix = match &error {
        PayError::Allowance { approval, .. } => {
            approve = format!("type `{}`, once for all payments up to that sum; or pay with `--scheme exact`", approval.command());
            &approve
        }
        PayError::Client(_) => "install the package ca-certificates",
        PayError::Unreachable { .. } => "check the URL, and that the service runs",
        PayError::Challenge(_) => "type `obol pay URL --dry-run` to see what it asks for",
        PayError::NothingPayable(_) => "pay with another client, or ask the seller for USDC on a known network",
        PayError::TooExpensive { .. } => "raise --max, if it is worth that",
        PayError::Max(_) => "write --max with fewer decimals",
        PayError::Refused { .. } => "check balance, network and clock; nothing is signed again by itself",
        PayError::Unknown { .. } => "look the nonce up on the chain before paying again",
        _ => "try again later; look at the receipt before paying again",
    };
    Error::failed(error.code(), error.to_string(), fix)
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_split_at_the_first_colon() {
        assert_eq!(header("X-A: b:c").map(|(n, v)| (n.to_string(), v)), Some(("x-a".into(), HeaderValue::from_static("b:c"))));
        assert!(header("x").is_none() && header(": x").is_none() && header("a b: c").is_none() && header("a: \n").is_some());
        assert!(header("a: b\nc: d").is_none());
    }
}
