//! Noticing edits by hand.

use std::path::{Component, Path};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use obol_offer::{OfferKind, OfferName};

/// What an edit touched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// One slice, and nothing else.
    Slice(OfferName, OfferKind),
    /// `stack.yaml`.
    Stack,
    /// Anything: the tree is to be read again.
    Tree,
    /// No more is noticed, and why.
    Unwatched(String),
}

/// Watches until dropped.
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Reports every change below `root`, from a thread of its own.
    ///
    /// # Errors
    /// A sentence for the node's owner: the tree is to be read at intervals instead.
    pub(crate) fn start(root: &Path, report: impl Fn(Change) + Send + 'static) -> Result<Self, String> {
        let base = root.to_owned();
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) => changes(&base, &event).into_iter().for_each(&report),
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => report(Change::Unwatched(sentence(&error))),
            Err(_) => report(Change::Tree),
        };
        let mut watcher = notify::recommended_watcher(handler).map_err(|error| sentence(&error))?;
        watcher.watch(root, RecursiveMode::Recursive).map_err(|error| sentence(&error))?;
        Ok(Self { _watcher: watcher })
    }
}

fn sentence(error: &notify::Error) -> String {
    let cause = match &error.kind {
        ErrorKind::MaxFilesWatch => "the system's file watches have run out; raise fs.inotify.max_user_watches".to_owned(),
        _ => error.to_string(),
    };
    format!("edits are noticed within seconds only, as the tree cannot be watched: {cause}")
}

fn changes(root: &Path, event: &Event) -> Vec<Change> {
    match event.kind {
        // Reading is no change; and we read ourselves.
        EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write) => Vec::new(),
        _ if event.need_rescan() || event.paths.is_empty() => vec![Change::Tree],
        _ => event.paths.iter().filter_map(|path| change(root, path)).collect(),
    }
}

fn change(root: &Path, path: &Path) -> Option<Change> {
    let Ok(inside) = path.strip_prefix(root) else { return Some(Change::Tree) };
    let parts: Vec<&str> =
        inside.components().filter_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None }).collect();
    match parts.as_slice() {
        ["stack.yaml"] => Some(Change::Stack),
        ["applications", folder, name, ..] => match (kind(folder), name.parse()) {
            (Some(kind), Ok(name)) => Some(Change::Slice(name, kind)),
            _ => Some(Change::Tree),
        },
        [] | ["applications", ..] | ["networks", ..] | ["infrastructure"] => Some(Change::Tree),
        _ => None,
    }
}

fn kind(folder: &str) -> Option<OfferKind> {
    [OfferKind::Http, OfferKind::Inference].into_iter().find(|kind| kind.folder() == folder)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use notify::event::{CreateKind, Flag};

    use super::*;

    fn changed(path: &str) -> Option<Change> {
        change(Path::new("/s"), Path::new(path))
    }

    #[test]
    fn a_path_tells_what_is_to_be_read_again() {
        let slice = |kind| Some(Change::Slice("a".parse().unwrap(), kind));
        assert_eq!(changed("/s/applications/sell-http/a/values-offer.yaml"), slice(OfferKind::Http));
        assert_eq!(changed("/s/applications/sell-http/a"), slice(OfferKind::Http));
        assert_eq!(changed("/s/applications/sell-inference/a/x/y"), slice(OfferKind::Inference));
        assert_eq!(changed("/s/applications/sell-http/.tmp123"), Some(Change::Tree));
        assert_eq!(changed("/s/applications/sell-http"), Some(Change::Tree));
        assert_eq!(changed("/s/applications/hermes/x/values.yaml"), Some(Change::Tree));
        assert_eq!(changed("/s"), Some(Change::Tree));
        assert_eq!(changed("/s/stack.yaml"), Some(Change::Stack));
        assert_eq!(changed("/s/.lock"), None);
        assert_eq!(changed("/s/charts/x/Chart.yaml"), None);
    }

    #[test]
    fn an_overflow_means_everything_and_reading_means_nothing() {
        let file = PathBuf::from("/s/applications/sell-http/a/values-offer.yaml");
        let event = |kind: EventKind| Event::new(kind).add_path(file.clone());
        assert_eq!(changes(Path::new("/s"), &event(EventKind::Create(CreateKind::File))).len(), 1);
        assert!(changes(Path::new("/s"), &event(EventKind::Access(AccessKind::Open(AccessMode::Any)))).is_empty());
        assert_eq!(changes(Path::new("/s"), &Event::new(EventKind::Other).set_flag(Flag::Rescan)), [Change::Tree]);
    }
}
