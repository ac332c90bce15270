//! Payments as their seller sees them: everything of a row but what could be used to charge again.

use obol_offer::{Address, Amount, B256, Network, OfferName};
use obol_payment::State;
use obol_x402::ReplayKey;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::journal::Row;

/// One payment of the journal or of an archive. It has no signature and no payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRecord {
    /// `eip155:<chain>/<contract>/<payer>/<nonce>`; unique.
    pub key: String,
    /// Where it stands.
    pub state: State,
    /// What was bought.
    pub offer: OfferName,
    /// Network by name, by CAIP-2 id when the name is not known.
    pub network: String,
    /// Token contract.
    #[serde(serialize_with = "checksummed")]
    pub asset: Address,
    /// Ticker of the token, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Who pays.
    #[serde(serialize_with = "checksummed")]
    pub payer: Address,
    /// Who is paid.
    #[serde(serialize_with = "checksummed")]
    pub pay_to: Address,
    /// Atomic units that were authorised: the price, or the ceiling of a metered one.
    pub amount: Amount,
    /// The same in whole units, where the token's decimals are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_decimal: Option<String>,
    /// Atomic units that moved, once they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Amount>,
    /// The same in whole units, where the token's decimals are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_decimal: Option<String>,
    /// Who verified it, and the only one that is asked to settle it.
    pub facilitator: String,
    /// Hash, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// The facilitator's word for a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The payer's own name for the purchase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// What the seller says of sending the money back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Refund>,
    /// When it was first reserved.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// When its state changed last.
    #[serde(with = "time::serde::rfc3339")]
    pub updated: OffsetDateTime,
    /// Unix seconds from which on the authorization is void.
    pub valid_before: u64,
    /// When the facilitator is asked again, while the outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub next_attempt: Option<OffsetDateTime>,
}

/// What a seller says of sending the money of a payment back. Nothing of it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refund {
    /// The transaction that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// For the seller's books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// With the capitals of ERC-55, as in the key.
fn checksummed<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

impl PaymentRecord {
    pub(crate) fn of(key: &ReplayKey, row: &Row) -> Self {
        let network = Network::find(&format!("eip155:{}", key.chain_id));
        let known = network.map(Network::default_asset).filter(|asset| asset.address == row.asset(key));
        let decimals = row.decimals.or(known.as_ref().map(|asset| asset.decimals));
        Self {
            key: key.to_string(),
            state: row.state,
            offer: row.offer.clone(),
            network: network.map_or_else(|| format!("eip155:{}", key.chain_id), |network| network.name.to_owned()),
            asset: row.asset(key),
            symbol: row.symbol.clone().or(known.map(|asset| asset.symbol)),
            payer: key.payer,
            pay_to: row.pay_to,
            amount: row.amount,
            amount_decimal: decimals.map(|decimals| row.amount.to_decimal(decimals)),
            settled: row.receipt.as_ref().map(|receipt| receipt.amount),
            settled_decimal: row.receipt.as_ref().zip(decimals).map(|(receipt, decimals)| receipt.amount.to_decimal(decimals)),
            facilitator: row.facilitator.clone(),
            transaction: row.transaction.clone(),
            reason: row.reason.clone(),
            identifier: row.id.clone(),
            refund: row.refund.clone(),
            created: moment(row.created),
            updated: moment(row.updated),
            valid_before: row.valid_before,
            next_attempt: row.next_attempt.map(moment),
        }
    }
}

/// Unix milliseconds as a date; the end of time for what is none.
pub(crate) fn moment(milliseconds: u64) -> OffsetDateTime {
    let nanoseconds = i128::from(milliseconds) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Reads [`PaymentRecord::key`].
pub(crate) fn parse_key(text: &str) -> Option<ReplayKey> {
    let mut parts = text.strip_prefix("eip155:")?.split('/');
    let key = ReplayKey {
        chain_id: parts.next()?.parse().ok()?,
        contract: parts.next()?.parse().ok()?,
        payer: parts.next()?.parse().ok()?,
        nonce: parts.next()?.parse::<B256>().ok()?,
    };
    parts.next().is_none().then_some(key)
}

/// Which payments are asked for. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentQuery {
    /// In one of these states; any when empty.
    pub states: Vec<State>,
    /// For this offer.
    pub offer: Option<OfferName>,
    /// By this payer.
    pub payer: Option<Address>,
    /// First reserved at or after this moment.
    pub since: Option<OffsetDateTime>,
    /// First reserved before this moment.
    pub until: Option<OffsetDateTime>,
    /// Whose key is this, or whose nonce or transaction begins with it.
    pub find: Option<String>,
    /// Most payments on one page, 1 to [`PaymentQuery::MAX_LIMIT`]; others are brought into bounds.
    pub limit: usize,
    /// [`PaymentPage::next`] of the page before.
    pub cursor: Option<String>,
}

impl PaymentQuery {
    /// Most payments on one page.
    pub const MAX_LIMIT: usize = 1000;

    pub(crate) fn page(&self) -> usize {
        self.limit.clamp(1, Self::MAX_LIMIT)
    }

    pub(crate) fn takes(&self, record: &PaymentRecord) -> bool {
        let found = self.find.as_deref().is_none_or(|find| {
            let begins = |text: &str| text.get(..find.len()).is_some_and(|start| start.eq_ignore_ascii_case(find));
            record.key.eq_ignore_ascii_case(find)
                || record.key.rsplit('/').next().is_some_and(begins)
                || record.transaction.as_deref().is_some_and(begins)
        });
        (self.states.is_empty() || self.states.contains(&record.state))
            && self.offer.as_ref().is_none_or(|offer| *offer == record.offer)
            && self.payer.is_none_or(|payer| payer == record.payer)
            && self.since.is_none_or(|since| record.created >= since)
            && self.until.is_none_or(|until| record.created < until)
            && found
    }
}

/// One page of payments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPage {
    /// The payments.
    pub payments: Vec<PaymentRecord>,
    /// For the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Why payments cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The cursor is not one of ours.
    #[error("the cursor is not one that an earlier page gave")]
    Cursor,
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Journal(String),
    /// An archive cannot be read.
    #[error("the archive {0} cannot be read: {1}")]
    Archive(std::path::PathBuf, std::io::Error),
}

impl ListError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cursor => "cursor_invalid",
            Self::Journal(_) => "journal_unavailable",
            Self::Archive(..) => "archive_unavailable",
        }
    }
}
