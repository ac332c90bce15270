//! Bounded names: what may be called what, and why.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An offer's name: a DNS label (RFC 1123) of at most 53 characters.
///
/// 53 is helm's bound on release names, and the release is called like the offer. What is read back
/// (by serde) may be [within](Self::within) a namespace; what people type may not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferName(String);

/// A Kubernetes namespace: a DNS label of at most 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

/// A lower-case DNS host name without port, at most 253 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(String);

/// Why a string is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a name may not be empty")]
    Empty,
    /// Longer than the bound.
    #[error("a name has at most {0} characters")]
    TooLong(usize),
    /// A character outside the alphabet, or `-` at an end of a label.
    #[error("a name has only a-z, 0-9 and `-`, and starts and ends with a letter or digit")]
    BadCharacter,
}

fn check_label(label: &str) -> Result<(), NameError> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = label.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) if ok(*first) && ok(*last) && bytes.iter().all(|b| ok(*b) || *b == b'-') => Ok(()),
        (None, _) => Err(NameError::Empty),
        _ => Err(NameError::BadCharacter),
    }
}

impl OfferName {
    /// Longest name, in characters.
    pub const MAX: usize = 53;

    /// For what has no name that could be one.
    pub fn unknown() -> Self {
        Self("unknown".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of an offer in a namespace of its own, `<namespace>/<name>`: unique over a cluster.
    pub fn within(&self, namespace: &Namespace) -> Self {
        Self(format!("{namespace}/{}", self.plain()))
    }

    /// Its namespace, where that is one of its own.
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once('/').map(|(namespace, _)| namespace)
    }

    /// The name without its namespace.
    pub fn plain(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for OfferName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX {
            return Err(NameError::TooLong(Self::MAX));
        }
        check_label(text).map(|()| Self(text.to_owned()))
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 63 {
            return Err(NameError::TooLong(63));
        }
        check_label(text).map(|()| Self(text.to_owned()))
    }
}

impl Hostname {
    /// The host name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 253 {
            return Err(NameError::TooLong(253));
        }
        for label in text.split('.') {
            if label.len() > 63 {
                return Err(NameError::TooLong(63));
            }
            check_label(label)?;
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! text_type {
    ($name:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}
text_type!(OfferName);
text_type!(Hostname);
text_type!(Namespace);

impl<'de> Deserialize<'de> for OfferName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once('/') {
            None => text.parse().map_err(D::Error::custom),
            Some((namespace, name)) => {
                let namespace: Namespace = namespace.parse().map_err(D::Error::custom)?;
                name.parse::<Self>().map(|name| name.within(&namespace)).map_err(D::Error::custom)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_within_helms_bound() {
        for good in ["a", "weather", "gpt-4", "0x", &"a".repeat(53)] {
            assert!(good.parse::<OfferName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "../x", "a/b", &"a".repeat(54)] {
            assert!(bad.parse::<OfferName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_within_a_namespace_are_read_back_but_never_typed() {
        let name: OfferName = "weather".parse().unwrap();
        let within = name.within(&"team-a".parse().unwrap());
        assert_eq!((within.as_str(), within.plain(), name.plain()), ("team-a/weather", "weather", "weather"));
        let json = serde_json::to_string(&within).unwrap();
        assert_eq!(serde_json::from_str::<OfferName>(&json).unwrap(), within);
        assert!(within.as_str().parse::<OfferName>().is_err());
        for bad in ["\"../x\"", "\"a/b/c\"", "\"/a\"", "\"a/\"", "\"A/b\""] {
            assert!(serde_json::from_str::<OfferName>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_have_no_port_or_capitals() {
        assert!("api.example.com".parse::<Hostname>().is_ok());
        for bad in ["", "a..b", "Api.example.com", "a:80", "*.example.com", "a.", &"a.".repeat(200)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad}");
        }
    }
}
