//! Everything outside the cashier: the clock, the chain, the buyers' memory, the trace, and what
//! must never be.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use obol_offer::{Address, Amount, B256, Network, Scheme, Terms};
use obol_settle::Cashier;
use obol_x402::{Authorization, AuthorizationKind, LocalCheck, MatchedPayment, Version};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    buyer::Buyer,
    chain::{Happened, Key, Ledger, Reorgs},
    disk::Machine,
    facilitator::upto_address,
    plan::Plan,
    rng::Rng,
};

/// The network of every payment.
pub const NETWORK: &str = "base-sepolia";
/// The price, in atomic units.
pub const PRICE: u64 = 1000;

/// One signed payment.
pub struct Payment {
    /// As the gateway has matched it.
    pub matched: MatchedPayment,
    /// Which buyer signed it.
    pub buyer: usize,
    /// The request it was signed for.
    pub fingerprint: [u8; 32],
    /// Upstream executions under way.
    pub executing: u32,
    /// Answers that began to leave.
    pub answers: u32,
    /// The whole answer was handed over.
    pub delivered: bool,
    /// Somebody was told that its outcome is unknown, or pending.
    pub doubted: bool,
    /// Runs of its request for nothing, after its answer got lost.
    pub reruns: u32,
    /// The seller says that the money was sent back.
    pub refunded: bool,
    /// What of its last answer was used, in atomic units: the price of an exact one.
    pub used: u64,
    /// Whether that left before it was charged.
    pub streamed: bool,
    /// What an answer under way may come to.
    pub held: u64,
    /// What answers cost that left in this life, and are not paid for.
    pub unpaid: u64,
    /// The same of the last one, while it may still be paid for.
    pub unknown: u64,
}

impl Payment {
    /// Payer and nonce.
    pub fn key(&self) -> Key {
        (self.matched.authorization.from, self.matched.authorization.nonce)
    }

    /// Whether what is used is charged.
    pub fn is_metered(&self) -> bool {
        self.matched.terms.scheme == Scheme::Upto
    }

    /// Atomic units that were signed for: the price, or the ceiling.
    pub fn price(&self) -> u64 {
        self.matched.terms.amount.to_string().parse().unwrap()
    }
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub requests: u64,
    /// Questions to settle.
    pub settles: u64,
    /// Transfers on the chain.
    pub transfers: u64,
    /// Answers delivered in full.
    pub delivered: u64,
    /// Crashes.
    pub crashes: u64,
    /// Metered answers that left before they were charged.
    pub streams: u64,
    /// Lost answers that were made again.
    pub reruns: u64,
    /// Payments sent back.
    pub refunds: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.settles += other.settles;
        self.transfers += other.transfers;
        self.delivered += other.delivered;
        self.crashes += other.crashes;
        self.streams += other.streams;
        self.reruns += other.reruns;
        self.refunds += other.refunds;
    }
}

/// The world.
pub struct World {
    /// How this seed goes.
    pub plan: Plan,
    /// The one source of chance.
    pub rng: Rng,
    /// The chain.
    pub ledger: Ledger,
    /// Every payment that was signed.
    pub payments: Vec<Payment>,
    /// Every buyer.
    pub buyers: Vec<Buyer>,
    /// The machine of this life.
    pub machine: Option<Arc<Machine>>,
    /// The cashier of this life.
    pub cashier: Option<Cashier>,
    /// What goes on when a buyer has left.
    pub tasks: TaskTracker,
    /// Whether everything works from now on.
    pub is_calm: bool,
    /// What went wrong first.
    pub violation: Option<String>,
    /// How much happened.
    pub counts: Counts,
    base: u64,
    started: Option<Instant>,
    hash: u64,
    trace: Option<Vec<String>>,
}

/// The world, shared by all in it.
#[derive(Clone)]
pub struct Shared(pub Arc<Mutex<World>>);

impl Shared {
    /// A world at its beginning.
    pub fn new(seed: u64, plan: Plan, keep_trace: bool) -> Self {
        let world = World {
            plan,
            rng: Rng::new(seed),
            ledger: Ledger::default(),
            payments: Vec::new(),
            buyers: Vec::new(),
            machine: None,
            cashier: None,
            tasks: TaskTracker::new(),
            is_calm: false,
            violation: None,
            counts: Counts::default(),
            base: 1_800_000_000_000,
            started: None,
            hash: 0xCBF2_9CE4_8422_2325,
            trace: keep_trace.then(Vec::new),
        };
        Self(Arc::new(Mutex::new(world)))
    }

    /// Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so many milliseconds.
    pub async fn sleep(&self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

/// Hashes what is written to it (FNV-1a).
struct Digest(u64);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        Ok(())
    }
}

/// A payment in few letters.
pub fn short(key: &Key) -> String {
    format!("p{}", number(key))
}

/// Which payment it is.
pub fn number(key: &Key) -> usize {
    usize::from(u16::from_be_bytes([key.1[30], key.1[31]]))
}

impl World {
    /// Unix milliseconds.
    pub fn now(&self) -> u64 {
        self.base + self.started.map_or(0, |at| at.elapsed().as_millis() as u64)
    }

    /// A life begins on a clock of its own, `later` after the last one.
    pub fn begin_life(&mut self, later: u64) {
        self.base += later;
        self.tasks = TaskTracker::new();
        self.started = Some(Instant::now());
    }

    /// The clock of a life ends with it.
    pub fn end_life(&mut self) {
        self.base = self.now();
        self.started = None;
        self.cashier = None;
        for payment in &mut self.payments {
            payment.executing = 0;
        }
    }

    /// Whether facilitators, nodes and buyers may misbehave.
    pub fn is_troubled(&self) -> bool {
        !self.is_calm
    }

    /// Writes into the trace.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        let now = self.now();
        let mut digest = Digest(self.hash);
        let _ = writeln!(digest, "{now} {what}");
        self.hash = digest.0;
        if let Some(trace) = &mut self.trace {
            let at = now - 1_800_000_000_000;
            trace.push(format!("{:>6}.{:03} {what}", at / 1000, at % 1000));
        }
    }

    /// Hash of the trace so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The trace, where it was kept.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Something that must never be.
    pub fn violate(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// Brings the chain to the present, and checks every transfer.
    pub fn advance(&mut self) -> u64 {
        let now = self.now();
        let reorgs = Reorgs { shallow: self.plan.reorgs && !self.is_calm, deep: self.plan.deep_reorgs && !self.is_calm };
        for (at, event) in self.ledger.advance(now, &mut self.rng, reorgs) {
            self.note(format_args!("chain at {}: {}", at % 100_000_000, Shown(&event)));
            if let Happened::Moved(key) = event {
                self.counts.transfers += 1;
                self.check_transfer(&key);
            }
        }
        now
    }

    /// A metered payment moves what was used, and a purchase is paid for once.
    fn check_transfer(&mut self, key: &Key) {
        let payment = &self.payments[number(key)];
        let (name, used, ceiling, buyer) = (short(key), payment.used, payment.price(), payment.buyer);
        let moved = self.ledger.moved(key).unwrap_or_default();
        if moved > ceiling {
            self.violate(format!("{name} moved {moved}, and {ceiling} is its ceiling"));
        }
        if moved > used && !self.plan.lies {
            self.violate(format!("{name} moved {moved}, and {used} was used"));
        }
        let moved: Vec<_> =
            self.payments.iter().filter(|p| p.buyer == buyer && self.ledger.moved(&p.key()).is_some()).map(|p| short(&p.key())).collect();
        if moved.len() < 2 {
            return;
        }
        if self.buyers[buyer].is_honest() {
            self.violate(format!("honest buyer b{buyer} paid twice for one request: {moved:?}"));
        } else if self.buyers[buyer].name.is_some() {
            self.violate(format!("b{buyer} bought one purchase twice: {moved:?}"));
        }
    }

    /// Signs a payment for a buyer's request.
    pub fn sign(&mut self, buyer: usize) -> usize {
        let id = self.payments.len();
        let now = self.now() / 1000;
        let Buyer { payer, fingerprint, is_wallet, ceiling, .. } = self.buyers[buyer];
        let valid_before = now + self.rng.range(30, 300);
        let facilitator = upto_address(["f0", "f1"][self.rng.below(self.plan.facilitators as u64) as usize]);
        let network = Network::find(NETWORK).unwrap();
        let asset = network.default_asset();
        let pay_to = Address::repeat_byte(0xEE);
        let amount = Amount::from(ceiling.unwrap_or(PRICE));
        let nonce = B256::left_padding_from(&[0xA0, (id >> 8) as u8, id as u8]);
        let (scheme, kind) = match ceiling {
            Some(_) => (Scheme::Upto, AuthorizationKind::Upto { facilitator }),
            None => (Scheme::Exact, AuthorizationKind::Eip3009),
        };
        let body = format!(
            r#"{{"n":{id},"paymentRequirements":{{"scheme":"{}","network":"eip155:84532","amount":"{amount}","asset":"{}","payTo":"{pay_to}","maxTimeoutSeconds":300}}}}"#,
            scheme.as_str(),
            asset.address
        );
        let matched = MatchedPayment {
            version: Version::V2,
            terms: Terms { scheme, network, asset, pay_to, amount, max_timeout_seconds: 300 },
            authorization: Authorization {
                from: payer,
                to: pay_to,
                value: amount,
                valid_after: 0,
                valid_before,
                nonce,
                kind,
                signature: vec![1; 65],
            },
            local_check: if is_wallet { LocalCheck::Undecided } else { LocalCheck::SignedByPayer },
            charge: amount,
            payload_digest: nonce.0,
            facilitator_body: body.into_bytes(),
        };
        self.note(format_args!("b{buyer} signs p{id} until {valid_before}"));
        self.payments.push(Payment {
            matched,
            buyer,
            fingerprint,
            executing: 0,
            answers: 0,
            delivered: false,
            doubted: false,
            reruns: 0,
            refunded: false,
            used: if ceiling.is_some() { 0 } else { PRICE },
            streamed: false,
            held: 0,
            unpaid: 0,
            unknown: 0,
        });
        id
    }
}

struct Shown<'a>(&'a Happened);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Happened::Moved(key) => write!(f, "{} moved", short(key)),
            Happened::Reverted(key, why) => write!(f, "{} reverted: {why}", short(key)),
            Happened::Undone(key) => write!(f, "{} undone by a reorganisation", short(key)),
            Happened::Returned(key) => write!(f, "{} is back", short(key)),
            Happened::Lost(key) => write!(f, "{} is lost", short(key)),
        }
    }
}
