//! Checks a tree against the JSON schema of the type it is to become, and reports everything
//! that is wrong at once, each at its place. (A decoder would stop at the first.)

use serde_json::Value;

use crate::{
    diagnostic::{Finding, Place},
    scalar::Plain,
    tree::{Body, Node},
};

/// All differences between `root` and `schema` (as schemars writes it).
pub(crate) fn check(root: &Node, schema: &Value) -> Vec<Finding> {
    let mut checker = Checker { schema, findings: Vec::new() };
    checker.node(root, schema, root.place, "");
    checker.findings
}

struct Checker<'a> {
    schema: &'a Value,
    findings: Vec<Finding>,
}

impl<'a> Checker<'a> {
    fn refuse(&mut self, place: Place, code: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding::new(place, code, message, fix));
    }

    /// Follows `$ref`, and takes the null out of an optional type.
    fn resolve(&self, mut schema: &'a Value) -> (&'a Value, bool) {
        let mut optional = false;
        for _ in 0..8 {
            if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
                schema = self.schema.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null);
            } else if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
                optional |= any.iter().any(|s| s["type"] == "null");
                schema = any.iter().find(|s| s["type"] != "null").unwrap_or(&Value::Null);
            } else {
                break;
            }
        }
        (schema, optional || types(schema).any(|word| word == "null"))
    }

    fn node(&mut self, node: &Node, schema: &'a Value, key: Place, name: &str) {
        let (schema, optional) = self.resolve(schema);
        if node.plain() == Some(Plain::Null) {
            if !optional {
                self.refuse(key, "field_empty", format!("`{name}` has no value"), "give it a value, or remove it");
            }
            return;
        }
        match (types(schema).find(|word| *word != "null"), &node.body) {
            (Some("object"), Body::Map { .. }) => self.object(node, schema, key, name),
            (Some("object"), body) => {
                let what = if matches!(body, Body::Seq { .. }) { "a list" } else { "a single value" };
                let fix = format!("write its fields below it, each on a line: {}", fields(schema).join(", "));
                self.refuse(node.place, "field_type", format!("`{name}` holds fields, not {what}"), fix);
            }
            (Some("array"), Body::Seq { items, .. }) => {
                if let Some(schema) = schema.get("items") {
                    items.iter().for_each(|item| self.node(item, schema, item.place, name));
                }
            }
            (Some("array"), _) => {
                self.refuse(node.place, "field_type", format!("`{name}` is a list"), "write one line with `- ` for each entry")
            }
            (_, Body::Scalar { text, .. }) => self.scalar(node, text, schema, name),
            _ => self.refuse(node.place, "field_type", format!("`{name}` is a single value, not a list or block"), "write it on one line"),
        }
    }

    fn object(&mut self, node: &Node, schema: &'a Value, key: Place, name: &str) {
        let Body::Map { entries, .. } = &node.body else { return };
        let mut meant = Vec::new();
        for entry in entries {
            match properties(schema).find(|(field, _)| *field == entry.key) {
                Some((_, schema)) => self.node(&entry.value, schema, entry.place, &entry.key),
                // A map from names of one's own.
                None if schema.get("additionalProperties").is_some_and(Value::is_object) => {
                    self.node(&entry.value, &schema["additionalProperties"], entry.place, &entry.key);
                }
                None => {
                    let known = fields(schema);
                    let near = nearest(&entry.key, &known);
                    meant.extend(near);
                    let whole = if name.is_empty() { "this file".to_owned() } else { format!("`{name}`") };
                    let fix = near
                        .map_or_else(|| format!("remove it, or use one of {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
                    self.refuse(entry.place, "field_unknown", format!("{whole} has no field `{}`", entry.key), fix);
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for field in required.filter(|field| node.entry(field).is_none() && !meant.contains(field)) {
            let whole = if name.is_empty() { "the file".to_owned() } else { format!("`{name}`") };
            self.refuse(key, "field_missing", format!("{whole} lacks `{field}`"), format!("add `{field}:`"));
        }
    }

    fn scalar(&mut self, node: &Node, text: &str, schema: &Value, name: &str) {
        let plain = node.plain();
        let words = words(schema);
        match types(schema).find(|word| *word != "null") {
            _ if !words.is_empty() && !words.contains(&text) => {
                let fix = nearest(text, &words)
                    .map_or_else(|| format!("use one of {}", words.join(", ")), |near| format!("did you mean `{near}`?"));
                self.refuse(node.place, "word_unknown", format!("`{text}` is no {name}"), fix);
            }
            Some("integer") => match plain {
                Some(Plain::Int(number)) => {
                    let max = match schema.get("format").and_then(Value::as_str) {
                        Some("uint8") => u64::from(u8::MAX),
                        Some("uint16") => u64::from(u16::MAX),
                        Some("uint32") => u64::from(u32::MAX),
                        _ => u64::MAX,
                    };
                    if !(0..=i128::from(max)).contains(&number) {
                        self.refuse(
                            node.place,
                            "number_range",
                            format!("`{name}` is out of range"),
                            format!("write a number from 0 to {max}"),
                        );
                    }
                }
                _ => self.refuse(
                    node.place,
                    "field_type",
                    format!("`{name}` is a whole number, not `{text}`"),
                    "write plain digits, without quotes",
                ),
            },
            Some("boolean") if !matches!(plain, Some(Plain::Bool(_))) => {
                self.refuse(
                    node.place,
                    "field_type",
                    format!("`{name}` is true or false, not `{text}`"),
                    "write true or false, without quotes",
                );
            }
            Some("string") if plain != Some(Plain::Text) => {
                let money = matches!(name, "price" | "perRequest" | "perMTok" | "perMTokOutput" | "perUnit");
                let code = if money { "price_not_quoted" } else { "text_not_quoted" };
                let message = if money {
                    format!("the price {text} is not quoted, so YAML readers may round it or write it differently")
                } else {
                    format!("`{text}` is not quoted, and some YAML readers take it for a number or truth value")
                };
                self.refuse(node.place, code, message, format!("write `{name}: \"{text}\"`"));
            }
            _ => {}
        }
    }
}

fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let word = schema.get("type");
    let many = word.and_then(Value::as_array).into_iter().flatten();
    word.into_iter().chain(many).filter_map(Value::as_str)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The names of the fields, in alphabetical order.
fn fields(schema: &Value) -> Vec<&str> {
    let mut fields: Vec<_> = properties(schema).map(|(field, _)| field).collect();
    fields.sort_unstable();
    fields
}

/// The words of an enumeration.
fn words(schema: &Value) -> Vec<&str> {
    let list = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let tagged = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    list.chain(tagged.flat_map(|s| s.get("const").into_iter().chain(s.get("enum").and_then(Value::as_array).into_iter().flatten())))
        .filter_map(Value::as_str)
        .collect()
}

/// The known word that was probably meant.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.chars().take(64).filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let word = plain(word);
    let best = known.iter().map(|near| (strsim::osa_distance(&word, &plain(near)), *near)).min()?;
    (best.0 <= 1 + best.1.len() / 4).then_some(best.1)
}
