//! Prices and amounts: exact, and the same when written and read again. First byte: decimals.

use obol_offer::{Amount, Price, PriceError};

pub fn target(data: &[u8]) {
    let Some((decimals, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let decimals = decimals % 40;
    if let Ok(amount) = text.parse::<Amount>() {
        assert_eq!(amount.to_string(), significant(text));
        assert_eq!(amount.to_string().parse(), Ok(amount));
        let json = serde_json::to_string(&amount).expect("JSON");
        assert_eq!(serde_json::from_str::<Amount>(&json).expect("JSON"), amount);
        let decimal = amount.to_decimal(decimals);
        match decimal.parse::<Price>() {
            Ok(price) => assert_eq!(price.to_amount(decimals), Ok(amount), "{decimal}"),
            Err(error) => assert!(amount == Amount::ZERO && error == PriceError::Zero, "{decimal}: {error}"),
        }
    }
    let Ok(price) = text.parse::<Price>() else { return };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    match price.to_amount(decimals) {
        // By hand: the digits, and as many zeros as decimals are left.
        Ok(amount) => {
            let zeros = "0".repeat(usize::from(decimals) - fraction.len());
            assert_eq!(amount.to_string(), significant(&format!("{whole}{fraction}{zeros}")));
            assert_ne!(amount, Amount::ZERO);
        }
        Err(PriceError::TooFine { scale, .. }) => assert_eq!((scale, scale > usize::from(decimals)), (fraction.len(), true)),
        Err(error) => assert_eq!(error, PriceError::TooLarge),
    }
}

fn significant(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}
