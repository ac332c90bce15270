//! The key that pays.

use std::{fmt, fs, ops::Range, path::Path};

use obol_offer::{Address, B256, Terms};
use obol_x402::{Authorization, AuthorizationKind, signing};
use secp256k1::SecretKey;

/// A secp256k1 secret key and its address. Never printed, erased when dropped.
#[derive(Clone)]
pub struct Wallet {
    key: SecretKey,
    address: Address,
}

/// Why there is no wallet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Not a key. The text is not shown: it may be one but for a digit.
    #[error("the key is not a secp256k1 secret key; write 64 hexadecimal digits, with or without 0x")]
    NotAKey,
    /// The file cannot be read.
    #[error("cannot read the key file {path}: {source}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others on the machine can read the file.
    #[error("the key file {path} can be read by others; run: chmod 600 {path}")]
    Exposed {
        /// Which file.
        path: String,
    },
}

impl WalletError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAKey => "wallet_not_a_key",
            Self::Unreadable { .. } => "wallet_unreadable",
            Self::Exposed { .. } => "wallet_exposed",
        }
    }
}

impl Wallet {
    /// A wallet from 64 hexadecimal digits, with or without `0x`, white space around them ignored.
    ///
    /// # Errors
    /// [`WalletError::NotAKey`].
    pub fn from_hex(text: &str) -> Result<Self, WalletError> {
        let text = text.trim();
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes).map_err(|_| WalletError::NotAKey)?;
        SecretKey::from_byte_array(bytes).map(Self::new).map_err(|_| WalletError::NotAKey)
    }

    /// A wallet from a file that holds such digits and that only its owner can read.
    ///
    /// # Errors
    /// Any [`WalletError`].
    pub fn from_file(path: &Path) -> Result<Self, WalletError> {
        let unreadable = |source| WalletError::Unreadable { path: path.display().to_string(), source };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            if fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o077 != 0 {
                return Err(WalletError::Exposed { path: path.display().to_string() });
            }
        }
        Self::from_hex(&fs::read_to_string(path).map_err(unreadable)?)
    }

    /// A new wallet that nobody has seen.
    pub fn random() -> Self {
        Self::new(SecretKey::new(&mut rand::rng()))
    }

    /// Its address.
    pub const fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn sign(&self, terms: &Terms, kind: AuthorizationKind, nonce: B256, valid: Range<u64>) -> Authorization {
        signing::sign(&self.key, terms, kind, nonce, valid)
    }

    fn new(key: SecretKey) -> Self {
        Self { address: signing::address_of(&key), key }
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Anvil's first public key.
    const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn a_key_in_either_spelling_has_its_address() {
        for text in [KEY.to_owned(), format!(" 0x{KEY}\n")] {
            assert_eq!(Wallet::from_hex(&text).unwrap().address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        }
        for bad in ["", "0x", &"0".repeat(64), &"f".repeat(64), &KEY[1..], &format!("{KEY}00")] {
            assert!(matches!(Wallet::from_hex(bad), Err(WalletError::NotAKey)), "{bad}");
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        let shown = format!("{:?}", Wallet::from_hex(KEY).unwrap()).to_lowercase();
        assert!(!shown.contains(&KEY[..8]) && shown.contains("0xf39fd6e5"), "{shown}");
        assert!(!WalletError::NotAKey.to_string().contains(&KEY[..8]));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("0x{KEY}\n")).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Wallet::from_file(file.path()).unwrap_err().code(), "wallet_exposed");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Wallet::from_file(file.path()).is_ok());
        assert_eq!(Wallet::from_file(Path::new("/nonexistent/key")).unwrap_err().code(), "wallet_unreadable");
    }

    #[test]
    fn random_wallets_differ() {
        assert_ne!(Wallet::random().address(), Wallet::random().address());
    }
}
