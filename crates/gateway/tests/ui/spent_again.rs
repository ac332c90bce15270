use obol_gateway::{Passage, Spent};

fn again(spent: Spent) -> Passage {
    Passage::paid(spent)
}

fn main() {}
