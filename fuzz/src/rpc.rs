//! A node's JSON-RPC answers. First two bytes: the HTTP status; the rest is the body.

use std::sync::OnceLock;

use obol_chain::{Expected, RpcError, fuzzing};

pub fn target(data: &[u8]) {
    static EXPECTED: OnceLock<Expected> = OnceLock::new();
    let expected = EXPECTED.get_or_init(|| Expected::from(&crate::matched()));
    let Some((status, body)) = data.split_first_chunk::<2>() else { return };
    let status = 100 + u16::from_be_bytes(*status) % 500;
    match fuzzing::answer(status, body, 1, expected) {
        Ok(proven) => {
            assert_eq!(status, 200);
            // What proves a payment names its parts somewhere.
            let text = String::from_utf8_lossy(body).to_ascii_lowercase();
            let nonce = format!("{:x}", expected.nonce);
            assert!(!proven || text.contains(&nonce) || text.contains("\\u"), "proven by an answer without the nonce");
        }
        Err(error) => {
            assert!(error.to_string().chars().count() <= 400);
            if let RpcError::Node { message, .. } = &error {
                assert!(message.chars().count() <= 200);
            }
            let _ = (error.code(), error.revert());
        }
    }
}
