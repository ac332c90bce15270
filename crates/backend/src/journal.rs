//! Where the journal is, as the environment or `stack.yaml` says.

use obol_settle::{Secret, SharedJournal};
use obol_stackdir::{JournalSettings, SecretRef};

use crate::NodeError;

/// Variable with the URL of the journal's database; it goes before `journal` in `stack.yaml`.
pub const JOURNAL_URL: &str = "OBOL_JOURNAL_URL";
/// Largest file that holds a URL.
const MAX_URL_FILE: usize = 4096;

/// The database of the journal; `None` when the journal is a file.
///
/// # Errors
/// [`NodeError::JournalUrl`] when it is named and cannot be read; nothing of it is repeated.
pub fn shared_journal(settings: &JournalSettings) -> Result<Option<SharedJournal>, NodeError> {
    find(settings, |name| std::env::var(name).ok())
}

fn find(settings: &JournalSettings, variable: impl Fn(&str) -> Option<String>) -> Result<Option<SharedJournal>, NodeError> {
    let broken = |cause: String| Err(NodeError::JournalUrl(cause));
    let url = match (variable(JOURNAL_URL).filter(|url| !url.is_empty()), settings.database()) {
        (Some(url), _) => url,
        (None, None) => return Ok(None),
        (None, Some(SecretRef::Env(name))) => match variable(name) {
            Some(url) => url,
            None => return broken(format!("the variable {name}, which `journal` in stack.yaml names, is not set")),
        },
        (None, Some(SecretRef::File(path))) => match fs_err::read_to_string(path) {
            Ok(text) if text.len() <= MAX_URL_FILE => text,
            Ok(_) => return broken(format!("{} holds more than a URL", path.display())),
            Err(error) => return broken(error.to_string()),
        },
    };
    Ok(Some(SharedJournal::new(Secret::new(url.trim()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_first_and_a_missing_reference_is_told() {
        let settings = |postgres: &str| JournalSettings { postgres: Some(postgres.to_owned()) };
        let none = |_: &str| None;
        assert!(find(&JournalSettings::default(), none).unwrap().is_none());
        assert!(find(&JournalSettings::default(), |name| (name == JOURNAL_URL).then(|| "postgres://x".to_owned())).unwrap().is_some());
        assert!(find(&settings("env:DB"), |name| (name == "DB").then(|| "postgres://x".to_owned())).unwrap().is_some());
        assert!(find(&settings("env:DB"), none).unwrap_err().to_string().contains("DB"));
        assert!(find(&settings("ref+file:///no/such"), none).unwrap_err().to_string().contains("/no/such"));
        assert!(find(&settings("ref+file:///no/such"), |name| (name == JOURNAL_URL).then(|| "postgres://x".to_owned())).is_ok());
    }
}
