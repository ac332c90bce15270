//! The values of our charts as types, from which their `values.schema.json` are made.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{parse::offer_schema, stack::StackFile};

/// Values of chart `obol`.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ObolValues {
    /// What the programs need of `stack.yaml`, in its form.
    stack: StackFile,
    /// The image of every obol program.
    #[schemars(length(min = 1))]
    image: String,
    /// When the image is pulled.
    image_pull_policy: PullPolicy,
    /// The x402 gateway.
    gateway: GatewayValues,
    /// The controller.
    controller: ControllerValues,
    /// The facilitator of one's own.
    facilitator: FacilitatorValues,
    /// Who else may reach health, metrics and administration: NetworkPolicyPeers.
    #[serde(default)]
    admin_from: Vec<serde_json::Map<String, Value>>,
}

/// As `imagePullPolicy` of a container.
#[derive(JsonSchema, Deserialize, Serialize)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// Values of the x402 gateway.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
// A journal on a volume has one writer; two would each take a payment that the other has taken.
#[schemars(extend(
    "if" = json!({ "properties": { "replicas": { "minimum": 2 } }, "required": ["replicas"] }),
    "then" = json!({ "properties": { "postgres": { "type": "object" } }, "required": ["postgres"] })
))]
struct GatewayValues {
    /// How many; more than one needs `postgres`.
    #[schemars(range(min = 1, max = 100))]
    replicas: u32,
    /// The volume of the journal.
    journal: JournalValues,
    /// The Secret with the URL of the Postgres journal.
    #[serde(default)]
    postgres: Option<PostgresValues>,
    /// As `resources` of a container.
    #[serde(default)]
    resources: serde_json::Map<String, Value>,
}

/// The volume of the journal.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JournalValues {
    /// A Kubernetes quantity, such as `1Gi`.
    #[schemars(length(min = 1))]
    size: String,
    /// The cluster's default when empty.
    #[serde(default)]
    storage_class_name: String,
    /// How many may mount it.
    access_mode: AccessMode,
}

/// As `accessModes` of a PersistentVolumeClaim; those with one writer.
#[derive(JsonSchema, Deserialize, Serialize)]
enum AccessMode {
    ReadWriteOncePod,
    ReadWriteOnce,
}

/// A key of a Secret in namespace `x402`.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PostgresValues {
    /// Its name.
    #[schemars(length(min = 1))]
    secret_name: String,
    /// `url` when absent.
    #[serde(default)]
    key: Option<String>,
}

/// Values of the controller.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ControllerValues {
    /// One leads, the others wait.
    #[schemars(range(min = 1, max = 10))]
    replicas: u32,
    /// As `resources` of a container.
    #[serde(default)]
    resources: serde_json::Map<String, Value>,
}

/// Values of the facilitator, of which there is one or none: it numbers its account's transactions.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FacilitatorValues {
    /// Networks of `stack` whose payments it settles; none: there is none.
    #[serde(default)]
    networks: Vec<String>,
    /// As `resources` of a container.
    #[serde(default)]
    resources: serde_json::Map<String, Value>,
}

/// Values of chart `traefik`.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TraefikValues {
    /// The image of Traefik.
    #[schemars(length(min = 1))]
    image: String,
    /// When the image is pulled.
    image_pull_policy: PullPolicy,
    /// How many Pods.
    #[schemars(range(min = 1, max = 100))]
    replicas: u32,
    /// How the world reaches it.
    service: TraefikService,
    /// Name of a TLS Secret beside it; none when empty.
    #[serde(default)]
    tls_secret: String,
    /// As `resources` of a container.
    #[serde(default)]
    resources: serde_json::Map<String, Value>,
}

/// The Service before Traefik.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TraefikService {
    /// As `type` of a Service.
    r#type: ServiceType,
    /// Port for http.
    #[schemars(range(min = 1))]
    port: u16,
    /// Port on every node for type NodePort; 0 lets the cluster choose.
    #[serde(default)]
    node_port: u16,
    /// Port for https, with `tlsSecret`.
    #[schemars(range(min = 1))]
    tls_port: u16,
    /// For load balancers.
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// As `type` of a Service.
#[derive(JsonSchema, Deserialize, Serialize)]
enum ServiceType {
    // The words are Kubernetes' own.
    LoadBalancer,
    NodePort,
    ClusterIP,
}

/// The schemas that stand in `charts/`, by path below it. What Helm adds by itself (`global`) is let
/// through.
pub fn chart_schemas() -> Vec<(&'static str, Value)> {
    let offer = |more: Value| {
        let mut schema = offer_schema().clone();
        if let Some(name) = schema.pointer_mut("/properties/name").and_then(Value::as_object_mut) {
            name.insert("pattern".to_owned(), json!("^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$"));
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            add_property(&mut schema, field, value.clone());
        }
        schema
    };
    let image = json!({
        "image": { "description": "The image of every obol program.", "type": "string", "minLength": 1 },
        "imagePullPolicy": { "description": "When the image is pulled.", "enum": ["Always", "IfNotPresent", "Never"] },
    });
    let mut schemas = vec![
        ("sell-http/values.schema.json", offer(json!({}))),
        ("sell-inference/values.schema.json", offer(image)),
        ("obol/values.schema.json", schemars::schema_for!(ObolValues).to_value()),
        ("traefik/values.schema.json", schemars::schema_for!(TraefikValues).to_value()),
    ];
    for (_, schema) in &mut schemas {
        bound_numbers(schema);
        add_property(schema, "global", json!({ "description": "Helm's own.", "type": "object" }));
    }
    schemas
}

fn add_property(schema: &mut Value, field: &str, value: Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(field.to_owned(), value);
    }
}

/// Helm reads every number as a 64-bit float: what such a one cannot hold is refused, not rounded.
fn bound_numbers(schema: &mut Value) {
    const LARGEST: u64 = (1 << 53) - 1;
    match schema {
        Value::Object(fields) => {
            if fields.get("format").is_some_and(|format| format == "uint64") && !fields.contains_key("maximum") {
                fields.insert("maximum".to_owned(), LARGEST.into());
            }
            fields.values_mut().for_each(bound_numbers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_in_the_charts_are_those_of_the_types() {
        let charts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
        for (path, schema) in chart_schemas() {
            let found = fs_err::read_to_string(charts.join(path)).unwrap_or_default();
            let found: Value = serde_json::from_str(&found).unwrap_or_default();
            assert!(found == schema, "run `cargo xtask generate`: {path} is not what the types say");
        }
    }

    #[test]
    fn the_charts_run_the_image_of_this_version() {
        let charts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
        let version = env!("CARGO_PKG_VERSION");
        for chart in ["obol", "sell-inference"] {
            let values = fs_err::read_to_string(charts.join(chart).join("values.yaml")).unwrap();
            assert!(values.contains(&format!("\nimage: ghcr.io/obolnetwork/obol:v{version}\n")), "{chart}/values.yaml");
        }
        for chart in ["obol", "obol-crds", "sell-http", "sell-inference"] {
            let text = fs_err::read_to_string(charts.join(chart).join("Chart.yaml")).unwrap();
            assert!(text.contains(&format!("\nversion: {version}\nappVersion: \"{version}\"\n")), "{chart}/Chart.yaml");
        }
    }
}
