//! The 402 as a page for people: what it is, what it costs, how to pay. No scripts.

use std::fmt::Write as _;

use obol_offer::Offer;
use obol_x402::Quote;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.5rem}code,pre{font-family:ui-monospace,monospace;background:#f3f3f3;border-radius:4px}code{padding:.1em .3em}\
pre{padding:.8em;overflow-x:auto}th{text-align:left;padding-right:1.5rem;font-weight:600}.play{background:#fff4cc;padding:.6em .8em;border-radius:4px}\
.why{background:#fde8e8;padding:.6em .8em;border-radius:4px}footer{margin-top:2rem;color:#666;font-size:.9rem}";

/// The page. Everything that a seller or buyer wrote is escaped.
pub(crate) fn render(offer: &Offer, quote: &Quote, url: &str, reason: Option<&str>) -> String {
    let title = if quote.info().service_name.is_empty() { offer.name.plain() } else { &quote.info().service_name };
    let mut page = String::with_capacity(2048);
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title} – payment required</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n",
        title = Escaped(title),
    );
    if !quote.info().description.is_empty() {
        let _ = writeln!(page, "<p>{}</p>", Escaped(&quote.info().description));
    }
    if let Some(reason) = reason {
        let _ = writeln!(page, "<p class=\"why\">The last payment was not accepted: {}</p>", Escaped(reason));
    }
    let _ = writeln!(
        page,
        "<p>This page is sold per request over <a href=\"https://www.x402.org\">x402</a>. One request costs one of:</p>\n<table>"
    );
    for terms in quote.terms() {
        let play = if terms.network.testnet { " (play money)" } else { "" };
        let _ = writeln!(
            page,
            "<tr><th>{} {}</th><td>on {}{play}</td></tr>\n<tr><th>paid to</th><td><code>{}</code></td></tr>",
            Escaped(&terms.amount.to_decimal(terms.asset.decimals)),
            Escaped(&terms.asset.symbol),
            Escaped(terms.network.name),
            terms.pay_to,
        );
    }
    page.push_str("</table>\n");
    if quote.terms().iter().any(|terms| terms.network.testnet) {
        page.push_str("<p class=\"play\">Payments on test networks are play money: they are worth nothing.</p>\n");
    }
    let shell = format!("obol pay '{}'", url.replace('\'', "%27"));
    let _ = writeln!(
        page,
        "<h2>How to pay</h2>\n<p>From a terminal, with a wallet that holds the token:</p>\n<pre>{}</pre>\n\
         <p>Any x402 client pays too: the terms are in this answer's <code>PAYMENT-REQUIRED</code> header. \
         Everything sold here is listed in <a href=\"/api/services.json\">the catalog</a>.</p>\n\
         <footer>402 Payment Required</footer>\n</body></html>",
        Escaped(&shell),
    );
    page
}

/// Text as HTML text or a quoted attribute's value.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(Escaped("<a href='x' b=\"y\">&").to_string(), "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;");
    }
}
