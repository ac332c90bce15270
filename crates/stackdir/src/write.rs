//! Changing the tree: one slice at a time, under the lock, atomically.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use obol_offer::{OfferKind, OfferName, OfferSpec};

use crate::{
    Diagnostic, Slice, StackDir, StackError, WriteLock, atomic,
    diagnostic::Finding,
    edit,
    generated::{self, HELMFILE},
    parse::{OfferFile, decode_offer, parse_offer},
    value::Value,
    walk::{KINDS, VALUES},
};

/// What a write did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was no such file.
    Created {
        /// Its text.
        text: String,
    },
    /// The file says something else than before.
    Updated {
        /// The text before.
        before: String,
        /// The text after.
        after: String,
        /// The difference as a unified diff, with the file's name in the header.
        diff: String,
        /// Whether the file had to be written anew, so that only the comments at its head were
        /// kept. `false` when everything that did not change stayed as it was.
        rewritten: bool,
    },
    /// The file says it already.
    Unchanged,
}

impl StackDir {
    /// The slice of this kind and name; `None` when there is no such folder.
    ///
    /// # Errors
    /// [`StackError::Outside`] when the folder is a link that leads elsewhere.
    pub fn read(&self, kind: OfferKind, name: &OfferName) -> Result<Option<Slice>, StackError> {
        self.guard(&slice_folder(kind, name))?;
        Ok(self.slice(kind, name))
    }

    /// The slice of this name, of whichever kind.
    pub fn find(&self, name: &OfferName) -> Option<Slice> {
        KINDS.iter().find_map(|kind| self.read(*kind, name).ok().flatten())
    }

    /// What [`StackDir::put`] would do. Writes nothing.
    ///
    /// # Errors
    /// As [`StackDir::put`].
    pub fn preview(&self, kind: OfferKind, name: &OfferName, spec: &OfferSpec) -> Result<Change, StackError> {
        self.plan(kind, name, spec)
    }

    /// Writes the slice. In an existing file only what differs is touched: comments, order, quotes
    /// and blank lines stay.
    ///
    /// # Errors
    /// [`StackError::Invalid`] when the offer breaks a rule, [`StackError::Broken`] when the existing
    /// file has not the right form, [`StackError::NameTaken`] when the other kind has the name, and
    /// [`StackError::Io`]. In every case the old slice is still there.
    pub fn put(&self, _lock: &WriteLock, kind: OfferKind, name: &OfferName, spec: &OfferSpec) -> Result<Change, StackError> {
        let change = self.plan(kind, name, spec)?;
        self.write_generated()?;
        let folder = self.root().join(slice_folder(kind, name));
        let parent = folder.parent().unwrap_or(self.root());
        atomic::create_dirs(parent).map_err(io_error("make the folder", parent))?;
        let helmfile = generated::slice_helmfile(kind, name);
        match &change {
            Change::Created { text } if !folder.exists() => {
                let files = [(HELMFILE, helmfile.as_bytes()), (VALUES, text.as_bytes())];
                atomic::create_folder(&folder, &files).map_err(io_error("write", &folder))?;
            }
            Change::Created { text } | Change::Updated { after: text, .. } => {
                atomic::sweep(&folder);
                write_outdated(&folder.join(HELMFILE), &helmfile, kind, name)?;
                let file = folder.join(VALUES);
                // A link inside the tree stays a link.
                let file = file.canonicalize().unwrap_or(file);
                atomic::write_file(&file, text.as_bytes()).map_err(io_error("write", &file))?;
            }
            Change::Unchanged => {
                write_outdated(&folder.join(HELMFILE), &helmfile, kind, name)?;
            }
        }
        Ok(change)
    }

    /// Removes the slice's whole folder; `false` when there is none.
    ///
    /// # Errors
    /// [`StackError::Io`]; the slice is then still there.
    pub fn remove(&self, _lock: &WriteLock, kind: OfferKind, name: &OfferName) -> Result<bool, StackError> {
        let folder = self.root().join(slice_folder(kind, name));
        match atomic::remove_folder(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.symlink_metadata().is_err() => Ok(false),
            Err(error) => Err(io_error("remove", &folder)(error)),
        }
    }

    /// Writes what obol generates and keeps up to date: charts, helmfiles. Never touches what somebody
    /// has edited; returns the files written, and a warning for each that was left alone.
    ///
    /// # Errors
    /// [`StackError::Io`].
    pub fn generate(&self, _lock: &WriteLock) -> Result<(Vec<PathBuf>, Vec<Diagnostic>), StackError> {
        let (mut written, warnings) = self.write_generated()?;
        for slice in self.walk().slices {
            let file = slice_folder(slice.kind, &slice.name).join(HELMFILE);
            let text = generated::slice_helmfile(slice.kind, &slice.name);
            if write_outdated(&self.root().join(&file), &text, slice.kind, &slice.name)? {
                written.push(file);
            }
        }
        Ok((written, warnings))
    }

    pub(crate) fn write_generated(&self) -> Result<(Vec<PathBuf>, Vec<Diagnostic>), StackError> {
        let cluster = self.stack().is_ok_and(|config| config.backend.is_cluster());
        generated::write_assets(self.root(), cluster)
    }

    fn plan(&self, kind: OfferKind, name: &OfferName, spec: &OfferSpec) -> Result<Change, StackError> {
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            if self.root().join(slice_folder(other, name)).exists() {
                return Err(StackError::NameTaken { name: name.clone(), kind: other });
            }
        }
        let folder = slice_folder(kind, name);
        self.guard(&folder)?;
        let file = folder.join(VALUES);
        let wanted = OfferFile { name: name.to_string(), spec: spec.clone() };
        let value = to_value(&wanted, &file)?;
        let fresh = edit::fresh(edit::OFFER_HEAD, &value);
        // The offer's rules, shown at the lines that the file would have.
        let invalid = |diagnostics| StackError::Invalid { file: file.clone(), diagnostics };
        parse_offer(&fresh, &file, kind, name).map_err(invalid)?;
        let before = match self.read_text(&file) {
            Ok(before) => before,
            Err(None) => return Ok(Change::Created { text: fresh }),
            Err(Some(problem)) => return Err(StackError::Broken { file, diagnostics: vec![problem] }),
        };
        let (_, current) = decode_offer(&before).map_err(|findings| broken(&file, findings))?;
        if current == wanted {
            return Ok(Change::Unchanged);
        }
        let edited = edit::edit(&before, &to_value(&current, &file)?, &value);
        let says_it = |text: &String| decode_offer(text).is_ok_and(|(_, doc)| doc == wanted);
        let (after, rewritten) = match edited.filter(says_it) {
            Some(after) => (after, false),
            None => (edit::fresh(edit::head_of(&before), &value), true),
        };
        parse_offer(&after, &file, kind, name).map_err(|diagnostics| StackError::Invalid { file: file.clone(), diagnostics })?;
        Ok(updated(&file, before, after, rewritten))
    }

    /// Refuses a place that a symbolic link has moved out of the tree.
    pub(crate) fn guard(&self, place: &Path) -> Result<(), StackError> {
        let path = self.root().join(place);
        let (Ok(root), Ok(found)) = (self.root().canonicalize(), path.canonicalize()) else { return Ok(()) };
        if found.starts_with(root) { Ok(()) } else { Err(StackError::Outside { path: place.to_owned() }) }
    }
}

pub(crate) fn updated(file: &Path, before: String, after: String, rewritten: bool) -> Change {
    let name = file.display().to_string();
    let diff = similar::TextDiff::from_lines(&before, &after).unified_diff().header(&format!("a/{name}"), &format!("b/{name}")).to_string();
    Change::Updated { before, after, diff, rewritten }
}

pub(crate) fn broken(file: &Path, findings: Vec<Finding>) -> StackError {
    let diagnostics: Vec<Diagnostic> = findings.into_iter().map(|finding| finding.in_file(file)).collect();
    StackError::Broken { file: file.to_owned(), diagnostics }
}

pub(crate) fn to_value(value: &impl serde::Serialize, file: &Path) -> Result<Value, StackError> {
    Value::of(value).map_err(|error| StackError::Io { action: "write", path: file.to_owned(), source: error.into() })
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StackError {
    let path = path.to_owned();
    move |source| StackError::Io { action, path, source }
}

fn slice_folder(kind: OfferKind, name: &OfferName) -> PathBuf {
    Path::new("applications").join(kind.folder()).join(name.as_str())
}

fn write_outdated(file: &Path, text: &str, kind: OfferKind, name: &OfferName) -> Result<bool, StackError> {
    // What is there and cannot be read is somebody's.
    let found = match fs::symlink_metadata(file) {
        Ok(_) => Some(fs::read_to_string(file).unwrap_or_default()),
        Err(_) => None,
    };
    let outdated = generated::helmfile_is_outdated(found.as_deref(), kind, name);
    if outdated {
        atomic::write_file(file, text.as_bytes()).map_err(io_error("write", file))?;
    }
    Ok(outdated)
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
