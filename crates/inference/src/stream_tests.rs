use super::*;
use proptest::prelude::*;

const CHAT: &str = "data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"model\":\"own\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"1\",\"model\":\"own\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hal\"},\"finish_reason\":null}],\"usage\":null}\n\n\
: keep-alive\n\n\
data: {\"id\":\"1\",\"model\":\"own\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"1\",\"model\":\"own\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"id\":\"1\",\"model\":\"own\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n\
data: [DONE]\n\n";

/// LiteLLM's last event has a choice that says nothing.
const LITELLM: &str = "data: {\"model\":\"pub\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n\
data: {\"model\":\"pub\",\"choices\":[{\"index\":0,\"delta\":{}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"prompt_tokens_details\":null}}\n\n\
data: [DONE]\n\n";

/// Usage in the event that ends the answer.
const TGI: &str = "data: {\"model\":\"pub\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";

const COMPLETIONS: &str = "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":null}]}\r\n\r\n\
data: {\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":\"length\"}]}\r\n\r\n\
data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}\r\n\r\ndata: [DONE]\r\n\r\n";

const RESPONSES: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"own\",\"usage\":null}}\n\n\
event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n\
event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"model\":\"own\",\"usage\":{\"input_tokens\":5,\"output_tokens\":1,\"total_tokens\":6}}}\n\n";

const OLLAMA: &str = "data: {\"model\":\"own\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
data: {\"model\":\"own\",\"done\":true,\"prompt_eval_count\":7,\"eval_count\":1}\n\n";

fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, hide: bool) -> (String, StreamMeter) {
    let mut meter = StreamMeter::new(Names::new("pub", "own"), hide);
    let mut out = BytesMut::new();
    for chunk in chunks {
        meter.push(chunk, &mut out);
    }
    meter.finish(&mut out);
    (String::from_utf8(out.to_vec()).unwrap(), meter)
}

fn counts(meter: &StreamMeter) -> (u64, u64, u64) {
    let usage = meter.usage.unwrap();
    (usage.input, usage.output, meter.pieces)
}

#[test]
fn a_chat_is_counted_and_its_usage_hidden() {
    let (out, meter) = run([CHAT.as_bytes()], true);
    assert_eq!(counts(&meter), (9, 2, 2));
    assert!(!out.contains("usage") && !out.contains("own") && out.contains(": keep-alive\n\n") && out.ends_with("data: [DONE]\n\n"));
    assert_eq!(out.matches("\"model\":\"pub\"").count(), 4);
    let (out, meter) = run([CHAT.as_bytes()], false);
    assert_eq!((out, counts(&meter)), (CHAT.replace("\"own\"", "\"pub\""), (9, 2, 2)));
}

#[test]
fn every_servers_habits_are_known() {
    let (out, meter) = run([LITELLM.as_bytes()], true);
    assert_eq!((counts(&meter), out.matches("data: {").count()), ((3, 1, 1), 1));
    let (out, meter) = run([TGI.as_bytes()], true);
    assert_eq!(counts(&meter), (3, 1, 1));
    assert_eq!(out, "data: {\"model\":\"pub\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"length\"}]}\n\n");
    let (out, meter) = run([COMPLETIONS.as_bytes()], true);
    assert_eq!((counts(&meter), out.contains("usage")), ((4, 2, 2), false));
    let (out, meter) = run([RESPONSES.as_bytes()], true);
    assert_eq!((counts(&meter), out), ((5, 1, 1), RESPONSES.replace("\"own\"", "\"pub\"")));
    assert_eq!(counts(&run([OLLAMA.as_bytes()], true).1), (7, 1, 1));
}

#[test]
fn what_is_no_json_passes() {
    for text in ["data: [DONE]\n\n", "data: {broken\n\n", "data: 5\n\n", "retry: 1\n\n", "data\n\n", "\n\n\n", "data: {\"choices\":5}\n\n"]
    {
        let (out, meter) = run([text.as_bytes()], true);
        assert_eq!((out.as_str(), meter.usage), (text, None));
    }
}

#[test]
fn an_event_goes_on_as_soon_as_it_is_there() {
    for end in ["\n\n", "\r\n\r\n"] {
        let mut meter = StreamMeter::new(Names::new("m", "m"), true);
        let mut out = BytesMut::new();
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]}}{end}");
        meter.push(event.as_bytes(), &mut out);
        assert_eq!(out, event.as_bytes());
    }
}

proptest! {
    #[test]
    fn chunks_make_no_difference(cuts in proptest::collection::vec(0usize..2000, 0..40), which in 0usize..6, hide: bool) {
        let text = [CHAT, LITELLM, TGI, COMPLETIONS, RESPONSES, OLLAMA][which];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
        let (whole, a) = run([text.as_bytes()], hide);
        let (parts, b) = run(chunks, hide);
        // A CRLF cut in two may lose its second half together with a hidden event.
        prop_assert_eq!(whole.replace("\r\n", "\n").replace('\r', "\n"), parts.replace("\r\n", "\n").replace('\r', "\n"));
        prop_assert_eq!(counts(&a), counts(&b));
    }

    #[test]
    fn any_bytes_pass(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut meter = StreamMeter::new(Names::new("m", "m"), false);
        let mut out = BytesMut::new();
        meter.push(&bytes, &mut out);
        meter.finish(&mut out);
        prop_assert_eq!(out.to_vec(), bytes);
    }
}
