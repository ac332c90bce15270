//! A smart wallet's signature, deployed or not: the whole input.

use obol_chain::fuzzing;

pub fn target(data: &[u8]) {
    assert!(fuzzing::signature(data), "written and read again, it holds something else");
}
