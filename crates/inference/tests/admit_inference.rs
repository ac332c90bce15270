//! Answers on their way: counted, bounded, cancelled, and never gathered.

#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;
use support::{Service, status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn usage_comes_as_a_trailer_and_is_hidden_from_the_buyer() {
    let service = Service::start(|_| ()).await;
    let whole = service.post(CHAT, &json!({ "tokens": 7 })).await;
    assert!(whole.contains("trailer: x-obol-usage") && whole.ends_with("0\r\nx-obol-usage: input=5, output=7\r\n\r\n"), "{whole}");
    let streamed = service.post(CHAT, &json!({ "tokens": 4, "stream": true })).await;
    assert!(streamed.ends_with("0\r\nx-obol-usage: input=5, output=4\r\n\r\n"), "{streamed}");
    assert!(!streamed.contains("prompt_tokens") && streamed.contains("[DONE]") && streamed.contains("t3 "), "{streamed}");
    let wanted = service.post(CHAT, &json!({ "tokens": 4, "stream": true, "stream_options": { "include_usage": true } })).await;
    assert!(wanted.contains("prompt_tokens"), "{wanted}");
    let none = service.post(CHAT, &json!({ "nousage": true })).await;
    assert!(none.ends_with("0\r\nx-obol-usage: uncounted=1\r\n\r\n"), "{none}");
}

#[tokio::test]
async fn a_stream_that_breaks_is_told_and_charged_for_what_came() {
    let service = Service::start(|_| ()).await;
    let body = json!({ "tokens": 9, "cut": 3, "stream": true });
    let prompt = body.to_string().len() / 4;
    let broken = service.post(CHAT, &body).await;
    assert!(
        broken.contains("upstream_broken") && broken.ends_with(&format!("x-obol-usage: input={prompt}, output=3, cut=1\r\n\r\n")),
        "{broken}"
    );
    let nothing = service.post(CHAT, &json!({ "tokens": 9, "cut": 0, "stream": true })).await;
    assert!(nothing.ends_with("x-obol-usage: input=0, output=0, cut=1\r\n\r\n"), "{nothing}");
    // An answer that is one document and breaks off is no answer.
    let whole = service.post(CHAT, &json!({ "cut": 0 })).await;
    assert!(!whole.contains("x-obol-usage: input"), "{whole}");
}

#[tokio::test]
async fn a_buyer_who_goes_cancels_the_work_and_what_came_is_counted() {
    let service = Service::start(|_| ()).await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let body = json!({ "tokens": 1000, "wait": 20, "stream": true });
    stream.write_all(Service::post_text(CHAT, &body).as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("t2 ") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    drop(stream);
    timeout(Duration::from_secs(5), async {
        while service.server.cancelled.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the model server's answer is let go");
    let told = obol_inference::metrics::encode(&[&service.model]);
    let input = body.to_string().len() / 4;
    for line in ["requests_total{offer=\"chat\",outcome=\"cut\"} 1", &format!("tokens_total{{offer=\"chat\",direction=\"input\"}} {input}")]
    {
        assert!(told.contains(&format!("obol_inference_{line}\n")), "{told}");
    }
}

#[tokio::test]
async fn tokens_are_not_held_back() {
    let service = Service::start(|_| ()).await;
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    let started = Instant::now();
    stream.write_all(Service::post_text(CHAT, &json!({ "tokens": 3, "wait": 400, "stream": true })).as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("t0 ") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(!seen.contains("t1 ") && started.elapsed() < Duration::from_millis(790), "{:?} {seen}", started.elapsed());
}

#[tokio::test]
async fn the_queue_is_bounded_and_says_when_to_come_back() {
    let service = Service::start(|config| (config.concurrency, config.queue) = (1, 1)).await;
    let body = json!({ "tokens": 10, "wait": 100, "stream": true });
    let (first, second, third) = tokio::join!(service.post(CHAT, &body), service.post(CHAT, &body), async {
        sleep(Duration::from_millis(300)).await;
        service.post(CHAT, &body).await
    });
    assert_eq!((status(&first), status(&second), status(&third)), (200, 200, 429), "{third}");
    assert!(third.contains("retry-after: ") && third.contains("model_busy"), "{third}");
}

#[tokio::test]
async fn silence_is_bounded() {
    let service = Service::start(|config| {
        config.first_token_timeout = Duration::from_secs(2);
        config.token_timeout = Duration::from_millis(300);
    })
    .await;
    let slow = service.post(CHAT, &json!({ "tokens": 5, "wait": 1000, "stream": true })).await;
    assert!(slow.contains("t0 ") && slow.contains("token_timeout") && slow.contains("output=1, cut=1"), "{slow}");
    let service = Service::start(|config| config.first_token_timeout = Duration::from_millis(200)).await;
    let never = service.post(CHAT, &json!({ "tokens": 5, "wait": 2000, "stream": true })).await;
    assert!(never.contains("token_timeout") && never.contains("input=0, output=0, cut=1"), "{never}");
}

#[tokio::test]
async fn errors_of_the_model_server_are_sorted() {
    let service = Service::start(|_| ()).await;
    for (status_of_server, ours, code) in [
        (400, 400, "choices"),
        (401, 502, "model_key"),
        (404, 502, "model_missing"),
        (429, 429, "model_busy"),
        (500, 502, "model_failed"),
        (503, 503, "model_loading"),
    ] {
        let answer = service.post(CHAT, &json!({ "status": status_of_server })).await;
        assert_eq!(status(&answer), ours, "{answer}");
        assert!(answer.contains(code) && !answer.contains("x-obol-usage"), "{answer}");
    }
    let gone = Service::start(|config| config.upstream = "http://127.0.0.1:1".parse().unwrap()).await;
    let answer = gone.post(CHAT, &json!({})).await;
    assert!(status(&answer) == 502 && answer.contains("model_unreachable"), "{answer}");
}
