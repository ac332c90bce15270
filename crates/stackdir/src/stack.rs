//! `stack.yaml`: what is true for every offer of a stack.

use std::{net::SocketAddr, path::Path, sync::OnceLock};

use obol_offer::{Offer, OfferName, OfferSpec, PaymentSpec, PriceSpec, UpstreamSpec, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    credentials::{self, Credentials},
    diagnostic::{Diagnostic, Finding},
    facilitators::{self, FacilitatorSettings},
    journal::{self, JournalSettings},
    networks::{self, Networks},
    parse::{broken_rule, decode},
    tree::Node,
};

/// Where the stack runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BackendKind {
    /// One `obol` process on this machine.
    #[default]
    Standalone,
    /// A Kubernetes cluster that is there already, by its kubeconfig context.
    Kubernetes,
    /// A k3s server on this machine.
    K3s,
    /// A k3d cluster on this machine.
    K3d,
}

impl BackendKind {
    /// Every backend.
    pub const ALL: [Self; 4] = [Self::Standalone, Self::Kubernetes, Self::K3s, Self::K3d];

    /// The word in `stack.yaml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Kubernetes => "kubernetes",
            Self::K3s => "k3s",
            Self::K3d => "k3d",
        }
    }

    /// Whether offers run in Kubernetes.
    pub const fn is_cluster(self) -> bool {
        !matches!(self, Self::Standalone)
    }
}

/// How buyers' requests enter a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Whether obol installs Traefik and its Gateway; `false` to bring one's own.
    pub install: bool,
    /// Namespace and name of the Gateway that routes attach to.
    pub gateway: (String, String),
    /// Its listener; every one that allows it when absent.
    pub section: Option<String>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self { install: true, gateway: ("traefik".to_owned(), "traefik-gateway".to_owned()), section: Some("web".to_owned()) }
    }
}

/// [`Ingress`] as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IngressFile {
    /// Whether obol installs Traefik and its Gateway; `false` to bring your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    install: Option<bool>,
    /// `namespace/name` of the Gateway that routes attach to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// Its listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    section: Option<String>,
}

impl From<&Ingress> for IngressFile {
    fn from(ingress: &Ingress) -> Self {
        let default = Ingress::default();
        let own = ingress.gateway != default.gateway || !ingress.install;
        Self {
            install: (!ingress.install).then_some(false),
            gateway: own.then(|| format!("{}/{}", ingress.gateway.0, ingress.gateway.1)),
            section: if own { ingress.section.clone() } else { None },
        }
    }
}

/// What offers get when they say nothing themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SellerDefaults {
    /// Who is paid: `0x` and 40 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay_to: Option<String>,
    /// Chain by name or CAIP-2 id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Facilitators (base URLs) in order of preference; [`DEFAULT_FACILITATOR`] when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facilitators: Vec<String>,
}

/// The facilitator of offers on real networks when neither they nor `stack.yaml` name one.
pub const DEFAULT_FACILITATOR: &str = "https://x402.gcp.obol.tech";

impl SellerDefaults {
    /// The facilitators of offers that name none.
    pub fn facilitators(&self) -> Vec<&str> {
        match self.facilitators.as_slice() {
            [] => vec![DEFAULT_FACILITATOR],
            named => named.iter().map(String::as_str).collect(),
        }
    }
}

/// Bounds on the whole gateway; its own defaults where absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StackLimits {
    /// Unpaid challenges per second and client address; more get 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_rate: Option<u32>,
    /// Connections served at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Whole units of a token that one payer may owe for answers that leave before they are paid; more get 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_exposure: Option<u32>,
    /// Largest request head in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_head_bytes: Option<u32>,
}

/// `stack.yaml`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StackConfig {
    /// Name of the stack: a DNS label. [`crate::StackDir::init`] makes one up when it is empty.
    pub id: String,
    /// Where it runs.
    pub backend: BackendKind,
    /// The kubeconfig context of backend `kubernetes`.
    pub context: Option<String>,
    /// How buyers' requests enter a cluster.
    pub ingress: Ingress,
    /// Where buyers are served.
    pub listen: SocketAddr,
    /// Where health, metrics and administration are served.
    pub admin: SocketAddr,
    /// Base URL at which buyers see the stack, when it is not simply the request's `Host`.
    pub public_url: Option<Url>,
    /// What offers get when they say nothing themselves.
    pub defaults: SellerDefaults,
    /// Bounds on the whole gateway.
    pub limits: StackLimits,
    /// How chains are reached.
    pub networks: Networks,
    /// Where payments are written down.
    pub journal: JournalSettings,
    /// Facilitators that want a credential.
    pub facilitators: Vec<FacilitatorSettings>,
    /// Where the keys are that offers name.
    pub credentials: Credentials,
}

/// Port of the public listener.
pub const DEFAULT_PORT: u16 = 8402;
/// Port of the listener for health, metrics and administration.
pub const DEFAULT_ADMIN_PORT: u16 = 9402;

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            id: String::new(),
            backend: BackendKind::default(),
            context: None,
            ingress: Ingress::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)),
            admin: SocketAddr::from(([127, 0, 0, 1], DEFAULT_ADMIN_PORT)),
            public_url: None,
            defaults: SellerDefaults::default(),
            limits: StackLimits::default(),
            networks: Networks::new(),
            journal: JournalSettings::default(),
            facilitators: Vec::new(),
            credentials: Credentials::new(),
        }
    }
}

/// `stack.yaml` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StackFile {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingress: Option<IngressFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    defaults: Option<SellerDefaults>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<StackLimits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    networks: Option<Networks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    journal: Option<JournalSettings>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    facilitators: Vec<FacilitatorSettings>,
    /// Where the keys are that offers name in `spec.model.credential`: `ref+file:///path` or `ref+env://NAME`.
    #[serde(default, skip_serializing_if = "Credentials::is_empty")]
    credentials: Credentials,
}

impl From<&StackConfig> for StackFile {
    fn from(config: &StackConfig) -> Self {
        Self {
            id: config.id.clone(),
            backend: Some(config.backend.as_str().to_owned()),
            context: config.context.clone(),
            ingress: (config.ingress != Ingress::default()).then(|| IngressFile::from(&config.ingress)),
            listen: Some(config.listen.to_string()),
            admin: Some(config.admin.to_string()),
            public_url: config.public_url.as_ref().map(Url::to_string),
            defaults: (config.defaults != SellerDefaults::default()).then(|| config.defaults.clone()),
            limits: (config.limits != StackLimits::default()).then(|| config.limits.clone()),
            networks: (!config.networks.is_empty()).then(|| config.networks.clone()),
            journal: (config.journal != JournalSettings::default()).then(|| config.journal.clone()),
            facilitators: config.facilitators.clone(),
            credentials: config.credentials.clone(),
        }
    }
}

/// Reads `stack.yaml`. Pure: text in, diagnostics out.
///
/// # Errors
/// Everything that is wrong, in the order of the file, at `file:line:column`.
pub fn parse_stack(text: &str, file: &Path) -> Result<StackConfig, Vec<Diagnostic>> {
    decode_stack(text).and_then(|(root, file)| resolve(&root, file)).map_err(|mut findings| {
        findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
        findings.into_iter().map(|finding| finding.in_file(file)).collect()
    })
}

pub(crate) fn decode_stack(text: &str) -> Result<(Node, StackFile), Vec<Finding>> {
    static SCHEMA: OnceLock<serde_json::Value> = OnceLock::new();
    decode(text, SCHEMA.get_or_init(|| schemars::schema_for!(StackFile).to_value()))
}

fn resolve(root: &Node, file: StackFile) -> Result<StackConfig, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut refuse = |field: &str, code: &'static str, message: String, fix: String| {
        findings.push(broken_rule(root, Violation { code, field: field.to_owned(), message, fix }));
    };
    if let Err(error) = file.id.parse::<OfferName>() {
        refuse("id", "stack_id", format!("`{}`: {error}", file.id), "write a short name such as `my-shop`".to_owned());
    }
    let word = file.backend.as_deref().unwrap_or(BackendKind::Standalone.as_str());
    let backend = BackendKind::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or_else(|| {
        let words = BackendKind::ALL.map(BackendKind::as_str).join(", ");
        refuse("backend", "backend_unknown", format!("`{word}` is no backend"), format!("write one of {words}"));
        BackendKind::default()
    });
    match (backend, &file.context) {
        // Whoever switches kubectl to another cluster must not move the shop.
        (BackendKind::Kubernetes, None) => {
            let fix = "write `context: NAME`, one of those that `kubectl config get-contexts` lists";
            refuse("backend", "context_missing", "which cluster is not said".to_owned(), fix.to_owned());
        }
        (BackendKind::Kubernetes, Some(context)) if context.is_empty() || context.chars().any(char::is_control) => {
            refuse("context", "context_name", "no context can be called so".to_owned(), "write the name that kubectl knows".to_owned());
        }
        (BackendKind::Kubernetes, _) | (_, None) => {}
        (_, Some(_)) => {
            let message = format!("backend {word} has a context of its own");
            refuse("context", "context_unused", message, "remove it, or write `backend: kubernetes`".to_owned());
        }
    }
    let ingress = resolve_ingress(file.ingress.unwrap_or_default(), &mut refuse);
    let mut address = |field: &str, text: Option<&str>, default: SocketAddr| match text.map(str::parse) {
        None => default,
        Some(Ok(address)) => address,
        Some(Err(_)) => {
            let message = format!("`{}` is no address with port", text.unwrap_or_default());
            refuse(field, "address", message, format!("write an IP address and a port, such as {default}"));
            default
        }
    };
    let default = StackConfig::default();
    let listen = address("listen", file.listen.as_deref(), default.listen);
    let admin = address("admin", file.admin.as_deref(), default.admin);
    if listen == admin && listen.port() != 0 {
        refuse("admin", "address_taken", format!("`listen` has {listen} already"), "choose another port".to_owned());
    }
    let public_url = file.public_url.as_deref().and_then(|text| match Url::parse(text) {
        Ok(url) if is_base_url(&url) => Some(url),
        _ => {
            let fix = "write the base URL that buyers see, such as https://shop.example";
            refuse("publicUrl", "public_url", format!("`{text}` is no http or https base URL"), fix.to_owned());
            None
        }
    });
    let defaults = file.defaults.unwrap_or_default();
    let networks = file.networks.unwrap_or_default();
    let journal = file.journal.unwrap_or_default();
    let (facilitators, credentials) = (file.facilitators, file.credentials);
    let more = networks::check(&networks).into_iter().chain(journal::check(&journal));
    let more = more.chain(facilitators::check(&facilitators)).chain(credentials::check(&credentials));
    for violation in check_defaults(&defaults).into_iter().chain(more) {
        refuse(&violation.field, violation.code, violation.message, violation.fix);
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let limits = file.limits.unwrap_or_default();
    Ok(StackConfig {
        id: file.id,
        backend,
        context: file.context,
        ingress,
        listen,
        admin,
        public_url,
        defaults,
        limits,
        networks,
        journal,
        facilitators,
        credentials,
    })
}

fn resolve_ingress(file: IngressFile, refuse: &mut impl FnMut(&str, &'static str, String, String)) -> Ingress {
    let default = Ingress::default();
    let install = file.install.unwrap_or(true);
    let is_name = |text: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        (1..=253).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['-', '.']) && !text.ends_with(['-', '.'])
    };
    let gateway = match file.gateway.as_deref().map(|text| text.split_once('/')) {
        Some(Some((namespace, name))) if is_name(namespace) && is_name(name) => (namespace.to_owned(), name.to_owned()),
        Some(_) => {
            let message = "no namespace and name".to_owned();
            refuse("ingress.gateway", "gateway_name", message, "write `namespace/name`, such as traefik/traefik-gateway".to_owned());
            default.gateway.clone()
        }
        None if install => default.gateway.clone(),
        None => {
            let message = "without a Gateway of its own the stack must be told which one to use".to_owned();
            refuse("ingress.install", "gateway_missing", message, "write `gateway: namespace/name` below `ingress:`".to_owned());
            default.gateway.clone()
        }
    };
    if install && gateway != default.gateway {
        let message = "the Gateway that obol installs has its own name".to_owned();
        refuse("ingress.gateway", "gateway_taken", message, "write `install: false` to use this one, or remove it".to_owned());
    }
    if file.section.as_deref().is_some_and(|section| !is_name(section)) {
        refuse("ingress.section", "gateway_section", "no listener can be called so".to_owned(), "write its name, such as web".to_owned());
    }
    let section = file.section.or_else(|| default.section.filter(|_| install));
    Ingress { install, gateway, section }
}

fn is_base_url(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// The offer's own rules, so that they stand in one place: an offer that is fine but for these.
fn check_defaults(defaults: &SellerDefaults) -> Vec<Violation> {
    let Ok(name) = "defaults".parse::<OfferName>() else { return Vec::new() };
    let spec = OfferSpec {
        upstream: UpstreamSpec { url: Some("http://127.0.0.1:1".to_owned()), ..Default::default() },
        payment: Some(PaymentSpec {
            network: defaults.network.clone().unwrap_or_else(|| obol_offer::SANDBOX.to_owned()),
            pay_to: defaults.pay_to.clone().unwrap_or_else(|| format!("0x{:040x}", 1)),
            price: PriceSpec { per_request: Some("1".to_owned()), ..Default::default() },
            ..Default::default()
        }),
        facilitators: defaults.facilitators.clone(),
        ..Default::default()
    };
    let mut violations = Offer::validate(&name, &spec).err().unwrap_or_default();
    for violation in &mut violations {
        let field = violation.field.trim_start_matches("spec.").trim_start_matches("payment.");
        violation.field = format!("defaults.{field}");
    }
    violations
}
