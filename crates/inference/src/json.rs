//! The members of a JSON object as they were written, so that what we do not know is passed on
//! byte by byte.

use std::{fmt, fmt::Write as _};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A JSON object: its members in their order, repeated ones too.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub Vec<(String, &'a str)>);

impl<'a> Members<'a> {
    /// # Errors
    /// When `bytes` is not exactly one JSON object in UTF-8.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, raw)| *raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((key, value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Writes a JSON object, member by member.
#[derive(Debug)]
pub(crate) struct Writer(String);

impl Writer {
    pub(crate) fn new(capacity: usize) -> Self {
        let mut text = String::with_capacity(capacity);
        text.push('{');
        Self(text)
    }

    /// `raw` is JSON already.
    pub(crate) fn member(&mut self, key: &str, raw: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to a string cannot fail, and a string is always JSON.
        let _ = write!(self.0, "{}:{raw}", serde_json::Value::from(key));
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// JSON of a string.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether raw JSON says nothing: `null`, `""`, `[]` or `{}`.
pub(crate) fn is_empty(raw: &str) -> bool {
    matches!(raw.trim_ascii(), "null" | "\"\"" | "[]" | "{}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_bytes_and_their_order() {
        let text = br#"{"b": 1.0e+2 ,"a":{"x":[1, 2]},"b":"\u0061","\u0063":null}"#;
        let members = Members::parse(text).unwrap();
        let read: Vec<_> = members.0.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(read, [("b", "1.0e+2"), ("a", r#"{"x":[1, 2]}"#), ("b", r#""\u0061""#), ("c", "null")]);
        let mut writer = Writer::new(0);
        for (key, raw) in &members.0 {
            writer.member(key, raw);
        }
        assert_eq!(writer.finish(), r#"{"b":1.0e+2,"a":{"x":[1, 2]},"b":"\u0061","c":null}"#);
    }

    #[test]
    fn only_one_whole_object_is_taken() {
        for text in
            [&b"[]"[..], b"1", b"{} {}", b"{}x", b"{\"a\":NaN}", b"{\"a\":1,}", b"\xef\xbb\xbf{}", b"{\"a\":\"\xff\"}", b"", b"{'a':1}"]
        {
            assert!(Members::parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
