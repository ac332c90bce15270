//! Which of the offered payments to make.

use obol_offer::{Amount, Terms};
use obol_x402::{AuthorizationKind, Offered, Received};

use crate::{PayError, PayRequest};

/// A payment to make.
pub(crate) struct Choice<'a> {
    pub offered: &'a Offered,
    pub terms: Terms,
    /// What to sign.
    pub kind: AuthorizationKind,
}

/// The offered payments, in the seller's order, that can be made here within the limit: at least one.
pub(crate) fn choices<'a>(received: &'a Received, request: &PayRequest) -> Result<Vec<Choice<'a>>, PayError> {
    let mut payable = Vec::new();
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
        if let Some(wanted) = request.network.filter(|wanted| *wanted != terms.network) {
            reasons.push(format!("it is on {}, not on {}", terms.network.name, wanted.name));
            continue;
        }
        if let Some(wanted) = request.scheme.filter(|wanted| *wanted != terms.scheme) {
            reasons.push(format!("its scheme is {}, not {}", terms.scheme.as_str(), wanted.as_str()));
            continue;
        }
        let limit = request.max.to_amount(terms.asset.decimals).map_err(|e| PayError::Max(e.to_string()))?;
        match offered.kind(&terms) {
            Some(kind) if terms.amount <= limit => payable.push(Choice { offered, terms, kind }),
            _ if cheapest.as_ref().is_none_or(|(known, _)| terms.amount < known.amount) => cheapest = Some((terms, limit)),
            _ => {}
        }
    }
    if !payable.is_empty() {
        return Ok(payable);
    }
    let Some((terms, limit)) = cheapest else {
        reasons.dedup();
        let reasons = if reasons.is_empty() { "it names none that is complete".to_owned() } else { reasons.join("; ") };
        return Err(PayError::NothingPayable(reasons.chars().take(400).collect()));
    };
    Err(PayError::TooExpensive { price: format!("{} on {}", terms.price(), terms.network.name), max: terms.asset.show(limit) })
}
