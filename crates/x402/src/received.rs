//! The buyer's side: reading a challenge, and writing the payment that meets it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use obol_offer::{Address, Amount, Network, Scheme, Terms, TransferMethod, U256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    Authorization, AuthorizationKind, Version,
    decode::from_base64,
    quote::{FACILITATOR, TRANSFER_METHOD, json, truncate},
    wire::{PAYMENT_SIGNATURE, X_PAYMENT},
};

/// Longest `PAYMENT-REQUIRED` header that a buyer reads.
const MAX_CHALLENGE_HEADER: usize = 64 * 1024;

/// A `402` as a buyer received it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Version of its entries.
    pub version: Version,
    /// Why a payment is asked for, or why the last one was refused.
    pub error: Option<String>,
    /// What the seller accepts, in the seller's order.
    pub offers: Vec<Offered>,
}

/// One entry of `accepts[]`, with everything that a payment must repeat.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Protocol version to answer in.
    pub version: Version,
    /// Payment scheme; `exact` and `upto` can be paid here.
    pub scheme: String,
    /// Network as the seller writes it.
    pub network: String,
    /// Atomic units; for `upto` the most that is charged.
    pub amount: Amount,
    /// Token contract as the seller writes it.
    pub asset: String,
    /// Payee as the seller writes it.
    pub pay_to: String,
    /// Validity to sign for, in seconds.
    pub max_timeout_seconds: u64,
    /// The entry byte for byte.
    accepted: Box<RawValue>,
    resource: Option<Box<RawValue>>,
    extensions: Option<Box<RawValue>>,
}

/// Why an answer is not a challenge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceivedError {
    /// The header is not base64, or too long.
    #[error("the PAYMENT-REQUIRED header is not base64 of at most 64 KiB")]
    Header,
    /// Not the JSON of a challenge; the text says where.
    #[error("the challenge is malformed: {0}")]
    Malformed(String),
    /// Neither a v2 header nor a v1 body.
    #[error("a 402 without x402 payment terms")]
    NoTerms,
}

/// Why an offered payment cannot be made here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPayable {
    /// Another scheme than `exact`, or than `exact` and `upto` in v2.
    #[error("its scheme `{0}` is not `exact` or, in v2, `upto`")]
    Scheme(String),
    /// A network we do not know.
    #[error("its network `{0}` is not known here")]
    Network(String),
    /// A token whose signing domain we do not know for sure.
    #[error("its token {0} is not known here")]
    Asset(String),
    /// A transfer method other than ERC-3009, or than Permit2 in v2.
    #[error("its transfer method `{0}` is not eip3009 or, in v2, permit2")]
    TransferMethod(String),
    /// `upto` without the address of who settles.
    #[error("it does not say which facilitator settles (`facilitatorAddress`)")]
    Facilitator,
    /// The payee is no address.
    #[error("its payee `{0}` is no address")]
    Payee(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawChallenge {
    x402_version: u64,
    error: Option<Value>,
    resource: Option<Box<RawValue>>,
    extensions: Option<Box<RawValue>>,
    accepts: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    scheme: String,
    network: String,
    #[serde(alias = "maxAmountRequired")]
    amount: Amount,
    asset: String,
    pay_to: String,
    #[serde(default)]
    max_timeout_seconds: Option<u64>,
}

impl Received {
    /// Reads the challenge of a `402`: the v2 header when there is one, else the body, which is v1's
    /// place but holds v2 at some sellers.
    ///
    /// # Errors
    /// [`ReceivedError`] when neither is a challenge.
    pub fn parse(header: Option<&[u8]>, body: &[u8]) -> Result<Self, ReceivedError> {
        let Some(header) = header else {
            return Self::from_json(body, None);
        };
        let json = Some(header).filter(|h| h.len() <= MAX_CHALLENGE_HEADER).and_then(from_base64).ok_or(ReceivedError::Header)?;
        Self::from_json(&json, Some(Version::V2))
    }

    /// `expected` is the only version its place allows; a body may be of either.
    fn from_json(json: &[u8], expected: Option<Version>) -> Result<Self, ReceivedError> {
        let raw: RawChallenge = match serde_json::from_slice(json) {
            Ok(raw) => raw,
            Err(_) if expected.is_none() => return Err(ReceivedError::NoTerms),
            Err(e) => return Err(ReceivedError::Malformed(truncate(&e.to_string(), 160).to_owned())),
        };
        let version = match (raw.x402_version, expected) {
            (1, None) => Version::V1,
            (2, None | Some(Version::V2)) => Version::V2,
            (other, _) => return Err(ReceivedError::Malformed(format!("x402Version {other} does not belong here"))),
        };
        let error = raw.error.as_ref().and_then(Value::as_str).map(|text| truncate(text, 400).to_owned());
        // An entry of a scheme that we do not know may have any shape; it hides no other.
        let offers = raw
            .accepts
            .into_iter()
            .filter_map(|accepted| {
                let entry: RawEntry = serde_json::from_str(accepted.get()).ok()?;
                Some(Offered {
                    version,
                    scheme: entry.scheme,
                    network: entry.network,
                    amount: entry.amount,
                    asset: entry.asset,
                    pay_to: entry.pay_to,
                    max_timeout_seconds: entry.max_timeout_seconds.unwrap_or(60),
                    accepted,
                    resource: raw.resource.clone(),
                    extensions: raw.extensions.clone(),
                })
            })
            .collect();
        Ok(Self { version, error, offers })
    }
}

impl Offered {
    /// The terms to sign. Token and signing domain come from our own registry, never from the
    /// seller: a foreign domain could turn the signature into one for something else.
    ///
    /// # Errors
    /// [`NotPayable`] when this is nothing that we can pay.
    pub fn terms(&self) -> Result<Terms, NotPayable> {
        let newest = self.version == Version::V2;
        let scheme = match self.scheme.as_str() {
            "exact" => Scheme::Exact,
            "upto" if newest => Scheme::Upto,
            _ => return Err(NotPayable::Scheme(self.scheme.clone())),
        };
        let network = Network::find(&self.network).ok_or_else(|| NotPayable::Network(self.network.clone()))?;
        let mut asset = network.default_asset();
        if self.asset.parse() != Ok(asset.address) {
            return Err(NotPayable::Asset(self.asset.clone()));
        }
        match self.extra(TRANSFER_METHOD).as_deref() {
            None => {}
            Some("eip3009") if scheme == Scheme::Exact => {}
            Some("permit2") if newest => asset.transfer_method = TransferMethod::Permit2,
            Some(other) => return Err(NotPayable::TransferMethod(other.to_owned())),
        }
        let pay_to = self.pay_to.parse().map_err(|_| NotPayable::Payee(self.pay_to.clone()))?;
        let max_timeout_seconds = u32::try_from(self.max_timeout_seconds).unwrap_or(u32::MAX);
        let terms = Terms { scheme, network, asset, pay_to, amount: self.amount, max_timeout_seconds };
        if self.kind(&terms).is_some() { Ok(terms) } else { Err(NotPayable::Facilitator) }
    }

    /// What to sign for these [`terms`](Self::terms).
    pub fn kind(&self, terms: &Terms) -> Option<AuthorizationKind> {
        let facilitator = self.extra(FACILITATOR).and_then(|text| text.parse::<Address>().ok());
        AuthorizationKind::of(terms, facilitator.filter(|address| *address != Address::ZERO))
    }

    /// The entry as JSON, byte for byte as received.
    pub fn as_json(&self) -> &str {
        self.accepted.get()
    }

    /// The header that pays: its name and value. A v2 payment repeats entry, resource and
    /// extensions as they were received.
    pub fn payment(&self, authorization: &Authorization) -> (&'static str, String) {
        let payload = Payload::new(authorization, &self.asset);
        let (name, json) = match self.version {
            Version::V1 => {
                (X_PAYMENT, json(&PaymentV1 { x402_version: 1, scheme: &self.scheme, network: &self.network, payload: &payload }))
            }
            Version::V2 => (
                PAYMENT_SIGNATURE,
                json(&PaymentV2 {
                    x402_version: 2,
                    resource: self.resource.as_deref(),
                    accepted: &self.accepted,
                    payload: &payload,
                    extensions: self.extensions.as_deref(),
                }),
            ),
        };
        (name, STANDARD.encode(json))
    }

    fn extra(&self, name: &str) -> Option<String> {
        let entry: Value = serde_json::from_str(self.accepted.get()).ok()?;
        Some(entry.get("extra")?.get(name)?.as_str()?.to_owned())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentV1<'a> {
    x402_version: u8,
    scheme: &'a str,
    network: &'a str,
    payload: &'a Payload,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentV2<'a> {
    x402_version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a RawValue>,
    accepted: &'a RawValue,
    payload: &'a Payload,
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    signature: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization: Option<PayloadAuthorization>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permit2_authorization: Option<PayloadPermit>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PayloadAuthorization {
    from: String,
    to: String,
    value: Amount,
    valid_after: String,
    valid_before: String,
    nonce: String,
}

#[derive(Serialize)]
struct PayloadPermit {
    from: String,
    permitted: Permitted,
    spender: String,
    nonce: String,
    deadline: String,
    witness: Witness,
}

#[derive(Serialize)]
struct Permitted {
    token: String,
    amount: Amount,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Witness {
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    facilitator: Option<String>,
    valid_after: String,
}

impl Payload {
    fn new(signed: &Authorization, asset: &str) -> Self {
        let signature = alloy_primitives::hex::encode_prefixed(&signed.signature);
        let (from, to, value, valid_after) = (signed.from.to_string(), signed.to.to_string(), signed.value, signed.valid_after.to_string());
        match signed.kind.spender() {
            None => {
                let (valid_before, nonce) = (signed.valid_before.to_string(), signed.nonce.to_string());
                let authorization = PayloadAuthorization { from, to, value, valid_after, valid_before, nonce };
                Self { signature, authorization: Some(authorization), permit2_authorization: None }
            }
            Some(spender) => {
                let token = asset.parse::<Address>().map_or_else(|_| asset.to_owned(), |token| token.to_string());
                let permit = PayloadPermit {
                    from,
                    permitted: Permitted { token, amount: value },
                    spender: spender.to_string(),
                    nonce: U256::from_be_bytes(signed.nonce.0).to_string(),
                    deadline: signed.deadline().to_string(),
                    witness: Witness { to, facilitator: signed.kind.facilitator().map(|address| address.to_string()), valid_after },
                };
                Self { signature, authorization: None, permit2_authorization: Some(permit) }
            }
        }
    }
}

#[cfg(test)]
#[path = "received_tests.rs"]
mod tests;
