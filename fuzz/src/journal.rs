//! Rows of the journal and lines of its archives, as a damaged disk may give them back.

use std::sync::OnceLock;

use obol_offer::B256;
use obol_settle::fuzzing;
use obol_x402::ReplayKey;

fn key() -> &'static ReplayKey {
    static KEY: OnceLock<ReplayKey> = OnceLock::new();
    KEY.get_or_init(|| crate::matched().replay_key())
}

pub fn target(data: &[u8]) {
    for read in [|bytes: &[u8]| fuzzing::row(bytes, key()), fuzzing::archived] {
        let Some(once) = read(data) else { continue };
        assert_eq!(read(&once).as_ref(), Some(&once), "written and read again, a row is the same");
    }
    if let Some((key, bytes)) = fuzzing::key(data) {
        assert_eq!(bytes, data);
        assert_eq!(key.nonce, B256::from_slice(&data[48..]));
    }
    let mut key = *key();
    key.chain_id = data.len() as u64;
    let _ = fuzzing::row(data, &key);
}
