//! One spelling per path: what is gated must be exactly what is forwarded.
//!
//! Gates are bypassed by paths that the gate and the upstream read differently: `//`, `/./`,
//! `%2e%2e`, `%2f`, `\`, `;`, capitals. We bring every request path to one canonical form before
//! routing, forward that form, and refuse spellings for which no safe form exists.

use std::fmt;

/// A path in canonical form: starts with `/`, no empty, `.` or `..` segments, unreserved characters
/// unescaped, every other escape in upper-case hex (RFC 3986 §6.2.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalPath(String);

/// Why a path has no safe canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not start with `/`.
    #[error("a path starts with `/`")]
    NotAbsolute,
    /// `%` without two hex digits behind it.
    #[error("a `%` in a path is followed by two hex digits")]
    BadEscape,
    /// `%2F` or `%5C`: some servers read them as separators, some do not.
    #[error("an escaped slash or backslash in a path is ambiguous")]
    EscapedSeparator,
    /// A raw backslash, which some servers read as `/`.
    #[error("a backslash in a path is ambiguous")]
    Backslash,
    /// A control character, raw or escaped.
    #[error("a path has no control characters")]
    Control,
    /// A byte that must be escaped in a URI.
    #[error("a path has only URI characters; escape others as %XX")]
    NotUri,
    /// `..` above the root.
    #[error("`..` leads above the root")]
    AboveRoot,
}

impl CanonicalPath {
    /// The root, `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Brings a raw request path (no query) to its one form. Doubled slashes and dot segments are
    /// resolved; a trailing slash is kept, since upstreams tell it apart.
    ///
    /// # Errors
    /// [`PathError`] for every spelling that two servers could read as two paths.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let decoded = unescape_unreserved(raw)?;
        let mut segments: Vec<&str> = Vec::new();
        let mut directory = true;
        for segment in decoded.split('/').skip(1) {
            directory = matches!(segment, "" | "." | "..");
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop().ok_or(PathError::AboveRoot)?;
                }
                segment => segments.push(segment),
            }
        }
        let mut canonical = String::with_capacity(decoded.len());
        for segment in &segments {
            canonical.push('/');
            canonical.push_str(segment);
        }
        if directory {
            canonical.push('/');
        }
        Ok(Self(canonical))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `self` is `prefix` or lies below it, by whole segments.
    pub fn is_within(&self, prefix: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        self.0.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn unescape_unreserved(raw: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut hex = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(PathError::BadEscape);
                let value = u8::try_from(hex()? * 16 + hex()?).map_err(|_| PathError::BadEscape)?;
                match value {
                    b'/' | b'\\' => return Err(PathError::EscapedSeparator),
                    0..=0x1f | 0x7f => return Err(PathError::Control),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(value)),
                    other => out.push_str(&format!("%{other:02X}")),
                }
            }
            b'\\' => return Err(PathError::Backslash),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b' ' | b'?' | b'#' | 0x80.. => return Err(PathError::NotUri),
            other => out.push(char::from(other)),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canon(raw: &str) -> Result<String, PathError> {
        CanonicalPath::parse(raw).map(|p| p.to_string())
    }

    #[test]
    fn every_spelling_has_one_form() {
        for same in ["/a/b", "//a//b", "/a/./b", "/a/x/../b", "/%61/b", "/a/%62", "/a/%2e/b", "/a/x/%2E%2e/b", "/./a/b"] {
            assert_eq!(canon(same).as_deref(), Ok("/a/b"), "{same}");
        }
        assert_eq!(canon("/a/b/").as_deref(), Ok("/a/b/"));
        assert_eq!(canon("/a/b/..").as_deref(), Ok("/a/"));
        assert_eq!(canon("/").as_deref(), Ok("/"));
        assert_eq!(canon("/..a/b%20c").as_deref(), Ok("/..a/b%20c"));
        assert_eq!(canon("/%c3%a4").as_deref(), Ok("/%C3%A4"));
    }

    #[test]
    fn ambiguous_spellings_are_refused() {
        assert_eq!(canon("/a%2fb"), Err(PathError::EscapedSeparator));
        assert_eq!(canon("/a%5Cb"), Err(PathError::EscapedSeparator));
        assert_eq!(canon("/a\\b"), Err(PathError::Backslash));
        assert_eq!(canon("/a%00"), Err(PathError::Control));
        assert_eq!(canon("/a%2"), Err(PathError::BadEscape));
        assert_eq!(canon("/a%zz"), Err(PathError::BadEscape));
        assert_eq!(canon("/../a"), Err(PathError::AboveRoot));
        assert_eq!(canon("a"), Err(PathError::NotAbsolute));
        assert_eq!(canon(""), Err(PathError::NotAbsolute));
        assert_eq!(canon("/ä"), Err(PathError::NotUri));
    }

    #[test]
    fn canonical_form_is_a_fixed_point() {
        for raw in ["/a//b/../%63/", "/%41;v=1/x", "/a/%25%32%66"] {
            let once = canon(raw).unwrap_or_default();
            assert_eq!(canon(&once).as_deref(), Ok(once.as_str()), "{raw}");
        }
    }

    #[test]
    fn prefixes_match_whole_segments() {
        let path = |p: &str| CanonicalPath::parse(p).unwrap_or_else(|_| CanonicalPath::root());
        assert!(path("/services/a/x").is_within("/services/a"));
        assert!(path("/services/a").is_within("/services/a/"));
        assert!(!path("/services/ab").is_within("/services/a"));
    }
}
