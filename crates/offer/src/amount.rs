//! Money: amounts in atomic units, prices as decimal strings. Never a float.

use std::{fmt, str::FromStr};

use alloy_primitives::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An amount of some asset in its atomic units (for USDC: millionths of a dollar), 0 to 2²⁵⁶−1.
///
/// On the wire and in files this is a decimal string without sign, point, exponent or leading
/// zeros, as in x402 `amount` and `maxAmountRequired`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub U256);

/// Why a string is not an [`Amount`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Something other than ASCII digits, or nothing at all.
    #[error("an amount is a whole number of atomic units in decimal digits")]
    NotDigits,
    /// More than 2²⁵⁶−1.
    #[error("an amount must fit 256 bits")]
    TooLarge,
}

impl Amount {
    /// No money.
    pub const ZERO: Self = Self(U256::ZERO);

    /// The sum, or the largest amount where that is too small.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The amount as a decimal number of whole units, e.g. `1858` at 6 decimals is `0.001858`.
    pub fn to_decimal(self, decimals: u8) -> String {
        let digits = self.0.to_string();
        let scale = usize::from(decimals);
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        }
    }
}

impl From<u64> for Amount {
    fn from(units: u64) -> Self {
        Self(U256::from(units))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::NotDigits);
        }
        // 2²⁵⁶ has 78 digits; the bound keeps a hostile megabyte of digits from being multiplied out.
        if text.trim_start_matches('0').len() > 78 {
            return Err(AmountError::TooLarge);
        }
        U256::from_str_radix(text, 10).map(Self).map_err(|_| AmountError::TooLarge)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A price as people write it: a positive decimal number of whole units, e.g. `0.001`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// All digits, point removed, leading zeros stripped.
    digits: String,
    /// How many of `digits` stand behind the point.
    scale: usize,
}

/// Why a string is not a [`Price`], or a price not an [`Amount`] of an asset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not `digits[.digits]`.
    #[error("`{0}` is not a decimal number such as 0.001")]
    Malformed(String),
    /// Zero; a free route is `gate: free`, not a price of nothing.
    #[error("a price must be above zero")]
    Zero,
    /// The asset has too few decimals to express it.
    #[error("the price has {scale} decimals, the asset only {decimals}")]
    TooFine {
        /// Decimals of the price, trailing zeros not counted.
        scale: usize,
        /// Decimals of the asset.
        decimals: u8,
    },
    /// Does not fit 256 bits of atomic units.
    #[error("the price does not fit 256 bits of atomic units")]
    TooLarge,
}

impl Price {
    /// The exact amount in atomic units; never rounds.
    ///
    /// # Errors
    /// [`PriceError::TooFine`] when the asset has too few decimals, [`PriceError::TooLarge`] when
    /// the product passes 2²⁵⁶−1.
    pub fn to_amount(&self, decimals: u8) -> Result<Amount, PriceError> {
        let pad = usize::from(decimals).checked_sub(self.scale).ok_or(PriceError::TooFine { scale: self.scale, decimals })?;
        format!("{}{}", self.digits, "0".repeat(pad)).parse().map_err(|_| PriceError::TooLarge)
    }
}

impl FromStr for Price {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || PriceError::Malformed(text.chars().take(40).collect());
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(malformed()),
            Some((whole, fraction)) => (whole, fraction),
            None => (text, ""),
        };
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || text.len() > 120 || !digits(whole) || !digits(fraction) {
            return Err(malformed());
        }
        let fraction = fraction.trim_end_matches('0');
        let joined = format!("{whole}{fraction}");
        match joined.trim_start_matches('0') {
            "" => Err(PriceError::Zero),
            digits => Ok(Self { digits: digits.to_owned(), scale: fraction.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atomic(price: &str, decimals: u8) -> Result<String, PriceError> {
        price.parse::<Price>()?.to_amount(decimals).map(|a| a.to_string())
    }

    #[test]
    fn prices_become_exact_atomic_units() {
        assert_eq!(atomic("0.001", 6), Ok("1000".into()));
        assert_eq!(atomic("1", 18), Ok("1000000000000000000".into()));
        assert_eq!(atomic("0.10000000", 1), Ok("1".into()));
        assert_eq!(atomic("007.5", 6), Ok("7500000".into()));
    }

    #[test]
    fn prices_that_do_not_fit_are_refused() {
        assert_eq!(atomic("0.0000001", 6), Err(PriceError::TooFine { scale: 7, decimals: 6 }));
        assert_eq!(atomic("0.000", 6), Err(PriceError::Zero));
        assert_eq!(atomic(&"9".repeat(78), 0), Err(PriceError::TooLarge));
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0x1", "1,5", " 1", "١", "NaN"] {
            assert!(matches!(atomic(bad, 6), Err(PriceError::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn amounts_print_as_decimals() {
        assert_eq!(Amount::from(1858).to_decimal(6), "0.001858");
        assert_eq!(Amount::from(2_500_000).to_decimal(6), "2.5");
        assert_eq!(Amount::from(7).to_decimal(0), "7");
    }

    #[test]
    fn amounts_refuse_everything_but_digits() {
        for bad in ["", "-1", "1.0", "0x10", "1_000", " 1"] {
            assert_eq!(bad.parse::<Amount>(), Err(AmountError::NotDigits), "{bad:?}");
        }
        assert_eq!("1".repeat(100_000).parse::<Amount>(), Err(AmountError::TooLarge));
        assert_eq!(U256::MAX.to_string().parse::<Amount>(), Ok(Amount(U256::MAX)));
    }
}
