//! `facilitators` of `stack.yaml`: credentials for facilitators that serve only those they know.
//! A credential is not here but in a file or variable that is named here.

use std::{collections::BTreeSet, path::Path};

use obol_offer::Violation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::networks::{SecretRef, inside_root};

/// One facilitator that wants a credential, wherever it is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FacilitatorSettings {
    /// Base URL, as in `defaults.facilitators` or an offer's `facilitators`.
    pub url: String,
    /// Where its credential is: `ref+file:///path` or `ref+env://NAME`. A bare token is sent as
    /// `Authorization: Bearer …`, anything with a space in it as it is.
    pub credential: String,
}

impl FacilitatorSettings {
    /// Where the credential is.
    pub fn secret(&self) -> Option<SecretRef<'_>> {
        SecretRef::parse(&self.credential)
    }
}

/// Every rule that needs no file system.
pub(crate) fn check(facilitators: &[FacilitatorSettings]) -> Vec<Violation> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, settings) in facilitators.iter().enumerate() {
        let mut refuse = |field: &str, code, message: &str, fix: &str| {
            let field = format!("facilitators[{index}].{field}");
            found.push(Violation { code, field, message: message.to_owned(), fix: fix.to_owned() });
        };
        match Url::parse(&settings.url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                refuse(
                    "url",
                    "facilitator_url",
                    "a URL here holds no password",
                    "put the credential into a file, and name it in `credential`",
                );
            }
            Some(url) if !seen.insert(url.as_str().trim_end_matches('/').to_owned()) => {
                refuse("url", "facilitator_twice", "this facilitator is written twice", "write it once");
            }
            Some(_) => {}
            None => refuse("url", "facilitator_url", "no http or https base URL", "write one such as https://x402.example"),
        }
        if settings.secret().is_none() {
            // What is written there may be the credential itself.
            let fix = "put the credential into a file that only you can read, outside this folder, and write ref+file:///path/to/it";
            refuse("credential", "credential_reference", SecretRef::WANTED, fix);
        }
    }
    found
}

/// Credentials that lie inside the stack directory, which is made to be shared.
pub(crate) fn inside(facilitators: &[FacilitatorSettings], root: &Path) -> Vec<Violation> {
    let files = facilitators.iter().enumerate().filter_map(|(index, settings)| match settings.secret()? {
        SecretRef::File(path) => Some((index, path)),
        SecretRef::Env(_) => None,
    });
    files.filter_map(|(index, path)| inside_root(format!("facilitators[{index}].credential"), path, root)).collect()
}

#[cfg(test)]
mod tests {
    use crate::{StackDir, parse_stack};

    const FILE: &str = "stack.yaml";

    #[test]
    fn a_credential_is_named_and_never_written() {
        let good = "id: shop\nfacilitators:\n  - url: https://x402.example/v2\n    credential: ref+file:///run/secrets/x402\n  \
                    - url: https://other.example\n    credential: ref+env://X402_TOKEN\n";
        assert_eq!(parse_stack(good, FILE.as_ref()).unwrap().facilitators.len(), 2);
        let bad = "id: shop\nfacilitators:\n  - url: ftp://x\n    credential: hunter2\n  - url: https://a.example/\n    \
                   credential: ref+env://X-Y\n  - url: https://a.example\n    credential: ref+env://X\n  \
                   - url: https://u:hunter2@a.example\n    credential: ref+env://X\n";
        let found = parse_stack(bad, FILE.as_ref()).unwrap_err();
        let codes: Vec<_> = found.iter().map(|d| (d.line, d.code.as_str())).collect();
        let expected = [
            (3, "facilitator_url"),
            (4, "credential_reference"),
            (6, "credential_reference"),
            (7, "facilitator_twice"),
            (9, "facilitator_url"),
        ];
        assert_eq!(codes, expected);
        assert!(!found.iter().any(|d| d.to_string().contains("hunter2")));
    }

    #[test]
    fn a_credential_inside_the_stack_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = |path: &std::path::Path| {
            format!("id: shop\nfacilitators:\n  - url: https://a.example\n    credential: ref+file://{}\n", path.display())
        };
        std::fs::write(folder.path().join(FILE), text(&folder.path().join("token"))).unwrap();
        let found = StackDir::at(folder.path()).stack().unwrap_err();
        assert_eq!((found[0].code.as_str(), found[0].line), ("secret_inside", 4));
    }
}
