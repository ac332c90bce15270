//! What an answer used, worked out while it passes. Knows bytes, not sockets.

use bytes::BytesMut;

use crate::{
    config::ModelConfig,
    json::quote,
    request::Prepared,
    stream::StreamMeter,
    usage::{Report, Usage},
    whole::WholeMeter,
};

/// Bytes of a request that count as one token where nobody counted.
const BYTES_PER_TOKEN: u64 = 4;

/// The model's two names, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    public: String,
    upstream: String,
}

impl Names {
    pub(crate) fn new(public: &str, upstream: &str) -> Self {
        Self { public: quote(public), upstream: quote(upstream) }
    }

    /// Whether `raw` is the name at the model server, and buyers know another.
    pub(crate) fn is_upstreams(&self, raw: &str) -> bool {
        raw == self.upstream && self.upstream != self.public
    }

    /// `raw` as buyers see it.
    pub(crate) fn public<'a>(&'a self, raw: &'a str) -> &'a str {
        if self.is_upstreams(raw) { &self.public } else { raw }
    }
}

/// The meter of one answer.
#[derive(Debug)]
pub struct Meter {
    kind: Kind,
    /// What the prompt counts for where the answer breaks off.
    prompt: u64,
}

#[derive(Debug)]
enum Kind {
    Stream(StreamMeter),
    Whole(WholeMeter),
    /// Neither events nor JSON: passed on, and not counted.
    Other,
}

impl Meter {
    /// The meter of the answer to `request`, by the answer's media type.
    pub fn new(request: &Prepared, model: &ModelConfig, media_type: &str) -> Self {
        let names = Names::new(&model.name, &model.upstream_name);
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let kind = match essence {
            _ if essence.eq_ignore_ascii_case("text/event-stream") => Kind::Stream(StreamMeter::new(names, !request.usage_wanted)),
            _ if essence.eq_ignore_ascii_case("application/json") => Kind::Whole(WholeMeter::new(names)),
            _ => Kind::Other,
        };
        Self { kind, prompt: request.prompt_bytes / BYTES_PER_TOKEN }
    }

    /// Whether the answer comes as events.
    pub const fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream(_))
    }

    /// Takes what came, and gives what goes on.
    pub fn push(&mut self, chunk: &[u8], out: &mut BytesMut) {
        match &mut self.kind {
            Kind::Stream(meter) => meter.push(chunk, out),
            Kind::Whole(meter) => meter.push(chunk, out),
            Kind::Other => out.extend_from_slice(chunk),
        }
    }

    /// The answer is whole.
    pub fn finish(&mut self, out: &mut BytesMut) -> Report {
        let usage = match &mut self.kind {
            Kind::Stream(meter) => {
                meter.finish(out);
                meter.usage
            }
            Kind::Whole(meter) => {
                meter.finish(out);
                meter.usage
            }
            Kind::Other => None,
        };
        usage.map_or(Report::Uncounted, Report::Counted)
    }

    /// The answer broke off. A whole one that did is worth nothing.
    pub fn cut(&self) -> Report {
        match &self.kind {
            Kind::Stream(StreamMeter { usage: Some(usage), .. }) => Report::Counted(*usage),
            Kind::Stream(StreamMeter { pieces: pieces @ 1.., .. }) => Report::Cut(Usage { input: self.prompt, output: *pieces, cached: 0 }),
            _ => Report::Cut(Usage::default()),
        }
    }
}
