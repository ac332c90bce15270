//! How one seed goes: who buys, what breaks.

use crate::{disk::Faults, rng::Rng};

/// A bug put in on purpose, to show that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The journal takes an unknown outcome for a refusal.
    UnknownIsRefused,
    /// The buyer of an unknown payment is told to sign another.
    UnknownIs402,
    /// The answer leaves before the money is taken.
    AnswerFirst,
    /// The upstream is called before the payment is reserved.
    NoClaim,
    /// Nothing is ever synced to the disk.
    NoSync,
    /// An expired payment is refused without looking at what became of it.
    ExpiredUnseen,
    /// A facilitator that lies is believed.
    LiesBelieved,
    /// What one payer owes is not bounded.
    Unbounded,
    /// Of a metered payment all is charged that was signed for.
    CeilingCharged,
    /// A facilitator moves twice what it was asked for, and says nothing of it.
    Overcharged,
    /// A lost answer is made again without a word in the journal.
    RerunUnnoted,
    /// What payers call their purchases is ignored.
    NamesIgnored,
}

impl Planted {
    /// All of them, each with words of what it breaks.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::UnknownIsRefused, "its money"),
        (Self::UnknownIs402, "told to sign again"),
        (Self::AnswerFirst, "leaves unpaid"),
        (Self::NoClaim, "twice at once"),
        (Self::NoSync, "the journal does not"),
        (Self::ExpiredUnseen, "told to sign again"),
        (Self::LiesBelieved, "unpaid"),
        (Self::Unbounded, "is let in for"),
        (Self::CeilingCharged, "was used"),
        (Self::Overcharged, "its ceiling"),
        (Self::RerunUnnoted, "is run again"),
        (Self::NamesIgnored, "bought one purchase twice"),
    ];
}

/// The shape of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many buyers, each with one request.
    pub buyers: usize,
    /// How many payers they share.
    pub payers: u64,
    /// How many facilitators.
    pub facilitators: usize,
    /// Whether the chain can be read.
    pub chain: bool,
    /// Whether it reorganises.
    pub reorgs: bool,
    /// How often the cashier crashes.
    pub crashes: u64,
    /// Whether the disk is full at times.
    pub full: bool,
    /// Facilitators misbehave in so many of a hundred cases.
    pub trouble: u64,
    /// Whether the wall clock of the cashier jumps, between lives and within one.
    pub clock_jumps: bool,
    /// Whether facilitators lie about money. The cashier then holds their word against the chain.
    pub lies: bool,
    /// Whether reorganisations reach behind what a reader takes for made.
    pub deep_reorgs: bool,
    /// Buyers of metered answers in so many of a hundred cases.
    pub metered: u64,
    /// Whether the seller sends money back.
    pub refunds: bool,
    /// The bug that was put in.
    pub planted: Option<Planted>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(rng: &mut Rng, planted: Option<Planted>) -> Self {
        let (chain, lies, deep_reorgs) = (rng.percent(70), rng.percent(35), rng.percent(15));
        Self {
            buyers: rng.range(1, 6) as usize,
            payers: rng.range(1, 3),
            facilitators: rng.range(1, 2) as usize,
            chain,
            lies: lies && chain,
            deep_reorgs,
            reorgs: rng.percent(40),
            crashes: if rng.percent(30) { 0 } else { rng.range(1, 4) },
            full: rng.percent(25),
            trouble: [0, 10, 30, 60][rng.below(4) as usize],
            clock_jumps: rng.percent(30),
            metered: [0, 40, 100][rng.below(3) as usize],
            refunds: rng.percent(30),
            planted,
        }
    }

    /// What breaks in the next life; `last` is one without a crash.
    pub fn faults(&self, rng: &mut Rng, last: bool) -> Faults {
        // Often among the first writes: opening, and the first payments.
        let most = [20, 80, 300][rng.below(3) as usize];
        let crash_at = (!last && rng.percent(70)).then(|| rng.range(1, most));
        let full = (self.full && rng.percent(60)).then(|| (rng.range(5, 200), rng.range(1, 12)));
        Faults { crash_at, full, no_sync: self.planted == Some(Planted::NoSync) }
    }
}
