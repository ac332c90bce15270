//! Releases as Helm keeps them: one Secret per revision, holding the chart, the values and the
//! manifest it came to. (Helm 4, `pkg/storage/driver`.)

use std::{collections::BTreeMap, io::Read as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::ListParams};
use serde::Deserialize;
use serde_json::Value;

use super::{ClusterError, error::refused};

/// Largest release that is read, unpacked. A Secret holds 1 MiB.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The last revision of a release.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct HelmRelease {
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) version: u64,
    pub(super) info: Info,
    #[serde(default)]
    pub(super) chart: Value,
    /// The values that were given.
    #[serde(default)]
    pub(super) config: Option<Value>,
    /// The objects, as a stream of YAML documents.
    #[serde(default)]
    pub(super) manifest: String,
}

/// How a revision went.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Info {
    /// `deployed`, `failed`, `pending-upgrade`, ….
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) description: String,
}

/// The last revision of every release in a namespace, or of one.
pub(super) async fn releases(client: &Client, namespace: &str, name: Option<&str>) -> Result<BTreeMap<String, HelmRelease>, ClusterError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    // Of superseded revisions there may be ten for each release.
    let mut labels = "owner=helm,status notin (superseded,uninstalled)".to_owned();
    if let Some(name) = name {
        labels.push_str(&format!(",name={name}"));
    }
    let list = api.list(&ListParams::default().labels(&labels)).await.map_err(refused("list helm's releases"))?;
    let mut found: BTreeMap<String, HelmRelease> = BTreeMap::new();
    for secret in list.items {
        let Some(release) = decode(&secret) else { continue };
        match found.get(&release.name) {
            Some(other) if other.version > release.version => {}
            _ => {
                found.insert(release.name.clone(), release);
            }
        }
    }
    Ok(found)
}

fn decode(secret: &Secret) -> Option<HelmRelease> {
    let data = secret.data.as_ref()?.get("release")?;
    let packed = BASE64_STANDARD.decode(&data.0).ok()?;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

impl HelmRelease {
    /// `name-version` of its chart, for people.
    pub(super) fn chart_title(&self) -> String {
        let metadata = self.chart.get("metadata");
        let field = |key: &str| metadata.and_then(|metadata| metadata.get(key)?.as_str()).unwrap_or("?").to_owned();
        format!("{}-{}", field("name"), field("version"))
    }

    /// The objects of its manifest.
    pub(super) fn objects(&self) -> Vec<Value> {
        objects(&self.manifest)
    }
}

/// The objects of a stream of YAML documents; what is none is left out.
pub(super) fn objects(manifest: &str) -> Vec<Value> {
    // Helm begins each document with a line `---`, and our templates hold no such line.
    let documents = manifest.split("\n---").map(|text| text.trim_start_matches("---"));
    documents.filter_map(|text| serde_saphyr::from_str::<Value>(text).ok()).filter(|object| object["kind"].is_string()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_release_is_read_from_its_secret() {
        use std::io::Write as _;
        let release = json!({ "name": "weather", "version": 3, "info": { "status": "deployed" }, "config": { "name": "weather" },
            "chart": { "metadata": { "name": "sell-http", "version": "0.1.0" } }, "manifest": "---\nkind: A\n---\n# empty\n---\nkind: B\n" });
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(release.to_string().as_bytes()).unwrap();
        let text = BASE64_STANDARD.encode(gzip.finish().unwrap());
        let data = BTreeMap::from([("release".to_owned(), k8s_openapi::ByteString(text.into_bytes()))]);
        let read = decode(&Secret { data: Some(data), ..Default::default() }).unwrap();
        assert_eq!((read.name.as_str(), read.version, read.info.status.as_str()), ("weather", 3, "deployed"));
        assert_eq!(read.chart_title(), "sell-http-0.1.0");
        assert_eq!(read.objects(), [json!({ "kind": "A" }), json!({ "kind": "B" })]);
        assert!(decode(&Secret::default()).is_none());
    }
}
