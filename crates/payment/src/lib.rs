//! The life of one payment: states, events, and the one table of allowed transitions.
//!
//! Pure and sans-I/O: the crate says what follows from what; `obol-settle` does it.
