use obol_settle::PaymentPermit;

fn main() {
    let _forged: PaymentPermit = Default::default();
}
