//! The life of one payment: states, events, and the one table of allowed transitions.
//!
//! Pure and sans-I/O: the crate says what follows from what; `obol-settle` does it. The page
//! `docs/payment-states.md` is rendered from the same table.

mod answer;
mod document;
mod event;
mod state;
mod table;

pub use answer::Answer;
pub use document::document;
pub use event::Event;
pub use state::State;
pub use table::{TRANSITIONS, Transition, next};

#[cfg(test)]
mod tests;
