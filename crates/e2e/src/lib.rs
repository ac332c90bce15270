//! End-to-end tests: the real binary, a real EVM node, real clients and facilitators.
//!
//! What is not ours is provisioned by `cargo xtask test`, which also says where through the
//! environment. A missing part is a panic with the command that provides it, never a skip.

pub mod anvil;
pub mod buyers;
pub mod cluster;
pub mod facilitators;
pub mod forge;
pub mod forward;
pub mod generous;
pub mod models;
pub mod postgres;
pub mod process;
pub mod readme;
pub mod shop;
pub mod stack;
pub mod upstream;
pub mod valve;

use std::path::PathBuf;

/// What to do when a part is missing.
const HINT: &str = "run `cargo xtask test --only e2e`, which provisions it";

/// Path of a provisioned part below the cache folder (`OBOL_TESTBED`).
///
/// # Panics
/// When the part is missing.
pub fn part(relative: &str) -> PathBuf {
    let root = std::env::var_os("OBOL_TESTBED").unwrap_or_else(|| panic!("OBOL_TESTBED is not set; {HINT}"));
    let path = PathBuf::from(root).join(relative);
    assert!(path.exists(), "{} is missing; {HINT}", path.display());
    path
}

/// Path of the release binary of obol (`OBOL_BIN`).
///
/// # Panics
/// When it is missing.
pub fn obol_binary() -> PathBuf {
    let path = PathBuf::from(std::env::var_os("OBOL_BIN").unwrap_or_else(|| panic!("OBOL_BIN is not set; {HINT}")));
    assert!(path.exists(), "{} is missing; {HINT}", path.display());
    path
}

/// Path of the tar of our image (`OBOL_IMAGE`).
///
/// # Panics
/// When it is missing.
pub fn image() -> PathBuf {
    let hint = "run `cargo xtask test --only cluster`, which builds it";
    let path = PathBuf::from(std::env::var_os("OBOL_IMAGE").unwrap_or_else(|| panic!("OBOL_IMAGE is not set; {hint}")));
    assert!(path.exists(), "{} is missing; {hint}", path.display());
    path
}

/// Root of this repository.
pub fn repository() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/e2e is two levels below the root").to_path_buf()
}

/// The objects in what helm renders.
pub fn objects(manifest: &str) -> Vec<serde_json::Value> {
    let documents = manifest.split("\n---").map(|text| text.trim_start_matches("---"));
    let read = documents.filter_map(|text| serde_saphyr::from_str::<serde_json::Value>(text).ok());
    read.filter(|object| object["kind"].is_string()).collect()
}

/// An HTTP client for loopback.
pub fn http() -> reqwest::Client {
    // A second test thread finds the provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client without options builds")
}

/// Keeps a result for people, in the folder `results` of the cache.
///
/// # Panics
/// When it cannot be written.
pub fn keep(name: &str, text: &str) {
    let folder = part("").join("results");
    fs_err::create_dir_all(&folder).expect("the cache folder can be written");
    fs_err::write(folder.join(name), format!("{text}\n")).expect("the cache folder can be written");
}
