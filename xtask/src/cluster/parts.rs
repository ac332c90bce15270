//! What the test cluster is made of: programs built from pinned Go modules, Debian's packages
//! unpacked but not installed, and images written by hand. All in `cluster/` of the cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    oci::Image,
    places::Places,
    provision::unless_made_from,
    run::{Error, Result, output, run},
};

/// A program built from a tools module, `testbed/cluster/{module}`.
struct Program {
    module: &'static str,
    /// File in `cluster/bin`.
    name: &'static str,
    package: &'static str,
    /// The variables that hold its version, and whose version that is.
    version: (&'static [&'static str], &'static str),
}

const KUBERNETES: Program = Program {
    module: "kubernetes",
    name: "kubernetes",
    package: ".",
    // Charts that name a `kubeVersion` refuse a server without one.
    version: (&["k8s.io/client-go/pkg/version.gitVersion", "k8s.io/component-base/version.gitVersion"], "k8s.io/kubernetes"),
};
const HELM: Program = Program {
    module: "helm",
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    version: (&["helm.sh/helm/v4/internal/version.version"], "helm.sh/helm/v4"),
};
const HELMFILE: Program = Program {
    module: "helmfile",
    name: "helmfile",
    package: "github.com/helmfile/helmfile",
    version: (&["go.szostok.io/version.version"], "github.com/helmfile/helmfile"),
};
const TRAEFIK: Program = Program {
    module: "traefik",
    name: "traefik",
    package: "github.com/traefik/traefik/v3/cmd/traefik",
    version: (&["github.com/traefik/traefik/v3/pkg/version.Version"], "github.com/traefik/traefik/v3"),
};
const COREDNS: Program = Program { module: "coredns", name: "coredns", package: ".", version: (&[], "github.com/coredns/coredns") };
const NETPOL: Program =
    Program { module: "netpol", name: "kube-network-policies", package: "sigs.k8s.io/kube-network-policies/cmd", version: (&[], "") };
const REGISTRY: Program =
    Program { module: "registry", name: "registry", package: "github.com/google/go-containerregistry/cmd/registry", version: (&[], "") };
const PROBE: Program = Program { module: "probe", name: "probe", package: ".", version: (&[], "") };

/// The names that the Kubernetes program answers to.
const KUBERNETES_NAMES: [&str; 6] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// Kubernetes 1.36 with kubectl.
pub fn kubernetes(places: &Places) -> Result {
    build(places, &KUBERNETES)?;
    let bin = places.cache.join("cluster/bin");
    KUBERNETES_NAMES.iter().try_for_each(|name| link("kubernetes", &bin.join(name)))
}

/// helm, as people have it.
pub fn helm(places: &Places) -> Result {
    build(places, &HELM)
}

/// helmfile, as people have it.
pub fn helmfile(places: &Places) -> Result {
    build(places, &HELMFILE)
}

/// A registry of images, for as long as it runs.
pub fn registry(places: &Places) -> Result {
    build(places, &REGISTRY)
}

/// CoreDNS, the enforcer of NetworkPolicies and the Pods' test program, with their images and the one
/// of every Pod's first process.
pub fn images(places: &Places) -> Result {
    build(places, &COREDNS)?;
    build(places, &NETPOL)?;
    build(places, &PROBE)?;
    let source = places.root.join("testbed/cluster/pause.c");
    let pause = places.cache.join("cluster/bin/pause");
    unless_made_from(&[&source], &stamp(places, "pause"), || {
        run(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&pause).arg(&source))
    })?;
    ["pause", "coredns", "kube-network-policies", "probe"].iter().try_for_each(|name| image(places, name))
}

/// Traefik with its image and the definitions of what it watches.
pub fn traefik(places: &Places) -> Result {
    let made = places.cache.join("cluster/made/traefik");
    let source = places.root.join("testbed/cluster/traefik");
    unless_made_from(&module_files(&source)?, &stamp(places, "traefik-sources"), || without_dns_providers(&source, &made))?;
    build_in(places, &TRAEFIK, &made)?;
    image(places, "traefik")?;
    let definitions = places.cache.join("cluster/crds");
    fs_err::create_dir_all(&definitions)?;
    let gateway = module_folder(&made, "sigs.k8s.io/gateway-api")?.join("config/crd/standard");
    let mut standard: Vec<PathBuf> =
        fs_err::read_dir(gateway)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?;
    standard.retain(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"));
    standard.sort();
    let documents = standard.iter().map(fs_err::read_to_string).collect::<std::io::Result<Vec<_>>>()?;
    fs_err::write(definitions.join("gateway-api.yaml"), documents.join("\n---\n"))?;
    let own =
        module_folder(&made, TRAEFIK.version.1)?.join("docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml");
    Ok(fs_err::write(definitions.join("traefik.yaml"), fs_err::read(own)?)?)
}

/// Debian's part: downloaded and unpacked, so that no service is registered.
pub fn debian(places: &Places) -> Result {
    let list = places.root.join("testbed/cluster/debian-packages.txt");
    let target = places.cache.join("cluster/debian");
    unless_made_from(&[&list], &stamp(places, "debian"), || {
        let packages = fs_err::read_to_string(&list)?;
        let downloads = places.cache.join("cluster/made/debian");
        for folder in [&downloads, &target] {
            if folder.exists() {
                fs_err::remove_dir_all(folder)?;
            }
            fs_err::create_dir_all(folder)?;
        }
        run(Command::new("apt-get").args(["update", "-q"]))?;
        let mut apt = Command::new("apt-get");
        run(apt.args(["download", "-q", "-o", "APT::Sandbox::User=root"]).args(packages.split_whitespace()).current_dir(&downloads))?;
        for package in fs_err::read_dir(&downloads)? {
            run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(&target))?;
        }
        Ok(fs_err::remove_dir_all(&downloads)?)
    })?;
    // Debian makes these names when it installs the package.
    let programs = target.join("usr/sbin");
    for family in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            link("xtables-nft-multi", &programs.join(format!("{family}{suffix}")))?;
        }
    }
    Ok(())
}

/// Builds a program where its module is.
fn build(places: &Places, program: &Program) -> Result {
    build_in(places, program, &places.root.join("testbed/cluster").join(program.module))
}

/// Builds a program from `module` into `cluster/bin`, unless it is there; a running one is not disturbed.
fn build_in(places: &Places, program: &Program, module: &Path) -> Result {
    let sources = module_files(&places.root.join("testbed/cluster").join(program.module))?;
    unless_made_from(&sources, &stamp(places, program.name), || {
        let target = places.cache.join("cluster/bin").join(program.name);
        let new = target.with_extension("new");
        fs_err::create_dir_all(places.cache.join("cluster/bin"))?;
        let mut flags = "-s -w".to_owned();
        let (variables, of) = program.version;
        if !variables.is_empty() {
            let version = list(module, "{{.Version}}", of)?;
            variables.iter().for_each(|variable| flags.push_str(&format!(" -X {variable}={version}")));
        }
        // Static, so that it runs in an image with nothing else in it.
        let mut go = go(module);
        run(go.env("CGO_ENABLED", "0").args(["build", "-trimpath", "-ldflags", &flags, "-o"]).arg(&new).arg(program.package))?;
        Ok(fs_err::rename(new, target)?)
    })
}

/// Traefik's ACME client with our empty list of DNS providers, where `go.mod` says that it is: the
/// two hundred take longer to build than the rest.
fn without_dns_providers(source: &Path, made: &Path) -> Result {
    let version = go_mod_version(&source.join("go.mod"), "github.com/go-acme/lego/v5")?;
    if made.exists() {
        fs_err::remove_dir_all(made)?;
    }
    fs_err::create_dir_all(made.parent().unwrap_or(made))?;
    run(Command::new("cp").args(["-r"]).arg(source).arg(made))?;
    // Outside any module: inside, the replacement stands in the way.
    let module = format!("github.com/go-acme/lego/v5@{version}");
    let mut go = Command::new("go");
    let found = output(go.args(["mod", "download", "-json", &module]).current_dir(made.parent().unwrap_or(made)))?;
    let found: serde_json::Value = serde_json::from_slice(&found).map_err(|error| Error::Check(format!("{module}: {error}")))?;
    let folder =
        found.get("Dir").and_then(serde_json::Value::as_str).ok_or_else(|| Error::Check(format!("{module}: go names no folder")))?;
    let lego = made.join("lego");
    run(Command::new("cp").args(["-r", "--no-preserve=mode", folder]).arg(&lego))?;
    fs_err::remove_dir_all(lego.join("providers/dns"))?;
    run(Command::new("cp").arg("-r").arg(source.join("dns")).arg(lego.join("providers/dns")))
}

/// Version of a module in the text of a `go.mod`.
fn go_mod_version(path: &Path, module: &str) -> Result<String> {
    let text = fs_err::read_to_string(path)?;
    let version =
        text.lines().find_map(|line| line.trim().strip_prefix(module)?.split_whitespace().next().filter(|word| word.starts_with('v')));
    version.map(str::to_owned).ok_or_else(|| Error::Check(format!("{}: no version of {module}", path.display())))
}

/// Writes the image of a program to `cluster/images`, unless it is there.
fn image(places: &Places, name: &str) -> Result {
    let program = places.cache.join("cluster/bin").join(name);
    let tar = places.cache.join("cluster/images").join(format!("{name}.tar"));
    unless_made_from(&[&program], &stamp(places, &format!("image-{name}")), || {
        let layout = Image::of_program(&format!("obol.test/{name}:1"), &program)?.layout()?;
        println!("obol.test/{name}:1 {}", layout.digest);
        layout.write_tar(&tar)
    })
}

fn module_folder(module: &Path, name: &str) -> Result<PathBuf> {
    run(go(module).args(["mod", "download", name]))?;
    Ok(PathBuf::from(list(module, "{{.Dir}}", name)?))
}

fn list(module: &Path, what: &str, name: &str) -> Result<String> {
    let found = output(go(module).args(["list", "-m", "-f", what, name]))?;
    Ok(String::from_utf8_lossy(&found).trim().to_owned())
}

fn go(module: &Path) -> Command {
    let mut go = Command::new("go");
    // The toolchain that is here, or an error that says which is wanted.
    go.current_dir(module).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=readonly -buildvcs=false");
    go
}

/// Every file of a tools module: what its program is made from.
fn module_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(module_files(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn stamp(places: &Places, part: &str) -> PathBuf {
    places.cache.join("cluster/made").join(format!(".{part}.made-from"))
}

fn link(to: &str, name: &Path) -> Result {
    if fs_err::read_link(name).is_ok_and(|found| found == Path::new(to)) {
        return Ok(());
    }
    Ok(fs_err::os::unix::fs::symlink(to, name)?)
}
