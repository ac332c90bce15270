use base64::engine::general_purpose::{STANDARD as PADDED, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;

fn golden(exchange: &str) -> Value {
    let mut all: Value = serde_json::from_str(include_str!("../tests/golden.json")).unwrap();
    all[exchange]["payment"].take()
}

fn v2(value: &[u8]) -> Result<Option<Payment>, DecodeError> {
    decode(&PaymentHeaders { v2: vec![value], v1: vec![] })
}

fn v1(value: &[u8]) -> Result<Option<Payment>, DecodeError> {
    decode(&PaymentHeaders { v2: vec![], v1: vec![value] })
}

fn encode(json: &Value) -> Vec<u8> {
    PADDED.encode(json.to_string()).into_bytes()
}

#[test]
fn recorded_payments_decode_to_the_same_json() {
    for exchange in ["v2_exact_eip3009_paid_200", "v2_exact_permit2_paid_200", "v2_upto_paid_200_settled_1858_of_100000"] {
        let json = golden(exchange);
        let payment = v2(&encode(&json)).unwrap().unwrap();
        assert_eq!(payment.version, Version::V2);
        assert_eq!(payment.raw.get(), json.to_string());
    }
    assert_eq!(v1(&encode(&golden("v1_exact_paid_200"))).unwrap().unwrap().version, Version::V1);
}

#[test]
fn no_header_is_no_payment() {
    assert!(decode(&PaymentHeaders::default()).unwrap().is_none());
}

#[test]
fn base64_is_taken_in_every_spelling() {
    let mut json = golden("v2_exact_eip3009_paid_200");
    for filler in ["", "?", "??", "???>>>~~~ÿÿ"] {
        json["note"] = filler.into();
        let text = json.to_string();
        for value in [PADDED.encode(&text), STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            assert!(v2(value.as_bytes()).unwrap().is_some(), "{filler}");
        }
    }
}

#[test]
fn the_header_must_not_contradict_the_version() {
    let (one, two) = (encode(&golden("v1_exact_paid_200")), encode(&golden("v2_exact_eip3009_paid_200")));
    assert_eq!(v2(&one).unwrap_err(), DecodeError::Version(1));
    assert_eq!(v1(&two).unwrap().unwrap().version, Version::V2);
    let mut json = golden("v2_exact_eip3009_paid_200");
    for (number, code) in [(json!(3), "payment_version"), (json!("2"), "payment_malformed"), (json!(null), "payment_malformed")] {
        json["x402Version"] = number;
        assert_eq!(v2(&encode(&json)).unwrap_err().code(), code);
    }
}

#[test]
fn more_than_one_header_is_refused_even_if_equal() {
    let value: &[u8] = &encode(&golden("v1_exact_paid_200"));
    for headers in [
        PaymentHeaders { v2: vec![value, value], v1: vec![] },
        PaymentHeaders { v2: vec![], v1: vec![value, value] },
        PaymentHeaders { v2: vec![value], v1: vec![value] },
    ] {
        assert_eq!(decode(&headers).unwrap_err(), DecodeError::Repeated);
    }
}

#[test]
fn size_and_nesting_are_bounded() {
    assert_eq!(v2(&vec![b'A'; MAX_HEADER_BYTES + 1]).unwrap_err(), DecodeError::TooLong);
    let mut json = golden("v2_exact_eip3009_paid_200");
    json["deep"] = "[[[[{\\".into();
    assert!(v2(&encode(&json)).is_ok(), "brackets within strings do not count");
    let text = json.to_string().replacen('{', &format!("{{\"deeper\":{}{},", "[".repeat(40), "]".repeat(40)), 1);
    assert_eq!(v2(PADDED.encode(text).as_bytes()).unwrap_err().code(), "payment_malformed");
    assert_eq!(v2(PADDED.encode("[".repeat(9000)).as_bytes()).unwrap_err().code(), "payment_malformed");
}

#[test]
fn garbage_is_refused_with_its_cause() {
    for (bytes, code) in [
        (&b""[..], "payment_malformed"),
        (b"not base64!", "payment_header_not_base64"),
        (b"ab cd", "payment_header_not_base64"),
        (b"\xff\xfe", "payment_header_not_base64"),
        (b"+-+-", "payment_header_not_base64"),
        (b"/////w==", "payment_malformed"),
        (b"bnVsbA==", "payment_malformed"),
        (b"e30=", "payment_malformed"),
    ] {
        assert_eq!(v2(bytes).unwrap_err().code(), code, "{}", bytes.escape_ascii());
    }
}

#[test]
fn fields_of_a_wrong_shape_are_named() {
    let auth = "/payload/authorization";
    for (pointer, bad, named) in [
        (format!("{auth}/value"), json!("1e3"), "payload.authorization.value"),
        (format!("{auth}/value"), json!("1".repeat(79)), "payload.authorization.value"),
        (format!("{auth}/validBefore"), json!("99999999999999999999999"), "payload.authorization.validBefore"),
        (format!("{auth}/validAfter"), json!("-1"), "payload.authorization.validAfter"),
        (format!("{auth}/validAfter"), json!("+1"), "payload.authorization.validAfter"),
        (format!("{auth}/validAfter"), json!(""), "payload.authorization.validAfter"),
        (format!("{auth}/nonce"), json!("0x00"), "payload.authorization.nonce"),
        (format!("{auth}/nonce"), json!("00".repeat(32)), "payload.authorization.nonce"),
        (format!("{auth}/from"), json!("0x70997970"), "payload.authorization.from"),
        (format!("{auth}/to"), json!(7), "payload.authorization.to"),
        (format!("{auth}/to"), json!(format!("0x0x{}", "0".repeat(40))), "payload.authorization.to"),
        ("/payload/signature".to_owned(), json!("0x123"), "payload.signature"),
        ("/payload/signature".to_owned(), json!(format!("0x{}", "00".repeat(4097))), "payload.signature"),
        ("/accepted/payTo".to_owned(), json!({}), "accepted.payTo"),
    ] {
        let mut json = golden("v2_exact_eip3009_paid_200");
        *json.pointer_mut(&pointer).unwrap() = bad;
        let error = v2(&encode(&json)).unwrap_err().to_string();
        assert!(error.contains(named), "{pointer}: {error}");
        assert!(error.len() < 250);
    }
}

#[test]
fn a_field_given_twice_is_refused() {
    let text = golden("v2_exact_eip3009_paid_200").to_string();
    for (field, twice) in [
        (r#""to":""#, r#""to":"0x0","to":""#),
        (r#""payload":{"#, r#""payload":{},"payload":{"#),
        (r#""x402Version":2"#, r#""x402Version":2,"x402Version":2"#),
        (r#""payTo":""#, r#""payTo":"0x0","payTo":""#),
    ] {
        assert!(text.contains(field));
        let error = v2(PADDED.encode(text.replacen(field, twice, 1)).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("duplicate field"), "{field}: {error}");
    }
    let escaped = text.replacen(r#""to":""#, r#""\u0074o":"0x0000000000000000000000000000000000000000","to":""#, 1);
    assert!(v2(PADDED.encode(escaped).as_bytes()).unwrap_err().to_string().contains("duplicate field"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        let _ = v2(&bytes);
        let _ = v1(PADDED.encode(&bytes).as_bytes());
    }

    #[test]
    fn no_change_of_a_real_payment_makes_it_panic(
        at in 0_usize..700, cut in 0_usize..8, insert in "[\\[{}\\]\",:0-9a-fx\\\\ntu]{0,8}",
    ) {
        let mut text = golden("v2_exact_eip3009_paid_200").to_string();
        let end = (at + cut).min(text.len());
        text.replace_range(at.min(end)..end, &insert);
        let _ = v2(PADDED.encode(&text).as_bytes());
        let _ = v1(PADDED.encode(text.replacen("\"x402Version\":2", "\"x402Version\":1", 1)).as_bytes());
    }
}
