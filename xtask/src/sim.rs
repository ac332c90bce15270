//! The simulation of payments, in release: debug is too slow for many seeds.

use crate::{
    places::Places,
    run::{Result, run},
};

/// `cargo xtask sim …`
pub fn run_sim(arguments: &[String]) -> Result {
    let places = Places::find()?;
    let mut cargo = places.cargo(&["run", "--locked", "--release", "--quiet", "-p", "obol-sim", "--"]);
    run(cargo.args(arguments))
}
