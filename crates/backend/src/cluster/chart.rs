//! A chart as it stands on disk, in the form in which Helm keeps it in a release: what was installed
//! can then be compared with what would be.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fs_err as fs;
use serde_json::Value;

use super::ClusterError;

/// What decides what a chart renders to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chart {
    metadata: Value,
    values: Value,
    schema: Vec<u8>,
    templates: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Chart {
    /// Reads a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, ClusterError> {
        let mut files = BTreeMap::new();
        collect(folder, "", &mut files)?;
        let mut take = |name: &str| files.remove(name).unwrap_or_default();
        let (metadata, values, schema) = (take("Chart.yaml"), take("values.yaml"), take("values.schema.json"));
        let (templates, files) = files.into_iter().partition(|(name, _)| name.starts_with("templates/"));
        let metadata = yaml(&folder.join("Chart.yaml"), &String::from_utf8_lossy(&metadata))?;
        let values = yaml(&folder.join("values.yaml"), &String::from_utf8_lossy(&values))?;
        Ok(Self { metadata, values, schema, templates, files })
    }

    /// From `chart` of a release.
    pub(super) fn of_release(chart: &Value) -> Self {
        let bytes = |value: &Value| value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
        let files = |key: &str| -> BTreeMap<String, Vec<u8>> {
            let list = chart[key].as_array().into_iter().flatten();
            list.map(|file| (file["name"].as_str().unwrap_or_default().to_owned(), bytes(&file["data"]))).collect()
        };
        let values = if chart["values"].is_null() { empty() } else { chart["values"].clone() };
        Self {
            metadata: chart["metadata"].clone(),
            values,
            schema: bytes(&chart["schema"]),
            templates: files("templates"),
            files: files("files"),
        }
    }
}

/// The chart's name when it is one of ours.
pub(super) fn our_name(chart: &Value) -> Option<&str> {
    chart.pointer("/metadata/annotations/obol.org~1chart")?.as_str()
}

fn collect(folder: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), ClusterError> {
    let failed = |source| ClusterError::File { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        // Left-overs of our own atomic writes.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, fs::read(entry.path()).map_err(failed)?);
        }
    }
    Ok(())
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// One YAML mapping; nothing is an empty one.
pub(super) fn yaml(path: &Path, text: &str) -> Result<Value, ClusterError> {
    let wrong = |cause: String| ClusterError::Values { path: path.to_owned(), cause };
    match serde_saphyr::from_str::<Option<Value>>(text).map_err(|error| wrong(error.to_string()))? {
        None | Some(Value::Null) => Ok(empty()),
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => Err(wrong("it is no mapping".to_owned())),
    }
}

/// Values over values, as Helm lays several files over each other: mappings are merged, everything
/// else is replaced.
pub(super) fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_laid_over_each_other_as_helm_does() {
        let mut values = json!({ "a": { "b": 1, "c": [1, 2] }, "d": 1 });
        merge(&mut values, json!({ "a": { "c": [3], "e": 2 }, "d": { "f": 1 } }));
        assert_eq!(values, json!({ "a": { "b": 1, "c": [3], "e": 2 }, "d": { "f": 1 } }));
    }

    #[test]
    fn every_chart_of_ours_says_so() {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
        for name in ["obol", "obol-crds", "sell-http", "sell-inference", "traefik"] {
            let chart = Chart::read(&charts.join(name)).unwrap();
            assert_eq!(our_name(&json!({ "metadata": chart.metadata })), Some(name));
        }
    }
}
