//! What is in the binary, as CycloneDX 1.6: every crate that is linked, with version, licence and
//! checksum. No time and no serial number, so that the same commit gives the same file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    metadata::{Metadata, Node, Package},
    places::Places,
    run::Result,
};

/// The bill of materials of `obol` as it is linked for this machine's architecture.
pub fn sbom(places: &Places, image: &str) -> Result<Value> {
    let metadata = Metadata::of(places, std::env::consts::ARCH)?;
    let lock = fs_err::read_to_string(places.root.join("Cargo.lock"))?;
    Ok(bill(&metadata, &checksums(&lock), image))
}

fn bill(metadata: &Metadata, checksums: &BTreeMap<(String, String), String>, image: &str) -> Value {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let root = metadata.packages.iter().find(|package| package.name == "obol" && package.source.is_none());
    let mut linked = BTreeSet::new();
    let mut open: Vec<&str> = root.iter().map(|package| package.id.as_str()).collect();
    while let Some(id) = open.pop() {
        if linked.insert(id) {
            open.extend(nodes.get(id).into_iter().flat_map(|node| node.linked()));
        }
    }
    let mut components: Vec<_> = linked.iter().filter_map(|id| packages.get(id)).collect();
    components.sort_by_key(|package| (&package.name, &package.version));
    let reference = |package: &Package| format!("pkg:cargo/{}@{}", package.name, package.version);
    let dependencies = components.iter().map(|package| {
        let below: BTreeSet<String> = nodes
            .get(package.id.as_str())
            .into_iter()
            .flat_map(|node| node.linked())
            .filter_map(|id| packages.get(id))
            .map(|p| reference(p))
            .collect();
        json!({ "ref": reference(package), "dependsOn": below })
    });
    let dependencies: Vec<_> = dependencies.collect();
    let components: Vec<_> = components
        .iter()
        .map(|package| {
            let reference = reference(package);
            let mut component =
                json!({ "type": "library", "bom-ref": reference, "name": package.name, "version": package.version, "purl": reference });
            let mut more = Vec::new();
            if let Some(license) = &package.license {
                more.push(("licenses", json!([{ "expression": license.replace('/', " OR ") }])));
            }
            if let Some(checksum) = checksums.get(&(package.name.clone(), package.version.clone())) {
                more.push(("hashes", json!([{ "alg": "SHA-256", "content": checksum }])));
            }
            if let Some(fields) = component.as_object_mut() {
                fields.extend(more.into_iter().map(|(field, value)| (field.to_owned(), value)));
            }
            component
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": { "type": "container", "bom-ref": image, "name": image } },
        "components": components,
        "dependencies": dependencies,
    })
}

/// Checksums of `Cargo.lock` by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks.filter_map(|block| Some(((field(block, "name")?, field(block, "version")?), field(block, "checksum")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_with_licence_and_checksum_and_what_is_not_is_not() {
        let metadata: Metadata = serde_json::from_value(json!({
            "packages": [
                { "id": "o", "name": "obol", "version": "1.0.0", "license": "Apache-2.0", "source": null },
                { "id": "s", "name": "serde", "version": "2.0.0", "license": "MIT/Apache-2.0", "source": "registry" },
                { "id": "t", "name": "tests", "version": "3.0.0", "license": "MIT", "source": "registry" },
            ],
            "workspace_members": ["o"],
            "resolve": { "nodes": [
                { "id": "o", "deps": [
                    { "pkg": "s", "dep_kinds": [{ "kind": null }] }, { "pkg": "t", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "s", "deps": [] }, { "id": "t", "deps": [] },
            ] },
        }))
        .unwrap();
        let lock = "[[package]]\nname = \"serde\"\nversion = \"2.0.0\"\nchecksum = \"abc\"\n";
        let bill = bill(&metadata, &checksums(lock), "obol:v1");
        let names: Vec<_> = bill["components"].as_array().unwrap().iter().map(|c| c["purl"].as_str().unwrap()).collect();
        assert_eq!(names, ["pkg:cargo/obol@1.0.0", "pkg:cargo/serde@2.0.0"]);
        assert_eq!(bill["components"][1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][1]["hashes"][0]["content"], "abc");
        assert_eq!(bill["dependencies"][0]["dependsOn"], json!(["pkg:cargo/serde@2.0.0"]));
    }
}
