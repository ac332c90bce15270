//! A deterministic simulation of payments: the real cashier of `obol-settle`, with its journal,
//! state machine and recovery, on a simulated disk, chain and clock, among slow and lossy
//! facilitators and buyers of every manner. One number decides everything that happens; the same
//! number makes the same things happen again.
//!
//! `gateway` and `metered` repeat the gateway's steps round the cashier; HTTP itself, archives and the
//! writer's own thread are not simulated. A facilitator that says plainly that money moved, or that it did
//! not, is believed where no chain is read: that much a seller has to trust the one who settles. And a
//! transfer that was taken for made may be lost by a reorganisation deeper than the configured depth, as
//! `docs/chains.md` says: a seller who wants more waits for more blocks.

mod buyer;
mod chain;
mod check;
mod disk;
mod exposure;
mod facilitator;
mod gateway;
mod metered;
mod plan;
mod rng;
mod run;
#[cfg(test)]
mod tests;
mod world;

pub use plan::Planted;
pub use run::{Outcome, run};
pub use world::Counts;
