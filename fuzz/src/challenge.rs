//! A seller's `402` as a buyer reads it. First byte odd: the rest is the header; else it is the body.

use obol_offer::{Asset, B256};
use obol_x402::{Authorization, Quote, QuoteInfo, Received, match_payment};

use crate::{NOW, URL, one};

pub fn target(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let (header, body) = if mode & 1 == 1 { (Some(rest), &b""[..]) } else { (None, rest) };
    let Ok(received) = Received::parse(header, body) else { return };
    assert!(received.error.as_ref().is_none_or(|error| error.chars().count() <= 400));
    for offered in &received.offers {
        let Ok(terms) = offered.terms() else { continue };
        assert_eq!(terms.amount, offered.amount);
        let known = terms.network.default_asset();
        let listed = Asset { transfer_method: terms.asset.transfer_method, ..known };
        assert_eq!(terms.asset, listed, "tokens come from our own list");
        let kind = offered.kind(&terms).expect("what can be paid can be signed");
        let authorization = Authorization {
            from: terms.pay_to,
            to: terms.pay_to,
            value: terms.amount,
            valid_after: 0,
            valid_before: NOW + 60,
            nonce: B256::repeat_byte(7),
            kind,
            signature: vec![7; 65],
        };
        let (name, value) = offered.payment(&authorization);
        // An entry that repeats a field, say, makes a payment that nobody takes; one that is taken
        // is for exactly what was offered.
        let Some(payment) = one(name == "payment-signature", value.as_bytes()) else { continue };
        let mut info = QuoteInfo::default();
        kind.facilitator().into_iter().for_each(|address| info.facilitators.add(terms.network, address));
        let quote = Quote::new(vec![terms.clone()], info);
        if let Ok(matched) = match_payment(&payment, &quote, URL, NOW, |_| true) {
            assert_eq!((matched.terms, matched.authorization.value), (terms, offered.amount));
        }
    }
}
