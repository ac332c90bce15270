//! What the JSON of a payment says, and where in the text it says so.
//!
//! The text itself goes to a facilitator with a few strings replaced in place, so that whatever
//! else the buyer wrote arrives as written.

use std::{ops::Range, str::FromStr};

use obol_offer::{Address, Amount, B256, Network};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, value::RawValue};

use crate::{BadPaymentId, DecodeError, PaymentId, Version, identifier};

/// Longest signature in bytes; those of smart wallets carry proofs.
const MAX_SIGNATURE_BYTES: usize = 4096;

/// A payment as its JSON tells it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub choice: Choice,
    /// v2 `resource.url`.
    pub resource_url: Option<String>,
    /// What was signed; other schemes and transfer methods have none.
    pub authorization: Option<SignedClaim>,
    /// The buyer's own name for the purchase (v2).
    pub identifier: Result<Option<PaymentId>, BadPaymentId>,
    /// Replacements that change the spelling and not the meaning, by position, none overlapping.
    pub edits: Vec<Edit>,
}

/// Which of the offered requirements the buyer met.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// v1 says scheme and network, and no more.
    V1 { scheme: String, network: String },
    /// v2 repeats the requirements.
    V2(Box<Accepted>),
}

/// v2 `accepted`. What is no address is no address of ours.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub scheme: String,
    pub network: Option<&'static Network>,
    pub amount: Option<Amount>,
    pub asset: Option<Address>,
    pub pay_to: Option<Address>,
    pub extra: Option<Map<String, Value>>,
}

/// `payload` of a payment by ERC-3009 or Permit2.
#[derive(Clone, Debug)]
pub(crate) struct SignedClaim {
    pub from: Address,
    pub to: Address,
    pub value: Amount,
    pub valid_after: u64,
    /// Exclusive; Permit2's `deadline` is the second before.
    pub valid_before: u64,
    pub nonce: B256,
    /// What Permit2 checks besides; `None` for ERC-3009.
    pub permit2: Option<PermitClaim>,
    pub signature: Vec<u8>,
    /// The signature's JSON string in the text.
    pub signature_at: Range<usize>,
    /// Another transfer method beside the authorization. A facilitator might settle that one, and
    /// then what we checked is not what is paid.
    pub ambiguous: bool,
}

/// What a payer says to Permit2 and to x402's proxies alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PermitClaim {
    pub token: Address,
    pub spender: Address,
    /// `upto` only.
    pub facilitator: Option<Address>,
}

/// Text to be put in place of a JSON value.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub at: Range<usize>,
    pub text: String,
}

#[derive(Deserialize)]
struct RawPayment<'a> {
    scheme: Option<String>,
    network: Option<String>,
    #[serde(borrow)]
    accepted: Option<RawAccepted<'a>>,
    resource: Option<RawResource>,
    #[serde(borrow)]
    payload: RawPayload<'a>,
    extensions: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAccepted<'a> {
    scheme: String,
    #[serde(borrow)]
    network: &'a RawValue,
    amount: String,
    #[serde(borrow)]
    asset: &'a RawValue,
    #[serde(borrow)]
    pay_to: &'a RawValue,
    extra: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct RawResource {
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPayload<'a> {
    #[serde(borrow)]
    signature: Option<&'a RawValue>,
    #[serde(borrow)]
    authorization: Option<RawAuthorization<'a>>,
    #[serde(borrow)]
    permit2_authorization: Option<RawPermit<'a>>,
    permission_context: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawPermit<'a> {
    #[serde(borrow)]
    from: &'a RawValue,
    #[serde(borrow)]
    permitted: RawPermitted<'a>,
    #[serde(borrow)]
    spender: &'a RawValue,
    nonce: String,
    deadline: String,
    #[serde(borrow)]
    witness: RawWitness<'a>,
}

#[derive(Deserialize)]
struct RawPermitted<'a> {
    #[serde(borrow)]
    token: &'a RawValue,
    amount: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawWitness<'a> {
    #[serde(borrow)]
    to: &'a RawValue,
    #[serde(borrow)]
    facilitator: Option<&'a RawValue>,
    valid_after: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAuthorization<'a> {
    #[serde(borrow)]
    from: &'a RawValue,
    #[serde(borrow)]
    to: &'a RawValue,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: String,
}

impl Claim {
    /// Reads the JSON of a payment.
    pub fn parse(text: &str, version: Version) -> Result<Self, DecodeError> {
        let raw: RawPayment<'_> = serde_json::from_str(text).map_err(DecodeError::malformed)?;
        let mut edits = Edits { text, list: Vec::new() };
        let choice = match (version, raw.accepted) {
            (Version::V2, Some(accepted)) => Choice::V2(Box::new(accepted.read(&mut edits)?)),
            (Version::V2, None) => return Err(DecodeError::malformed("`accepted` is missing")),
            (Version::V1, _) => Choice::V1 {
                scheme: raw.scheme.ok_or_else(|| DecodeError::malformed("`scheme` is missing"))?,
                network: raw.network.ok_or_else(|| DecodeError::malformed("`network` is missing"))?,
            },
        };
        let authorization = raw.payload.read(&mut edits)?;
        let identifier = raw.extensions.filter(|_| version == Version::V2).map_or(Ok(None), |extensions| identifier::of(&extensions));
        let resource_url = raw.resource.and_then(|r| r.url).filter(|url| version == Version::V2 && !url.is_empty());
        Ok(Self { choice, resource_url, authorization, identifier, edits: edits.list })
    }
}

impl RawAccepted<'_> {
    fn read(self, edits: &mut Edits<'_>) -> Result<Accepted, DecodeError> {
        let network = Network::find(&string(self.network, "accepted.network")?);
        if let Some(network) = network {
            edits.replace(self.network, &network.caip2());
        }
        let mut echoed = |raw: &RawValue, field| {
            let address = parse_address(&string(raw, field)?);
            if let Some(address) = address {
                edits.replace(raw, &address.to_string());
            }
            Ok::<_, DecodeError>(address)
        };
        Ok(Accepted {
            scheme: self.scheme,
            network,
            amount: self.amount.parse().ok(),
            asset: echoed(self.asset, "accepted.asset")?,
            pay_to: echoed(self.pay_to, "accepted.payTo")?,
            extra: self.extra,
        })
    }
}

impl RawPayload<'_> {
    fn read(self, edits: &mut Edits<'_>) -> Result<Option<SignedClaim>, DecodeError> {
        let ambiguous = self.permission_context.is_some() || (self.authorization.is_some() && self.permit2_authorization.is_some());
        let mut signed = match (self.authorization, self.permit2_authorization) {
            (Some(authorization), _) => authorization.read(edits)?,
            (None, Some(permit)) => permit.read(edits)?,
            (None, None) => return Ok(None),
        };
        let signature = self.signature.ok_or_else(|| DecodeError::malformed("`payload.signature` is missing"))?;
        signed.signature = parse_hex(&string(signature, "payload.signature")?)
            .filter(|bytes| bytes.len() <= MAX_SIGNATURE_BYTES)
            .ok_or_else(|| DecodeError::malformed("`payload.signature` is not 0x and at most 4 KiB in hexadecimal"))?;
        signed.signature_at = edits.range(signature);
        signed.ambiguous = ambiguous;
        Ok(Some(signed))
    }
}

/// An address that was signed.
fn address(edits: &mut Edits<'_>, raw: &RawValue, field: &str) -> Result<Address, DecodeError> {
    let address = parse_address(&string(raw, field)?).ok_or_else(|| bad(field, "an address"))?;
    edits.replace(raw, &address.to_string());
    Ok(address)
}

impl RawAuthorization<'_> {
    /// All but the signature.
    fn read(self, edits: &mut Edits<'_>) -> Result<SignedClaim, DecodeError> {
        Ok(SignedClaim {
            from: address(edits, self.from, "payload.authorization.from")?,
            to: address(edits, self.to, "payload.authorization.to")?,
            value: number(&self.value, "payload.authorization.value", "atomic units in decimal digits")?,
            valid_after: seconds(&self.valid_after, "payload.authorization.validAfter")?,
            valid_before: seconds(&self.valid_before, "payload.authorization.validBefore")?,
            nonce: parse_hex(&self.nonce)
                .and_then(|bytes| B256::try_from(bytes.as_slice()).ok())
                .ok_or_else(|| bad("payload.authorization.nonce", "32 bytes in hexadecimal"))?,
            permit2: None,
            signature: Vec::new(),
            signature_at: 0..0,
            ambiguous: false,
        })
    }
}

impl RawPermit<'_> {
    /// All but the signature.
    fn read(self, edits: &mut Edits<'_>) -> Result<SignedClaim, DecodeError> {
        let field = |name: &str| format!("payload.permit2Authorization.{name}");
        let nonce: Amount = number(&self.nonce, &field("nonce"), "a number of 256 bits in decimal digits")?;
        let deadline = seconds(&self.deadline, &field("deadline"))?;
        let facilitator = self.witness.facilitator.map(|raw| address(edits, raw, &field("witness.facilitator")));
        Ok(SignedClaim {
            from: address(edits, self.from, &field("from"))?,
            to: address(edits, self.witness.to, &field("witness.to"))?,
            value: number(&self.permitted.amount, &field("permitted.amount"), "atomic units in decimal digits")?,
            valid_after: seconds(&self.witness.valid_after, &field("witness.validAfter"))?,
            valid_before: deadline.checked_add(1).ok_or_else(|| bad(&field("deadline"), "a Unix time in seconds"))?,
            nonce: B256::from(nonce.0),
            permit2: Some(PermitClaim {
                token: address(edits, self.permitted.token, &field("permitted.token"))?,
                spender: address(edits, self.spender, &field("spender"))?,
                facilitator: facilitator.transpose()?,
            }),
            signature: Vec::new(),
            signature_at: 0..0,
            ambiguous: false,
        })
    }
}

/// Collects replacements in `text`.
struct Edits<'a> {
    text: &'a str,
    list: Vec<Edit>,
}

impl Edits<'_> {
    /// Where in the text a value that was borrowed from it stands.
    fn range(&self, part: &RawValue) -> Range<usize> {
        let start = (part.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        start..start + part.get().len()
    }

    fn replace(&mut self, part: &RawValue, with: &str) {
        let text = format!("\"{with}\"");
        if part.get() != text {
            self.list.push(Edit { at: self.range(part), text });
        }
    }
}

fn bad(field: &str, expected: &str) -> DecodeError {
    DecodeError::malformed(format_args!("`{field}` is not {expected}"))
}

fn string(raw: &RawValue, field: &str) -> Result<String, DecodeError> {
    serde_json::from_str(raw.get()).map_err(|_| bad(field, "a string"))
}

fn number<T: FromStr>(text: &str, field: &str, expected: &str) -> Result<T, DecodeError> {
    text.parse().map_err(|_| bad(field, expected))
}

/// Decimal digits only: `u64::from_str` alone would take a sign.
fn seconds(text: &str, field: &str) -> Result<u64, DecodeError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    Some(text).filter(|_| digits).and_then(|text| text.parse().ok()).ok_or_else(|| bad(field, "a Unix time in seconds"))
}

/// `0x` and 40 hexadecimal digits in any case. A wrong EIP-55 checksum is let pass: the payer
/// signed the bytes.
fn parse_address(text: &str) -> Option<Address> {
    Address::try_from(parse_hex(text)?.as_slice()).ok()
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    alloy_primitives::hex::decode(text.strip_prefix("0x")?).ok().filter(|_| !text.starts_with("0x0x"))
}
