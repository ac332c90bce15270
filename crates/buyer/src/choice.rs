//! Which of the offered payments to make.

use obol_offer::{Amount, Network, Price, Terms};
use obol_x402::{AuthorizationKind, Offered, Received};

use crate::PayError;

/// A payment to make.
pub(crate) struct Choice<'a> {
    pub offered: &'a Offered,
    pub terms: Terms,
    /// What to sign.
    pub kind: AuthorizationKind,
}

/// The first offered payment, in the seller's order, that can be made here within the limit.
pub(crate) fn choose<'a>(received: &'a Received, max: &Price, network: Option<&'static Network>) -> Result<Choice<'a>, PayError> {
    let mut cheapest: Option<(Terms, Amount)> = None;
    let mut reasons = Vec::new();
    for offered in &received.offers {
        let terms = match offered.terms() {
            Ok(terms) => terms,
            Err(reason) => {
                reasons.push(reason.to_string());
                continue;
            }
        };
        if let Some(wanted) = network.filter(|wanted| *wanted != terms.network) {
            reasons.push(format!("it is on {}, not on {}", terms.network.name, wanted.name));
            continue;
        }
        let limit = max.to_amount(terms.asset.decimals).map_err(|e| PayError::Max(e.to_string()))?;
        if terms.amount <= limit
            && let Some(kind) = offered.kind(&terms)
        {
            return Ok(Choice { offered, terms, kind });
        }
        if cheapest.as_ref().is_none_or(|(known, _)| terms.amount < known.amount) {
            cheapest = Some((terms, limit));
        }
    }
    let Some((terms, limit)) = cheapest else {
        reasons.dedup();
        let reasons = if reasons.is_empty() { "it names none that is complete".to_owned() } else { reasons.join("; ") };
        return Err(PayError::NothingPayable(reasons.chars().take(400).collect()));
    };
    Err(PayError::TooExpensive { price: format!("{} on {}", terms.price(), terms.network.name), max: terms.asset.show(limit) })
}
