//! Leave to reach an upstream, as a type: forwarding takes a [`Passage`] by value, and there are
//! only two ways to one. Forwarding unpaid, or twice for one payment, does not compile.

use std::time::Duration;

use obol_offer::{Address, Amount};
use obol_reconcile::Entry;
use obol_settle::{Captured, PaymentPermit, StoredAnswer};

/// Leave to call an upstream once: for a reserved payment, or because the route is free.
#[derive(Debug)]
pub struct Passage(Option<PaymentPermit>);

impl Passage {
    /// For a reserved payment.
    pub fn paid(permit: PaymentPermit) -> Self {
        Self(Some(permit))
    }

    /// For a free route; `None` when the route has a price.
    pub fn free(entry: &Entry) -> Option<Self> {
        entry.quote.is_none().then_some(Self(None))
    }

    /// The payment that opens it, if one does.
    pub fn permit(&self) -> Option<&PaymentPermit> {
        self.0.as_ref()
    }

    /// Whether it was paid for before: a second run of what got lost.
    pub fn is_paid_already(&self) -> bool {
        self.0.as_ref().is_some_and(PaymentPermit::is_paid)
    }

    /// Uses it up. What is left can be captured or released, and nothing else.
    pub fn spend(self) -> Spent {
        Spent(self.0)
    }
}

/// A passage that was used.
#[derive(Debug)]
pub struct Spent(Option<PaymentPermit>);

impl Spent {
    /// Takes the money, all of it or what was used, and keeps the answer for a buyer who does not get it; `None` when
    /// the route was free.
    pub async fn capture(self, charge: Option<Amount>, kept: Option<StoredAnswer>) -> Option<Captured> {
        let permit = self.0?;
        Some(match charge {
            Some(charge) => permit.capture_amount(charge, kept).await,
            None => permit.capture_for(kept).await,
        })
    }

    /// Takes the money for an answer that has left; `None` when the route was free.
    pub async fn capture_delivered(self, charge: Amount) -> Option<Captured> {
        match self.0 {
            Some(permit) => Some(permit.capture_delivered(charge).await),
            None => None,
        }
    }

    /// Whether it was paid for before.
    pub fn is_paid_already(&self) -> bool {
        self.0.as_ref().is_some_and(PaymentPermit::is_paid)
    }

    /// Who pays.
    pub fn payer(&self) -> Option<Address> {
        self.0.as_ref().map(|permit| permit.payment().authorization.from)
    }

    /// How long an answer that is settled after it may go on.
    pub fn time_to_deliver(&self) -> Duration {
        self.0.as_ref().map_or(Duration::MAX, PaymentPermit::time_to_deliver)
    }

    /// Gives the payment back unused, when the request never reached the upstream.
    pub async fn unsent(self) {
        if let Some(permit) = self.0 {
            permit.unsent().await;
        }
    }

    /// Gives the payment back unused.
    pub async fn release(self) {
        if let Some(permit) = self.0 {
            permit.release().await;
        }
    }
}
