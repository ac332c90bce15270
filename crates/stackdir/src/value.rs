//! What a file is to say, in the order of the type's fields, and how that is written anew.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::scalar;

/// A value as it is written: numbers and truth values as their words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Never quoted: a number, a truth value or null.
    Word(String),
    Text(String),
    Seq(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Value {
    /// Any of our types, with its fields in their order.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&serde_json::to_string(value)?)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether it stands on one line in block style.
    pub(crate) fn is_inline(&self) -> bool {
        match self {
            Self::Word(_) | Self::Text(_) => true,
            Self::Seq(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }

    /// In flow style, on one line.
    pub(crate) fn to_flow(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            // In flow style a colon inside plain text reads badly, and wrongly in some readers.
            Self::Text(text) if text.contains(':') => scalar::quote(text),
            Self::Text(text) => scalar::write_text(text),
            Self::Seq(items) => format!("[{}]", items.iter().map(Self::to_flow).collect::<Vec<_>>().join(", ")),
            Self::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {}", value.to_flow())).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    fn to_inline(&self) -> String {
        match self {
            Self::Text(text) => scalar::write_text(text),
            other => other.to_flow(),
        }
    }

    /// In block style, every line indented by `indent` and ended by `newline`.
    pub(crate) fn write_block(&self, out: &mut String, indent: usize, newline: &str) {
        let pad = " ".repeat(indent);
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    write_entry(out, &pad, key, value, indent, newline);
                }
            }
            Self::Seq(items) => {
                for item in items {
                    write_item(out, item, indent, newline);
                }
            }
            inline => out.push_str(&format!("{pad}{}{newline}", inline.to_inline())),
        }
    }
}

/// `key: value`, with a collection on the lines below.
pub(crate) fn write_entry(out: &mut String, pad: &str, key: &str, value: &Value, indent: usize, newline: &str) {
    if value.is_inline() {
        out.push_str(&format!("{pad}{key}: {}{newline}", value.to_inline()));
    } else {
        out.push_str(&format!("{pad}{key}:{newline}"));
        value.write_block(out, indent + 2, newline);
    }
}

/// `- value`, with the first key of a mapping on the line of the dash.
pub(crate) fn write_item(out: &mut String, item: &Value, indent: usize, newline: &str) {
    let mut block = String::new();
    item.write_block(&mut block, indent + 2, newline);
    out.push_str(&format!("{}- {}", " ".repeat(indent), block.trim_start_matches(' ')));
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value but a fraction")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Word("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Word(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Word(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Word(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}
