//! What buyers send to a model, and what a model server answers.

use std::time::Duration;

use bytes::BytesMut;
use obol_inference::{
    ModelConfig,
    meter::Meter,
    request::{Prepared, prepare},
    surface::Call,
};
use serde_json::Value;

const CALLS: [Call; 4] = [Call::Chat, Call::Completions, Call::Embeddings, Call::Responses];

/// The first byte says which side is fed, which call it is, and how the bytes are cut.
pub fn target(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let model = ModelConfig {
        offer: "chat".into(),
        name: "pub".into(),
        upstream_name: "own".into(),
        upstream: "http://127.0.0.1:1".parse().expect("a URL"),
        credential: None,
        runtime: None,
        max_tokens: 100,
        max_body_bytes: 4096,
        concurrency: 1,
        queue: 1,
        first_token_timeout: Duration::from_secs(1),
        token_timeout: Duration::from_secs(1),
        pull: false,
    };
    match how & 3 {
        0 => request(CALLS[usize::from(how >> 2) % CALLS.len()], bytes, &model),
        1 => answer("text/event-stream", bytes, usize::from(how >> 2), &model),
        _ => answer("application/json", bytes, usize::from(how >> 2), &model),
    }
}

/// What goes on is one JSON object for the sold model, bounded, with every field once.
fn request(call: Call, body: &[u8], model: &ModelConfig) {
    let Ok(prepared) = prepare(call, body, model) else { return };
    let value: Value = serde_json::from_str(&prepared.body).expect("JSON goes on");
    assert_eq!(value["model"], "own");
    assert_eq!(value["stream"] == true, prepared.streamed);
    let bound = match call {
        Call::Chat | Call::Completions => &value["max_tokens"],
        Call::Responses => &value["max_output_tokens"],
        Call::Embeddings => return,
    };
    assert!((1..=100).contains(&bound.as_u64().expect("a bound")), "{}", prepared.body);
}

/// Cuts make no difference to what is counted, and nothing panics.
fn answer(kind: &str, bytes: &[u8], cut: usize, model: &ModelConfig) {
    let prepared = Prepared { body: String::new(), streamed: true, usage_wanted: false, prompt_bytes: 8 };
    let run = |step: usize| {
        let (mut meter, mut out) = (Meter::new(&prepared, model, kind), BytesMut::new());
        for chunk in bytes.chunks(step.max(1)) {
            meter.push(chunk, &mut out);
            let _ = meter.cut();
        }
        let report = meter.finish(&mut out);
        (report, out.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect::<Vec<u8>>())
    };
    assert_eq!(run(bytes.len()), run(cut));
}
