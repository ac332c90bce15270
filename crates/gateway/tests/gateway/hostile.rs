//! Messages that two servers could cut differently. None may reach the upstream.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const TARGET: &str = "/services/a/free/x";

async fn refused(shop: &Shop, message: &str, status: &str) {
    let answer = shop.raw(message.as_bytes()).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{message:?} got {answer:?}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.contains("\"error\":"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer to {message:?}: {answer}");
}

#[tokio::test]
async fn hostile_framing_never_reaches_the_upstream() {
    let shop = Shop::open().await;
    let smuggled = format!("GET {TARGET}/smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let post = |headers: &str, body: &str| format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}");
    let chunked = format!("0\r\n\r\n{smuggled}");
    // CL.TE, TE.CL, TE.TE, CL.CL
    refused(&shop, &post("Content-Length: 6\r\nTransfer-Encoding: chunked", &chunked), "400").await;
    refused(&shop, &post("Transfer-Encoding: chunked\r\nContent-Length: 3", &chunked), "400").await;
    refused(&shop, &post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &chunked), "501").await;
    refused(&shop, &post("Transfer-Encoding: xchunked", &chunked), "501").await;
    refused(&shop, &post("Transfer-Encoding: chunked, chunked", &chunked), "501").await;
    refused(&shop, &post("Content-Length: 0\r\nContent-Length: 44", &smuggled), "400").await;
    refused(&shop, &post("Content-Length: 44, 44", &smuggled), "400").await;
    for bad in ["+0", "-1", "0x2c", "4 4", ""] {
        refused(&shop, &post(&format!("Content-Length: {bad}"), &smuggled), "400").await;
    }
    // Header lines
    for bad in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\n: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nContent-Length: 44",
        "X: a\0b",
        "X: a\rb",
    ] {
        refused(&shop, &post(bad, &smuggled), "400").await;
    }
    // Hosts and targets
    refused(&shop, &format!("GET {TARGET} HTTP/1.1\r\n\r\n"), "400").await;
    refused(&shop, &format!("GET {TARGET} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), "400").await;
    refused(&shop, &format!("GET http://b{TARGET} HTTP/1.1\r\nHost: a\r\n\r\n"), "400").await;
    refused(&shop, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "501").await;
    refused(&shop, &format!("POST {TARGET} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"), "501").await;
    // Chunks
    for bad in ["zz\r\n", "-1\r\n", "1 \r\na\r\n", "1\na\r\n", "2\r\nabc\r\n", "ffffffffffffffffff\r\n", "0\r\nTransfer-Encoding\r\n\r\n"] {
        refused(&shop, &post("Transfer-Encoding: chunked", bad), "400").await;
    }
    refused(&shop, &post("Transfer-Encoding: chunked", &format!("1;{}\r\na\r\n", "x".repeat(400))), "400").await;
    // Bombs
    refused(&shop, &post(&format!("X: {}", "y".repeat(70_000)), ""), "431").await;
    let many: Vec<String> = (0..120).map(|i| format!("x{i}: 1")).collect();
    refused(&shop, &post(&many.join("\r\n"), ""), "431").await;
    refused(&shop, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000)), "414").await;
    refused(&shop, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "400").await;
    assert_eq!(shop.upstream.heads(), 0);
}

#[tokio::test]
async fn hostile_second_message_waits_for_the_first_answer() {
    let shop = Shop::open().await;
    let bad = format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    let answer = shop.raw(format!("GET /services/a/free/slow HTTP/1.1\r\nHost: a\r\n\r\n{bad}").as_bytes()).await;
    let (first, second) = (answer.find("HTTP/1.1 200 "), answer.find("HTTP/1.1 400 "));
    assert!(first < second && first.is_some() && answer.contains("slow"), "{answer}");
    assert_eq!(shop.upstream.heads(), 1);
}

#[tokio::test]
async fn hostile_chunk_behind_a_passed_head_ends_the_connection() {
    let shop = Shop::open().await;
    let mut stream = connect(&shop).await;
    let head = format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stream.write_all(b"zz\r\nGET /services/a/free/smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    let seen = shop.upstream.seen.lock().unwrap().clone();
    assert!(seen.is_empty(), "no whole message arrived: {seen:?}");
}

#[tokio::test]
async fn valid_pipelined_messages_pass_whatever_their_framing() {
    let shop = Shop::open().await;
    let mut messages = String::new();
    for i in 0..5 {
        messages += &format!("GET {TARGET}/{i}a HTTP/1.1\r\nHost: a\r\n\r\n");
        messages += &format!("POST {TARGET}/{i}b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ");
        messages += &format!(
            "POST {TARGET}/{i}c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
        );
    }
    messages += &format!("GET {TARGET}/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for size in [1, 7, 100_000] {
        let mut stream = connect(&shop).await;
        stream.set_nodelay(true).unwrap();
        let (mut read, mut write) = stream.split();
        let send = async {
            for piece in messages.as_bytes().chunks(size) {
                write.write_all(piece).await.unwrap();
            }
        };
        let mut answer = String::new();
        let (_, got) = tokio::join!(send, read.read_to_string(&mut answer));
        got.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 16, "{size}: {answer}");
        let seen = std::mem::take(&mut *shop.upstream.seen.lock().unwrap());
        assert_eq!(seen.iter().map(|s| s.body.len()).sum::<usize>(), 5 * (4 + 5), "{size}");
    }
}

#[tokio::test]
async fn nothing_is_served_behind_a_refused_upgrade() {
    let shop = Shop::open().await;
    let message = format!(
        "GET {TARGET} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nGET {TARGET}/2 HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let answer = shop.raw(message.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    assert_eq!((shop.upstream.heads(), shop.upstream.last().headers.contains_key("upgrade")), (1, false));
}
