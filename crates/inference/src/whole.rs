//! The meter of an answer that is one JSON object: read as it streams, never gathered.

use bytes::BytesMut;

use crate::{json::Members, meter::Names, usage::Usage};

/// Longest value that is looked into.
const MAX_VALUE: usize = 64 * 1024;
/// Longest name of a member that is looked for.
const MAX_KEY: usize = 32;

/// What was seen of an answer.
#[derive(Debug)]
pub(crate) struct WholeMeter {
    names: Names,
    pub(crate) usage: Option<Usage>,
    ollama: [Option<String>; 2],
    depth: u32,
    string: Option<Text>,
    /// At depth one: whether the next string is a member's name.
    name_next: bool,
    key: Vec<u8>,
    /// The value of a member that is looked into, held back until it is whole.
    value: Option<Vec<u8>>,
}

/// Inside a string.
#[derive(Clone, Copy, Debug)]
struct Text {
    escaped: bool,
    is_name: bool,
}

impl WholeMeter {
    pub(crate) const fn new(names: Names) -> Self {
        let ollama = [None, None];
        Self { names, usage: None, ollama, depth: 0, string: None, name_next: false, key: Vec::new(), value: None }
    }

    /// Takes what came, and gives what goes on.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut BytesMut) {
        for &byte in chunk {
            self.byte(byte, out);
        }
    }

    /// The answer has ended.
    pub(crate) fn finish(&mut self, out: &mut BytesMut) {
        if let Some(rest) = self.value.take() {
            out.extend_from_slice(&rest);
        }
        if let ([Some(input), output], None) = (&self.ollama, self.usage) {
            let text = format!("{{\"prompt_eval_count\":{input},\"eval_count\":{}}}", output.as_deref().unwrap_or("0"));
            self.usage = Members::parse(text.as_bytes()).ok().and_then(|members| Usage::from_ollama(&members));
        }
    }

    fn byte(&mut self, byte: u8, out: &mut BytesMut) {
        if let Some(text) = &mut self.string {
            let ends = byte == b'"' && !text.escaped;
            let is_name = text.is_name;
            text.escaped = byte == b'\\' && !text.escaped;
            if ends {
                self.string = None;
            } else if is_name && self.key.len() <= MAX_KEY {
                self.key.push(byte);
            }
            self.keep(byte, out);
            return;
        }
        match byte {
            b'"' => {
                let is_name = self.depth == 1 && self.name_next;
                if is_name {
                    self.name_next = false;
                    self.key.clear();
                }
                self.string = Some(Text { escaped: false, is_name });
            }
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.name_next = self.depth == 1 && byte == b'{';
            }
            b'}' | b']' => {
                if self.depth == 1 {
                    self.end_value(out);
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b',' if self.depth == 1 => {
                self.end_value(out);
                self.name_next = true;
            }
            b':' if self.depth == 1 => {
                out.extend_from_slice(b":");
                let wanted = matches!(self.key.as_slice(), b"usage" | b"model" | b"prompt_eval_count" | b"eval_count");
                self.value = wanted.then(Vec::new);
                return;
            }
            _ => {}
        }
        self.keep(byte, out);
    }

    fn keep(&mut self, byte: u8, out: &mut BytesMut) {
        match &mut self.value {
            Some(value) if value.len() < MAX_VALUE => value.push(byte),
            Some(_) => {
                out.extend_from_slice(&self.value.take().unwrap_or_default());
                out.extend_from_slice(&[byte]);
            }
            None => out.extend_from_slice(&[byte]),
        }
    }

    fn end_value(&mut self, out: &mut BytesMut) {
        let Some(value) = self.value.take() else { return };
        let raw = std::str::from_utf8(&value).unwrap_or_default().trim_ascii();
        match self.key.as_slice() {
            b"usage" => self.usage = Usage::from_object(raw).or(self.usage),
            b"prompt_eval_count" => self.ollama[0] = Some(raw.to_owned()),
            b"eval_count" => self.ollama[1] = Some(raw.to_owned()),
            b"model" if self.names.is_upstreams(raw) => {
                out.extend_from_slice(self.names.public(raw).as_bytes());
                return;
            }
            _ => {}
        }
        out.extend_from_slice(&value);
    }
}

#[cfg(test)]
#[path = "whole_tests.rs"]
mod tests;
