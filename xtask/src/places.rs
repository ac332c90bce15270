//! Where things are.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::{Error, Result};

/// The folders that our commands work with.
pub struct Places {
    /// Root of the repository.
    pub root: PathBuf,
    /// Everything provisioned: `$OBOL_CACHE`, else `~/.cache/obol`. Never inside the clone.
    pub cache: PathBuf,
    /// Where this workspace is built.
    pub target: PathBuf,
}

impl Places {
    /// Finds them; nothing is made yet.
    pub fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().ok_or_else(|| Error::Check("xtask is not inside the repository".into()))?.to_path_buf();
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("OBOL_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("obol")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/obol")))
            .ok_or_else(|| Error::Check("neither OBOL_CACHE nor HOME is set; say where to keep the test environment".into()))?;
        let cache = std::path::absolute(cache)?;
        let target = set("CARGO_TARGET_DIR").unwrap_or_else(|| root.join("target"));
        Ok(Self { target: root.join(target), cache, root })
    }

    /// Cargo in the root of the repository, building where this workspace is built.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(args).current_dir(&self.root);
        cargo
    }

    /// Cargo in `testbed/rust`, building in the cache.
    pub fn peers(&self, args: &[&str]) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(args).current_dir(self.root.join("testbed/rust")).env("CARGO_TARGET_DIR", self.cache.join("testbed-target"));
        cargo
    }

    /// The release binary.
    pub fn obol(&self) -> PathBuf {
        self.target.join("release/obol")
    }

    /// Folder of the image that the cluster tests run.
    pub fn image(&self) -> PathBuf {
        self.target.join("release/image")
    }
}
