//! What the charts stand on: namespaces, the secret between gateway and model servers, the Gateway
//! API, and the machine a local cluster runs on. Made where it is missing, never changed, never
//! removed by `down`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Namespace, Secret, Service, ServiceSpec},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use obol_stackdir::OFFERS_NAMESPACE;
use tokio::process::Command;

use super::{
    ClusterError, MANAGER, SYSTEM_NAMESPACE,
    error::{GATEWAY_API, refused},
    helmfile::Target,
    tools,
};

/// Name and key of the secret between the x402 gateway and the inference gateways.
const GATE: (&str, &str) = ("obol-gate", "secret");
/// Name under which offers find the machine that a local cluster runs on.
pub(super) const HOST: &str = "obol-host";
/// Marks what obol has made outside its charts.
pub(super) const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "obol");

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([OURS, ("app.kubernetes.io/part-of", "obol")].map(|(key, value)| (key.to_owned(), value.to_owned())))
}

pub(super) fn meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels()), ..Default::default() }
}

/// Makes a namespace that is not there yet, after one that is still being deleted is gone. Its Pods keep the
/// `restricted` profile.
pub(super) async fn namespace(client: &Client, name: &str, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let api: Api<Namespace> = Api::all(client.clone());
    let action = format!("make the namespace {name}");
    let begun = Instant::now();
    let mut told = false;
    while api.get_metadata_opt(name).await.map_err(refused(action.as_str()))?.is_some_and(|it| it.metadata.deletion_timestamp.is_some()) {
        if !std::mem::replace(&mut told, true) {
            line(&format!("waiting for the namespace {name}, which is being deleted"));
        }
        if begun.elapsed() > PATIENCE {
            let why = "it is still being deleted".to_owned();
            return Err(ClusterError::NotReady { what: format!("namespace {name}"), seconds: PATIENCE.as_secs(), why });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut metadata = meta(name);
    if let Some(labels) = &mut metadata.labels {
        labels.insert("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
    }
    create(&api, &Namespace { metadata, ..Default::default() }, &action).await
}

/// Creates what is not there; somebody else having been quicker is as good.
async fn create<K>(api: &Api<K>, object: &K, action: &str) -> Result<(), ClusterError>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    if api.get_metadata_opt(&name).await.map_err(refused(action))?.is_some() {
        return Ok(());
    }
    match api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }, object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(|_| ()).map_err(refused(action)),
    }
}

/// Makes the gate's secret once, out of the cluster's own: what the system namespace holds is copied
/// to the offers' one. To change it, delete both and run the pass.
pub(super) async fn gate(client: &Client) -> Result<(), ClusterError> {
    let (name, key) = GATE;
    let action = format!("keep the secret {name}");
    let secret =
        |value: ByteString| Secret { metadata: meta(name), data: Some(BTreeMap::from([(key.to_owned(), value)])), ..Default::default() };
    let system: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    create(&system, &secret(ByteString(fresh_secret().into_bytes())), &action).await?;
    let held = system.get(name).await.map_err(refused(action.as_str()))?;
    let value = held.data.and_then(|mut data| data.remove(key)).unwrap_or_default();
    let offers: Api<Secret> = Api::namespaced(client.clone(), OFFERS_NAMESPACE);
    let copy = offers.get_opt(name).await.map_err(refused(action.as_str()))?;
    if copy.and_then(|copy| copy.data).and_then(|mut data| data.remove(key)).is_some_and(|copy| copy == value) {
        return Ok(());
    }
    apply(&offers, name, &secret(value), &action).await
}

/// 256 random bits in hex.
pub(super) fn fresh_secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn apply<K>(api: &Api<K>, name: &str, object: &K, action: &str) -> Result<(), ClusterError>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.map(|_| ()).map_err(refused(action))
}

/// Whether the cluster knows the kinds that routes are made of.
pub(super) async fn has_gateway_api(client: &Client) -> Result<bool, ClusterError> {
    match client.list_api_group_resources("gateway.networking.k8s.io/v1").await {
        Ok(list) => {
            let served = |kind: &str| list.resources.iter().any(|resource| resource.kind == kind);
            Ok(["GatewayClass", "Gateway", "HTTPRoute"].into_iter().all(served))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(refused("list its APIs")(error)),
    }
}

/// Installs the Gateway API's resources, from `$OBOL_DATA_DIR/manifests/gateway-api.yaml` where a
/// machine without network has them, else from their project's release. They are nobody's own, so
/// they stay.
pub(super) async fn install_gateway_api(data: &Path, target: &Target, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    let kubectl = tools::find("kubectl", data).ok_or(ClusterError::NoGatewayApi)?;
    let file = data.join("manifests/gateway-api.yaml");
    let source = if file.is_file() { file.display().to_string() } else { GATEWAY_API.to_owned() };
    let mut command = Command::new(kubectl);
    command.args(["--context", &target.context, "apply", "--server-side", "--field-manager", MANAGER, "-f", &source]);
    if let Some(kubeconfig) = &target.kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    tools::run(&mut command, line).await
}

/// Waits until the API server serves what was just installed.
pub(super) async fn wait_for_gateway_api(client: &Client) -> Result<(), ClusterError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let begun = Instant::now();
    while !has_gateway_api(client).await? {
        if begun.elapsed() > PATIENCE {
            let why = "the API server does not serve it yet".to_owned();
            return Err(ClusterError::NotReady { what: "the Gateway API".to_owned(), seconds: PATIENCE.as_secs(), why });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// A headless Service with one address and no ports: every port of the machine, under one name, where gateway and
/// controller look for it and where inference gateways do.
pub(super) async fn host(client: &Client, address: IpAddr) -> Result<(), ClusterError> {
    let action = format!("keep the Service {HOST}");
    let service = Service {
        metadata: meta(HOST),
        spec: Some(ServiceSpec { cluster_ip: Some("None".to_owned()), ..Default::default() }),
        ..Default::default()
    };
    let mut metadata = meta(HOST);
    if let Some(labels) = &mut metadata.labels {
        labels.insert("kubernetes.io/service-name".to_owned(), HOST.to_owned());
    }
    let slice = EndpointSlice {
        address_type: if address.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(vec![Endpoint { addresses: vec![address.to_string()], ..Default::default() }]),
        metadata,
        ..Default::default()
    };
    for namespace in [SYSTEM_NAMESPACE, OFFERS_NAMESPACE] {
        apply(&Api::namespaced(client.clone(), namespace), HOST, &service, &action).await?;
        apply(&Api::namespaced(client.clone(), namespace), HOST, &slice, &action).await?;
    }
    Ok(())
}
