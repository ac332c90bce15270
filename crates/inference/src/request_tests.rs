use super::*;
use std::time::Duration;

fn model() -> ModelConfig {
    ModelConfig {
        offer: "chat".into(),
        name: "pub".into(),
        upstream_name: "org/own".into(),
        upstream: "http://127.0.0.1:1".parse().unwrap(),
        credential: None,
        runtime: None,
        max_tokens: 100,
        max_body_bytes: 4096,
        concurrency: 1,
        queue: 1,
        first_token_timeout: Duration::from_secs(1),
        token_timeout: Duration::from_secs(1),
        pull: false,
    }
}

fn sent(call: Call, body: &str) -> String {
    prepare(call, body.as_bytes(), &model()).map_or_else(|problem| problem.code.to_owned(), |prepared| prepared.body)
}

fn chat(rest: &str) -> String {
    sent(Call::Chat, &format!(r#"{{"model":"pub"{rest}}}"#))
}

#[test]
fn the_model_gets_its_own_name_and_a_bound() {
    assert_eq!(chat(""), r#"{"model":"org/own","max_tokens":100}"#);
    assert_eq!(sent(Call::Chat, "{}"), r#"{"model":"org/own","max_tokens":100}"#);
    assert_eq!(sent(Call::Chat, r#"{"model":null}"#), r#"{"model":"org/own","max_tokens":100}"#);
    assert_eq!(sent(Call::Responses, r#"{"input":"hi"}"#), r#"{"model":"org/own","input":"hi","max_output_tokens":100}"#);
    assert_eq!(sent(Call::Embeddings, r#"{"input":["a","b"]}"#), r#"{"model":"org/own","input":["a","b"]}"#);
    assert_eq!(sent(Call::Chat, r#"{"model":"org/own"}"#), "model_not_found");
    assert_eq!(sent(Call::Chat, r#"{"model":["pub"]}"#), "model_not_found");
}

#[test]
fn bounds_are_lowered_and_never_lost() {
    assert_eq!(chat(r#","max_tokens":7"#), r#"{"model":"org/own","max_tokens":7}"#);
    assert_eq!(chat(r#","max_tokens":700"#), r#"{"model":"org/own","max_tokens":100}"#);
    assert_eq!(chat(r#","max_tokens":null"#), r#"{"model":"org/own","max_tokens":100}"#);
    // A server that does not know the newer name reads the older one.
    assert_eq!(chat(r#","max_completion_tokens":7"#), r#"{"model":"org/own","max_tokens":7,"max_completion_tokens":7}"#);
    assert_eq!(
        chat(r#","max_completion_tokens":700,"max_tokens":900"#),
        r#"{"model":"org/own","max_tokens":100,"max_completion_tokens":100}"#
    );
    let own = ModelConfig { runtime: Some(Runtime::OpenAi), ..model() };
    assert_eq!(prepare(Call::Chat, br#"{"max_tokens":7}"#, &own).unwrap().body, r#"{"model":"org/own","max_completion_tokens":7}"#);
    for bad in ["0", "-1", "1.5", "1e2", "\"7\"", "true", "[7]", "99999999999999999999999", "-0"] {
        assert_eq!(chat(&format!(r#","max_tokens":{bad}"#)), "max_tokens", "{bad}");
    }
    assert_eq!(chat(r#","max_tokens":7,"max_completion_tokens":8"#), "max_tokens");
    assert_eq!(chat(r#","max_output_tokens":7"#), "field_not_sold");
    assert_eq!(sent(Call::Embeddings, r#"{"max_tokens":7}"#), "field_not_sold");
}

#[test]
fn what_is_not_ours_stays_byte_by_byte() {
    let odd = r#","temperature":1.0e+0,"x":{"b" : [1, 2 ],"a":"\u0061"},"stop":null,"seed":12345678901234567890123"#;
    assert_eq!(chat(odd), format!(r#"{{"model":"org/own"{odd},"max_tokens":100}}"#));
}

#[test]
fn usage_is_asked_for_in_streams_alone() {
    let streamed = |rest: &str| prepare(Call::Chat, format!(r#"{{"stream":true{rest}}}"#).as_bytes(), &model()).unwrap();
    let plain = streamed("");
    assert_eq!(plain.body, r#"{"model":"org/own","stream":true,"max_tokens":100,"stream_options":{"include_usage":true}}"#);
    assert!(plain.streamed && !plain.usage_wanted);
    let wanted = streamed(r#","stream_options":{"x":1,"include_usage":true}"#);
    assert!(wanted.usage_wanted && wanted.body.ends_with(r#""stream_options":{"x":1,"include_usage":true}}"#));
    assert!(!streamed(r#","stream_options":{"include_usage":false}"#).usage_wanted);
    assert!(!streamed(r#","stream_options":null"#).usage_wanted);
    let vllm = ModelConfig { runtime: Some(Runtime::Vllm), ..model() };
    assert!(prepare(Call::Chat, br#"{"stream":true}"#, &vllm).unwrap().body.contains("continuous_usage_stats"));
    assert_eq!(
        chat(r#","stream":false,"stream_options":{"include_usage":true}"#),
        r#"{"model":"org/own","stream":false,"max_tokens":100}"#
    );
    assert_eq!(sent(Call::Responses, r#"{"stream":true}"#), r#"{"model":"org/own","stream":true,"max_output_tokens":100}"#);
    for bad in ["1", "\"true\"", "{}", "0"] {
        assert_eq!(chat(&format!(r#","stream":{bad}"#)), "stream", "{bad}");
    }
    assert_eq!(sent(Call::Embeddings, r#"{"stream":true}"#), "stream");
    for bad in ["[]", "true", r#"{"include_usage":true,"Include_Usage":false}"#, r#"{"include_usage":1}"#, r#"{"a":1,"a":2}"#] {
        assert_eq!(chat(&format!(r#","stream":true,"stream_options":{bad}"#)), "stream_options", "{bad}");
    }
}

#[test]
fn what_two_servers_could_read_in_two_ways_is_refused() {
    assert_eq!(chat(r#","model":"pub""#), "field_twice");
    assert_eq!(chat(r#","mod\u0065l":"other""#), "field_twice");
    assert_eq!(chat(r#","Model":"other""#), "field_twice");
    assert_eq!(sent(Call::Chat, r#"{"MODEL":"other"}"#), "field_spelling");
    assert_eq!(chat(",\"max_to\u{212a}ens\":999999"), "field_spelling");
    assert_eq!(chat(",\"\u{17f}tream\":true"), "field_spelling");
    assert_eq!(chat(r#","temperature":1,"Temperature":2"#), "field_twice");
    for body in ["", "[]", "null", "{\"a\":NaN}", "{} x", "{\"a\":1}{}", "{\"a\":1,}"] {
        assert_eq!(sent(Call::Chat, body), "body_malformed", "{body}");
    }
}

#[test]
fn one_answer_is_sold_and_nothing_beside_the_model() {
    assert_eq!(chat(r#","n":1,"best_of":null"#), r#"{"model":"org/own","max_tokens":100}"#);
    for bad in [r#""n":2"#, r#""n":1.0"#, r#""n":"1""#, r#""best_of":3"#, r#""n_cmpl":2"#] {
        assert_eq!(chat(&format!(",{bad}")), "one_answer", "{bad}");
    }
    assert_eq!(sent(Call::Completions, r#"{"prompt":[1,22,3]}"#), r#"{"model":"org/own","prompt":[1,22,3],"max_tokens":100}"#);
    for bad in [r#"["a","b"]"#, r#"["a"]"#, "[[1],[2]]", r#"{"prompt_string":"x"}"#, r#"[1,"a"]"#] {
        assert_eq!(sent(Call::Completions, &format!(r#"{{"prompt":{bad}}}"#)), "one_answer", "{bad}");
    }
    for bad in ["n_predict", "models", "fallbacks", "api_base", "previous_response_id", "lora", "service_tier"] {
        assert_eq!(chat(&format!(r#","{bad}":"x""#)), "field_not_sold", "{bad}");
    }
    assert_eq!(chat(r#","background":true"#), "field_not_sold");
    assert_eq!(chat(r#","background":false"#), r#"{"model":"org/own","max_tokens":100}"#);
}

#[test]
fn the_model_server_fetches_nothing_for_buyers() {
    let part = |url: &str| format!(r#","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{url}}}]}}]"#);
    for bad in [r#"{"url":"http://169.254.169.254/"}"#, r#""file:///etc/passwd""#, r#"{"url":"HTTPS://x"}"#, r#"{"url":""}"#] {
        assert_eq!(chat(&part(bad)), "remote_content", "{bad}");
    }
    assert!(chat(&part(r#"{"url":"data:image/png;base64,AA"}"#)).starts_with('{'));
    assert!(chat(r#","messages":[{"role":"user","content":"see http://x"}]"#).starts_with('{'));
    let input = r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"http://x"}]}]}"#;
    assert_eq!(sent(Call::Responses, input), "remote_content");
    assert_eq!(chat(&format!(r#","messages":{}{}"#, "[".repeat(200), "]".repeat(200))), "body_malformed");
}
