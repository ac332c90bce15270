use super::*;
use proptest::prelude::*;

const CHAT: &str = r#"{"id":"c","object":"chat.completion","model":"own","choices":[{"index":0,"message":{"role":"assistant","content":"say \"model\":\"own\", {\"usage\":1}"}}],
 "usage" : {"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":3}}, "timings":{"usage":{"prompt_tokens":1}}}"#;
const OLLAMA: &str = r#"{"model":"own","message":{"content":"x"},"done":true,"eval_count":2,"prompt_eval_count":8}"#;

fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Usage>) {
    let mut meter = WholeMeter::new(Names::new("pub", "own"));
    let mut out = BytesMut::new();
    for chunk in chunks {
        meter.push(chunk, &mut out);
    }
    meter.finish(&mut out);
    (out.to_vec(), meter.usage)
}

#[test]
fn usage_is_read_and_the_name_replaced_at_the_top_only() {
    let (out, usage) = run([CHAT.as_bytes()]);
    assert_eq!(usage, Some(Usage { input: 9, output: 12, cached: 3 }));
    assert_eq!(String::from_utf8(out).unwrap(), CHAT.replacen("\"own\"", "\"pub\"", 1));
    let (out, usage) = run([OLLAMA.as_bytes()]);
    assert_eq!(usage, Some(Usage { input: 8, output: 2, cached: 0 }));
    assert!(out.starts_with(br#"{"model":"pub""#));
}

#[test]
fn an_answer_without_usage_is_not_counted() {
    for text in [
        "{}",
        "[]",
        "5",
        "",
        r#"[{"usage":{"prompt_tokens":1}}]"#,
        r#"{"usage":null}"#,
        r#"{"usage":5}"#,
        r#"{"a":{"usage":{"prompt_tokens":1}}}"#,
    ] {
        assert_eq!(run([text.as_bytes()]), (text.as_bytes().to_vec(), None), "{text}");
    }
}

#[test]
fn a_large_answer_is_not_gathered() {
    let mut meter = WholeMeter::new(Names::new("pub", "own"));
    let mut out = BytesMut::new();
    meter.push(b"{\"usage\":\"", &mut out);
    for _ in 0..100 {
        meter.push(&[b'x'; 4096], &mut out);
    }
    assert!(meter.value.is_none() && out.len() > 400_000);
}

proptest! {
    #[test]
    fn chunks_make_no_difference(cuts in proptest::collection::vec(0usize..1000, 0..20)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (CHAT.len() + 1)).collect();
        cuts.extend([0, CHAT.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &CHAT.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(run(chunks), run([CHAT.as_bytes()]));
    }

    #[test]
    fn any_bytes_pass(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut meter = WholeMeter::new(Names::new("m", "m"));
        let mut out = BytesMut::new();
        meter.push(&bytes, &mut out);
        meter.finish(&mut out);
        prop_assert_eq!(out.to_vec(), bytes);
    }
}
