//! `ServiceOffer.spec` as it is written on disk and in a cluster: strings, not yet believed.
//!
//! Field names are those of `serviceoffers.obol.org/v1alpha1`. Unknown fields are errors, because
//! a mistyped `maxInflight` that is silently ignored costs its owner money.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{model::ModelSpec, network::TransferMethod};

/// The description of one offer: what is sold, for how much, and where it is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfferSpec {
    /// What is sold.
    #[serde(default, rename = "type")]
    pub kind: OfferKind,
    /// Where paid requests are sent.
    pub upstream: UpstreamSpec,
    /// The model that is sold; for `type: inference`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
    /// The payment that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentSpec>,
    /// Several payments, each of which buys the same answer. With `payment` present its first
    /// entry must equal it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<PaymentSpec>,
    /// Facilitators (base URLs) in order of preference; the stack's own list when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facilitators: Vec<String>,
    /// Public path prefix, `/services/<name>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Public host name; any host when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Exceptions below `path`; without any, everything is paid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Bounds on use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// What is owed to a buyer who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
    /// What buyers are told about the offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationSpec>,
    /// Since when the offer is being stopped (RFC 3339). Route and gate stay for the grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_at: Option<String>,
    /// How long a stopping offer still serves, e.g. `1h`, `90s`, `0s`; one hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_grace_period: Option<String>,
}

/// What is sold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OfferKind {
    /// Any HTTP service.
    #[default]
    Http,
    /// An OpenAI-compatible model server.
    Inference,
}

impl OfferKind {
    /// The word used in files and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Inference => "inference",
        }
    }

    /// The folder below `applications/` that holds slices of this kind.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Http => "sell-http",
            Self::Inference => "sell-inference",
        }
    }
}

/// Exactly one of `url`, `host` and `service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Any `http` or `https` base URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A port on the machine that runs the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostUpstream>,
    /// A Kubernetes Service; needs a cluster backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Namespace of `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Port of `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path that answers 2xx while the upstream is well, `/health` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
}

/// A port on the stack's own machine: loopback on the standalone backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostUpstream {
    /// TCP port, 1 to 65535.
    pub port: u16,
}

/// x402 payment scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// A fixed amount per request.
    #[default]
    Exact,
    /// At most the signed amount; what was used is settled after the answer. Moves any ERC-20 token, by Permit2.
    Upto,
}

impl Scheme {
    /// The word on the wire and in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Upto => "upto",
        }
    }
}

/// One accepted payment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PaymentSpec {
    /// x402 scheme. When absent: `exact`, and for a price per token or unit also `upto`, where a facilitator can settle it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Chain by name (`base-sepolia`) or CAIP-2 id (`eip155:84532`).
    pub network: String,
    /// Who is paid: `0x` and 40 hex digits.
    pub pay_to: String,
    /// How long a buyer's signature stays valid, in seconds, 10 to 86400; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_timeout_seconds: Option<u32>,
    /// The token; the network's USDC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<AssetSpec>,
    /// How much.
    pub price: PriceSpec,
}

/// A token that is not in the registry. All fields are needed: a wrong EIP-712 domain voids every
/// signature made for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssetSpec {
    /// Token contract.
    pub address: String,
    /// Ticker.
    pub symbol: String,
    /// Digits behind the point of one whole unit.
    pub decimals: u8,
    /// How it is moved, `eip3009` when absent.
    #[serde(default)]
    pub transfer_method: TransferMethod,
    /// EIP-712 domain name of the contract.
    pub eip712_name: String,
    /// EIP-712 domain version of the contract.
    pub eip712_version: String,
}

/// A price in whole units of the asset, as a quoted decimal string: per request, per million tokens, or per unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceSpec {
    /// Per request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_request: Option<String>,
    /// Per million tokens of the prompt, and of the completion too unless `perMTokOutput` is given. Needs `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_m_tok: Option<String>,
    /// Per million tokens of the completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_m_tok_output: Option<String>,
    /// Per unit that the upstream reports in `x-obol-usage: units=N`. Needs `maxUnits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_unit: Option<String>,
    /// What a unit is, for people: one word such as `page`; `unit` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Most units of one request: all that it can be charged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_units: Option<u32>,
    /// Not sold by this version: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<String>,
    /// Not sold by this version: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_epoch: Option<String>,
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// A payment.
    #[default]
    Paid,
    /// Nothing.
    Free,
}

/// An exception below the offer's path, matched by longest prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Path below the offer's own, e.g. `/health` (that path only) or `/docs/*` (and all below).
    pub path: String,
    /// Paid or free.
    #[serde(default)]
    pub gate: Gate,
    /// Another price than the offer's, for offers with one payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
}

/// Bounds on use of one offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// Requests in progress at once; more get 429. Unbounded when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Requests per second over all buyers; more get 429. Unbounded when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rps: Option<u32>,
    /// Largest request body in bytes; larger gets 413. Unbounded when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
}

/// What is owed to a buyer who paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverySpec {
    /// What the same payment gets when the same request comes again, `receipt` when absent.
    #[serde(default)]
    pub on_lost: OnLost,
    /// Whether buyers may name their purchases (x402 extension `payment-identifier`), so that a
    /// request which is signed anew is not charged anew: `ignored` when absent.
    #[serde(default, skip_serializing_if = "PaymentIdentifier::is_ignored")]
    pub payment_identifier: PaymentIdentifier,
}

/// Whether buyers may name their purchases. The same name of the same payer for the same request is
/// the same purchase; for another request it is refused with 409.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PaymentIdentifier {
    /// It is not advertised, and passed over.
    #[default]
    Ignored,
    /// Advertised, and honoured where a buyer sends one.
    Optional,
    /// A payment without one gets 400; buyers of protocol version 1 cannot send one.
    Required,
}

impl PaymentIdentifier {
    fn is_ignored(&self) -> bool {
        *self == Self::Ignored
    }
}

/// What the same payment gets when the same request comes again. No choice ever charges twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnLost {
    /// 409 with the receipt; an answer that was lost is listed by `obol payments owed`.
    #[default]
    Receipt,
    /// The same answer, where it is of known length, at most 64 KiB, and the request's body was at
    /// most 1 MiB. Answers are kept on disk until their payments are archived: do not choose this
    /// for what may not be kept.
    StoredAnswer,
    /// The request is run once more, for nothing, where its body was at most 1 MiB and its first
    /// answer did not arrive in full. After that only a refund is left. Do not choose this for what
    /// must not happen twice.
    Rerun,
}

/// What buyers are told about the offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationSpec {
    /// Whether the offer is listed in discovery documents, true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One or two sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Media type of the answers, told to buyers as x402 `mimeType`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}
