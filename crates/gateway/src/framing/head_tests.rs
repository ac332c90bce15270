use super::*;

fn refused(lines: &[&str]) -> Option<FramingRefusal> {
    let head = format!("{}\r\n\r\n", lines.join("\r\n"));
    let mut searched = 0;
    match find_end(head.as_bytes(), &mut searched) {
        Ok(Some(end)) => check(&head.as_bytes()[..end]).err(),
        Ok(None) => panic!("no end in {head:?}"),
        Err(refusal) => Some(refusal),
    }
}

fn post(header: &str) -> Option<FramingRefusal> {
    refused(&["POST / HTTP/1.1", "Host: a", header])
}

#[test]
fn plain_requests_pass() {
    assert_eq!(refused(&["GET / HTTP/1.1", "Host: a.example:8402"]), None);
    assert_eq!(refused(&["GET /x?y=%20 HTTP/1.0"]), None);
    assert_eq!(refused(&["GET http://A.example/x HTTP/1.1", "Host: a.example"]), None);
    assert_eq!(refused(&["GET / HTTP/1.1", "Host: [::1]:80"]), None);
    assert_eq!(refused(&["\r\nGET / HTTP/1.1", "Host: a"]), None);
    assert_eq!(post("Content-Length: 10"), None);
    assert_eq!(post("Transfer-Encoding: Chunked"), None);
}

#[test]
fn hostile_lengths_are_refused() {
    for bad in ["+1", "-1", "1,1", "1, 1", "0x1", "1e1", "", "1 1", "9".repeat(19).as_str(), "١"] {
        assert_eq!(post(&format!("Content-Length: {bad}")), Some(FramingRefusal::ContentLength), "{bad:?}");
    }
    assert_eq!(post("Content-Length: 1\r\nContent-Length: 1"), Some(FramingRefusal::ContentLength));
    assert_eq!(post("Content_Length: 1"), Some(FramingRefusal::ContentLength));
    assert_eq!(post("Content-Length: 1\r\nTransfer-Encoding: chunked"), Some(FramingRefusal::LengthAndEncoding));
    assert_eq!(post("Transfer-Encoding: chunked\r\nContent-Length: 0"), Some(FramingRefusal::LengthAndEncoding));
}

#[test]
fn hostile_transfer_encodings_are_refused() {
    for bad in ["gzip", "chunked, chunked", "gzip, chunked", "chunked, identity", "identity", "xchunked", "chunked;q=1", "\"chunked\"", ""]
    {
        assert_eq!(post(&format!("Transfer-Encoding: {bad}")), Some(FramingRefusal::TransferEncoding), "{bad:?}");
    }
    assert_eq!(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Some(FramingRefusal::TransferEncoding));
    assert_eq!(post("Transfer_Encoding: chunked"), Some(FramingRefusal::TransferEncoding));
    assert_eq!(refused(&["POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"]), Some(FramingRefusal::TransferEncoding));
}

#[test]
fn hostile_header_lines_are_refused() {
    assert_eq!(post("X: 1\r\n folded"), Some(FramingRefusal::Header));
    assert_eq!(post(" X: 1"), Some(FramingRefusal::Header));
    assert_eq!(post("Content-Length : 1"), Some(FramingRefusal::Header));
    assert_eq!(post("Transfer-Encoding\t: chunked"), Some(FramingRefusal::Header));
    assert_eq!(post("X: a\0b"), Some(FramingRefusal::Header));
    assert_eq!(post("X: a\rb"), Some(FramingRefusal::Header));
    assert_eq!(post("X: a\nTransfer-Encoding: chunked"), Some(FramingRefusal::LineEnding));
    assert_eq!(post("no colon"), Some(FramingRefusal::Header));
    assert_eq!(post(": empty"), Some(FramingRefusal::Header));
}

#[test]
fn hostile_hosts_and_targets_are_refused() {
    assert_eq!(refused(&["GET / HTTP/1.1"]), Some(FramingRefusal::Host));
    assert_eq!(refused(&["GET / HTTP/1.1", "Host: a", "Host: a"]), Some(FramingRefusal::Host));
    for bad in ["", "a,b", "a@b", "a/b", "a b", "a:b", "a:123456", ":80", "[::1", "[]", "a\\b", "a:80:80"] {
        assert_eq!(refused(&["GET / HTTP/1.1", &format!("Host: {bad}")]), Some(FramingRefusal::Host), "{bad:?}");
    }
    for bad in ["http://b/x", "ftp://a/", "a", "/x#y", "http://u@a/x", "*"] {
        assert_eq!(refused(&[&format!("GET {bad} HTTP/1.1"), "Host: a"]), Some(FramingRefusal::Target), "{bad:?}");
    }
    assert_eq!(refused(&["CONNECT a:80 HTTP/1.1", "Host: a:80"]), Some(FramingRefusal::Connect));
    let long = format!("GET /{} HTTP/1.1", "a".repeat(MAX_TARGET));
    assert_eq!(refused(&[&long, "Host: a"]), Some(FramingRefusal::TargetTooLong));
}

#[test]
fn hostile_request_lines_are_refused() {
    for bad in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET /",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "\u{0}GET / HTTP/1.1",
    ] {
        assert!(refused(&[bad, "Host: a"]).is_some(), "{bad:?}");
    }
    assert_eq!(refused(&["\r\n\r\n\r\nGET / HTTP/1.1", "Host: a"]), Some(FramingRefusal::RequestLine));
    let many: Vec<String> = (0..101).map(|i| format!("x{i}: 1")).collect();
    let lines: Vec<&str> = ["GET / HTTP/1.1"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert_eq!(refused(&lines), Some(FramingRefusal::TooManyHeaders));
}
