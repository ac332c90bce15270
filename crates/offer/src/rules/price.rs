//! How much: per request, per million tokens, or per unit.

use super::Checker;
use crate::{Amount, Asset, Model, PriceSpec, Rate};

/// A price per token or unit stays below this many bits, so that no count of 32 bits can pass 2²⁵⁶−1.
const MAX_METERED_BITS: usize = 200;

impl Checker {
    /// `field` is that of the price; `asset` is absent when it is wrong itself.
    pub(super) fn rate(&mut self, field: &str, price: &PriceSpec, asset: Option<&Asset>, model: Option<&Model>) -> Option<Rate> {
        let at = |name: &str| format!("{field}.{name}");
        for (name, given) in [("perHour", price.per_hour.is_some()), ("perEpoch", price.per_epoch.is_some())] {
            if given {
                let fix = "write perRequest, perMTok or perUnit; offers cannot be sold by time";
                self.refuse("price_unsupported", at(name), format!("`{name}` cannot be sold"), fix);
                return None;
            }
        }
        let stray = [
            ("perMTokOutput", price.per_m_tok_output.is_some() && price.per_m_tok.is_none(), "perMTok"),
            ("unit", price.unit.is_some() && price.per_unit.is_none(), "perUnit"),
            ("maxUnits", price.max_units.is_some() && price.per_unit.is_none(), "perUnit"),
        ];
        if let Some((name, _, of)) = stray.into_iter().find(|(_, stray, _)| *stray) {
            self.refuse("price_incomplete", at(name), format!("`{name}` belongs to `{of}`"), format!("write `{of}` too, or remove it"));
            return None;
        }
        match (&price.per_request, &price.per_m_tok, &price.per_unit) {
            (Some(price), None, None) => Some(Rate::PerRequest(self.amount(&at("perRequest"), price, asset?)?)),
            (None, Some(input), None) => {
                let output = price.per_m_tok_output.as_ref().map(|output| (at("perMTokOutput"), output));
                self.per_token(&at("perMTok"), input, output, asset, model)
            }
            (None, None, Some(each)) => self.per_unit(field, each, price, asset),
            (None, None, None) => {
                let fix = "write a quoted decimal such as \"0.001\", or pass --price";
                self.refuse("price_missing", at("perRequest"), "no price is given", fix);
                None
            }
            _ => {
                self.refuse("price_ambiguous", field, "more than one price is given", "keep one of perRequest, perMTok, perUnit");
                None
            }
        }
    }

    fn per_token(
        &mut self,
        field: &str,
        input: &str,
        output: Option<(String, &String)>,
        asset: Option<&Asset>,
        model: Option<&Model>,
    ) -> Option<Rate> {
        let Some(model) = model else {
            self.refuse("price_per_token", field, "only a model is sold by tokens", "add `model:` with its name, or use perUnit");
            return None;
        };
        let asset = asset?;
        let input = self.metered(field, input, asset);
        let output = match output {
            Some((field, output)) => self.metered(&field, output, asset),
            None => input,
        };
        Some(Rate::PerToken { input: input?, output: output?, max_input: model.max_prompt_bytes, max_output: model.max_tokens })
    }

    fn per_unit(&mut self, field: &str, each: &str, price: &PriceSpec, asset: Option<&Asset>) -> Option<Rate> {
        let unit = price.unit.as_deref().unwrap_or("unit");
        let is_word = !unit.is_empty() && unit.chars().count() <= 32 && unit.chars().all(|c| c.is_alphanumeric() || c == '-');
        if !is_word {
            self.refuse("price_unit", format!("{field}.unit"), "is no word", "write one word of letters, e.g. page");
        }
        let Some(max) = price.max_units.filter(|max| *max > 0) else {
            let fix = "write the most that one request can use: buyers authorise that much";
            self.refuse("price_incomplete", format!("{field}.maxUnits"), "a price per unit needs its maximum, 1 or more", fix);
            return None;
        };
        let price = self.metered(&format!("{field}.perUnit"), each, asset?)?;
        is_word.then(|| Rate::PerUnit { price, unit: unit.to_owned(), max })
    }

    fn metered(&mut self, field: &str, price: &str, asset: &Asset) -> Option<Amount> {
        let amount = self.amount(field, price, asset)?;
        if amount.0.bit_len() > MAX_METERED_BITS {
            self.refuse("price", field, "the price is beyond all money", "write less");
            return None;
        }
        Some(amount)
    }
}
