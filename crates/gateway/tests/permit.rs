//! Unpaid forwarding, and forwarding twice for one payment, must not compile.

#[test]
fn a_passage_cannot_be_made_or_used_otherwise() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
