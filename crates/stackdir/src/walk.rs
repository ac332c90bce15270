//! Reading the tree: every slice, and everything that looks like one but is not.

use std::{
    ffi::OsStr,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use fs_err as fs;
use obol_offer::{Offer, OfferKind, OfferName, OfferSpec};

use crate::{
    Diagnostic, StackDir,
    generated::{self, HELMFILE},
    parse::{MAX_FILE_BYTES, parse_offer},
};

pub(crate) const KINDS: [OfferKind; 2] = [OfferKind::Http, OfferKind::Inference];
pub(crate) const VALUES: &str = "values-offer.yaml";

/// One slice as found on disk.
#[derive(Clone, Debug)]
pub struct Slice {
    /// By folder.
    pub kind: OfferKind,
    /// By folder.
    pub name: OfferName,
    /// `values-offer.yaml`, relative to the stack directory.
    pub file: PathBuf,
    /// The file's text; empty when it cannot be read.
    pub text: String,
    /// The offer as written and as resolved, or everything that is wrong with it.
    pub offer: Result<(OfferSpec, Offer), Vec<Diagnostic>>,
    /// What has no effect, such as an edited generated file.
    pub warnings: Vec<Diagnostic>,
}

/// Everything in a stack directory.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// Slices, broken ones included, by kind and name.
    pub slices: Vec<Slice>,
    /// What stands among the slices and is none.
    pub stray: Vec<Diagnostic>,
    /// Folders that obol hands on untouched: infrastructure, networks, agents, unknown kinds.
    pub skipped: Vec<String>,
}

impl StackDir {
    /// Reads the whole tree. Never fails: what cannot be read is in the result, each thing by itself.
    pub fn walk(&self) -> Walk {
        let mut walk = Walk::default();
        let mut found = Vec::new();
        for kind in KINDS {
            let mut names = self.offers_of(kind, &mut walk.stray);
            names.sort_unstable();
            found.extend(names.into_iter().map(|name| (kind, name)));
        }
        walk.slices = self.read_all(&found);
        walk.stray.sort_by(|a, b| a.file.cmp(&b.file));
        walk.skipped = self.others();
        walk
    }

    /// Two threads halve the time of a cold start with thousands of offers.
    fn read_all(&self, found: &[(OfferKind, OfferName)]) -> Vec<Slice> {
        let read =
            |part: &[(OfferKind, OfferName)]| -> Vec<Slice> { part.iter().filter_map(|(kind, name)| self.slice(*kind, name)).collect() };
        if found.len() < 256 {
            return read(found);
        }
        let (front, back) = found.split_at(found.len() / 2);
        thread::scope(|scope| {
            let other = scope.spawn(|| read(back));
            let mut slices = read(front);
            slices.extend(other.join().unwrap_or_else(|_| read(back)));
            slices
        })
    }

    fn offers_of(&self, kind: OfferKind, stray: &mut Vec<Diagnostic>) -> Vec<OfferName> {
        let folder = Path::new("applications").join(kind.folder());
        let entries = match fs::read_dir(self.root().join(&folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                stray.push(unreadable(folder, &error));
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    stray.push(unreadable(folder.clone(), &error));
                    continue;
                }
            };
            let file_name = entry.file_name();
            if is_hidden(&file_name) {
                continue;
            }
            let path = folder.join(&file_name);
            let file_type = entry.file_type().ok();
            if file_type.is_some_and(|t| t.is_symlink()) {
                if let Err(problem) = self.resolve_link(&path) {
                    stray.push(problem);
                    continue;
                }
            } else if !file_type.is_some_and(|t| t.is_dir()) {
                let fix = format!("move it out of {}, or make it `{}/{VALUES}`", folder.display(), path.display());
                stray.push(Diagnostic::file(path, "stray_file", "a file where only folders of offers belong", fix).warning());
                continue;
            }
            match file_name.to_str().map(str::parse::<OfferName>) {
                Some(Ok(name)) => names.push(name),
                Some(Err(error)) => {
                    stray.push(Diagnostic::file(path, "folder_name", format!("no offer can have this name: {error}"), "rename the folder"))
                }
                None => stray.push(Diagnostic::file(path, "folder_name", "the folder's name is not UTF-8", "rename the folder")),
            }
        }
        names
    }

    /// One slice, or `None` when its folder does not exist.
    pub(crate) fn slice(&self, kind: OfferKind, name: &OfferName) -> Option<Slice> {
        let folder = Path::new("applications").join(kind.folder()).join(name.as_str());
        let file = folder.join(VALUES);
        let (text, offer) = match self.read_text(&file) {
            Ok(text) => {
                let offer = parse_offer(&text, &file, kind, name);
                (text, offer)
            }
            Err(None) if !self.root().join(&folder).exists() => return None,
            Err(None) => {
                let fix = format!("write it with `obol sell {} {name} …`, or remove the folder", kind.as_str());
                (String::new(), Err(vec![Diagnostic::file(&file, "values_missing", "the folder has no values-offer.yaml", fix)]))
            }
            Err(Some(problem)) => (String::new(), Err(vec![problem])),
        };
        let helmfile = folder.join(HELMFILE);
        let warnings = match self.read_text(&helmfile) {
            Ok(text) => generated::check_slice_helmfile(&text, helmfile, kind, name).into_iter().collect(),
            Err(problem) => problem.map(Diagnostic::warning).into_iter().collect(),
        };
        Some(Slice { kind, name: name.clone(), file, text, offer, warnings })
    }

    /// The text of a file, relative to the root; `Err(None)` when there is none.
    pub(crate) fn read_text(&self, file: &Path) -> Result<String, Option<Diagnostic>> {
        let path = self.root().join(file);
        let metadata = match path.symlink_metadata() {
            Ok(link) if link.is_symlink() => self.resolve_link(file).map_err(Some)?,
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
            Err(error) => return Err(Some(unreadable(file.to_owned(), &error))),
        };
        if !metadata.is_file() {
            return Err(Some(Diagnostic::file(file, "not_a_file", "this is no regular file", "put the offer's text file here")));
        }
        let too_big = || Diagnostic::file(file, "file_too_big", format!("the file has more than {MAX_FILE_BYTES} bytes"), "shorten it");
        let limit = MAX_FILE_BYTES as u64;
        if metadata.len() > limit {
            return Err(Some(too_big()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
        let read = std::fs::File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
            Err(error) => return Err(Some(unreadable(file.to_owned(), &error))),
            Ok(_) if bytes.len() > MAX_FILE_BYTES => return Err(Some(too_big())),
            Ok(_) => {}
        }
        String::from_utf8(bytes).map_err(|error| {
            let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let mut problem = Diagnostic::file(file, "not_utf8", "the file is not UTF-8 text", "save it as UTF-8");
            problem.line = u32::try_from(line).unwrap_or(u32::MAX);
            Some(problem)
        })
    }

    /// What a symbolic link leads to, if that is inside the stack directory.
    fn resolve_link(&self, link: &Path) -> Result<std::fs::Metadata, Diagnostic> {
        let target = self.root().join(link).canonicalize().map_err(|error| {
            Diagnostic::file(
                link,
                "link_dangling",
                format!("the symbolic link leads nowhere: {}", error.kind()),
                "remove the link, or restore its target",
            )
        })?;
        let root = self.root().canonicalize().map_err(|error| unreadable(link.to_owned(), &error))?;
        if !target.starts_with(&root) {
            let message = "the symbolic link leads out of the stack directory";
            return Err(Diagnostic::file(
                link,
                "link_outside",
                message,
                "put the files themselves here, so that the folder can be backed up and cloned",
            ));
        }
        target.metadata().map_err(|error| unreadable(link.to_owned(), &error))
    }

    fn others(&self) -> Vec<String> {
        let mut others = Vec::new();
        for folder in ["infrastructure", "networks"] {
            others.extend(self.root().join(folder).is_dir().then(|| folder.to_owned()));
        }
        for kind in folders(&self.root().join("applications")) {
            if KINDS.iter().any(|known| known.folder() == kind) {
                continue;
            }
            let slices = folders(&self.root().join("applications").join(&kind));
            if slices.is_empty() {
                others.push(format!("applications/{kind}"));
            }
            others.extend(slices.into_iter().map(|slice| format!("applications/{kind}/{slice}")));
        }
        others.sort_unstable();
        others
    }
}

fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| !is_hidden(&e.file_name()) && e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn unreadable(file: PathBuf, error: &io::Error) -> Diagnostic {
    Diagnostic::file(file, "unreadable", format!("cannot be read: {error}"), "give your user the right to read it")
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
