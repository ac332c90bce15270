use obol_gateway::Passage;
use obol_settle::PaymentPermit;

fn forward(_: Passage) {}

fn twice(permit: PaymentPermit) {
    let passage = Passage::paid(permit);
    forward(passage);
    forward(passage);
}

fn main() {}
