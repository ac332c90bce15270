use proptest::prelude::*;

use super::*;

/// 0.15 and 0.60 of a token with six decimals.
fn per_token() -> Rate {
    Rate::PerToken { input: 150_000.into(), output: 600_000.into(), max_input: 262_144, max_output: 4096 }
}

fn used(input: u64, output: u64) -> Usage {
    Usage::Tokens { input, output }
}

#[test]
fn amounts_are_rounded_up_once() {
    assert_eq!(per_token().charge(used(0, 0)), Some(Amount::ZERO));
    assert_eq!(per_token().charge(used(1, 0)), Some(1.into()), "0.15 atomic units");
    assert_eq!(per_token().charge(used(1, 1)), Some(1.into()), "0.75, not 1 + 1");
    assert_eq!(per_token().charge(used(1_000_000, 1_000_000)), Some(750_000.into()));
    assert_eq!(per_token().ceiling(Demand { prompt_bytes: 1000, output_tokens: 100 }), 210.into());
    assert_eq!(per_token().maximum(), 41_780.into(), "39321.6 + 2457.6");
}

#[test]
fn units_are_counted_whole() {
    let rate = Rate::PerUnit { price: 25.into(), unit: "page".into(), max: 40 };
    assert_eq!((rate.charge(Usage::Units(3)), rate.maximum()), (Some(75.into()), 1000.into()));
    assert_eq!(rate.ceiling(Demand { prompt_bytes: u64::MAX, output_tokens: u64::MAX }), 1000.into());
    assert_eq!((rate.charge(used(1, 1)), per_token().charge(Usage::Units(1))), (None, None), "something else is sold");
    assert_eq!(Rate::PerRequest(5.into()).charge(Usage::Units(1)), None);
}

proptest! {
    /// The charge is the smallest whole amount that is no less than the exact sum.
    #[test]
    fn the_charge_is_the_next_whole_amount(input: u32, output: u32, read: u32, written: u32) {
        let rate = Rate::PerToken { input: u64::from(input).into(), output: u64::from(output).into(), max_input: 1, max_output: 1 };
        let exact = u128::from(input) * u128::from(read) + u128::from(output) * u128::from(written);
        let charge: u128 = rate.charge(used(read.into(), written.into())).unwrap().to_string().parse().unwrap();
        prop_assert!(charge * 1_000_000 >= exact && charge * 1_000_000 < exact + 1_000_000);
    }

    /// Whoever uses no more than was asked for is charged no more than the ceiling, whatever the prices.
    #[test]
    fn what_fits_the_demand_fits_the_ceiling(input: [u64; 4], output: [u64; 4], bytes: u64, tokens: u64, read: u64, written: u64) {
        let rate = Rate::PerToken {
            input: Amount(U256::from_limbs(input)),
            output: Amount(U256::from_limbs(output)),
            max_input: u32::MAX,
            max_output: u32::MAX,
        };
        let ceiling = rate.ceiling(Demand { prompt_bytes: bytes, output_tokens: tokens });
        prop_assert!(rate.charge(used(read.min(bytes), written.min(tokens))).unwrap() <= ceiling);
        let more = Demand { prompt_bytes: bytes.saturating_add(1), output_tokens: tokens.saturating_add(1) };
        prop_assert!(rate.ceiling(more) >= ceiling);
    }
}
