//! Receipt headers.

use obol_offer::Network;
use obol_x402::Receipt;

pub fn target(data: &[u8]) {
    let Some(read) = Receipt::decode(data) else { return };
    let network = Network::find("base-sepolia").expect("a built-in network");
    let written = Receipt::new(&read, network);
    assert!(written.v2.len() < 4096 && written.v1.len() < 4096, "a receipt fits in a header");
    for (header, name) in [(&written.v2, "eip155:84532"), (&written.v1, "base-sepolia")] {
        let again = Receipt::decode(header.as_bytes()).expect("what we write can be read");
        assert_eq!((again.success, again.amount, again.network.as_str()), (read.success, read.amount, name));
    }
}
