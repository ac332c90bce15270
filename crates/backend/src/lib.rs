//! Backends: what a pass is applied to. For now the standalone node.

pub mod control;
