use obol_gateway::Passage;

fn copy(passage: &Passage) -> Passage {
    passage.clone()
}

fn main() {}
