//! `docs/payment-states.md`, rendered from the table.

use std::fmt::Write as _;

use crate::{Answer, Event, State, TRANSITIONS};

/// The documentation of the state machine as Markdown.
pub fn document() -> String {
    let mut page = String::from(HEAD);
    // Writing to a string cannot fail.
    for state in State::ALL {
        let answer = Answer::of(state).meaning();
        let _ = writeln!(page, "| `{state}` | {} | {answer} | {} |", state.meaning(), if state.is_terminal() { "yes" } else { "" });
    }
    page.push_str("\n## Events\n\n| event | what happened |\n|---|---|\n");
    for event in Event::ALL {
        let _ = writeln!(page, "| `{event}` | {} |", event.meaning());
    }
    page.push_str(
        "\n## Transitions\n\nWhat is not listed cannot happen: the journal refuses it.\n\n| from | event | to |\n|---|---|---|\n",
    );
    for (from, event, to) in TRANSITIONS {
        let from = from.map_or("never seen".to_owned(), |state| format!("`{state}`"));
        let _ = writeln!(page, "| {from} | `{event}` | `{to}` |");
    }
    page.push_str("\n```mermaid\nstateDiagram-v2\n");
    for (from, event, to) in TRANSITIONS.iter().filter(|(from, _, to)| *from != Some(*to)) {
        let _ = writeln!(page, "  {} --> {to}: {event}", from.map_or("[*]", State::code));
    }
    page.push_str("```\n");
    page
}

const HEAD: &str = "\
# The states of a payment

<!-- Rendered from crates/payment/src/table.rs. After a change there: UPDATE_DOCS=1 cargo test -p obol-payment -->

Every payment is one row of the journal. A row is written before its request goes to the upstream,
and again before the facilitator is asked to move money. An unknown outcome is not a failed one:
`pending` and `unknown` are never answered with a 402, because a buyer who signs again may pay twice.

## States

| state | meaning | the same payment again gets | end |
|---|---|---|---|
";
