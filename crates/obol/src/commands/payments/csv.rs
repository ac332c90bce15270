//! Payments as CSV (RFC 4180), safe to open in a spreadsheet.

use obol_backend::control::PaymentRecord;

const HEAD: &str = "created,updated,offer,state,network,asset,symbol,amount,amount_atomic,payer,pay_to,transaction,reason,facilitator,key,settled,settled_atomic,refund_transaction,refund_note";

/// A header and one line per payment.
pub fn render(payments: &[PaymentRecord]) -> String {
    let mut text = format!("{HEAD}\r\n");
    for payment in payments {
        let optional = |value: &Option<String>| value.clone().unwrap_or_default();
        let fields = [
            super::moment(payment.created),
            super::moment(payment.updated),
            payment.offer.to_string(),
            payment.state.to_string(),
            payment.network.clone(),
            payment.asset.to_string(),
            optional(&payment.symbol),
            optional(&payment.amount_decimal),
            payment.amount.to_string(),
            payment.payer.to_string(),
            payment.pay_to.to_string(),
            optional(&payment.transaction),
            optional(&payment.reason),
            payment.facilitator.clone(),
            payment.key.clone(),
            optional(&payment.settled_decimal),
            optional(&payment.settled.map(|settled| settled.to_string())),
            optional(&payment.refund.as_ref().and_then(|refund| refund.transaction.clone())),
            optional(&payment.refund.as_ref().and_then(|refund| refund.note.clone())),
        ];
        text.push_str(&fields.map(|field| quote(&field)).join(","));
        text.push_str("\r\n");
    }
    text
}

/// Words from outside (a facilitator's reason, a symbol) must neither end a field nor become a formula.
fn quote(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_fields_stay_fields() {
        assert_eq!(quote("a,b \"c\"\n"), "\"a,b \"\"c\"\"\n\"");
        assert_eq!(quote("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(quote("@x,"), "\"'@x,\"");
        assert_eq!(quote("0.001"), "0.001");
    }
}
