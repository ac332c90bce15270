//! Lists the files that obol writes into a stack directory, so that adding one is adding a file.

// A build script speaks to Cargo on stdout.
#![allow(clippy::print_stdout)]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut entries = Vec::new();
    for (folder, below) in [(here.join("../../charts"), "charts"), (here.join("src/templates/tree"), "")] {
        // A folder is watched for what comes and goes, each file for what it says.
        collect(&folder.canonicalize()?, Path::new(below), &mut entries)?;
    }
    entries.sort();
    let lines = entries.iter().map(|(path, file)| format!("    Asset {{ path: {path:?}, text: include_str!({file:?}) }},\n"));
    let code = format!("const ASSETS: &[Asset] = &[\n{}];\n", lines.collect::<String>());
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("assets.rs"), code)
}

fn collect(folder: &Path, below: &Path, entries: &mut Vec<(String, String)>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // Git keeps no `.gitignore` of ours for us: it would hide our own files.
        let below = below.join(if name == "gitignore" { ".gitignore".as_ref() } else { name.as_os_str() });
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &below, entries)?;
        } else {
            println!("cargo::rerun-if-changed={}", entry.path().display());
            entries.push((below.display().to_string(), entry.path().display().to_string()));
        }
    }
    Ok(())
}
