//! YAML as a tree that knows where every key and value stands in the text.
//!
//! One reading serves the diagnostics (line and column), the decoding into types, and the edits
//! (byte ranges). Anchors, aliases and tags are refused: an offer needs none, and without them a
//! file means the same to every reader and cannot grow when it is read.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};

use crate::{
    diagnostic::{Finding, Place},
    scalar::{self, Plain},
};

/// Deepest nesting; the schema needs seven.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    /// Byte range; of block collections only the start is meaningful.
    pub(crate) range: Range<usize>,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Scalar { text: String, style: ScalarStyle },
    Seq { flow: bool, items: Vec<Node> },
    Map { flow: bool, entries: Vec<Entry> },
}

/// One key of a mapping and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    /// Byte range of the key.
    pub(crate) range: Range<usize>,
    pub(crate) value: Node,
}

impl Node {
    /// The value of `key`, in a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.body {
            Body::Map { entries, .. } => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What a scalar means; `None` for collections.
    pub(crate) fn plain(&self) -> Option<Plain> {
        match &self.body {
            Body::Scalar { text, style: ScalarStyle::Plain } => Some(scalar::resolve(text)),
            Body::Scalar { .. } => Some(Plain::Text),
            _ => None,
        }
    }

    /// As JSON; ambiguous scalars become text.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.body {
            Body::Scalar { text, .. } => match self.plain() {
                Some(Plain::Null) => Value::Null,
                Some(Plain::Bool(value)) => Value::Bool(value),
                Some(Plain::Int(number)) => match (u64::try_from(number), i64::try_from(number)) {
                    (Ok(number), _) => number.into(),
                    (_, Ok(number)) => number.into(),
                    _ => Value::String(text.clone()),
                },
                _ => Value::String(text.clone()),
            },
            Body::Seq { items, .. } => items.iter().map(Self::to_json).collect(),
            Body::Map { entries, .. } => Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()),
        }
    }

    /// Where the field of this path stands (`spec.routes[0].path`), or the nearest thing above it.
    pub(crate) fn locate(&self, field: &str) -> Place {
        let mut node = self;
        let mut place = self.place;
        for step in field.split(['.', '[']) {
            let next = match step.strip_suffix(']') {
                Some(index) => match (&node.body, index.parse::<usize>()) {
                    (Body::Seq { items, .. }, Ok(index)) => items.get(index).map(|item| (item, item.place)),
                    _ => None,
                },
                None => node.entry(step).map(|entry| (&entry.value, entry.place)),
            };
            let Some((value, at)) = next else { break };
            node = value;
            place = match node.body {
                Body::Scalar { .. } if node.place.line == at.line => node.place,
                _ => at,
            };
        }
        place
    }
}

/// Reads exactly one document whose root is a mapping.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<Finding>> {
    let options = granit_parser::options! {
        block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        disallow_directives: true,
        emit_comments: false,
    };
    let mut reader = Reader { events: Parser::new_from_str_with_options(text, options), text, findings: Vec::new() };
    match reader.document() {
        Err(fatal) => {
            reader.findings.push(fatal);
            Err(reader.findings)
        }
        Ok(_) if !reader.findings.is_empty() => Err(reader.findings),
        Ok(root) => Ok(root),
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    text: &'a str,
    /// Everything wrong that does not stop the reading.
    findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let place = place_of(error.marker().line(), error.marker().col());
                let line = self.text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
                let indent = line.split(|c: char| !c.is_whitespace()).next().unwrap_or_default();
                let fix =
                    if indent.contains('\t') { "indent with spaces; YAML allows no tabs there" } else { "correct the YAML at this place" };
                Err(Finding::new(place, "yaml_syntax", error.info(), fix))
            }
            None => Err(Finding::new(Place::default(), "yaml_syntax", "the file ends too early", "complete the YAML")),
        }
    }

    fn document(&mut self) -> Result<Node, Finding> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::DocumentStart(..) if root.is_none() => {}
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    let fix = "keep one document per file; remove everything from the second `---` on";
                    return Err(Finding::new(start(&span), "yaml_documents", "the file holds more than one document", fix));
                }
                other => root = Some(self.node(other, span)?),
            }
        }
        let what = "write lines of the form `key: value`; an obol command can write the file for you";
        match root {
            Some(root) if matches!(root.body, Body::Map { .. }) => Ok(root),
            Some(root) if root.plain() != Some(Plain::Null) => {
                Err(Finding::new(root.place, "yaml_root", "the file is no mapping of keys to values", what))
            }
            _ => Err(Finding::new(Place::default(), "file_empty", "the file is empty", what)),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Finding> {
        let place = start(&span);
        self.refuse_indirection(&event, place);
        let mut range = span.byte_range().unwrap_or_default();
        let body = match event {
            Event::Scalar(text, style, ..) => Body::Scalar { text: text.into_owned(), style },
            Event::SequenceStart(style, ..) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break span,
                        (event, span) => items.push(self.node(event, span)?),
                    }
                };
                range.end = end.byte_range().unwrap_or_default().end;
                Body::Seq { flow: style == StructureStyle::Flow, items }
            }
            Event::MappingStart(style, ..) => {
                let mut entries: Vec<Entry> = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => break span,
                        (event, span) => entries.extend(self.entry(event, span, &entries)?),
                    }
                };
                range.end = end.byte_range().unwrap_or_default().end;
                Body::Map { flow: style == StructureStyle::Flow, entries }
            }
            // An alias, which is refused; its place is filled so that the rest is still read.
            _ => Body::Scalar { text: String::new(), style: ScalarStyle::Plain },
        };
        Ok(Node { place, range, body })
    }

    fn entry(&mut self, event: Event<'a>, span: Span, before: &[Entry]) -> Result<Option<Entry>, Finding> {
        let key = self.node(event, span)?;
        let (event, span) = self.next()?;
        let value = self.node(event, span)?;
        let Body::Scalar { text, .. } = key.body else {
            self.findings.push(Finding::new(
                key.place,
                "yaml_key",
                "a key is a plain word",
                "write `key: value`; this file is no template, so `{{ … }}` has no meaning in it",
            ));
            return Ok(None);
        };
        if let Some(first) = before.iter().find(|entry| entry.key == text) {
            let message = format!("`{text}` is written twice; the first is on line {}", first.place.line);
            self.findings.push(Finding::new(key.place, "key_twice", message, "remove one of them"));
            return Ok(None);
        }
        Ok(Some(Entry { key: text, place: key.place, range: key.range, value }))
    }

    fn refuse_indirection(&mut self, event: &Event<'a>, place: Place) {
        let mut refuse = |code, message, fix| self.findings.push(Finding::new(place, code, message, fix));
        if event.anchor_id().is_some() || event.is_alias() {
            refuse("yaml_alias", "anchors and aliases are not allowed here", "write the value out");
        }
        if event.tag().is_some() {
            refuse("yaml_tag", "tags such as `!!str` are not allowed here", "quote the value instead");
        }
    }
}

fn start(span: &Span) -> Place {
    place_of(span.start.line(), span.start.col())
}

fn place_of(line: usize, column: usize) -> Place {
    Place {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).map_or(u32::MAX, |column| column.saturating_add(1)),
    }
}
