//! Answers that leave at once and are charged at their end, in the gateway's steps.

use obol_settle::PaymentPermit;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    exposure::Hold,
    gateway::Answer,
    plan::Planted,
    world::{Shared, World},
};

impl World {
    /// What an upstream says was used: at times nothing, at times more than was agreed.
    fn usage(&mut self, id: usize) -> u64 {
        let ceiling = self.payments[id].price();
        if self.rng.percent(10) { 0 } else { self.rng.range(1, ceiling + ceiling / 5) }
    }

    /// What is asked for an answer.
    fn charge(&self, id: usize, used: u64) -> u64 {
        if self.plan.planted == Some(Planted::CeilingCharged) { self.payments[id].price() } else { used }
    }
}

/// What an answer costs that is charged before it leaves: its price, or what its head says was used.
pub fn reported(world: &mut World, id: usize, is_paid: bool) -> u64 {
    if !world.payments[id].is_metered() {
        return world.payments[id].price();
    }
    let used = world.usage(id);
    if !is_paid {
        let payment = &mut world.payments[id];
        (payment.used, payment.streamed) = (used, false);
    }
    world.charge(id, used)
}

/// Streams, and has what left charged in a task of its own, however the stream ends.
pub async fn stream(world: &Shared, id: usize, permit: PaymentPermit, hold: Option<Hold>) -> Answer {
    let (end, ended) = oneshot::channel();
    let (reply, receipt) = oneshot::channel();
    let stop = CancellationToken::new();
    let is_paid = permit.is_paid();
    let (total, parts, breaks) = {
        let shared = world;
        let mut world = shared.lock();
        world.begin_stream(id, is_paid);
        let settling = settle(shared.clone(), id, permit, hold, ended, stop.clone());
        world.tasks.spawn(async move {
            settling.await;
            // Whoever asked for a receipt may be gone.
            let _ = reply.send(());
        });
        (world.usage(id), world.rng.range(1, 6), world.rng.percent(10))
    };
    for part in 0..parts {
        let wait = {
            let mut world = world.lock();
            if world.rng.percent(5) { world.rng.range(30_000, 200_000) } else { world.rng.range(10, 4_000) }
        };
        if stop.run_until_cancelled(world.sleep(wait)).await.is_none() || (breaks && part > 0) {
            return Answer::Lost;
        }
        if !is_paid {
            world.lock().payments[id].used += total / parts;
        }
    }
    drop::<oneshot::Sender<()>>(end);
    if world.lock().rng.percent(50) {
        // The answer is whole whatever comes behind it.
        let _ = receipt.await;
    }
    Answer::Paid
}

async fn settle(
    world: Shared,
    id: usize,
    permit: PaymentPermit,
    mut hold: Option<Hold>,
    ended: oneshot::Receiver<()>,
    stop: CancellationToken,
) {
    if tokio::time::timeout(permit.time_to_deliver(), ended).await.is_err() {
        stop.cancel();
    }
    let (is_paid, used) = (permit.is_paid(), world.lock().end_stream(id));
    if let Some(hold) = &mut hold {
        hold.reduce(used);
    }
    let charge = world.lock().charge(id, used);
    let captured = permit.capture_delivered(charge.into()).await;
    if !is_paid {
        world.lock().charged(id, &captured);
    }
}
