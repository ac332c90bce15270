//! `--from-json`: a spec, a slice (`name`, `spec`) or a whole `ServiceOffer` manifest.

use std::io::Read;

use obol_offer::OfferSpec;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    error::{Error, Problem},
    sell::pairs::cut,
};

/// No offer is near this; a larger file is not one.
const MAX_BYTES: u64 = 1 << 20;

/// What the file held.
#[derive(Debug)]
pub struct Given {
    /// The name in the file, if it has one.
    pub name: Option<String>,
    /// The spec.
    pub spec: OfferSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    api_version: Option<String>,
    kind: String,
    metadata: Metadata,
    spec: OfferSpec,
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slice {
    name: String,
    spec: OfferSpec,
}

/// Reads a file, or stdin for `-`.
///
/// # Errors
/// When it cannot be read, is larger than 1 MiB, or is no offer.
pub fn read(file: &str) -> Result<Given, Error> {
    let shown = if file == "-" { "stdin" } else { file };
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_string(&mut text)
    } else {
        fs_err::File::open(file).and_then(|f| f.take(MAX_BYTES + 1).read_to_string(&mut text))
    };
    read.map_err(|source| Error::io(shown, source))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(refuse(Problem::new("json_too_large", "the file is larger than 1 MiB", "give the spec of one offer"), shown));
    }
    parse(&text).map_err(|problem| match problem.at.clone() {
        Some(place) => Error::Refused(vec![problem.at(format!("{shown}:{place}"))]),
        None => refuse(problem, shown),
    })
}

fn refuse(problem: Problem, place: &str) -> Error {
    Error::Refused(vec![problem.at(place)])
}

/// The place of a problem, if it has one, is `line:column`.
fn parse(text: &str) -> Result<Given, Problem> {
    let value: serde_json::Value = typed(text, "json_malformed", "write one JSON object")?;
    if !value.is_object() {
        return Err(Problem::new("json_shape", "this is no JSON object", "write the spec of one offer").at("1:1"));
    }
    let has = |key: &str| value.get(key).is_some();
    if has("kind") || has("apiVersion") || has("metadata") {
        if let Some(kind) = value.get("kind").and_then(|k| k.as_str()).filter(|kind| *kind != "ServiceOffer") {
            let fix = "give one ServiceOffer, or only its spec";
            return Err(Problem::new("json_kind", format!("`kind: {}` is no ServiceOffer", cut(kind)), fix));
        }
        let manifest: Manifest = typed(text, "json_shape", "write apiVersion, kind: ServiceOffer, metadata.name and spec")?;
        if let Some(version) = manifest.api_version.filter(|v| v != "obol.org/v1alpha1") {
            return Err(Problem::new(
                "json_version",
                format!("`{}` is not understood", cut(&version)),
                "write apiVersion: obol.org/v1alpha1",
            ));
        }
        debug_assert_eq!(manifest.kind, "ServiceOffer");
        return Ok(Given { name: Some(manifest.metadata.name), spec: manifest.spec });
    }
    if has("spec") {
        let slice: Slice = typed(text, "json_shape", "write `name` and `spec`")?;
        return Ok(Given { name: Some(slice.name), spec: slice.spec });
    }
    let spec = typed(text, "json_shape", "type `obol schema` for the fields of a spec")?;
    Ok(Given { name: None, spec })
}

fn typed<T: DeserializeOwned>(text: &str, code: &str, fix: &str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("{}:{}", error.line(), error.column());
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
        Problem::new(code, message.chars().take(240).collect::<String>(), fix).at(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"upstream":{"host":{"port":9000}},"payment":{"network":"base","payTo":"0x0","price":{"perRequest":"1"}}}"#;

    #[test]
    fn a_spec_a_slice_and_a_manifest_are_told_apart() {
        let manifest = format!(
            r#"{{"apiVersion":"obol.org/v1alpha1","kind":"ServiceOffer","metadata":{{"name":"a","labels":{{}}}},"spec":{SPEC},"status":{{}}}}"#
        );
        let slice = format!(r#"{{"name":"a","spec":{SPEC}}}"#);
        assert_eq!(parse(SPEC).unwrap().name, None);
        assert_eq!(parse(&slice).unwrap().name.as_deref(), Some("a"));
        assert_eq!(parse(&manifest).unwrap().name.as_deref(), Some("a"));
        assert_eq!(parse(&manifest).unwrap().spec, parse(SPEC).unwrap().spec);
    }

    #[test]
    fn what_is_no_offer_is_refused_with_its_place() {
        let code = |text: &str| {
            let problem = parse(text).unwrap_err();
            (problem.code, problem.at)
        };
        assert_eq!(code("{").0, "json_malformed");
        assert_eq!(code("[]").0, "json_shape");
        assert_eq!(code(r#"{"kind":"List","items":[]}"#), ("json_kind".into(), None));
        assert_eq!(code(r#"{"kind":"ServiceOffer","spec":{}}"#).0, "json_shape");
        assert_eq!(code("{\n \"upstream\": {\"port\": \"x\"}}"), ("json_shape".into(), Some("2:25".into())));
        assert_eq!(code(r#"{"upstream":{},"upstream":{}}"#).0, "json_shape");
        let version = format!(r#"{{"apiVersion":"obol.org/v1","kind":"ServiceOffer","metadata":{{"name":"a"}},"spec":{SPEC}}}"#);
        assert_eq!(code(&version).0, "json_version");
    }
}
