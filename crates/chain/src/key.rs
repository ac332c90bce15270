//! The key that pays for gas: read from a file or the environment, never shown.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use alloy_primitives::{B256, hex};
use obol_offer::Address;
use secp256k1::{Message, Secp256k1, SecretKey, SignOnly};

static SECP: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// The account that sends settlements. It pays for gas and never holds what buyers pay.
#[derive(Clone)]
pub struct SigningKey {
    key: SecretKey,
    address: Address,
}

/// Why there is no key. No text holds any part of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the key file {path} cannot be read: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everybody on the machine may read it.
    #[error("the key file {0} may be read by everybody; run `chmod 600` on it")]
    Readable(PathBuf),
    /// It is no key.
    #[error("{0} holds no private key; write 0x and 64 hex digits, and nothing else")]
    NotAKey(String),
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
}

impl KeyError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "key_file",
            Self::Readable(_) => "key_readable",
            Self::NotAKey(_) => "key_invalid",
            Self::NotSet(_) => "key_not_set",
        }
    }
}

impl SigningKey {
    /// Reads `0x` and 64 hex digits from a file that not everybody may read.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let broken = |source| KeyError::File { path: path.to_owned(), source };
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).map_err(broken)?);
            if mode & 0o007 != 0 {
                return Err(KeyError::Readable(path.to_owned()));
            }
        }
        let text = std::fs::read_to_string(path).map_err(broken)?;
        Self::parse(&text).ok_or_else(|| KeyError::NotAKey(path.display().to_string()))
    }

    /// Reads `0x` and 64 hex digits from an environment variable.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        let text = std::env::var(name).map_err(|_| KeyError::NotSet(name.to_owned()))?;
        Self::parse(&text).ok_or_else(|| KeyError::NotAKey(name.to_owned()))
    }

    /// The key in `0x` and 64 hex digits, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let key = SecretKey::from_byte_array(hex::decode_to_array(text.trim()).ok()?).ok()?;
        Some(Self { address: obol_x402::eip3009::address_of(&key), key })
    }

    /// Its account.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest: parity of y, and r and s as 64 bytes. Deterministic (RFC 6979).
    pub(crate) fn sign(&self, digest: B256) -> (bool, [u8; 64]) {
        let (id, compact) = SECP.sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.key).serialize_compact();
        (i32::from(id) & 1 == 1, compact)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn a_key_is_known_by_its_address_only() {
        let key = SigningKey::parse(&format!(" {KEY}\n")).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266)");
        assert!(SigningKey::parse("0x00").is_none() && SigningKey::parse(&"0".repeat(64)).is_none());
    }

    #[test]
    #[cfg(unix)]
    fn a_file_for_everybody_is_refused_and_no_error_shows_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let put = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            SigningKey::from_file(&path)
        };
        assert!(put(KEY, 0o600).is_ok());
        assert_eq!(put(KEY, 0o644).unwrap_err().code(), "key_readable");
        let error = put(&KEY[..40], 0o600).unwrap_err();
        assert_eq!(error.code(), "key_invalid");
        assert!(!error.to_string().contains(&KEY[2..10]));
    }
}
