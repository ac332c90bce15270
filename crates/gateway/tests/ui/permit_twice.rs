use obol_gateway::Passage;
use obol_settle::PaymentPermit;

fn twice(permit: PaymentPermit) -> (Passage, Passage) {
    (Passage::paid(permit), Passage::paid(permit))
}

fn main() {}
