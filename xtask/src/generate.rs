//! Files that are made from the Rust types and committed; a test beside each type compares.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{places::Places, run::Result};

/// `cargo xtask crd`
pub fn crd() -> Result {
    put(&Places::find()?.root.join("charts/obol-crds/templates/serviceoffer.yaml"), &obol_offer::admission::crd_yaml())
}

/// `cargo xtask generate`
pub fn generate() -> Result {
    crd()?;
    let places = Places::find()?;
    for (path, schema) in obol_stackdir::chart_schemas() {
        put(&places.root.join("charts").join(path), &format!("{schema:#}\n"))?;
    }
    record_shipped(&places)
}

/// Every text that is shipped stays on record: a stack directory that holds it was not edited. From
/// the disk, since what was just written is not in this program yet.
fn record_shipped(places: &Places) -> Result {
    let stackdir = places.root.join("crates/stackdir/src");
    let mut files = BTreeMap::new();
    collect(&places.root.join("charts"), Path::new("charts"), &mut files)?;
    collect(&stackdir.join("templates/tree"), Path::new(""), &mut files)?;
    let path = stackdir.join("shipped.txt");
    let mut text = fs_err::read_to_string(&path)?;
    for (file, bytes) in files {
        let line = obol_stackdir::shipped_line(&file.display().to_string(), &bytes);
        if !text.lines().any(|known| known == line) {
            text.push_str(&format!("{line}\n"));
        }
    }
    put(&path, &text)
}

fn collect(folder: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = if name == "gitignore" { ".gitignore".into() } else { name };
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &below.join(name), files)?;
        } else {
            files.insert(below.join(name), fs_err::read(entry.path())?);
        }
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result {
    if fs_err::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    println!("{}", path.display());
    Ok(fs_err::write(path, text)?)
}
