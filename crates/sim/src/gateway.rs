//! What the gateway does with one paid request, in the same steps, round the real cashier.

use obol_offer::{OnLost, Scheme};
use obol_settle::{Captured, Cashier, PaymentPermit, Refusal, StoredAnswer};
use obol_x402::{LocalCheck, MIN_VALIDITY_LEFT, MatchedPayment};

use crate::{
    chain::Key,
    exposure::Hold,
    metered,
    plan::Planted,
    world::{Shared, short},
};

/// What a buyer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200, and the whole answer.
    Paid,
    /// 200, and nothing was used.
    Free,
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
    /// 429, 502 or 503: nothing moved; the same payment again.
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
        payment.local_check = LocalCheck::Undecided;
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
    payment: MatchedPayment,
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
    let (on_lost, name) = {
        let world = world.lock();
        let buyer = &world.buyers[world.payments[id].buyer];
        let name = buyer.name.clone().filter(|_| planted != Some(Planted::NamesIgnored));
        (buyer.on_lost, name)
    };
    let admitted = cashier.admit_or_rerun(&offer, payment, &[], fingerprint, name.as_ref(), on_lost == OnLost::Rerun).await;
    let permit = match admitted {
        Ok(permit) => permit,
        Err(Refusal::AlreadyUsed(_)) if planted == Some(Planted::RerunUnnoted) => {
            drop(Execution::begin_again(world, id));
            return Answer::Used;
        }
        Err(refusal) => return told(world, id, &refusal),
    };
    let hold = Hold::begin(world, id, &permit);
    let (wait, fate) = {
        let mut world = world.lock();
        let wait = if world.rng.percent(10) { 20_000 } else { world.rng.range(1, 2_000) };
        let fate = if world.rng.percent(15) { world.rng.below(3) } else { 3 };
        (wait, fate)
    };
    if fate == 0 {
        // Nobody is there: the upstream never runs.
        permit.unsent().await;
        return Answer::Failed;
    }
    let execution = early.unwrap_or_else(|| match permit.is_paid() {
        true => Execution::begin_again(world, id),
        false => Execution::begin(world, id),
    });
    world.sleep(wait).await;
    drop(execution);
    match fate {
        1 => {
            drop(permit);
            return Answer::Failed;
        }
        2 => {
            permit.release().await;
            return Answer::Failed;
        }
        _ => {}
    }
    if permit.payment().terms.scheme == Scheme::Upto && world.lock().rng.percent(75) {
        return metered::stream(world, id, permit, hold).await;
    }
    capture(world, id, permit, hold, on_lost).await
}

/// The money first, then the answer.
async fn capture(world: &Shared, id: usize, permit: PaymentPermit, hold: Option<Hold>, on_lost: OnLost) -> Answer {
    let planted = world.lock().plan.planted;
    if planted == Some(Planted::AnswerFirst) {
        world.lock().begin_answer(id);
    }
    let is_paid = permit.is_paid();
    let (charge, kept) = {
        let mut world = world.lock();
        let kept = on_lost == OnLost::StoredAnswer && world.rng.percent(70);
        (metered::reported(&mut world, id, is_paid), kept.then(|| StoredAnswer { status: 200, headers: Vec::new(), body: body(id) }))
    };
    // Nothing leaves before it is paid for.
    drop(hold);
    match permit.capture_amount(charge.into(), kept).await {
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
        Captured::Nothing => Answer::Free,
        Captured::Refused { .. } => Answer::Sign,
        Captured::NotAsked => Answer::Failed,
        Captured::Unsettled { .. } if planted == Some(Planted::UnknownIs402) => Answer::Sign,
        Captured::Unsettled { .. } => Answer::Unknown,
    }
}

/// The body that a payment buys.
pub fn body(id: usize) -> Vec<u8> {
    format!("answer {id}").into_bytes()
}

fn told(world: &Shared, id: usize, refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Answered { answer, .. } => {
            world.lock().check_again(id, &answer.body);
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

    /// For a payment that was made, and whose answer got lost.
    fn begin_again(world: &Shared, id: usize) -> Self {
        world.lock().execute_again(id);
        Self::begin(world, id)
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        let payment = &mut world.payments[self.id];
        payment.executing = payment.executing.saturating_sub(1);
    }
}
