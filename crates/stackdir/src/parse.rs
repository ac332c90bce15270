//! From the text of a file to typed values, or to everything that is wrong with it.

use std::{path::Path, sync::OnceLock};

use obol_offer::{Offer, OfferKind, OfferName, OfferSpec, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    diagnostic::{Diagnostic, Finding, Place},
    schema,
    tree::{self, Node},
};

/// Largest file that is read, in bytes. The largest valid offer is below 100 KiB.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// `values-offer.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferFile {
    /// The offer's name, equal to its folder's.
    pub name: String,
    /// The offer, as `ServiceOffer.spec`.
    pub spec: OfferSpec,
}

/// Reads `values-offer.yaml` and checks every rule of a single offer. Pure: text in, diagnostics out.
///
/// # Errors
/// Everything that is wrong, in the order of the file, at `file:line:column`.
pub fn parse_offer(text: &str, file: &Path, kind: OfferKind, name: &OfferName) -> Result<(OfferSpec, Offer), Vec<Diagnostic>> {
    let found = decode_offer(text).and_then(|(root, doc)| {
        let findings = match Offer::validate(name, &doc.spec) {
            Ok(offer) if doc.name == name.as_str() && doc.spec.kind == kind => return Ok((doc.spec, offer)),
            Ok(_) => Vec::new(),
            Err(violations) => violations.into_iter().map(|violation| broken_rule(&root, violation)).collect(),
        };
        Err(misplaced(&root, &doc, kind, name).into_iter().chain(findings).collect())
    });
    found.map_err(|mut findings| {
        findings.sort_by_key(|finding| (finding.place.line, finding.place.column));
        findings.into_iter().map(|finding| finding.in_file(file)).collect()
    })
}

/// JSON schema of `values-offer.yaml`, for editors and `obol schema`.
pub fn offer_schema() -> &'static serde_json::Value {
    static SCHEMA: OnceLock<serde_json::Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(OfferFile).to_value())
}

/// The spec of a file that has the right form, whether or not it keeps the offer's rules.
pub(crate) fn decode_offer(text: &str) -> Result<(Node, OfferFile), Vec<Finding>> {
    decode(text, offer_schema())
}

pub(crate) fn decode<T: DeserializeOwned>(text: &str, schema: &serde_json::Value) -> Result<(Node, T), Vec<Finding>> {
    let whole = |code, message: String, fix| vec![Finding::new(Place::default(), code, message, fix)];
    if text.len() > MAX_FILE_BYTES {
        return Err(whole("file_too_big", format!("the file has more than {MAX_FILE_BYTES} bytes"), "shorten it"));
    }
    let root = tree::parse(text)?;
    let findings = schema::check(&root, schema);
    if !findings.is_empty() {
        return Err(findings);
    }
    match serde_json::from_value(root.to_json()) {
        Ok(value) => Ok((root, value)),
        Err(error) => Err(whole("field_type", error.to_string(), "correct this field")),
    }
}

/// A rule of the offer, at the line of its field.
pub(crate) fn broken_rule(root: &Node, Violation { code, field, message, fix }: Violation) -> Finding {
    Finding::new(root.locate(&field), code, format!("`{field}`: {message}"), fix)
}

fn misplaced(root: &Node, doc: &OfferFile, kind: OfferKind, name: &OfferName) -> Vec<Finding> {
    let mut findings = Vec::new();
    if doc.name != name.as_str() {
        let message = format!("the file calls the offer `{}`, its folder `{name}`", doc.name);
        findings.push(Finding::new(root.locate("name"), "name_mismatch", message, format!("write `name: {name}`, or rename the folder")));
    }
    if doc.spec.kind != kind {
        let message = format!("an offer of type {} in a folder for {}", doc.spec.kind.as_str(), kind.as_str());
        let fix = format!("write `type: {}`, or move the folder to applications/{}", kind.as_str(), doc.spec.kind.folder());
        findings.push(Finding::new(root.locate("spec.type"), "kind_mismatch", message, fix));
    }
    findings
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
