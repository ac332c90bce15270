//! The price of a route, prepared once so that a challenge is a copy and not a computation.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Amount, PaymentIdentifier, Terms};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    AuthorizationKind, UptoFacilitators, Version, identifier,
    wire::{PaymentRequired, Requirements, RequirementsV1, ResourceInfo},
};

/// What buyers are told besides the price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuoteInfo {
    /// Shown to people; empty when the seller wrote none.
    pub description: String,
    /// Media type of the answer; empty when unknown.
    pub mime_type: String,
    /// Name of the service; told to buyers if it is 1 to 32 printable ASCII characters.
    pub service_name: String,
    /// Who can settle `upto` payments.
    pub facilitators: UptoFacilitators,
    /// Whether buyers may name their purchases.
    pub payment_identifier: PaymentIdentifier,
}

/// Name in `extra` of how the money is moved.
pub(crate) const TRANSFER_METHOD: &str = "assetTransferMethod";
/// Name in `extra` of who settles an `upto` payment.
pub(crate) const FACILITATOR: &str = "facilitatorAddress";

/// Longest error text of a challenge, in characters: headers above some KiB are dropped on the way.
pub const MAX_ERROR_CHARS: usize = 200;

/// The terms of one route with both wire forms prepared.
#[derive(Clone, Debug)]
pub struct Quote {
    terms: Vec<Terms>,
    /// Their amounts as text.
    amounts: Vec<Box<str>>,
    prepared: Arc<Prepared>,
    /// Base64 of the v2 challenge from behind the resource's URL to the end.
    v2_tail: Box<str>,
}

/// What does not depend on the amounts.
#[derive(Debug)]
struct Prepared {
    /// Which of the terms that were given the quote has.
    kept: Vec<usize>,
    /// What the payer signs, one per terms.
    kinds: Vec<AuthorizationKind>,
    info: QuoteInfo,
    /// v2 requirements as JSON before and behind the amount, one per terms.
    v2: Vec<[Box<str>; 2]>,
    /// v1 requirements as JSON before the amount, between it and the resource's URL, and behind that, one per terms;
    /// `None` where v1 has no name for the network.
    v1: Vec<Option<[Box<str>; 3]>>,
}

/// One `402` for clients of both versions. Both strings turn into a `HeaderValue` and `Bytes`
/// without a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Value of `PAYMENT-REQUIRED`: base64 of the v2 JSON.
    pub header: String,
    /// Body: the v1 JSON. Its `accepts` is empty when v1 knows none of the networks.
    pub body: String,
}

impl Quote {
    /// Prepares the challenge of a route. Terms of the scheme `upto` are left out while nobody is known who
    /// could settle them on their network.
    pub fn new(terms: Vec<Terms>, info: QuoteInfo) -> Self {
        let (mut kept, mut kinds, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for (index, terms) in terms.into_iter().enumerate() {
            if let Some(kind) = AuthorizationKind::of(&terms, info.facilitators.on(terms.network)) {
                kept.push(index);
                kinds.push(kind);
                own.push(terms);
            }
        }
        // Kept for as long as the offer is, and grown for four.
        kept.shrink_to_fit();
        kinds.shrink_to_fit();
        own.shrink_to_fit();
        let each = || own.iter().zip(&kinds);
        let v2 = each().map(|(terms, kind)| split_v2(terms, *kind)).collect();
        let v1 = each().map(|(terms, kind)| split_v1(terms, *kind, &info)).collect();
        Self::priced(own, Arc::new(Prepared { kept, kinds, info, v2, v1 }))
    }

    /// The same quote with other amounts: one for each of the terms that [`new`](Self::new) was given, in their order. A
    /// price that depends on the request costs no more than writing its amount.
    pub fn at(&self, amounts: &[Amount]) -> Self {
        let amount = |index: &usize, before: Amount| amounts.get(*index).copied().unwrap_or(before);
        let terms = self.terms.iter().zip(&self.prepared.kept);
        let terms = terms.map(|(terms, index)| Terms { amount: amount(index, terms.amount), ..terms.clone() }).collect();
        Self::priced(terms, self.prepared.clone())
    }

    fn priced(terms: Vec<Terms>, prepared: Arc<Prepared>) -> Self {
        let amounts: Vec<Box<str>> = terms.iter().map(|terms| terms.amount.to_string().into()).collect();
        let entries: Vec<String> =
            prepared.v2.iter().zip(&amounts).map(|([head, tail], amount)| [head.as_ref(), amount, tail].concat()).collect();
        let [before, behind] = around(&prepared.info);
        let tail = [before, entries.join(","), behind].concat();
        Self { v2_tail: STANDARD.encode(tail).into(), terms, amounts, prepared }
    }

    /// The accepted payments, in the seller's order. Empty when there are only `upto` ones that nobody is
    /// known to settle.
    pub fn terms(&self) -> &[Terms] {
        &self.terms
    }

    /// The accepted payments with what a payer signs for each.
    pub(crate) fn payable(&self) -> impl Iterator<Item = (&Terms, AuthorizationKind)> {
        self.terms.iter().zip(self.prepared.kinds.iter().copied())
    }

    /// Whether both ask for the same payments, settled by the same facilitators.
    pub fn asks_for_the_same(&self, other: &Self) -> bool {
        self.terms == other.terms && self.prepared.kinds == other.prepared.kinds
    }

    /// What buyers are told besides the price.
    pub fn info(&self) -> &QuoteInfo {
        &self.prepared.info
    }

    /// The challenge for one URL. `error` says why a payment is asked for (again); it is cut to
    /// [`MAX_ERROR_CHARS`] and left out when empty.
    pub fn challenge(&self, resource_url: &str, error: &str) -> Challenge {
        let url = json(resource_url);
        let error = match error {
            "" => String::new(),
            error => format!(r#""error":{},"#, json(truncate(error, MAX_ERROR_CHARS))),
        };
        Challenge { header: self.header_v2(&url, &error), body: self.body_v1(&url, &error) }
    }

    /// The same requirements as in the challenge, as JSON for a facilitator; `None` when the
    /// version cannot express these terms.
    pub(crate) fn requirements(&self, index: usize, version: Version, resource_url: &str) -> Option<String> {
        let amount = self.amounts.get(index)?;
        match version {
            Version::V2 => self.prepared.v2.get(index).map(|[head, tail]| [head.as_ref(), amount, tail].concat()),
            Version::V1 => {
                let [head, middle, tail] = self.prepared.v1.get(index)?.as_ref()?;
                Some([head.as_ref(), amount, middle, json(resource_url).as_str(), tail].concat())
            }
        }
    }

    /// Whether v1 clients can meet the terms at `index`.
    pub(crate) fn in_v1(&self, index: usize) -> bool {
        self.prepared.v1.get(index).is_some_and(Option::is_some)
    }

    fn header_v2(&self, url: &str, error: &str) -> String {
        let mut head = String::with_capacity(48 + error.len() + url.len());
        for part in [r#"{"x402Version":2,"#, error, r#""resource":{"url":"#, url] {
            head.push_str(part);
        }
        // Base64 takes three bytes at a time: spaces, which mean nothing here in JSON, bring the
        // head to such a border, so that the prepared tail fits behind every head.
        while !head.len().is_multiple_of(3) {
            head.push(' ');
        }
        let mut header = String::with_capacity(head.len() / 3 * 4 + self.v2_tail.len());
        STANDARD.encode_string(&head, &mut header);
        header.push_str(&self.v2_tail);
        header
    }

    fn body_v1(&self, url: &str, error: &str) -> String {
        let entries = || self.prepared.v1.iter().zip(&self.amounts).filter_map(|(parts, amount)| Some((parts.as_ref()?, amount)));
        let length: usize =
            entries().map(|(parts, amount)| parts.iter().map(|part| part.len()).sum::<usize>() + amount.len() + url.len() + 1).sum();
        let mut body = String::with_capacity(40 + error.len() + length);
        for part in [r#"{"x402Version":1,"#, error, r#""accepts":["#] {
            body.push_str(part);
        }
        for (i, ([head, middle, tail], amount)) in entries().enumerate() {
            for part in [if i > 0 { "," } else { "" }, head, amount, middle, url, tail] {
                body.push_str(part);
            }
        }
        body.push_str("]}");
        body
    }
}

fn resource(info: &QuoteInfo) -> ResourceInfo {
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let printable = |name: &String| name.len() <= 32 && name.bytes().all(|b| (b' '..=b'~').contains(&b));
    ResourceInfo {
        url: String::new(),
        description: given(&info.description),
        mime_type: given(&info.mime_type),
        service_name: given(&info.service_name).filter(printable),
    }
}

/// The v2 challenge from behind the resource's URL, cut where the requirements stand.
fn around(info: &QuoteInfo) -> [String; 2] {
    let extensions = identifier::advertised(info.payment_identifier);
    let whole = json(&PaymentRequired { x402_version: 2, error: None, resource: resource(info), accepts: Vec::new(), extensions });
    let (_, tail) = whole.split_once(r#""url":"""#).unwrap_or_default();
    // Within a string the quotation marks would have backslashes.
    let (before, behind) = tail.split_once(r#""accepts":[]"#).unwrap_or_default();
    [format!(r#"{before}"accepts":["#), format!("]{behind}")]
}

/// JSON of our own, cut at the amount behind `key`, which is left out: no member before it is free text.
fn without_amount(whole: &str, key: &str) -> Option<[String; 2]> {
    let (head, rest) = whole.split_once(&format!(r#""{key}":""#))?;
    let (_, tail) = rest.split_once('"')?;
    Some([format!(r#"{head}"{key}":""#), format!("\"{tail}")])
}

fn split_v2(terms: &Terms, kind: AuthorizationKind) -> [Box<str>; 2] {
    let whole = json(&Requirements {
        scheme: terms.scheme.as_str().to_owned(),
        network: terms.network.caip2(),
        amount: terms.amount,
        asset: terms.asset.address.to_string(),
        pay_to: terms.pay_to.to_string(),
        max_timeout_seconds: terms.max_timeout_seconds.into(),
        extra: Some(extra(terms, kind)),
    });
    without_amount(&whole, "amount").unwrap_or_default().map(Into::into)
}

/// v1 knows neither every network, nor `upto`, nor any transfer method but ERC-3009.
fn split_v1(terms: &Terms, kind: AuthorizationKind, info: &QuoteInfo) -> Option<[Box<str>; 3]> {
    if !terms.network.in_v1 || kind != AuthorizationKind::Eip3009 {
        return None;
    }
    let whole = json(&RequirementsV1 {
        scheme: terms.scheme.as_str().to_owned(),
        network: terms.network.name.to_owned(),
        max_amount_required: terms.amount,
        resource: String::new(),
        description: info.description.clone(),
        mime_type: info.mime_type.clone(),
        pay_to: terms.pay_to.to_string(),
        max_timeout_seconds: terms.max_timeout_seconds.into(),
        asset: terms.asset.address.to_string(),
        extra: Some(extra(terms, kind)),
    });
    let [head, rest] = without_amount(&whole, "maxAmountRequired")?;
    let (middle, tail) = rest.split_once(r#""resource":"""#)?;
    Some([head.into(), format!(r#"{middle}"resource":"#).into(), tail.into()])
}

/// What a payer must know of the token's EIP-712 domain and of who settles. The transfer method is named
/// only where it is not the default.
pub(crate) fn extra(terms: &Terms, kind: AuthorizationKind) -> Map<String, Value> {
    let mut extra = Map::new();
    extra.insert("name".to_owned(), terms.asset.domain_name.clone().into());
    extra.insert("version".to_owned(), terms.asset.domain_version.clone().into());
    if kind.is_permit2() {
        extra.insert(TRANSFER_METHOD.to_owned(), method_word(kind).into());
    }
    if let Some(facilitator) = kind.facilitator() {
        extra.insert(FACILITATOR.to_owned(), facilitator.to_string().into());
    }
    extra
}

/// The word for how the money is moved.
pub(crate) const fn method_word(kind: AuthorizationKind) -> &'static str {
    if kind.is_permit2() { "permit2" } else { "eip3009" }
}

/// JSON of our own types, which have string keys only and therefore always serialise.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The first `chars` characters.
pub(crate) fn truncate(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
#[path = "quote_tests.rs"]
mod tests;
