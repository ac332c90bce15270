//! OCI images without a container engine: one layer, one platform, the same bytes every time.
//!
//! Source: OCI image specification 1.1 (`image-layout.md`, `manifest.md`, `config.md`, `layer.md`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::run::Result;

/// An image to be written.
pub struct Image {
    /// Full name with its tag, such as `obol.test/pause:1`: what a Pod says in `image`.
    pub name: String,
    /// Program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `uid:gid`; Pods under the `restricted` profile need a number other than 0.
    pub user: String,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Labels (`org.opencontainers.image.…`).
    pub labels: BTreeMap<String, String>,
    /// What is in it; the folders that the paths need are made.
    pub files: Vec<File>,
    /// Whether the layer is compressed: smaller in a registry, slower to import.
    pub gzip: bool,
}

/// A file of an image. Owned by root, with no time of its own.
pub struct File {
    /// Path in the image, without a leading slash.
    pub path: String,
    /// Permission bits, such as `0o755`.
    pub mode: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// A written image: every file of its OCI layout by path.
pub struct Layout {
    files: BTreeMap<String, Vec<u8>>,
    /// Digest of the manifest (`sha256:…`), which names the image whatever its tag.
    pub digest: String,
}

impl File {
    /// The program at `source`, to be run as `/{path}`.
    pub fn program(path: &str, source: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), mode: 0o755, bytes: fs_err::read(source)? })
    }
}

impl Image {
    /// An image of one static program that runs as a user without rights.
    pub fn of_program(name: &str, program: &Path) -> Result<Self> {
        let file = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        Ok(Self {
            name: name.to_owned(),
            entrypoint: vec![format!("/{file}")],
            user: "65532:65532".to_owned(),
            env: Vec::new(),
            labels: BTreeMap::new(),
            files: vec![File::program(&file, program)?],
            gzip: false,
        })
    }

    /// Builds layer, config, manifest and index.
    pub fn layout(&self) -> Result<Layout> {
        let mut files = BTreeMap::new();
        let layer = self.layer()?;
        let diff_id = digest(&layer);
        let (kind, layer) = if self.gzip { ("tar+gzip", compress(&layer)?) } else { ("tar", layer) };
        let layer = blob(&mut files, &format!("application/vnd.oci.image.layer.v1.{kind}"), layer);
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "User": self.user, "Env": self.env, "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = blob(&mut files, "application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer],
        });
        let mut manifest = blob(&mut files, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest.platform = Some(json!({ "architecture": architecture(), "os": "linux" }));
        // The first is what containerd calls the imported image, the second what other tools do.
        manifest.annotations = Some(json!({ "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag }));
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
        });
        files.insert("index.json".to_owned(), index.to_string().into_bytes());
        files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        Ok(Layout { files, digest: manifest.digest })
    }

    /// The one layer, as a tar: folders before what is in them, then files, all by path.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let folders: BTreeSet<&Path> = self
            .files
            .iter()
            .flat_map(|file| Path::new(&file.path).ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        for folder in folders {
            append(&mut tar, folder, tar::EntryType::Directory, 0o755, &[])?;
        }
        let files: BTreeMap<&str, &File> = self.files.iter().map(|file| (file.path.as_str(), file)).collect();
        for (path, file) in files {
            append(&mut tar, Path::new(path), tar::EntryType::Regular, file.mode, &file.bytes)?;
        }
        Ok(tar.into_inner()?)
    }
}

impl Layout {
    /// A blob by its digest.
    pub fn blob(&self, digest: &str) -> Option<&[u8]> {
        self.files.get(&format!("blobs/{}", digest.replace(':', "/"))).map(Vec::as_slice)
    }

    /// The manifest.
    pub fn manifest(&self) -> &[u8] {
        self.blob(&self.digest).unwrap_or_default()
    }

    /// Writes it as one tar, for `ctr images import`, `k3d image import`, `docker load`.
    pub fn write_tar(&self, path: &Path) -> Result {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.files {
            append(&mut tar, Path::new(name), tar::EntryType::Regular, 0o644, bytes)?;
        }
        write(path, &tar.into_inner()?)
    }

    /// Writes it as a folder, for tools that push to a registry.
    pub fn write_folder(&self, folder: &Path) -> Result {
        self.files.iter().try_for_each(|(name, bytes)| write(&folder.join(name), bytes))
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &Path, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> Result {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    // Nothing of the machine that writes: neither time nor user.
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    Ok(tar.append_data(&mut header, path, bytes)?)
}

/// What names a blob in another (`descriptor.md`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Value>,
}

/// Adds a blob and returns its descriptor.
fn blob(files: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let (digest, size) = (digest(&bytes), bytes.len());
    files.insert(format!("blobs/{}", digest.replace(':', "/")), bytes);
    Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A gzip header without time, name or system.
fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = flate2::GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

fn write(path: &Path, bytes: &[u8]) -> Result {
    fs_err::create_dir_all(path.parent().map(PathBuf::from).unwrap_or_default())?;
    Ok(fs_err::write(path, bytes)?)
}

/// This machine's architecture, in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(gzip: bool) -> Image {
        Image {
            name: "obol.test/demo:1".to_owned(),
            entrypoint: vec!["/bin/demo".to_owned()],
            user: "65532:65532".to_owned(),
            env: vec!["PATH=/bin".to_owned()],
            labels: BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
            files: ["etc/z", "bin/demo", "etc/deep/a"]
                .map(|path| File { path: path.to_owned(), mode: 0o755, bytes: path.as_bytes().to_vec() })
                .into(),
            gzip,
        }
    }

    #[test]
    fn the_same_image_is_the_same_bytes() {
        for gzip in [false, true] {
            let mut turned = image(gzip);
            turned.files.reverse();
            let (one, other) = (image(gzip).layout().unwrap(), turned.layout().unwrap());
            assert_eq!(one.digest, other.digest);
            assert_eq!(one.files, other.files);
        }
    }

    #[test]
    fn every_blob_has_the_digest_that_names_it() {
        let layout = image(true).layout().unwrap();
        let blobs: Vec<_> = layout.files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("blobs/sha256/")?, bytes))).collect();
        assert_eq!(blobs.len(), 3, "layer, config and manifest");
        for (name, bytes) in blobs {
            assert_eq!(format!("sha256:{name}"), digest(bytes));
        }
    }

    #[test]
    fn a_layer_has_every_folder_before_what_is_in_it() {
        let layer = image(false).layer().unwrap();
        let mut tar = tar::Archive::new(layer.as_slice());
        let paths: Vec<_> = tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(paths, ["bin", "etc", "etc/deep", "bin/demo", "etc/deep/a", "etc/z"]);
    }
}
