//! `cargo xtask image`: the one image of every obol program, without a container engine.
//!
//! A static binary and nothing else: names are looked up by the C library's own resolver, and the
//! roots of TLS are in the program. The same commit gives the same bytes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    oci::{File, Image, Layout},
    places::Places,
    push, run,
    run::{Error, Result, output},
    sbom,
};

/// `cargo xtask image`
#[derive(Args)]
pub struct ImageArgs {
    /// Where layout, tar and SBOM are written; `image/` in the target folder when absent
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Full name with tag; the one in the charts when absent
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// A static binary that is there already, instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Build twice, in two places, and compare the bytes
    #[arg(long, conflicts_with = "binary")]
    verify: bool,
    /// Import it into a local container engine
    #[arg(long, value_enum)]
    load: Option<Engine>,
    /// The k3d cluster that `--load k3d` imports into
    #[arg(long, value_name = "CLUSTER", default_value = "k3s-default")]
    cluster: String,
    /// Push it to a registry, e.g. registry.example/team/obol:v1; credentials in $REGISTRY_USER and $REGISTRY_PASSWORD
    #[arg(long, value_name = "REFERENCE")]
    push: Option<String>,
}

/// Who runs the containers.
#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    /// containerd, in the namespace of Kubernetes
    Containerd,
    /// k3s on this machine
    K3s,
    /// A k3d cluster
    K3d,
}

/// Largest image as a registry keeps it, in bytes: of a build for it, and of the release binary that tests run,
/// which is not optimised across crates.
const MOST_BYTES: [u64; 2] = [15_000_000, 20_000_000];

/// What the charts run.
pub fn default_name() -> String {
    format!("ghcr.io/obolnetwork/obol:v{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the image, writes it, and hands it on.
pub fn image(args: &ImageArgs) -> Result {
    let places = Places::find()?;
    let folder = args.output.clone().unwrap_or_else(|| places.target.join("image"));
    let name = args.name.clone().unwrap_or_else(default_name);
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build(&places, &places.target)?,
    };
    is_static(&binary)?;
    let layout = describe(&places, name.clone(), &binary)?.layout()?;
    if args.verify {
        let other = places.target.join("image-again");
        let again = describe(&places, name.clone(), &build(&places, &other)?)?.layout()?;
        if again.digest != layout.digest {
            return Err(Error::Check(format!("built twice, it is not the same: {} and {}", layout.digest, again.digest)));
        }
        println!("the same bytes twice");
    }
    let tar = write(&layout, &folder)?;
    if args.binary.is_none() {
        at_most(&tar, MOST_BYTES[0])?;
    }
    let sbom = folder.join("obol.cdx.json");
    fs_err::write(&sbom, format!("{:#}\n", sbom::sbom(&places, &name)?))?;
    println!("{name}\n{}\n{} (binary {} MB)", layout.digest, tar.display(), megabytes(&binary)?);
    println!("{} (compressed tar {} MB)\n{}", folder.join("layout").display(), megabytes(&tar)?, sbom.display());
    if let Some(engine) = args.load {
        load(engine, &args.cluster, &tar)?;
    }
    match &args.push {
        Some(reference) => push::push(&layout, reference),
        None => Ok(()),
    }
}

/// Makes the image of a static binary that is there; returns the tar's path.
pub fn pack(places: &Places, binary: &Path, folder: &Path) -> Result<PathBuf> {
    is_static(binary)?;
    let tar = write(&describe(places, default_name(), binary)?.layout()?, folder)?;
    at_most(&tar, MOST_BYTES[1])?;
    Ok(tar)
}

fn at_most(tar: &Path, most: u64) -> Result {
    let bytes = fs_err::metadata(tar)?.len();
    let grown = || Error::Check(format!("{} has {bytes} bytes, and {most} is the most that we let it grow to", tar.display()));
    if bytes <= most { Ok(()) } else { Err(grown()) }
}

/// Writes the layout as a folder and as a tar; returns the tar's path.
fn write(layout: &Layout, folder: &Path) -> Result<PathBuf> {
    let here = folder.join("layout");
    match fs_err::remove_dir_all(&here) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => layout.write_folder(&here)?,
    }
    let tar = folder.join("obol.tar");
    layout.write_tar(&tar)?;
    Ok(tar)
}

fn describe(places: &Places, name: String, binary: &Path) -> Result<Image> {
    let label = |key: &str, value: &str| (format!("org.opencontainers.image.{key}"), value.to_owned());
    let revision = output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&places.root)).unwrap_or_default();
    let labels = BTreeMap::from([
        label("title", "obol"),
        label("description", "Sell HTTP services and models over x402"),
        label("licenses", "Apache-2.0"),
        label("version", env!("CARGO_PKG_VERSION")),
        label("revision", String::from_utf8_lossy(&revision).trim()),
    ]);
    Ok(Image {
        name,
        entrypoint: vec!["/obol".to_owned()],
        user: "65532:65532".to_owned(),
        env: Vec::new(),
        labels,
        files: vec![File::program("obol", binary)?],
        gzip: true,
    })
}

/// A static binary for this machine's architecture.
fn build(places: &Places, target: &Path) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    // Where it was built must not be read in it.
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), format!("--remap-path-prefix={}=/obol", places.root.display())];
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    let mut cargo = places.cargo(&["build", "--locked", "--profile", "image", "--bin", "obol", "--target", &triple]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "0");
    run::run(&mut cargo)?;
    Ok(target.join(triple).join("image/obol"))
}

/// Refuses a program that needs a loader: an empty image has none.
fn is_static(binary: &Path) -> Result {
    let bytes = fs_err::read(binary)?;
    if has_loader(&bytes) {
        return Err(Error::Check(format!("{} is linked dynamically; an empty image has no loader for it", binary.display())));
    }
    Ok(())
}

/// Whether an ELF file names a loader (program header `PT_INTERP`; System V ABI, 64 bit, little
/// endian).
fn has_loader(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at + length)?;
        usize::try_from(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
    };
    let headers = || Some((number(32, 8)?, number(54, 2)?, number(56, 2)?));
    let Some((start, size, count)) = headers().filter(|_| elf.starts_with(b"\x7fELF\x02\x01")) else { return true };
    const PT_INTERP: usize = 3;
    (0..count).any(|index| number(start + index * size, 4) == Some(PT_INTERP))
}

fn load(engine: Engine, cluster: &str, tar: &Path) -> Result {
    let mut import = match engine {
        Engine::Containerd => program("ctr", &["--namespace", "k8s.io", "images", "import"]),
        Engine::K3s => program("k3s", &["ctr", "images", "import"]),
        Engine::K3d => program("k3d", &["image", "import", "--cluster", cluster]),
    };
    run::run(import.arg(tar))
}

fn program(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(args);
    command
}

fn megabytes(file: &Path) -> Result<String> {
    let bytes = fs_err::metadata(file)?.len();
    Ok(json!(f64::from(u32::try_from(bytes / 10_000).unwrap_or(u32::MAX)) / 100.0).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file[64] = kind;
        file
    }

    #[test]
    fn a_program_that_needs_a_loader_is_told_from_one_that_does_not() {
        assert!(has_loader(&elf(3)));
        assert!(!has_loader(&elf(1)));
        assert!(has_loader(b"#!/bin/sh"), "what is no program is not taken for a static one");
    }

    #[test]
    fn the_image_is_the_one_that_the_charts_run() {
        let places = Places::find().unwrap();
        let values = fs_err::read_to_string(places.root.join("charts/obol/values.yaml")).unwrap();
        assert!(values.contains(&format!("image: {}\n", default_name())));
    }

    /// Nobody here can run it, so at least its words are those of the image that is tested.
    #[test]
    fn the_containerfile_says_what_the_image_is() {
        let places = Places::find().unwrap();
        let read = |file: &str| fs_err::read_to_string(places.root.join(file)).unwrap();
        let text = read("Containerfile").replace("\\\n", " ");
        let program = tempfile::NamedTempFile::new().unwrap();
        let image = describe(&places, default_name(), program.path()).unwrap();
        let line = |start: &str| text.lines().rfind(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
        assert_eq!(line("ENTRYPOINT"), format!("ENTRYPOINT {}", json!(image.entrypoint)));
        assert_eq!(line("USER"), format!("USER {}", image.user));
        let [file] = image.files.as_slice() else { panic!("one file is all") };
        let copied: Vec<&str> = line("COPY --from=build").split_whitespace().skip(2).collect();
        assert_eq!(copied, ["/bin/obol", &format!("/{}", file.path)]);
        assert!(text.contains("FROM scratch\n") && text.contains(&format!("-t {} .\n", default_name())), "{text}");

        // What it builds, and with what, exists.
        let run = line("RUN");
        assert!(run.ends_with(&format!("&& cp target/*/image/obol {}", copied[0])), "{run}");
        for words in ["build --locked --profile image --bin obol --target", "-Ctarget-feature=+crt-static", "CARGO_INCREMENTAL=0"] {
            assert!(run.contains(words), "{words}: {run}");
        }
        let manifest = read("Cargo.toml");
        assert!(manifest.contains("[profile.image]"));
        let field = |key: &str| manifest.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim_matches([' ', '=', '"']).to_owned();
        assert!(line("FROM docker.io").starts_with(&format!("FROM docker.io/library/rust:{}-", field("rust-version"))), "{text}");
    }
}
