//! Changing a file's meaning while touching nothing else: comments, order, quotes and blank lines
//! stay, byte for byte, because an edit is a list of byte ranges and what to put there.
//!
//! What the file says now (`base`) is compared with what it shall say (`wanted`); only differences
//! lead to edits. The caller reads the result back and falls back to [`fresh`] when it does not
//! say exactly what was wanted, so a layout that this module does not foresee costs comments, never
//! meaning.

use std::ops::Range;

use granit_parser::ScalarStyle;

use crate::{
    scalar,
    tree::{self, Body, Entry, Node},
    value::{Value, write_entry, write_item},
};

/// What stands above a new offer.
pub(crate) const OFFER_HEAD: &str = "# What is sold, for how much, and where it is served. Yours to edit: comments and order are kept.\n";

/// The whole file anew, below `head`.
pub(crate) fn fresh(head: &str, wanted: &Value) -> String {
    let mut text = head.to_owned();
    wanted.write_block(&mut text, 0, "\n");
    text
}

/// The comments and blank lines at the head of a file.
pub(crate) fn head_of(text: &str) -> &str {
    let end: usize = text.split_inclusive('\n').take_while(|line| line.trim().is_empty() || line.starts_with('#')).map(str::len).sum();
    text.get(..end).unwrap_or_default()
}

/// The edited text, or `None` when the layout is beyond us.
pub(crate) fn edit(text: &str, base: &Value, wanted: &Value) -> Option<String> {
    let complete;
    let text = if text.ends_with('\n') {
        text
    } else {
        complete = format!("{text}\n");
        &complete
    };
    let root = tree::parse(text).ok()?;
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut editor = Editor { text, newline, edits: Vec::new() };
    editor.collection(&root, base, wanted)?;
    editor.apply()
}

struct Editor<'a> {
    text: &'a str,
    newline: &'static str,
    edits: Vec<(Range<usize>, String)>,
}

impl Editor<'_> {
    fn apply(mut self) -> Option<String> {
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len() + 256);
        let mut at = 0;
        for (range, new) in &self.edits {
            // An overlap would be a mistake of ours.
            out.push_str(self.text.get(at..range.start)?);
            out.push_str(new);
            at = range.end;
        }
        out.push_str(self.text.get(at..)?);
        Some(out)
    }

    fn replace(&mut self, range: Range<usize>, new: String) {
        self.edits.push((range, new));
    }

    /// A value that differs. `after` is the byte behind its colon or dash, `indent` the column of its
    /// key or dash.
    fn value(&mut self, node: &Node, base: &Value, wanted: &Value, after: usize, indent: usize, in_flow: bool) -> Option<()> {
        if base == wanted {
            return Some(());
        }
        let same = matches!(
            (&node.body, base, wanted),
            (Body::Map { .. }, Value::Map(_), Value::Map(_)) | (Body::Seq { .. }, Value::Seq(_), Value::Seq(_))
        );
        if same && self.keeps_something(node, wanted) {
            return self.collection(node, base, wanted);
        }
        let missing = is_missing(node);
        let end = if missing { after } else { self.end(node)? };
        let is_flow = in_flow || matches!(node.body, Body::Map { flow: true, .. } | Body::Seq { flow: true, .. });
        if let (Body::Scalar { style, .. }, true) = (&node.body, wanted.is_inline()) {
            let new = rewrite_scalar(wanted, *style, in_flow);
            if missing || is_block_scalar(*style) {
                self.replace(after..end, format!(" {new}"));
            } else {
                self.replace(node.range.clone(), new);
            }
        } else if is_flow {
            let (start, space) = if missing { (after, " ") } else { (node.range.start, "") };
            self.replace(start..end, format!("{space}{}", wanted.to_flow()));
        } else if wanted.is_inline() {
            self.replace(after..end, format!(" {}", wanted.to_flow()));
        } else {
            // A comment behind the old value stays on the line of the key.
            let line = self.line_end(end);
            self.replace(after..end, String::new());
            let mut block = String::new();
            wanted.write_block(&mut block, indent + 2, self.newline);
            self.replace(line..line, block);
        }
        Some(())
    }

    /// Whether an edit inside leaves the collection with at least one of its entries.
    fn keeps_something(&self, node: &Node, wanted: &Value) -> bool {
        match (&node.body, wanted) {
            (Body::Map { entries, .. }, Value::Map(_)) => entries.iter().any(|entry| wanted.get(&entry.key).is_some()),
            (Body::Seq { items, .. }, Value::Seq(wanted)) => !items.is_empty() && !wanted.is_empty(),
            _ => false,
        }
    }

    fn collection(&mut self, node: &Node, base: &Value, wanted: &Value) -> Option<()> {
        match (&node.body, base, wanted) {
            (Body::Map { flow, entries }, Value::Map(_), Value::Map(fields)) => {
                let added: Vec<_> =
                    fields.iter().filter(|(key, value)| node.entry(key).is_none() && base.get(key) != Some(value)).collect();
                if *flow { self.flow_map(node, entries, base, wanted, &added) } else { self.block_map(entries, base, wanted, &added) }
            }
            (Body::Seq { flow, items }, Value::Seq(old), Value::Seq(new)) if items.len() == old.len() => {
                if *flow {
                    self.flow_seq(node, items, old, new, wanted)
                } else {
                    self.block_seq(items, old, new)
                }
            }
            _ => None,
        }
    }

    fn block_map(&mut self, entries: &[Entry], base: &Value, wanted: &Value, added: &[&(String, Value)]) -> Option<()> {
        for (index, entry) in entries.iter().enumerate() {
            match (base.get(&entry.key), wanted.get(&entry.key)) {
                (Some(old), Some(new)) => self.value(&entry.value, old, new, self.colon(entry)?, column(entry), false)?,
                (None, Some(new)) => {
                    self.value(&entry.value, &Value::Word("null".to_owned()), new, self.colon(entry)?, column(entry), false)?
                }
                (Some(_), None) => self.remove_entry(entry, entries.get(index + 1))?,
                (None, None) => {}
            }
        }
        let last = entries.last()?;
        let at = self.line_end(self.entry_end(last)?);
        let indent = column(last);
        let mut block = String::new();
        for (key, value) in added {
            write_entry(&mut block, &" ".repeat(indent), key, value, indent, self.newline);
        }
        if !block.is_empty() {
            self.replace(at..at, block);
        }
        Some(())
    }

    fn remove_entry(&mut self, entry: &Entry, next: Option<&Entry>) -> Option<()> {
        let line = self.line_start(entry.range.start);
        if self.is_blank(line..entry.range.start) {
            self.replace(line..self.line_end(self.entry_end(entry)?), String::new());
        } else {
            // The first key of a list's entry: the next one takes its place behind the dash.
            self.replace(entry.range.start..next?.range.start, String::new());
        }
        Some(())
    }

    fn flow_map(&mut self, node: &Node, entries: &[Entry], base: &Value, wanted: &Value, added: &[&(String, Value)]) -> Option<()> {
        if entries.iter().any(|entry| base.get(&entry.key).is_some() && wanted.get(&entry.key).is_none()) {
            self.replace(node.range.clone(), wanted.to_flow());
            return Some(());
        }
        for entry in entries {
            let null = Value::Word("null".to_owned());
            if let Some(new) = wanted.get(&entry.key) {
                self.value(&entry.value, base.get(&entry.key).unwrap_or(&null), new, self.colon(entry)?, column(entry), true)?;
            }
        }
        let at = self.entry_end(entries.last()?)?;
        let more: String = added.iter().map(|(key, value)| format!(", {key}: {}", value.to_flow())).collect();
        if !more.is_empty() {
            self.replace(at..at, more);
        }
        Some(())
    }

    fn flow_seq(&mut self, node: &Node, items: &[Node], old: &[Value], new: &[Value], wanted: &Value) -> Option<()> {
        if old.len() != new.len() {
            self.replace(node.range.clone(), wanted.to_flow());
            return Some(());
        }
        for ((item, old), new) in items.iter().zip(old).zip(new) {
            self.value(item, old, new, item.range.start, 0, true)?;
        }
        Some(())
    }

    /// Entries that are the same at the front and at the back stay; between them, pairs are edited,
    /// the rest removed or added.
    fn block_seq(&mut self, items: &[Node], old: &[Value], new: &[Value]) -> Option<()> {
        let front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let back = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
        let back = back.min(old.len().min(new.len()) - front);
        let (old_end, new_end) = (old.len() - back, new.len() - back);
        let pairs = (old_end - front).min(new_end - front);
        let first = self.dash(items.first()?)?;
        let indent = first - self.line_start(first);
        for index in front..front + pairs {
            let (item, old, new) = (items.get(index)?, old.get(index)?, new.get(index)?);
            self.value(item, old, new, self.dash(item)? + 1, indent, false)?;
        }
        for item in items.get(front + pairs..old_end)? {
            let line = self.line_start(self.dash(item)?);
            self.replace(line..self.line_end(self.end(item)?), String::new());
        }
        let mut block = String::new();
        for item in new.get(front + pairs..new_end)? {
            write_item(&mut block, item, indent, self.newline);
        }
        if !block.is_empty() {
            let at = match (front + pairs).checked_sub(1) {
                Some(before) => self.line_end(self.end(items.get(before)?)?),
                None => self.line_start(first),
            };
            self.replace(at..at, block);
        }
        Some(())
    }

    /// The byte behind the colon of an entry.
    fn colon(&self, entry: &Entry) -> Option<usize> {
        let rest = self.text.get(entry.range.end..)?;
        let colon = rest.find(|c: char| !c.is_whitespace())?;
        rest.get(colon..)?.starts_with(':').then_some(entry.range.end + colon + 1)
    }

    /// The dash of a list's entry: the first thing on its line, at or above the entry's own line.
    fn dash(&self, item: &Node) -> Option<usize> {
        let mut line = self.line_start(item.range.start);
        loop {
            let text = self.text.get(line..)?;
            let at = line + (text.len() - text.trim_start_matches(' ').len());
            let rest = self.text.get(at..)?;
            if at < item.range.start && rest.starts_with('-') && rest.get(1..)?.starts_with(char::is_whitespace) {
                return Some(at);
            }
            line = self.line_start(line.checked_sub(1)?);
        }
    }

    /// The byte behind the last thing that a value says; comments behind it are not part of it.
    fn end(&self, node: &Node) -> Option<usize> {
        match &node.body {
            Body::Scalar { style, .. } if is_block_scalar(*style) => {
                let end = node.range.end.min(self.text.len());
                Some(self.text.get(..end)?.trim_end().len())
            }
            Body::Map { flow: true, .. } | Body::Seq { flow: true, .. } | Body::Scalar { .. } => Some(node.range.end),
            Body::Map { entries, .. } => self.entry_end(entries.last()?),
            Body::Seq { items, .. } => self.end(items.last()?),
        }
    }

    fn entry_end(&self, entry: &Entry) -> Option<usize> {
        if is_missing(&entry.value) { self.colon(entry) } else { self.end(&entry.value) }
    }

    fn line_start(&self, at: usize) -> usize {
        self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
    }

    /// Behind the line's newline.
    fn line_end(&self, at: usize) -> usize {
        self.text.get(at..).and_then(|rest| rest.find('\n')).map_or(self.text.len(), |newline| at + newline + 1)
    }

    fn is_blank(&self, range: Range<usize>) -> bool {
        self.text.get(range).is_some_and(|text| text.bytes().all(|byte| byte == b' '))
    }
}

/// `key:` with nothing behind it.
fn is_missing(node: &Node) -> bool {
    node.range.is_empty() && matches!(node.body, Body::Scalar { style: ScalarStyle::Plain, .. })
}

fn is_block_scalar(style: ScalarStyle) -> bool {
    matches!(style, ScalarStyle::Literal | ScalarStyle::Folded)
}

fn column(entry: &Entry) -> usize {
    usize::try_from(entry.place.column).unwrap_or(1).saturating_sub(1)
}

/// A value in the style that stood there before, where that style can carry it.
fn rewrite_scalar(wanted: &Value, style: ScalarStyle, in_flow: bool) -> String {
    match (wanted, style) {
        (Value::Text(text), ScalarStyle::DoubleQuoted) => scalar::quote(text),
        (Value::Text(text), ScalarStyle::SingleQuoted) => scalar::quote_single(text).unwrap_or_else(|| scalar::quote(text)),
        (Value::Text(text), _) if !in_flow => scalar::write_text(text),
        _ => wanted.to_flow(),
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
pub(crate) mod tests;
