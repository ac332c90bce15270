use obol_gateway::Passage;

fn main() {
    let _unpaid: Passage = Default::default();
}
