//! Shapes of text, in the dialect that RE2 and Rust share: one declaration serves the checks here and
//! the schema of the custom resource ([`crate::admission`]).

use std::sync::LazyLock;

use regex_lite::Regex;

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident = $($part:expr),+;)+) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: Shape = Shape { pattern: concat!($($part),+), regex: LazyLock::new(|| Regex::new(concat!($($part),+)).ok()) };
        )+
        #[cfg(test)]
        pub(crate) static ALL: &[&Shape] = &[$(&$name),+];
    };
}

/// A regular expression that a whole text must match.
pub(crate) struct Shape {
    pub(crate) pattern: &'static str,
    regex: LazyLock<Option<Regex>>,
}

impl Shape {
    /// A pattern that does not compile matches nothing; a test compiles them all.
    pub(crate) fn fits(&self, text: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

macro_rules! label {
    () => {
        "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
    };
}
macro_rules! octet {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}
// The last label of a name is no number, else it would be an IPv4 address in one of its odd spellings.
macro_rules! host {
    () => {
        concat!(
            "(([a-zA-Z0-9_-]+[.])*([a-zA-Z_][a-zA-Z0-9_-]*|[0-9]+[a-wyzA-WYZ_-][a-zA-Z0-9_-]*)|",
            octet!(),
            "([.]",
            octet!(),
            "){3}|\\[[0-9a-fA-F:]{2,39}\\])"
        )
    };
}
macro_rules! port {
    () => {
        "(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    };
}
macro_rules! url_path {
    () => {
        "(/[!$&'()*+,.:;=@A-Za-z0-9_~%/\\[\\]-]*)?"
    };
}
// What `CanonicalPath` leaves as it is, in one segment; `.` and `..` have to be looked for apart.
macro_rules! segment {
    ($star:literal) => {
        concat!("([!$&'()", $star, "+,.0-9:;=@A-Z\\[\\]_a-z~-]|%(2[0-9A-C]|3[A-F]|40|5[BDE]|60|7[B-D]|[89A-F][0-9A-F]))+")
    };
}
macro_rules! plain_segment {
    () => {
        "[!$&'()*+,.0-9:;=@A-Z\\[\\]_a-z~-]+"
    };
}

shapes! {
    /// [`crate::OfferName`], but for its length.
    NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    /// [`crate::Hostname`], but for its length.
    HOSTNAME = "^", label!(), "([.]", label!(), ")*$";
    /// An absolute URL in plain spelling, without user, query or fragment.
    URL = "^https?://", host!(), port!(), url_path!(), "$";
    /// A URL over which a payment may travel: TLS, this machine, or a Service of the cluster that the reader runs in.
    PRIVATE_URL = "^(https://", host!(), "|http://(localhost|127([.]", octet!(), "){3}|\\[::1\\]|", label!(), "[.]", label!(), "[.]svc([.]cluster[.]local)?))", port!(), url_path!(), "$";
    /// `0x` and 40 hex digits.
    ADDRESS = "^0x[0-9a-fA-F]{40}$";
    /// A positive decimal number, but for being above zero.
    PRICE = "^[0-9]+([.][0-9]+)?$";
    /// A canonical path without escapes; `/` alone may end with a slash.
    PATH = "^(/|(/", plain_segment!(), ")+)$";
    /// A canonical path.
    CANONICAL = "^(/", segment!("*"), ")*/?$";
    /// `/path` or `/path/*`, or either without the path.
    ROUTE = "^(/", segment!(""), ")*(/[*])?$";
    /// RFC 3339.
    TIME = "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
    /// `1h`, `90s`, `1h30m`, `0s`.
    DURATION = "^([0-9]{1,7}[smh])+$";
    /// No control characters.
    ONE_LINE = "^[^\\x00-\\x1f\\x7f-\\x{9f}]*$";
    /// Neither control characters nor white space of any script.
    MODEL_NAME = "^[^\\x00-\\x20\\x7f-\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}]+$";
    /// Where a key is: a file, or a name.
    CREDENTIAL = "^(ref[+]file://[^\\x00-\\x1f\\x7f-\\x{9f}]+|[A-Za-z_][A-Za-z0-9_.-]{0,127})$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_compiles() {
        assert!(ALL.iter().all(|shape| shape.regex.is_some()), "{:?}", ALL.iter().find(|s| s.regex.is_none()).map(|s| s.pattern));
    }

    #[test]
    fn urls_have_one_plain_spelling() {
        for good in [
            "http://127.0.0.1:9000",
            "https://api.example.com/v1/",
            "http://[::1]:80/a%20b",
            "http://3scale:8080",
            "http://A.b_c-d",
            "http://x.svc",
        ] {
            assert!(URL.fits(good) && url::Url::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http:/a",
            "ftp://a",
            "http://u@a",
            "http://a?x",
            "http://a#x",
            "http://1",
            "http://0x7f.1",
            "http://1.2.3.256",
            "http://a:0",
            "http://a:65536",
            "http://a b",
            " http://a",
            "http://a\\b",
            "http://",
            "http://a:",
        ] {
            assert!(!URL.fits(bad), "{bad}");
        }
        for private in [
            "https://f.example",
            "http://localhost:1/x",
            "http://127.9.9.9",
            "http://[::1]:4",
            "http://f.x402.svc:8404",
            "http://f.x402.svc.cluster.local",
        ] {
            assert!(PRIVATE_URL.fits(private), "{private}");
        }
        for public in [
            "http://f.example",
            "http://localhost.evil",
            "http://127.0.0.1.evil",
            "http://128.0.0.1",
            "http://svc",
            "http://f.svc",
            "http://f.x402.svc.evil",
        ] {
            assert!(!PRIVATE_URL.fits(public), "{public}");
        }
    }
}
