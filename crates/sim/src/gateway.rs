//! What the gateway does with one paid request, in the same steps, round the real cashier.

use obol_settle::{Captured, Cashier, Refusal, StoredAnswer};
use obol_x402::MIN_VALIDITY_LEFT;

use crate::{
    chain::Key,
    plan::Planted,
    world::{Shared, short},
};

/// What a buyer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200, and the whole answer.
    Paid,
    /// 402: sign a payment.
    Sign,
    /// 409: the same payment is being worked on.
    InProgress,
    /// 200 again: the answer was kept.
    Again,
    /// 409 with the receipt.
    Used,
    /// 409: it was for another request.
    Other,
    /// 503: nobody knows yet; the same payment again.
    Unknown,
    /// 502 or 503: nothing moved; the same payment again.
    Failed,
    /// The connection broke.
    Lost,
}

/// One request with a payment. May be dropped at any time, as when the buyer leaves.
pub async fn serve(world: Shared, cashier: Cashier, id: usize, fingerprint: [u8; 32], forged: bool) -> Answer {
    let (planted, mut payment) = {
        let mut world = world.lock();
        world.counts.requests += 1;
        (world.plan.planted, world.payments[id].matched.clone())
    };
    let key: Key = (payment.authorization.from, payment.authorization.nonce);
    if forged {
        payment.authorization.signature = vec![0];
        payment.payload_digest = [0xF0; 32];
        payment.local_check = obol_x402::LocalCheck::Undecided;
    }
    let answer = steps(&world, &cashier, id, fingerprint, payment, planted).await;
    let mut world = world.lock();
    world.advance();
    world.note(format_args!("{}{} is answered {answer:?}", short(&key), if forged { " (forged)" } else { "" }));
    if !forged && !world.is_dead() {
        world.check_answer(id, answer);
    }
    answer
}

async fn steps(
    world: &Shared,
    cashier: &Cashier,
    id: usize,
    fingerprint: [u8; 32],
    payment: obol_x402::MatchedPayment,
    planted: Option<Planted>,
) -> Answer {
    let now = obol_settle::sim::now_ms().unwrap_or_default() / 1000;
    if payment.authorization.valid_before < now + MIN_VALIDITY_LEFT {
        if planted == Some(Planted::ExpiredUnseen) {
            return Answer::Sign;
        }
        return cashier
            .what_became_of(&[payment.replay_key()], payment.payload_digest)
            .await
            .map_or(Answer::Sign, |refusal| told(world, id, &refusal));
    }
    let early = (planted == Some(Planted::NoClaim)).then(|| Execution::begin(world, id));
    let offer = "weather".parse().unwrap();
    let permit = match cashier.admit(&offer, payment, &[], fingerprint).await {
        Ok(permit) => permit,
        Err(refusal) => return told(world, id, &refusal),
    };
    let execution = early.unwrap_or_else(|| Execution::begin(world, id));
    let (wait, fails, drops, keeps) = {
        let mut world = world.lock();
        let keeps = world.rng.percent(40);
        let (wait, fails, drops) =
            (if world.rng.percent(10) { 20_000 } else { world.rng.range(1, 2_000) }, world.rng.percent(15), world.rng.percent(50));
        (wait, fails, drops, keeps)
    };
    world.sleep(wait).await;
    drop(execution);
    if fails {
        if drops {
            drop(permit)
        } else {
            permit.release().await
        }
        return Answer::Failed;
    }
    if planted == Some(Planted::AnswerFirst) {
        world.lock().begin_answer(id);
    }
    let kept = keeps.then(|| StoredAnswer { status: 200, headers: Vec::new(), body: body(id) });
    match permit.capture_for(kept).await {
        Captured::Settled(_, delivery) => {
            if planted != Some(Planted::AnswerFirst) {
                world.lock().begin_answer(id);
            }
            let wait = world.lock().rng.range(0, 500);
            world.sleep(wait).await;
            world.lock().hand_over(id);
            delivery.complete();
            Answer::Paid
        }
        Captured::Refused { .. } => Answer::Sign,
        Captured::NotAsked | Captured::Nothing => Answer::Failed,
        Captured::Unsettled { .. } if planted == Some(Planted::UnknownIs402) => Answer::Sign,
        Captured::Unsettled { .. } => Answer::Unknown,
    }
}

/// The body that a payment buys.
fn body(id: usize) -> Vec<u8> {
    format!("answer {id}").into_bytes()
}

fn told(world: &Shared, id: usize, refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Answered { answer, .. } => {
            if answer.body != body(id) {
                world.lock().violate(format!("p{id} gets the answer of another payment"));
            }
            Answer::Again
        }
        Refusal::InProgress => Answer::InProgress,
        Refusal::AlreadyUsed(_) => Answer::Used,
        Refusal::OtherRequest => Answer::Other,
        Refusal::Unsettled { .. } => Answer::Unknown,
        Refusal::Invalid { .. } => Answer::Sign,
        _ => Answer::Failed,
    }
}

/// One upstream execution; it ends when this is dropped.
struct Execution {
    world: Shared,
    id: usize,
}

impl Execution {
    fn begin(world: &Shared, id: usize) -> Self {
        world.lock().execute(id);
        Self { world: world.clone(), id }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        let payment = &mut world.payments[self.id];
        payment.executing = payment.executing.saturating_sub(1);
    }
}
