//! The page that maps attacks to tests names tests that exist.

use std::{collections::BTreeSet, path::Path};

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Names in code marks that read like a test's: its words, perhaps behind modules.
fn tests_of(page: &str) -> BTreeSet<&str> {
    let marked = page.split('`').skip(1).step_by(2);
    let names = marked.filter_map(|code| code.rsplit("::").next());
    names.filter(|name| name.matches('_').count() >= 3 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')).collect()
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let page = std::fs::read_to_string(root.join("docs/attacks.md")).unwrap();
    let mut text = String::new();
    sources(&root.join("crates"), &mut text);
    let named = tests_of(&page);
    let missing: Vec<_> = named.iter().filter(|name| !text.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/attacks.md names tests that do not exist: {missing:?}");
    assert!(named.len() > 25, "{named:?}");
}
