//! Answers that are kept for a buyer who did not get them.

use alloy_primitives::Bytes;
use serde::{Deserialize, Serialize};

/// A complete answer of an upstream, kept with its payment until that leaves the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    headers: Vec<(String, Bytes)>,
}

impl StoredAnswer {
    /// Largest body that is kept, in bytes.
    pub const MAX_BODY: u64 = 64 * 1024;
    /// Most headers that are kept, in bytes.
    const MAX_HEAD: usize = 32 * 1024;

    /// A line of JSON, then the body; `None` when it is too large to be kept.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let headers = self.headers.iter().map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value))).collect();
        let mut bytes = serde_json::to_vec(&Head { status: self.status, headers }).ok()?;
        if bytes.len() > Self::MAX_HEAD || self.body.len() as u64 > Self::MAX_BODY {
            return None;
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        Some(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = bytes.split_at_checked(end)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let headers = head.headers.into_iter().map(|(name, value)| (name, value.to_vec())).collect();
        Some(Self { status: head.status, headers, body: body.get(1..)?.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_its_bytes_and_a_large_one_is_not_kept() {
        let answer = StoredAnswer {
            status: 201,
            headers: vec![("x".into(), b"\xff\n".to_vec()), ("x".into(), b"2".to_vec())],
            body: b"a\n\nb\0".to_vec(),
        };
        assert_eq!(StoredAnswer::decode(&answer.encode().unwrap()), Some(answer.clone()));
        assert_eq!(StoredAnswer { body: vec![0; 65_537], ..answer.clone() }.encode(), None);
        assert_eq!(StoredAnswer { headers: vec![("x".into(), vec![0; 40_000])], ..answer }.encode(), None);
        assert_eq!(StoredAnswer::decode(b"{}\n"), None);
        assert_eq!(StoredAnswer::decode(b""), None);
    }
}
