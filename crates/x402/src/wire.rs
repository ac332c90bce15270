//! The JSON objects of x402, both versions. Liberal on input (unknown fields are kept), strict on
//! output (absent optional fields are left out, never `null`: official v1 clients refuse `null`).

use obol_offer::Amount;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Request header of a v2 payment.
pub const PAYMENT_SIGNATURE: &str = "payment-signature";
/// Request header of a v1 payment.
pub const X_PAYMENT: &str = "x-payment";
/// Response header of a v2 challenge.
pub const PAYMENT_REQUIRED: &str = "payment-required";
/// Response header of a v2 receipt.
pub const PAYMENT_RESPONSE: &str = "payment-response";
/// Response header of a v1 receipt.
pub const X_PAYMENT_RESPONSE: &str = "x-payment-response";

/// v2 `PaymentRequirements`, one entry of `accepts[]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirements {
    /// `exact` or `upto`.
    pub scheme: String,
    /// CAIP-2 id.
    pub network: String,
    /// Atomic units; for `upto` the most that may be charged, and at `/settle` what is.
    pub amount: Amount,
    /// Token contract, EIP-55 checksum.
    pub asset: String,
    /// Payee, EIP-55 checksum.
    pub pay_to: String,
    /// Validity of a signature in seconds.
    pub max_timeout_seconds: u64,
    /// `name` and `version` of the token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// v1 `PaymentRequirements`, one entry of `accepts[]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequirementsV1 {
    /// `exact`.
    pub scheme: String,
    /// Short name, e.g. `base-sepolia`.
    pub network: String,
    /// Atomic units.
    pub max_amount_required: Amount,
    /// URL of what is bought.
    pub resource: String,
    /// Never absent in v1.
    pub description: String,
    /// Media type of the answer; never absent in v1, and empty when unknown: the v1 client of PyPI
    /// refuses a challenge without it.
    #[serde(default)]
    pub mime_type: String,
    /// Payee.
    pub pay_to: String,
    /// Validity of a signature in seconds.
    pub max_timeout_seconds: u64,
    /// Token contract.
    pub asset: String,
    /// `name` and `version` of the token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// v2 `ResourceInfo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceInfo {
    /// URL of what is bought.
    pub url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Media type of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Name of the seller's service, 1 to 32 printable ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
}

/// v2 challenge (`PAYMENT-REQUIRED` header).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// 2.
    pub x402_version: u8,
    /// Why a payment is asked for, or why the last one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is bought.
    pub resource: ResourceInfo,
    /// At least one.
    pub accepts: Vec<Requirements>,
    /// What else buyers may say, by extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
}

/// v1 challenge (body).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequiredV1 {
    /// 1.
    pub x402_version: u8,
    /// Why a payment is asked for, or why the last one was refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Entries for networks that v1 knows.
    pub accepts: Vec<RequirementsV1>,
}

/// Receipt, both versions; also a facilitator's answer to `/settle`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleResponse {
    /// Whether money moved.
    pub success: bool,
    /// Why not. x402-rs writes `error_reason`.
    #[serde(default, alias = "error_reason", skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// Transaction hash, empty when there is none.
    #[serde(default)]
    pub transaction: String,
    /// CAIP-2 id (v2) or short name (v1).
    #[serde(default)]
    pub network: String,
    /// Atomic units moved, if the facilitator says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
}

/// A facilitator's answer to `/verify`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse {
    /// Whether the payment would settle now.
    pub is_valid: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_reason: Option<String>,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
}

impl PaymentRequired {
    /// Reads a `PAYMENT-REQUIRED` header; `None` if it is none.
    pub fn from_header(value: &[u8]) -> Option<Self> {
        let challenge: Self = serde_json::from_slice(&crate::decode::from_base64(value)?).ok()?;
        Some(challenge).filter(|challenge| challenge.x402_version == 2)
    }
}
