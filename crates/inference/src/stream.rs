//! The meter of a streamed answer: counts, hides what the buyer did not ask for, gives the model
//! its public name.

use bytes::BytesMut;
use serde::Deserialize;

use crate::{
    json::{self, Members, Writer},
    meter::Names,
    sse::{self, Events, Part},
    usage::Usage,
};

/// What was seen of a stream.
#[derive(Debug)]
pub(crate) struct StreamMeter {
    events: Events,
    names: Names,
    /// Whether the usage is hidden from the buyer again.
    hide: bool,
    pub(crate) usage: Option<Usage>,
    /// Pieces of the answer that were passed on.
    pub(crate) pieces: u64,
    /// Whether the last event was hidden or rewritten, and the second half of its CRLF is to come.
    owed: bool,
}

/// Parts of the answer in an event of chat or completions.
#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Members<'a>>,
    #[serde(borrow)]
    text: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a serde_json::value::RawValue>,
}

impl Choice<'_> {
    fn has_piece(&self) -> bool {
        let told = |(key, raw): &(String, &str)| key != "role" && !json::is_empty(raw);
        self.text.is_some_and(|raw| !json::is_empty(raw.get())) || self.delta.as_ref().is_some_and(|delta| delta.0.iter().any(told))
    }

    fn says_nothing(&self) -> bool {
        !self.has_piece() && self.finish_reason.is_none_or(|raw| json::is_empty(raw.get()))
    }
}

impl StreamMeter {
    pub(crate) fn new(names: Names, hide: bool) -> Self {
        Self { events: Events::new(), names, hide, usage: None, pieces: 0, owed: false }
    }

    /// Takes what came, and gives what goes on.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut BytesMut) {
        self.events.push(chunk);
        while let Some(part) = self.events.next_part() {
            match part {
                Part::Event(event) => self.event(&event, out),
                Part::Raw(bytes) => out.extend_from_slice(&bytes),
            }
        }
    }

    /// The stream has ended; some servers leave out the last empty line.
    pub(crate) fn finish(&mut self, out: &mut BytesMut) {
        if let Some(rest) = self.events.rest() {
            self.event(&rest, out);
        }
    }

    fn event(&mut self, event: &[u8], out: &mut BytesMut) {
        let owed = std::mem::take(&mut self.owed);
        let event = event.strip_prefix(b"\n").filter(|_| owed).unwrap_or(event);
        let data = sse::data(event);
        let Some(members) = data.as_deref().and_then(|data| Members::parse(data).ok()) else {
            out.extend_from_slice(event);
            return;
        };
        match members.get("response") {
            Some(raw) => self.responses_event(&members, raw, event, out),
            None => self.chunk(&members, event, out),
        }
    }

    /// An event of chat, completions, or of `responses` without a response in it.
    fn chunk(&mut self, members: &Members<'_>, event: &[u8], out: &mut BytesMut) {
        let usage = members.get("usage");
        if let Some(usage) = usage.and_then(Usage::from_object).or_else(|| Usage::from_ollama(members)) {
            self.usage = Some(usage);
        }
        let choices: Option<Vec<Choice<'_>>> = members.get("choices").and_then(|raw| serde_json::from_str(raw).ok());
        let kind = members.get("type").and_then(|raw| raw.strip_suffix("\""));
        if choices.as_ref().is_some_and(|choices| choices.iter().any(Choice::has_piece))
            || kind.is_some_and(|kind| kind.ends_with(".delta"))
        {
            self.pieces += 1;
        }
        let hidden = self.hide && usage.is_some();
        if hidden && usage != Some("null") && choices.is_some_and(|choices| choices.iter().all(Choice::says_nothing)) {
            self.owed = event.ends_with(b"\r");
            return;
        }
        let renamed = members.get("model").is_some_and(|raw| self.names.is_upstreams(raw));
        if !hidden && !renamed {
            out.extend_from_slice(event);
            return;
        }
        self.owed = event.ends_with(b"\r");
        out.extend_from_slice(&sse::with_data(event, &self.rewritten(members, hidden)));
    }

    /// An event of `responses` with the response so far.
    fn responses_event(&mut self, members: &Members<'_>, response: &str, event: &[u8], out: &mut BytesMut) {
        let inner = Members::parse(response.as_bytes()).ok();
        if let Some(usage) = inner.as_ref().and_then(|inner| inner.get("usage")).and_then(Usage::from_object) {
            self.usage = Some(usage);
        }
        let renamed = inner.filter(|inner| inner.get("model").is_some_and(|raw| self.names.is_upstreams(raw)));
        let Some(inner) = renamed else {
            out.extend_from_slice(event);
            return;
        };
        let response = self.rewritten(&inner, false);
        let mut data = Writer::new(event.len());
        for (key, raw) in &members.0 {
            data.member(key, if key == "response" { &response } else { raw });
        }
        self.owed = event.ends_with(b"\r");
        out.extend_from_slice(&sse::with_data(event, &data.finish()));
    }

    fn rewritten(&self, members: &Members<'_>, without_usage: bool) -> String {
        let mut object = Writer::new(256);
        for (key, raw) in members.0.iter().filter(|(key, _)| !(without_usage && key == "usage")) {
            object.member(key, if key == "model" { self.names.public(raw) } else { raw });
        }
        object.finish()
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
