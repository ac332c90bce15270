use std::path::Path;

use obol_offer::{OfferKind, OfferName};

use crate::{
    Change, StackDir, StackError, WriteLock, atomic, parse_offer,
    write::{io_error, updated},
};

impl StackDir {
    /// Replaces the text of a slice that is there, as an editor would, but checked and atomically.
    /// Compare with [`Slice::text`](crate::Slice::text) under the same lock to see whether somebody
    /// else has changed it since it was read.
    ///
    /// # Errors
    /// [`StackError::Invalid`] when the text breaks a rule, [`StackError::Outside`] and
    /// [`StackError::Io`]. In every case the old text is still there.
    pub fn put_text(&self, _lock: &WriteLock, kind: OfferKind, name: &OfferName, text: &str) -> Result<Change, StackError> {
        let change = self.preview_text(kind, name, text)?;
        if let (Change::Created { text } | Change::Updated { after: text, .. }, Some(slice)) = (&change, self.read(kind, name)?) {
            let file = self.root().join(&slice.file);
            // A link inside the tree stays a link.
            let file = file.canonicalize().unwrap_or(file);
            atomic::write_file(&file, text.as_bytes()).map_err(io_error("write", &file))?;
        }
        Ok(change)
    }

    /// What [`StackDir::put_text`] would do. Writes nothing.
    ///
    /// # Errors
    /// As [`StackDir::put_text`].
    pub fn preview_text(&self, kind: OfferKind, name: &OfferName, text: &str) -> Result<Change, StackError> {
        let Some(slice) = self.read(kind, name)? else {
            let path = self.root().join("applications").join(kind.folder()).join(name.as_str());
            return Err(io_error("change", &path)(std::io::ErrorKind::NotFound.into()));
        };
        let file: &Path = &slice.file;
        parse_offer(text, file, kind, name).map_err(|diagnostics| StackError::Invalid { file: file.to_owned(), diagnostics })?;
        Ok(if slice.text == text { Change::Unchanged } else { updated(file, slice.text, text.to_owned(), false) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StackConfig;

    #[test]
    fn a_text_replaces_a_slice_only_if_it_is_a_valid_one() {
        let folder = tempfile::tempdir().unwrap();
        let stack = StackDir::at(folder.path());
        stack.init(&StackConfig::default()).unwrap();
        let (lock, name) = (stack.lock().unwrap(), "a".parse::<OfferName>().unwrap());
        let text = "name: a # mine\nspec:\n  upstream: {url: 'http://x.example'}\n  payment:\n    network: base\n    \
                    payTo: '0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC'\n    price: {perRequest: '1'}\n";
        assert!(matches!(stack.put_text(&lock, OfferKind::Http, &name, text), Err(StackError::Io { .. })));
        let (spec, _) = parse_offer(text, Path::new("x"), OfferKind::Http, &name).unwrap();
        stack.put(&lock, OfferKind::Http, &name, &spec).unwrap();
        assert!(matches!(stack.put_text(&lock, OfferKind::Http, &name, text), Ok(Change::Updated { .. })));
        assert_eq!(stack.put_text(&lock, OfferKind::Http, &name, text).unwrap(), Change::Unchanged);
        let broken = text.replace("'1'", "'0'");
        assert!(matches!(stack.put_text(&lock, OfferKind::Http, &name, &broken), Err(StackError::Invalid { .. })));
        assert_eq!(stack.find(&name).unwrap().text, text);
    }
}
