//! A deterministic simulation of payments: the real cashier of `obol-settle`, with its journal,
//! state machine and recovery, on a simulated disk, chain and clock, among slow and lossy
//! facilitators and buyers of every manner. One number decides everything that happens; the same
//! number makes the same things happen again.
//!
//! `gateway` repeats the gateway's steps round the cashier; HTTP itself, archives and the writer's
//! own thread are not simulated. A facilitator that says plainly that money moved, or that it did
//! not, is believed where no chain is read: that much a seller has to trust the one who settles. Nor
//! does a transfer vanish for good once it was taken for made: a seller who wants more waits for more
//! blocks.

mod buyer;
mod chain;
mod check;
mod disk;
mod facilitator;
mod gateway;
mod plan;
mod rng;
mod run;
#[cfg(test)]
mod tests;
mod world;

pub use plan::Planted;
pub use run::{Outcome, run};
pub use world::Counts;
