//! Nothing but the five calls that are sold reaches the model server, however it is spelled.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::{GATE, Service, status};

/// What a model server has beside the calls that are sold: Ollama, llama.cpp, vLLM, LM Studio, LiteLLM.
const OTHERS: [&str; 44] = [
    "/api/generate",
    "/api/chat",
    "/api/pull",
    "/api/push",
    "/api/delete",
    "/api/create",
    "/api/copy",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/embed",
    "/api/embeddings",
    "/api/blobs/sha256:0",
    "/api/version",
    "/metrics",
    "/health",
    "/version",
    "/props",
    "/slots",
    "/slots/0?action=save",
    "/completion",
    "/completions",
    "/infill",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/lora-adapters",
    "/models/load",
    "/v1/load_lora_adapter",
    "/sleep",
    "/reset_prefix_cache",
    "/collective_rpc",
    "/api/v0/models",
    "/key/generate",
    "/model/new",
    "/v1/audio/transcriptions",
    "/v1/images/generations",
    "/v1/files",
    "/v1/batches",
    "/v1/rerank",
    "/v1/messages",
    "/v1/responses/resp_1",
    "/docs",
    "/openapi.json",
];

/// Ways to write a path that some server reads as another one.
fn disguises(path: &str) -> Vec<String> {
    let bare = path.trim_start_matches('/');
    vec![
        path.to_owned(),
        format!("/v1/..{path}"),
        format!("/v1/%2e%2e{path}"),
        format!("/v1/%2E./{bare}"),
        format!("/v1/chat/completions/../../..{path}"),
        format!("/v1/chat/completions/..%2f..%2f..{}", path.replace('/', "%2f")),
        format!("/v1\\..\\{bare}"),
        format!("/v1/models/..%2f..{path}"),
        format!("/v1/models/../..{path}"),
        format!("/v1/models/%2e%2e/%2e%2e{path}"),
        format!("/{path}"),
        format!("/.{path}"),
        format!("/%2f{bare}"),
        format!("{path}/"),
        format!("/v1/chat/completions;{path}"),
        format!("/v1/chat/completions%3f{path}"),
        format!("/v1/chat/completions%23{path}"),
        format!("/v1/chat/completions%00{path}"),
        path.to_uppercase(),
    ]
}

#[tokio::test]
async fn the_model_servers_own_api_is_never_reached() {
    let service = Service::start(|_| ()).await;
    for path in OTHERS {
        for disguise in disguises(path) {
            for method in ["GET", "POST", "DELETE"] {
                let answer = service.line(method, &format!("/chat{disguise}")).await;
                assert!(matches!(status(&answer), 400 | 404 | 405), "{method} {disguise}: {answer}");
            }
        }
    }
    assert_eq!(service.server.seen().len(), 0, "{:?}", service.server.seen());
}

#[tokio::test]
async fn a_call_has_one_spelling_and_one_method() {
    let service = Service::start(|_| ()).await;
    for method in ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"] {
        assert_eq!(status(&service.line(method, "/chat/v1/chat/completions").await), 405, "{method}");
    }
    for target in [
        "/chat/v1//chat/completions",
        "/chat//v1/chat/completions",
        "//chat/v1/chat/completions",
        "/chat/v1/chat/completions/",
        "/chat/v1/chat%2fcompletions",
        "/chat/v1/%63hat/completions",
        "/other/v1/chat/completions",
        "/chat",
        "/",
        "/v1/chat/completions",
    ] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {GATE}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        assert_eq!(status(&service.raw(&request).await), 404, "{target}");
    }
    assert_eq!(service.server.seen().len(), 0);
}

#[tokio::test]
async fn nobody_but_the_gateway_is_served() {
    let service = Service::start(|_| ()).await;
    for authorization in [
        "",
        "authorization: Bearer wrong-secre\r\n",
        "authorization: Bearer gate-secretx\r\n",
        "authorization: Basic gate-secret\r\n",
        "authorization: gate-secret\r\n",
        "authorization: Bearer \r\n",
        "authorization: Bearer gate-secret\r\nauthorization: Bearer gate-secret\r\n",
    ] {
        for target in ["/chat/v1/chat/completions", "/chat/v1/models"] {
            let request = format!("POST {target} HTTP/1.1\r\nhost: x\r\n{authorization}content-length: 0\r\nconnection: close\r\n\r\n");
            assert_eq!(status(&service.raw(&request).await), 401, "{authorization}");
        }
    }
    assert_eq!(service.server.seen().len(), 0);
}

#[tokio::test]
async fn only_the_sold_model_is_shown_and_asked() {
    let service = Service::start(|_| ()).await;
    let list = service.line("GET", "/chat/v1/models").await;
    assert!(list.contains(r#""id":"pub""#) && !list.contains("own\"") && list.contains("x-obol-usage: input=0, output=0"), "{list}");
    assert_eq!(status(&service.line("GET", "/chat/v1/models/pub").await), 200);
    assert_eq!(status(&service.line("GET", "/chat/v1/models/own").await), 404);
    assert_eq!(service.server.seen().len(), 0);
    assert_eq!(status(&service.post("/v1/chat/completions", &json!({ "model": "own" })).await), 404);
    let answer = service.post("/v1/chat/completions", &json!({ "model": "pub", "messages": [] })).await;
    assert!(status(&answer) == 200 && answer.contains(r#""model":"pub""#) && !answer.contains("x-internal"), "{answer}");
    let seen = service.server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].path.as_str(), seen[0].authorization.as_deref()), ("/v1/chat/completions", Some("Bearer upstream-key")));
    assert_eq!(seen[0].body, r#"{"model":"own","messages":[],"max_tokens":100}"#);
}

#[tokio::test]
async fn bodies_that_hide_something_are_refused() {
    let service = Service::start(|_| ()).await;
    let head = format!("POST /chat/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {GATE}\r\nconnection: close\r\n");
    let json = "content-type: application/json\r\n";
    let cases = [
        (format!("{head}content-length: 2\r\n\r\n{{}}"), 415),
        (format!("{head}content-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"), 415),
        (format!("{head}{json}content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}"), 415),
        (format!("{head}{json}content-length: 4097\r\n\r\n"), 413),
        (format!("{head}{json}transfer-encoding: chunked\r\n\r\n1100\r\n{}\r\n0\r\n\r\n", " ".repeat(0x1100)), 413),
        (format!("{head}{json}content-length: 25\r\n\r\n{{\"model\":\"pub\",\"MODEL\":1}}"), 400),
    ];
    for (request, expected) in cases {
        assert_eq!(status(&service.raw(&request).await), expected, "{request}");
    }
    assert_eq!(service.server.seen().len(), 0);
}
