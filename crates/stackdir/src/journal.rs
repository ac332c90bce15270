//! `journal` of `stack.yaml`: where payments are written down. Without it, in a file of the node's own.

use std::path::Path;

use obol_offer::Violation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::networks::{SecretRef, inside_root};

/// Where payments are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalSettings {
    /// A PostgreSQL database that several gateways share. Its URL holds a password and is not here:
    /// `ref+file:///path` of a file that holds it, or `ref+env://NAME` (also `env:NAME`) of a variable that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
}

impl JournalSettings {
    /// Where the URL of the database is found; `None` when there is no database.
    pub fn database(&self) -> Option<SecretRef<'_>> {
        self.postgres.as_deref().and_then(SecretRef::parse)
    }
}

/// Every rule that needs no file system.
pub(crate) fn check(journal: &JournalSettings) -> Option<Violation> {
    let is_broken = journal.postgres.is_some() && journal.database().is_none();
    is_broken.then(|| Violation {
        code: "journal_reference",
        field: "journal.postgres".to_owned(),
        // What is written there may be the URL itself, with its password.
        message: SecretRef::WANTED.to_owned(),
        fix: "put the URL of the database into a file that only you can read, outside this folder, and write ref+file:///path/to/it"
            .to_owned(),
    })
}

/// The file that holds the URL lies inside the stack directory, which is made to be shared.
pub(crate) fn inside(journal: &JournalSettings, root: &Path) -> Option<Violation> {
    let Some(SecretRef::File(path)) = journal.database() else { return None };
    inside_root("journal.postgres".to_owned(), path, root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StackDir, parse_stack};

    #[test]
    fn the_url_is_somewhere_else() {
        let parse = |postgres: &str| parse_stack(&format!("id: shop\njournal:\n  postgres: \"{postgres}\"\n"), "stack.yaml".as_ref());
        let file = parse("ref+file:///run/secrets/journal").unwrap();
        assert_eq!(file.journal.database(), Some(SecretRef::File("/run/secrets/journal".as_ref())));
        for variable in ["env:JOURNAL_URL", "ref+env://JOURNAL_URL"] {
            assert_eq!(parse(variable).unwrap().journal.database(), Some(SecretRef::Env("JOURNAL_URL")));
        }
        for bad in ["postgres://obol:hunter2@db/obol", "env:", "ref+file://hunter2"] {
            let found = parse(bad).unwrap_err();
            assert_eq!((found[0].code.as_str(), found[0].line), ("journal_reference", 3), "{bad}");
            assert!(!found[0].to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_file_inside_the_stack_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("id: shop\njournal:\n  postgres: ref+file://{}\n", folder.path().join("url").display());
        std::fs::write(folder.path().join("stack.yaml"), text).unwrap();
        let found = StackDir::at(folder.path()).stack().unwrap_err();
        assert_eq!((found[0].code.as_str(), found[0].line), ("secret_inside", 3));
    }
}
