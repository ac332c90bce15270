//! The slices as last read, and what changed in them.

use std::{collections::BTreeMap, sync::Arc};

use obol_offer::OfferKind;
use obol_reconcile::{Key, PlanItem, Refusal, Slice, Version};
use obol_stackdir::{Diagnostic, Severity, StackDir};

/// One slice as last read.
pub(crate) struct Loaded {
    pub(crate) slice: Slice,
    /// What is wrong with it, and what has no effect.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// `values-offer.yaml`, relative to the stack directory.
    pub(crate) file: std::path::PathBuf,
    text: String,
}

/// The tree as last read. A slice whose text is the same keeps its parsed version.
pub(crate) struct Tree {
    dir: StackDir,
    pub(crate) slices: BTreeMap<Key, Loaded>,
    pub(crate) stray: Vec<Diagnostic>,
    pub(crate) skipped: Vec<String>,
    /// Whether the last reading of the whole tree found no stack directory at all.
    pub(crate) gone: bool,
}

impl Tree {
    pub(crate) fn new(dir: StackDir) -> Self {
        Self { dir, slices: BTreeMap::new(), stray: Vec::new(), skipped: Vec::new(), gone: false }
    }

    /// Reads everything again; says whether a slice changed.
    ///
    /// A folder that is not there at all, or cannot be listed, is no order to stop selling: what was
    /// read from it before stays.
    pub(crate) fn rescan(&mut self) -> bool {
        self.gone = !self.dir.exists();
        if self.gone {
            return false;
        }
        let walk = self.dir.walk();
        let unreadable = |kind: OfferKind| {
            let folder = std::path::Path::new("applications").join(kind.folder());
            walk.stray.iter().any(|problem| problem.severity == Severity::Error && problem.file == folder)
        };
        let mut before = std::mem::take(&mut self.slices);
        let mut changed = false;
        for slice in walk.slices {
            let key = (slice.name.clone(), slice.kind);
            let old = before.remove(&key);
            let loaded = load(slice, old.as_ref());
            changed |= old.is_none_or(|old| differs(&old, &loaded));
            self.slices.insert(key, loaded);
        }
        for (key, old) in before {
            if unreadable(key.1) {
                self.slices.insert(key, old);
            } else {
                changed = true;
            }
        }
        self.stray = walk.stray;
        self.skipped = walk.skipped;
        changed
    }

    /// Reads one slice again; says whether it changed.
    pub(crate) fn refresh(&mut self, key: &Key) -> bool {
        let slice = match self.dir.read(key.1, &key.0) {
            Ok(Some(slice)) => slice,
            Ok(None) if !self.dir.exists() => return false,
            Ok(None) => return self.slices.remove(key).is_some(),
            // The folder's place is wrong, not its file; the whole walk knows how to say that.
            Err(_) => return self.rescan(),
        };
        let loaded = load(slice, self.slices.get(key));
        let old = self.slices.insert(key.clone(), loaded);
        match (old, self.slices.get(key)) {
            (Some(old), Some(new)) => differs(&old, new),
            _ => true,
        }
    }

    /// What the pass works on.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.values().map(|loaded| &loaded.slice)
    }
}

/// The side of the files in a plan.
pub fn plan_items(slices: &[obol_stackdir::Slice]) -> Vec<PlanItem> {
    slices.iter().map(|slice| PlanItem::new(&slice.name, slice.kind, slice.offer.as_ref().ok().map(|(spec, _)| spec))).collect()
}

fn load(read: obol_stackdir::Slice, old: Option<&Loaded>) -> Loaded {
    let same = old.filter(|old| old.text == read.text && old.slice.version.is_ok() == read.offer.is_ok());
    let (version, mut diagnostics) = match (read.offer, same.map(|old| &old.slice.version)) {
        (Ok(_), Some(version)) => (version.clone(), Vec::new()),
        (Ok((spec, offer)), None) => (Ok(Version { offer: Arc::new(offer), spec: Arc::new(spec) }), Vec::new()),
        (Err(problems), _) => {
            let first = problems.first().map_or_else(String::new, sentence);
            (Err(Refusal::new("InvalidSlice", first)), problems)
        }
    };
    diagnostics.extend(read.warnings);
    Loaded { slice: Slice { name: read.name, kind: read.kind, version, since: None }, diagnostics, file: read.file, text: read.text }
}

fn differs(old: &Loaded, new: &Loaded) -> bool {
    old.text != new.text || old.slice.version.is_ok() != new.slice.version.is_ok() || old.diagnostics != new.diagnostics
}

/// `file:line: message (code)`.
fn sentence(problem: &Diagnostic) -> String {
    let line = if problem.line > 0 { format!(":{}", problem.line) } else { String::new() };
    format!("{}{line}: {} ({})", problem.file.display(), problem.message, problem.code)
}
