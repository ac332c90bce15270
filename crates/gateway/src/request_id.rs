//! A name for each request, to find it again in logs.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderValue};

use crate::headers::REQUEST_ID;

/// Makes request ids: a counter, spread so that ids of several runs do not collide.
#[derive(Debug)]
pub(crate) struct RequestIds {
    seed: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self { seed: RandomState::new().hash_one(0_u8), next: AtomicU64::new(0) }
    }

    /// The client's own id where it is sane, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(REQUEST_ID) {
            Some(id) if is_sane(id.as_bytes()) => id.clone(),
            _ => self.fresh(),
        }
    }

    fn fresh(&self) -> HeaderValue {
        // SplitMix64 is a bijection: no two of 2⁶⁴ ids are alike.
        let mut z = self.seed.wrapping_add(self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let mut hex = [0; 16];
        for (digit, shift) in hex.iter_mut().zip((0..16_u32).rev()) {
            let nibble = u32::try_from((z >> (shift * 4)) & 15).unwrap_or_default();
            *digit = char::from_digit(nibble, 16).map_or(b'0', |c| c as u8);
        }
        HeaderValue::from_bytes(&hex).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// Short, and nothing that a log line or shell could trip over.
fn is_sane(id: &[u8]) -> bool {
    (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sane_ids_are_kept_and_others_replaced() {
        let ids = RequestIds::new();
        let of = |id: &'static str| ids.of(&[(REQUEST_ID, HeaderValue::from_static(id))].into_iter().collect());
        assert_eq!(of("abc-1.2:3_Z"), "abc-1.2:3_Z");
        for bad in ["", "a b", "a\tb", "${jndi}", "<b>"] {
            assert_eq!(of(bad).len(), 16, "{bad}");
        }
        assert_ne!(ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()));
    }
}
