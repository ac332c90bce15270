//! What buyers are told: `/api/services.json`. Public fields only; never an upstream, a
//! facilitator or a limit.

use std::sync::Arc;

use obol_offer::{Offer, PriceTag, Rate};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Document,
    state::{Phase, Site, State},
    table::charged,
};

/// Path of the catalog.
pub const SERVICES_PATH: &str = "/api/services.json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The first payment; with several, `payments` has them all.
    #[serde(flatten)]
    first: Option<Payment<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    payments: Vec<Payment<'a>>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_ends_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payment<'a> {
    /// Whole units per request, e.g. `0.001`.
    price: String,
    /// The same in atomic units.
    amount: String,
    /// Of a metered price, for which `price` is the most of one request: how it is worked out.
    #[serde(skip_serializing_if = "Option::is_none")]
    metered: Option<Metered>,
    network: &'static str,
    caip2_network: String,
    testnet: bool,
    asset: Token<'a>,
    pay_to: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metered {
    scheme: &'static str,
    /// As people read it.
    price: String,
    #[serde(flatten)]
    by: By,
    /// What is charged, in words.
    charged: String,
}

/// Atomic units.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum By {
    PerMTok { input: String, output: String, max_input_bytes: u32, max_output_tokens: u32 },
    PerUnit { unit: String, amount: String, max_units: u32 },
}

#[derive(Serialize)]
struct Token<'a> {
    address: String,
    symbol: &'a str,
    decimals: u8,
}

/// One entry of the catalog as JSON.
pub(crate) fn listing(offer: &Offer, phase: Phase, site: &Site) -> Option<Arc<str>> {
    let several = offer.payments.get(1).is_some();
    let told = &offer.registration;
    let listing = Listing {
        name: offer.name.plain(),
        display_name: told.name.as_deref(),
        kind: offer.kind.as_str(),
        description: told.description.as_deref(),
        mime_type: told.mime_type.as_deref(),
        hostname: offer.hostname.as_ref().map(AsRef::as_ref),
        path: offer.path.as_str(),
        url: public_url(offer, site),
        first: offer.payments.first().map(|tag| payment(offer, tag)),
        payments: if several { offer.payments.iter().map(|tag| payment(offer, tag)).collect() } else { Vec::new() },
        status: if phase == Phase::Active { "ready" } else { "draining" },
        drain_ends_at: match phase {
            Phase::Draining(end) => Some(rfc3339(end)),
            _ => None,
        },
    };
    serde_json::to_string(&listing).ok().map(Into::into)
}

fn metered(offer: &Offer, tag: &PriceTag) -> Option<Metered> {
    let by = match &tag.rate {
        Rate::PerRequest(_) => return None,
        Rate::PerToken { input, output, max_input, max_output } => By::PerMTok {
            input: input.to_string(),
            output: output.to_string(),
            max_input_bytes: *max_input,
            max_output_tokens: *max_output,
        },
        Rate::PerUnit { price, unit, max } => By::PerUnit { unit: unit.clone(), amount: price.to_string(), max_units: *max },
    };
    Some(Metered { scheme: tag.terms.scheme.as_str(), price: tag.price(), by, charged: charged(tag, offer.model.as_ref())? })
}

fn payment<'a>(offer: &Offer, tag: &'a PriceTag) -> Payment<'a> {
    let terms = &tag.terms;
    Payment {
        price: terms.amount.to_decimal(terms.asset.decimals),
        amount: terms.amount.to_string(),
        metered: metered(offer, tag),
        network: terms.network.name,
        caip2_network: terms.network.caip2(),
        testnet: terms.network.testnet,
        asset: Token { address: terms.asset.address.to_string(), symbol: &terms.asset.symbol, decimals: terms.asset.decimals },
        pay_to: terms.pay_to.to_string(),
    }
}

/// Where buyers find an offer; `None` when the site does not know its own public address.
pub fn public_url(offer: &Offer, site: &Site) -> Option<String> {
    let base = site.public_url.as_ref()?;
    let mut url = base.clone();
    if let Some(hostname) = &offer.hostname {
        url.set_host(Some(hostname.as_str())).ok()?;
        url.set_path(offer.path.as_str());
    } else {
        url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), offer.path));
    }
    Some(url.into())
}

/// The catalog, in the order of names.
pub(crate) fn services(state: &State) -> Document {
    let listings: Vec<&str> = state.offers.values().filter_map(|offer| offer.listing.as_deref()).collect();
    let (head, tail) = (r#"{"schemaVersion":1,"services":["#, "]}");
    // Megabytes, with many offers: written once.
    let mut body = String::with_capacity(head.len() + listings.iter().map(|listing| listing.len() + 1).sum::<usize>() + tail.len());
    body.push_str(head);
    for (n, listing) in listings.into_iter().enumerate() {
        if n > 0 {
            body.push(',');
        }
        body.push_str(listing);
    }
    body.push_str(tail);
    Document { content_type: "application/json", body: body.into_bytes().into() }
}

/// To the second, in UTC.
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}
