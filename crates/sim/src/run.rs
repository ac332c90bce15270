//! One seed, from the first request to the last look at the books.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use obol_offer::{Address, OnLost};
use obol_settle::{Archiving, Cashier, CashierConfig, Facilitator, OpenError, Recovery, Refund, sim::Host};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    buyer::{Buyer, Manner, shop},
    chain::Node,
    disk::{Handle, Image, Machine, fresh},
    exposure::UNITS,
    facilitator::SimFacilitator,
    plan::{Plan, Planted},
    rng::Rng,
    world::{Counts, NETWORK, PRICE, Shared},
};

/// How one seed ended.
#[derive(Debug)]
pub struct Outcome {
    /// Hash of everything that happened.
    pub hash: u64,
    /// What must never be, and was.
    pub violation: Option<String>,
    /// How much happened.
    pub counts: Counts,
    /// Line by line, where it was asked for.
    pub trace: Vec<String>,
}

/// Milliseconds after which a life without a crash is given up.
const LONG_LIFE: u64 = 900_000;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime without I/O")
}

fn blank() -> Image {
    static BLANK: OnceLock<Image> = OnceLock::new();
    let make = |host: Arc<dyn Host>| {
        let runtime = runtime();
        runtime.block_on(async { drop(Cashier::open_simulated(CashierConfig::new("journal.redb"), &host)) });
    };
    BLANK.get_or_init(|| fresh(make)).clone()
}

/// Runs one seed.
pub fn run(seed: u64, planted: Option<Planted>, keep_trace: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let plan = Plan::of(&mut rng, planted);
    let crashes = plan.crashes;
    let world = Shared::new(rng.next(), plan, keep_trace);
    populate(&world);
    let mut image = blank();
    for life in 0..=crashes {
        image = live(&world, image, &mut rng, life == crashes);
        if world.lock().violation.is_some() {
            break;
        }
    }
    if world.lock().violation.is_none() {
        aftermath(&world, image);
    }
    let mut world = world.lock();
    Outcome { hash: world.hash(), violation: world.violation.take(), counts: world.counts, trace: world.take_trace() }
}

fn populate(shared: &Shared) {
    let mut world = shared.lock();
    let plan = world.plan.clone();
    world.note(format_args!("{plan:?}"));
    for payer in 0..plan.payers {
        let rich = world.rng.percent(80);
        let balance = if rich { 1_000_000 * PRICE } else { world.rng.range(0, 3) * if world.rng.percent(50) { PRICE } else { 300_000 } };
        world.ledger.balances.insert(Address::repeat_byte(0x10 + payer as u8), balance);
    }
    for index in 0..plan.buyers {
        let payer = Address::repeat_byte(0x10 + world.rng.below(plan.payers) as u8);
        let manner = match world.rng.below(10) {
            0 | 1 => Manner::Hasty,
            2 => Manner::Replayer,
            3 => Manner::Canceller,
            _ => Manner::Honest,
        };
        let now = world.now();
        let buyer = Buyer {
            manner,
            payer,
            is_wallet: world.rng.percent(25),
            ceiling: world.rng.percent(plan.metered).then(|| [200_000, 400_000, 700_000, 1_500_000][world.rng.below(4) as usize]),
            on_lost: [OnLost::Receipt, OnLost::StoredAnswer, OnLost::Rerun][world.rng.below(3) as usize],
            name: world.rng.percent(30).then(|| format!("purchase-of-buyer-{index}").parse().unwrap()),
            fingerprint: [index as u8; 32],
            from: now + world.rng.range(0, 60_000),
            payment: None,
            signed: 0,
            rounds: world.rng.range(4, 20) as u32,
            is_done: false,
        };
        let Buyer { ceiling, on_lost, name, .. } = &buyer;
        world.note(format_args!("b{index} is {manner:?}, {ceiling:?}, {on_lost:?}, {name:?}"));
        world.buyers.push(buyer);
    }
}

fn config(shared: &Shared) -> CashierConfig {
    let (plan, settle_timeout) = {
        let mut world = shared.lock();
        (world.plan.clone(), Duration::from_secs(world.rng.range(5, 40)))
    };
    let facilitator = |n: usize| {
        let facilitator: Arc<dyn Facilitator> = Arc::new(SimFacilitator { id: format!("f{n}"), world: shared.clone() });
        (NETWORK, facilitator)
    };
    let mut config = CashierConfig::new("journal.redb");
    config.local = (0..plan.facilitators).map(facilitator).collect();
    if plan.chain {
        config.chains = vec![(NETWORK, Arc::new(Node(shared.clone())))];
        if plan.lies && plan.planted != Some(Planted::LiesBelieved) {
            config.verify_transfers = vec![NETWORK];
        }
    }
    config.settle_timeout = settle_timeout;
    config.max_exposure = if plan.planted == Some(Planted::Unbounded) { u64::MAX } else { UNITS };
    config.recovery = Recovery { first: Duration::from_secs(5), longest: Duration::from_secs(120), tries: 16 };
    config.archiving = Archiving::default();
    config
}

/// Opens; `None` when the power went meanwhile.
async fn open(shared: &Shared, machine: &Arc<Machine>) -> Option<Cashier> {
    let host: Arc<dyn Host> = Arc::new(Handle(Arc::clone(machine)));
    for _ in 0..100 {
        match Cashier::open_simulated(config(shared), &host) {
            Ok(cashier) => return Some(cashier),
            Err(_) if machine.is_dead() => return None,
            Err(OpenError::Journal { cause, .. }) => {
                shared.lock().note(format_args!("the journal does not open: {cause}"));
                shared.sleep(1000).await;
            }
            Err(error) => {
                shared.lock().violate(format!("the journal does not open: {error}"));
                return None;
            }
        }
    }
    shared.lock().violate("the journal never opens".into());
    None
}

/// The cashier's clock is set now and then, by up to ten minutes either way, and right again.
async fn jump(shared: Shared) {
    loop {
        let wait = shared.lock().rng.range(3_000, 60_000);
        shared.sleep(wait).await;
        let mut world = shared.lock();
        let now = world.now();
        let clock = match world.rng.below(3) {
            0 => now,
            1 => now + world.rng.range(1_000, 600_000),
            _ => now - world.rng.range(1_000, 600_000),
        };
        obol_settle::sim::set_clock(clock);
        world.note(format_args!("the clock says {clock}"));
    }
}

/// The seller sends money back, now and then, where something is owed.
async fn refund(shared: Shared, cashier: Cashier) {
    loop {
        let wait = shared.lock().rng.range(2_000, 60_000);
        shared.sleep(wait).await;
        let owed = shared.lock().rows().unwrap_or_default().into_iter().find(|(_, row)| row.state.is_owed());
        let Some((id, row)) = owed else { continue };
        let noted = cashier.note_refund(&row.key, Refund::default()).await;
        let mut world = shared.lock();
        world.note(format_args!("p{id} is sent back: {noted:?}"));
        if noted.is_ok() && !world.is_dead() {
            world.payments[id].refunded = true;
            world.counts.refunds += 1;
        }
    }
}

/// One life of the cashier, up to a crash or a clean end; returns what is on its disk.
fn live(shared: &Shared, image: Image, rng: &mut Rng, last: bool) -> Image {
    let faults = shared.lock().plan.faults(rng, last);
    let machine = Machine::new(image, faults, rng.next());
    let runtime = runtime();
    runtime.block_on(async {
        let skew = {
            let mut world = shared.lock();
            world.machine = Some(Arc::clone(&machine));
            world.begin_life(rng.range(0, 20_000));
            world.note(format_args!("a life begins: {faults:?}"));
            let jumps = world.plan.clock_jumps;
            if jumps { world.rng.range(0, 8_000) } else { 0 }
        };
        let now = shared.lock().now();
        obol_settle::sim::set_clock(now + skew);
        let Some(cashier) = open(shared, &machine).await else { return };
        let tasks = {
            let mut world = shared.lock();
            world.cashier = Some(cashier.clone());
            world.remember();
            world.check_books(false);
            world.tasks.clone()
        };
        let _refunds = shared.lock().plan.refunds.then(|| AbortOnDropHandle::new(tokio::spawn(refund(shared.clone(), cashier.clone()))));
        let _jumps = shared.lock().plan.clock_jumps.then(|| AbortOnDropHandle::new(tokio::spawn(jump(shared.clone()))));
        let buyers = shared.lock().buyers.len();
        let shopping = (0..buyers).map(|index| tokio::spawn(shop(shared.clone(), cashier.clone(), index))).collect::<Vec<_>>();
        let bound = if last || rng.percent(30) { LONG_LIFE } else { rng.range(1, 120_000) };
        let done = futures_util::future::join_all(shopping);
        tokio::select! {
            biased;
            () = machine.crashed.notified() => return,
            () = shared.sleep(bound) => {}
            _ = done => {}
        }
        if !last {
            machine.crash();
            return;
        }
        tasks.close();
        tasks.wait().await;
        cashier.drain().await;
        shared.sleep(5_000).await;
        let mut world = shared.lock();
        world.advance();
        world.check_books(false);
        world.note(format_args!("a clean end"));
    });
    let crashed = machine.is_dead();
    {
        let mut world = shared.lock();
        let runtime = runtime.enter();
        world.end_life();
        drop(runtime);
        if crashed {
            world.counts.crashes += 1;
            let writes = machine.writes();
            world.note(format_args!("crash after {writes} writes"));
        }
    }
    // A crash loses what is in memory; a clean end closes the file.
    drop(runtime);
    machine.remains()
}

/// Everything works, for hours: what could be found out, was.
fn aftermath(shared: &Shared, image: Image) {
    let machine = Machine::new(image, Default::default(), 1);
    let runtime = runtime();
    runtime.block_on(async {
        {
            let mut world = shared.lock();
            world.machine = Some(Arc::clone(&machine));
            world.is_calm = true;
            world.begin_life(1000);
            world.note(format_args!("the aftermath"));
        }
        let now = shared.lock().now();
        obol_settle::sim::set_clock(now);
        let Some(cashier) = open(shared, &machine).await else { return };
        shared.lock().cashier = Some(cashier.clone());
        cashier.recovered().await;
        for _ in 0..40 {
            shared.sleep(60_000).await;
            if cashier.stats().unknown_now == 0 {
                break;
            }
        }
        cashier.drain().await;
        let mut world = shared.lock();
        world.advance();
        world.check_books(true);
        for (id, row) in world.rows().unwrap_or_default() {
            world.note(format_args!("p{id} is {}, settled: {:?}", row.state, row.settled));
        }
    });
    let entered = runtime.enter();
    shared.lock().end_life();
    drop(entered);
}
