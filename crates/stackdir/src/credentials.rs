//! `credentials` of `stack.yaml`: where the keys are that offers name. An offer is shared, and says only
//! what its key is called.

use std::{collections::BTreeMap, path::Path};

use obol_offer::Violation;

use crate::networks::{SecretRef, inside_root};

/// By the name that offers have in `spec.model.credential`: `ref+file:///path` or `ref+env://NAME`.
pub type Credentials = BTreeMap<String, String>;

/// Every rule that needs no file system.
pub(crate) fn check(credentials: &Credentials) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, reference) in credentials {
        let mut refuse = |code, message: &str, fix: &str| {
            let field = format!("credentials.{name}");
            found.push(Violation { code, field, message: message.to_owned(), fix: fix.to_owned() });
        };
        if !is_credential_name(name) {
            refuse("credential_name", "no name of a key", "write letters, digits and `_`, such as OPENAI_KEY");
        }
        if SecretRef::parse(reference).is_none() {
            // What is written there may be the key itself.
            let fix = "put the key into a file that only you can read, outside this folder, and write ref+file:///path/to/it";
            refuse("credential_reference", SecretRef::WANTED, fix);
        }
    }
    found
}

/// Whether a key can be called so: as a variable of the environment, and as a key of a Secret.
pub fn is_credential_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}

/// Keys that lie inside the stack directory, which is made to be shared.
pub(crate) fn inside(credentials: &Credentials, root: &Path) -> Vec<Violation> {
    let files = credentials.iter().filter_map(|(name, reference)| match SecretRef::parse(reference)? {
        SecretRef::File(path) => Some((name, path)),
        SecretRef::Env(_) => None,
    });
    files.filter_map(|(name, path)| inside_root(format!("credentials.{name}"), path, root)).collect()
}

#[cfg(test)]
mod tests {
    use crate::{StackDir, parse_stack};

    #[test]
    fn a_key_is_named_and_never_written() {
        let parse = |lines: &str| parse_stack(&format!("id: shop\ncredentials:\n{lines}"), "stack.yaml".as_ref());
        let good = parse("  OPENAI_KEY: ref+file:///run/secrets/openai\n  local: ref+env://LOCAL_KEY\n").unwrap();
        assert_eq!(good.credentials.len(), 2);
        let found = parse("  OPENAI_KEY: hunter2\n  a/b: ref+env://X\n").unwrap_err();
        let codes: Vec<_> = found.iter().map(|d| (d.line, d.code.as_str())).collect();
        assert_eq!(codes, [(3, "credential_reference"), (4, "credential_name")]);
        assert!(!found.iter().any(|d| d.to_string().contains("hunter2")));
    }

    #[test]
    fn a_key_inside_the_stack_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("id: shop\ncredentials:\n  OPENAI_KEY: ref+file://{}\n", folder.path().join("key").display());
        std::fs::write(folder.path().join("stack.yaml"), text).unwrap();
        let found = StackDir::at(folder.path()).stack().unwrap_err();
        assert_eq!((found[0].code.as_str(), found[0].line), ("secret_inside", 3));
    }
}
