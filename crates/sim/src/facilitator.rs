//! Facilitators: slow, lossy, double, contradicting themselves. Where the cashier holds their word
//! against the chain they also lie about money: a success although nothing was sent, one with the
//! transaction of another payment, a refusal of what they have settled. Else they do not: a seller
//! who reads no chain has to trust the one that settles in that much. Their answers go through the
//! real reader of HTTP answers.

use futures_util::future::BoxFuture;
use obol_offer::{Address, Network, Scheme};
use obol_settle::{Facilitator, PaymentState as State, SettleOutcome, VerifyOutcome, sim};
use obol_x402::MatchedPayment;

use crate::{
    chain::{Key, hash},
    plan::Planted,
    world::{Shared, World, number, short},
};

/// One facilitator.
pub struct SimFacilitator {
    /// `f0`, `f1`.
    pub id: String,
    /// Where it lives.
    pub world: Shared,
}

/// An answer on its way: wait, status and body; `None` never comes.
type Wire = (u64, Option<(u16, String)>);

fn key_of(payment: &MatchedPayment) -> Key {
    (payment.authorization.from, payment.authorization.nonce)
}

/// Who sends a facilitator's settlements of metered payments.
pub fn upto_address(id: &str) -> Address {
    Address::repeat_byte(id.bytes().last().unwrap_or_default())
}

/// What it is asked to move: of a metered payment as its requirements say, as over HTTP.
fn asked(payment: &MatchedPayment) -> u64 {
    let body = std::str::from_utf8(&payment.facilitator_body).unwrap();
    body.split(r#""amount":""#).nth(1).and_then(|rest| rest.split('"').next()?.parse().ok()).unwrap()
}

impl Facilitator for SimFacilitator {
    fn id(&self) -> &str {
        &self.id
    }

    fn upto(&self, _: &Network) -> Option<Address> {
        Some(upto_address(&self.id))
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        Box::pin(async move {
            let (wait, trouble) = {
                let mut world = self.world.lock();
                let trouble = world.troubles();
                (if trouble && world.rng.percent(20) { 8_000 } else { world.rng.range(1, 600) }, trouble)
            };
            self.world.sleep(wait).await;
            let mut world = self.world.lock();
            let now = world.advance();
            let (status, body) = verdict(&mut world, payment, now, trouble);
            let outcome = sim::read_verify(status, body.as_bytes(), payment);
            world.note(format_args!("{} verifies {}: {outcome:?}", self.id, short(&key_of(payment))));
            outcome
        })
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        Box::pin(async move {
            let key = key_of(payment);
            let name = short(&key);
            let (wait, answer) = {
                let mut world = self.world.lock();
                world.counts.settles += 1;
                world.note(format_args!("{} is asked to settle {name}", self.id));
                world.check_ask(number(&key));
                world.take(payment)
            };
            self.world.sleep(wait).await;
            let Some(step) = answer else {
                return SettleOutcome::NotAsked { cause: "connection refused".into() };
            };
            let (wait, wire) = {
                let mut world = self.world.lock();
                world.reply(payment, step)
            };
            self.world.sleep(wait).await;
            let Some((status, body)) = wire else {
                self.world.lock().note(format_args!("{} loses its answer on {name}", self.id));
                return std::future::pending().await;
            };
            let mut world = self.world.lock();
            world.advance();
            // It has looked for its transaction in a block before it says so.
            let untrue = !world.plan.lies && body.starts_with(r#"{"success":true,"#) && world.ledger.moved(&key).is_none();
            let body = if untrue { failed(&key) } else { body };
            let mut outcome = sim::read_settle(status, body.as_bytes(), payment);
            world.note(format_args!("{} answers on {name}: {outcome:?}", self.id));
            if matches!(outcome, SettleOutcome::Settled(_)) {
                world.ledger.promise(key);
            }
            if matches!(outcome, SettleOutcome::Pending { .. }) {
                world.payments[number(&key)].doubted = true;
            }
            let unclear = matches!(outcome, SettleOutcome::Unknown { .. } | SettleOutcome::Pending { .. });
            if unclear && world.plan.planted == Some(Planted::UnknownIsRefused) {
                outcome = SettleOutcome::Refused { reason: "planted".into() };
            }
            outcome
        })
    }
}

fn failed(key: &Key) -> String {
    format!(r#"{{"success":false,"errorReason":"transaction_failed","transaction":"{}"}}"#, hash(key))
}

fn verdict(world: &mut World, payment: &MatchedPayment, now: u64, trouble: bool) -> (u16, String) {
    let key = key_of(payment);
    let payer = payment.authorization.from;
    let invalid = |reason: &str| (200, format!(r#"{{"isValid":false,"invalidReason":"{reason}","payer":"{payer}"}}"#));
    let balance = world.ledger.balances.get(&payer).copied().unwrap_or_default();
    if trouble && world.rng.percent(60) {
        return match world.rng.below(4) {
            0 => (502, "<html>bad gateway</html>".into()),
            1 => (200, r#"{"isVal"#.into()),
            2 => (200, r#"{"isValid":true,"payer":"0x00000000000000000000000000000000000000Bd"}"#.into()),
            _ => (500, r#"{"isValid":false,"invalidReason":"unexpected_verify_error"}"#.into()),
        };
    }
    if payment.authorization.signature == [0] {
        invalid("invalid_exact_evm_payload_signature")
    } else if world.ledger.is_spent(&key) {
        invalid("invalid_exact_evm_nonce_already_used")
    } else if now / 1000 + 6 > payment.authorization.valid_before {
        invalid("invalid_exact_evm_payload_authorization_valid_before")
    } else if balance < world.payments[number(&key)].price() {
        invalid("insufficient_funds")
    } else {
        (200, format!(r#"{{"isValid":true,"payer":"{payer}"}}"#))
    }
}

/// What a facilitator made of the request to settle.
pub(crate) enum Step {
    /// Turned away unread.
    Unread(u16),
    /// Refused, with nothing sent.
    Refused(&'static str),
    /// A transaction is on its way, or in a block.
    Sent,
    /// Nobody will ever hear of it.
    Lost,
    /// Nothing is sent, and success will be said.
    Lied,
}

impl World {
    fn troubles(&mut self) -> bool {
        self.is_troubled() && {
            let trouble = self.plan.trouble;
            self.rng.percent(trouble)
        }
    }

    /// While somebody was told that one payment is unknown, no second one of that payer is taken
    /// for the same request.
    fn check_ask(&mut self, id: usize) {
        self.advance();
        let payment = &self.payments[id];
        if payment.streamed {
            // Its answer has left: it is charged whatever became of others.
            return;
        }
        let (payer, fingerprint) = (payment.key().0, payment.fingerprint);
        let others: Vec<_> = (0..self.payments.len())
            .filter(|other| {
                let p = &self.payments[*other];
                *other != id && p.key().0 == payer && p.fingerprint == fingerprint && p.doubted
            })
            .collect();
        if others.is_empty() {
            return;
        }
        let rows = self.rows().unwrap_or_default();
        // Asking once more about one that may have moved is no second settlement.
        if !rows.iter().any(|row| row.0 == id && row.1.state == State::Settling) || self.payments[id].doubted {
            return;
        }
        for (other, row) in rows {
            if others.contains(&other) && row.state.is_unsettled() && row.state != State::Settling {
                self.violate(format!("p{id} is settled while p{other} of the same request is {}", row.state));
            }
        }
    }

    /// The request arrives, or does not. All that it sets in motion is decided here: the cashier
    /// may be gone when it happens.
    fn take(&mut self, payment: &MatchedPayment) -> (u64, Option<Step>) {
        let now = self.advance();
        let (key, window) = (key_of(payment), payment.authorization.valid_before);
        let trouble = self.troubles();
        let kind = if trouble { self.rng.below(10) } else { 99 };
        match kind {
            0 => return (self.rng.range(1, 200), None),
            1 => return (self.rng.range(1, 200), Some(Step::Unread([429, 404, 401][self.rng.below(3) as usize]))),
            2 => return (self.rng.range(1, 200), Some(Step::Refused("invalid_transaction_state"))),
            3 => return (0, Some(Step::Lost)),
            _ => {}
        }
        if trouble && self.plan.lies && self.rng.percent(40) {
            return (self.rng.range(1, 200), Some(Step::Lied));
        }
        if self.ledger.is_spent(&key) || self.ledger.on_its_way(&key).is_some() {
            return (self.rng.range(1, 300), Some(Step::Sent));
        }
        let balance = self.ledger.balances.get(&key.0).copied().unwrap_or_default();
        if now / 1000 + 2 > window {
            return (5, Some(Step::Refused("invalid_exact_evm_payload_authorization_valid_before")));
        }
        let mut amount = asked(payment);
        if self.plan.planted == Some(Planted::Overcharged) {
            amount *= 2;
        } else if self.plan.lies && payment.terms.scheme == Scheme::Upto && self.rng.percent(20) {
            amount = self.rng.range(1, self.payments[number(&key)].price());
        }
        if balance < amount {
            return (5, Some(Step::Refused("insufficient_funds")));
        }
        // Some requests lie about in the network; some transactions in the mempool.
        let delay = match kind {
            4 => self.rng.range(10_000, 120_000),
            5 => self.rng.range(2_000, 60_000),
            _ => self.rng.range(50, 3_000),
        };
        self.ledger.send(key, amount, window, now + delay);
        (self.rng.range(1, 300), Some(Step::Sent))
    }

    fn reply(&mut self, payment: &MatchedPayment, step: Step) -> Wire {
        let now = self.advance();
        let (key, hash) = (key_of(payment), hash(&key_of(payment)));
        let refused = |reason: &str| {
            Some((200, format!(r#"{{"success":false,"errorReason":"{reason}","transaction":"","network":"base-sepolia"}}"#)))
        };
        match step {
            Step::Lost => return (0, None),
            Step::Unread(status) => return (0, Some((status, "no".into()))),
            Step::Refused(reason) => return (0, refused(reason)),
            Step::Lied => {
                // With its own hash, which nobody has sent, or as a duplicate of what was said of another.
                let other = self.rng.below(self.payments.len() as u64) as usize;
                let named = if self.rng.percent(50) { crate::chain::hash(&self.payments[other].key()) } else { hash };
                return (
                    0,
                    Some((200, format!(r#"{{"success":true,"transaction":"{named}","network":"base-sepolia","payer":"{}"}}"#, key.0))),
                );
            }
            Step::Sent => {}
        }
        let wait = self.ledger.on_its_way(&key).map_or(0, |at| at.saturating_sub(now) + 20);
        let success = format!(r#"{{"success":true,"transaction":"{hash}","network":"eip155:84532","payer":"{}"}}"#, key.0);
        if self.troubles() {
            let early = self.rng.below(wait.max(1));
            if self.plan.lies && wait == 0 && self.ledger.moved(&key).is_some() && self.rng.percent(30) {
                self.ledger.promise(key);
                return (0, refused("invalid_transaction_state"));
            }
            return match self.rng.below(12) {
                0..=2 => (wait, None),
                3 => (early, Some((502, "<html>bad gateway</html>".into()))),
                4 => (wait, Some((200, success[..success.len() / 2].into()))),
                5 => (early, Some((200, format!(r#"{{"success":false,"errorReason":"settlement_pending","transaction":"{hash}"}}"#)))),
                6 => (wait, Some((200, r#"{"success":true,"transaction":"","network":"base-sepolia"}"#.into()))),
                7 => (
                    wait,
                    Some((
                        200,
                        format!(r#"{{"success":true,"transaction":"{hash}","payer":"0x00000000000000000000000000000000000000Bd"}}"#),
                    )),
                ),
                8 => (wait, Some((200, format!(r#"{{"success":true,"transaction":"{hash}","amount":"1"}}"#)))),
                9 => (early, Some((500, r#"{"success":false,"errorReason":"unexpected_settle_error"}"#.into()))),
                10 => (wait, refused("invalid_exact_evm_nonce_already_used")),
                _ => (early, Some((200, format!(r#"{{"success":false,"errorReason":"timeout","transaction":"{hash}"}}"#)))),
            };
        }
        if wait > 15_000 {
            return (15_000, Some((200, format!(r#"{{"success":false,"errorReason":"settlement_pending","transaction":"{hash}"}}"#))));
        }
        (wait, Some((200, success)))
    }
}
