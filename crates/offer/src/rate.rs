//! What a request costs where that depends on the request: the ceiling before it, the charge after it.
//!
//! Sums are exact, in 256-bit integers; each amount is rounded up once, to the next atomic unit. Sums beyond 2²⁵⁶−1 stay
//! there: nobody has that much, so nobody is charged wrongly.

use alloy_primitives::U256;

use crate::{Amount, Usage};

/// Tokens that a token price is written for.
const MILLION: U256 = U256::from_limbs([1_000_000, 0, 0, 0]);

/// How an amount is worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rate {
    /// The same for every request.
    PerRequest(Amount),
    /// By the tokens of a model.
    PerToken {
        /// Atomic units for a million prompt tokens.
        input: Amount,
        /// Atomic units for a million completion tokens.
        output: Amount,
        /// Largest request body, in bytes. No tokenizer makes more tokens than there are bytes.
        max_input: u32,
        /// Most completion tokens of one request.
        max_output: u32,
    },
    /// By what the upstream counts.
    PerUnit {
        /// Atomic units for one of them.
        price: Amount,
        /// What is counted, for people.
        unit: String,
        /// Most of them for one request.
        max: u32,
    },
}

/// What a request may use at most, as far as it can be told beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Length of its body.
    pub prompt_bytes: u64,
    /// Most completion tokens, over all completions it asks for.
    pub output_tokens: u64,
}

impl Rate {
    /// Whether requests differ in what they cost.
    pub const fn is_metered(&self) -> bool {
        !matches!(self, Self::PerRequest(_))
    }

    /// The most that is asked for one completion.
    pub fn maximum(&self) -> Amount {
        let (prompt_bytes, output_tokens) = match self {
            Self::PerToken { max_input, max_output, .. } => ((*max_input).into(), (*max_output).into()),
            Self::PerRequest(_) | Self::PerUnit { .. } => (0, 0),
        };
        self.ceiling(Demand { prompt_bytes, output_tokens })
    }

    /// The most that a request can cost.
    pub fn ceiling(&self, demand: Demand) -> Amount {
        match self {
            Self::PerRequest(amount) => *amount,
            Self::PerToken { input, output, .. } => tokens(*input, demand.prompt_bytes, *output, demand.output_tokens),
            Self::PerUnit { price, max, .. } => units(*price, (*max).into()),
        }
    }

    /// What was used costs this much; `None` when something else was counted than is sold. May pass the ceiling, which is
    /// all that can be charged.
    pub fn charge(&self, usage: Usage) -> Option<Amount> {
        match (self, usage) {
            (Self::PerToken { input, output, .. }, Usage::Tokens { input: read, output: written }) => {
                Some(tokens(*input, read, *output, written))
            }
            (Self::PerUnit { price, .. }, Usage::Units(count)) => Some(units(*price, count)),
            _ => None,
        }
    }
}

fn tokens(input: Amount, read: u64, output: Amount, written: u64) -> Amount {
    let cost = |price: Amount, count: u64| price.0.saturating_mul(U256::from(count));
    Amount(cost(input, read).saturating_add(cost(output, written)).div_ceil(MILLION))
}

fn units(price: Amount, count: u64) -> Amount {
    Amount(price.0.saturating_mul(U256::from(count)))
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
