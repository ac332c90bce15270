//! What is asked for: network, payee, asset, price, and who settles it.

use alloy_primitives::Address;
use url::Url;

use super::{Checker, DEFAULT_MAX_TIMEOUT_SECONDS, PriceTag, Terms, shape::PRIVATE_URL};
use crate::admission::bounds::MAX_DECIMALS;
use crate::{Amount, Asset, AssetSpec, Model, Network, OfferSpec, PaymentSpec, Price, Scheme};

impl Checker {
    pub(super) fn payments(&mut self, spec: &OfferSpec, model: Option<&Model>) -> Vec<PriceTag> {
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
        let mut tags: Vec<PriceTag> = Vec::new();
        for (index, payment) in list.iter().enumerate() {
            let field = list_name.map_or_else(|| "spec.payment".to_owned(), |list| format!("{list}[{index}]"));
            let next = self.payment(&field, payment, model);
            let Some(first) = next.first() else { continue };
            let way = |t: &Terms| (t.network.chain_id, t.asset.address, t.scheme, t.transfer_method());
            if tags.iter().any(|known| next.iter().any(|tag| way(&known.terms) == way(&tag.terms))) {
                self.refuse("payment_twice", field, "the same token on the same network is listed twice", "remove one of them");
            } else if tags.first().is_some_and(|t| t.terms.network.is_sandbox() != first.terms.network.is_sandbox()) {
                self.refuse("sandbox_mixed", field, "play money and real networks are mixed", "keep only one kind of network");
            } else {
                tags.extend(next);
            }
        }
        // Kept for as long as the offer is, and grown for four.
        tags.shrink_to_fit();
        tags
    }

    fn payment(&mut self, field: &str, spec: &PaymentSpec, model: Option<&Model>) -> Vec<PriceTag> {
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
        let rate = self.rate(&format!("{field}.price"), &spec.price, asset.as_ref(), model);
        if spec.scheme == Some(Scheme::Upto) && rate.as_ref().is_some_and(|rate| !rate.is_metered()) {
            let fix = "write perMTok or perUnit, or `scheme: exact`";
            self.refuse("scheme_upto", format!("{field}.scheme"), "`upto` is for a price per token or unit", fix);
        }
        let (Some(network), Some(asset), Some(pay_to), Some(rate)) = (network, asset, pay_to, rate) else { return Vec::new() };
        if self.violations.len() > before {
            return Vec::new();
        }
        // What was used is charged first, where it can be; who only knows `exact` pays the ceiling.
        let schemes: &[Scheme] = match spec.scheme {
            Some(Scheme::Upto) => &[Scheme::Upto],
            None if rate.is_metered() => &[Scheme::Upto, Scheme::Exact],
            Some(Scheme::Exact) | None => &[Scheme::Exact],
        };
        let tag = |scheme: &Scheme| {
            let (asset, amount) = (asset.clone(), rate.maximum());
            let terms = Terms { scheme: *scheme, network, asset, pay_to, amount, max_timeout_seconds: timeout };
            PriceTag { terms, rate: rate.clone() }
        };
        schemes.iter().map(tag).collect()
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
        if spec.symbol.is_empty() || spec.symbol.chars().count() > 16 || spec.eip712_name.is_empty() || spec.eip712_version.is_empty() {
            self.refuse("asset", field, "symbol, eip712Name and eip712Version are needed", "copy them from the token contract");
            return None;
        }
        if spec.decimals > MAX_DECIMALS {
            let message = format!("{} decimals are too many", spec.decimals);
            self.refuse("asset", format!("{field}.decimals"), message, format!("at most {MAX_DECIMALS}; copy it from the token contract"));
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

    pub(super) fn amount(&mut self, field: &str, price: &str, asset: &Asset) -> Option<Amount> {
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

    pub(super) fn facilitators(&mut self, list: &[String]) -> Vec<Url> {
        let mut urls = Vec::new();
        for (index, text) in list.iter().enumerate() {
            match Url::parse(text) {
                Ok(url) if is_facilitator_url(text) => urls.push(url),
                _ => self.refuse(
                    "facilitator_url",
                    format!("spec.facilitators[{index}]"),
                    format!("`{text}` is no https URL"),
                    "write https://…; plain http is allowed for loopback and for Services (http://NAME.NAMESPACE.svc)",
                ),
            }
        }
        urls.shrink_to_fit();
        urls
    }
}

/// Whether payments may be sent to this base URL: over TLS, or without leaving the machine or the cluster.
pub fn is_facilitator_url(text: &str) -> bool {
    PRIVATE_URL.fits(text) && Url::parse(text).is_ok()
}
