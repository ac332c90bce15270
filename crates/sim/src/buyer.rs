//! Buyers: most follow the protocol, some do not. Each wants one request answered.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::join_all;
use obol_offer::{Address, OnLost};
use obol_settle::Cashier;
use obol_x402::PaymentId;

use crate::{
    gateway::{Answer, serve},
    world::Shared,
};

/// Most payments that one buyer signs.
pub const MAX_SIGNED: u32 = 4;

/// How a buyer behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Signs anew only after a 402.
    Honest,
    /// Signs anew after anything.
    Hasty,
    /// Presents one payment again and again, for other requests too.
    Replayer,
    /// Cancels the authorization when it has been presented.
    Canceller,
}

/// A buyer, as it remembers.
#[derive(Clone, Debug)]
pub struct Buyer {
    /// Its behaviour.
    pub manner: Manner,
    /// Its address.
    pub payer: Address,
    /// Whether only the facilitator can check its signature.
    pub is_wallet: bool,
    /// What it may cost at most, in atomic units, where what is used is charged.
    pub ceiling: Option<u64>,
    /// What its offer does for lost answers.
    pub on_lost: OnLost,
    /// What it calls its purchase.
    pub name: Option<PaymentId>,
    /// Its request.
    pub fingerprint: [u8; 32],
    /// Unix milliseconds at which it comes.
    pub from: u64,
    /// The payment it presents now.
    pub payment: Option<usize>,
    /// Payments signed.
    pub signed: u32,
    /// Rounds left.
    pub rounds: u32,
    /// Whether it wants no more.
    pub is_done: bool,
}

impl Buyer {
    /// Whether it follows the protocol.
    pub fn is_honest(&self) -> bool {
        self.manner == Manner::Honest
    }
}

/// One life's part of a buyer's errand.
pub async fn shop(world: Shared, cashier: Cashier, index: usize) {
    loop {
        let wait = {
            let mut world = world.lock();
            let now = world.now();
            let from = world.buyers[index].from;
            if world.buyers[index].is_done {
                return;
            }
            if now < from { from - now } else { world.rng.range(0, 300) }
        };
        world.sleep(wait).await;
        let id = {
            let mut world = world.lock();
            match world.buyers[index].payment {
                Some(id) => id,
                None => {
                    let id = world.sign(index);
                    let buyer = &mut world.buyers[index];
                    (buyer.payment, buyer.signed) = (Some(id), buyer.signed + 1);
                    id
                }
            }
        };
        let answers = send(&world, &cashier, index, id).await;
        let pause = {
            let mut world = world.lock();
            world.think(index, id, &answers);
            world.rng.range(100, 12_000)
        };
        world.sleep(pause).await;
    }
}

/// Sends the payment, at times in several copies, and at times leaves before the answer.
async fn send(world: &Shared, cashier: &Cashier, index: usize, id: usize) -> Vec<Answer> {
    let mut copies = Vec::new();
    {
        let mut state = world.lock();
        let buyer = state.buyers[index].clone();
        let count = if state.rng.percent(30) { state.rng.range(2, 4) } else { 1 };
        for copy in 0..count {
            let mut fingerprint = buyer.fingerprint;
            if buyer.manner == Manner::Replayer && state.rng.percent(40) {
                fingerprint = [0xBB; 32];
            }
            let forged = copy > 0 && state.rng.percent(15);
            let leaves = match state.rng.below(10) {
                0 => Leaves::AfterPolls(state.rng.range(1, 12)),
                1 => Leaves::After(state.rng.range(0, 8_000)),
                _ => Leaves::Never,
            };
            let late = if copy == 0 || state.rng.percent(50) { 0 } else { state.rng.range(0, 3_000) };
            let mut id = id;
            if copy > 0 && buyer.name.is_some() && state.buyers[index].signed < MAX_SIGNED && state.rng.percent(30) {
                // The same purchase, signed anew.
                state.buyers[index].signed += 1;
                id = state.sign(index);
            }
            let request = serve(world.clone(), cashier.clone(), id, fingerprint, forged);
            let world = world.clone();
            copies.push(async move {
                world.sleep(late).await;
                (stay(request, leaves).await, forged)
            });
        }
        if buyer.manner == Manner::Canceller && state.rng.percent(30) {
            let (key, now) = (state.payments[id].key(), state.advance());
            state.ledger.cancel(key, now);
            state.note(format_args!("b{index} cancels p{id}"));
        }
    }
    join_all(copies).await.into_iter().filter(|(_, forged)| !forged).map(|(answer, _)| answer).collect()
}

/// When a buyer hangs up.
enum Leaves {
    Never,
    /// When the request was polled so often: at any await point.
    AfterPolls(u64),
    After(u64),
}

async fn stay(request: impl Future<Output = Answer>, leaves: Leaves) -> Answer {
    match leaves {
        Leaves::Never => request.await,
        Leaves::AfterPolls(left) => Polled { request: Box::pin(request), left }.await,
        Leaves::After(wait) => {
            let wait = std::time::Duration::from_millis(wait);
            tokio::time::timeout(wait, request).await.unwrap_or(Answer::Lost)
        }
    }
}

struct Polled<F> {
    request: Pin<Box<F>>,
    left: u64,
}

impl<F: Future<Output = Answer>> Future for Polled<F> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        if self.left == 0 {
            return Poll::Ready(Answer::Lost);
        }
        self.left -= 1;
        let polled = self.request.as_mut().poll(context);
        if self.left == 0 && polled.is_pending() {
            // It goes at this very point.
            return Poll::Ready(Answer::Lost);
        }
        polled
    }
}
