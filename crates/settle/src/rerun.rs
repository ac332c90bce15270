//! One more run of a request that was paid for and whose answer got lost.

use obol_offer::{B256, OfferName};
use obol_payment::Event;
use obol_x402::{MatchedPayment, PaymentId};

use crate::{
    Captured, Cashier, Delivery, PaymentPermit, Receipt, Refusal,
    cashier::Core,
    claims::{Claim, ClaimKey},
    journal::{Change, WriteError},
};

/// A second run under way: durable before the upstream is called, and held with the payment's claim.
pub(crate) struct Rerun {
    receipt: Receipt,
    delivery: Delivery,
    _claim: Claim,
}

impl Rerun {
    /// The money moved long ago.
    pub fn captured(self) -> Captured {
        Captured::Settled(self.receipt, self.delivery)
    }

    /// The same, once the answer has left.
    pub fn delivered(self) -> Captured {
        self.delivery.complete();
        Captured::Settled(self.receipt, Delivery::done())
    }

    /// The upstream was never reached: it may be tried again.
    pub async fn give_back(self) {
        self.delivery.give_back().await;
    }
}

impl Cashier {
    /// As [`admit_named`](Self::admit_named); where `reruns`, a payment that has bought this very request, and
    /// whose answer got lost, has leave to [run it once more](Self::rerun).
    ///
    /// # Errors
    /// [`Refusal`]; nothing has moved except where it says so.
    pub async fn admit_or_rerun(
        &self,
        offer: &OfferName,
        payment: MatchedPayment,
        facilitators: &[url::Url],
        fingerprint: [u8; 32],
        id: Option<&PaymentId>,
        reruns: bool,
    ) -> Result<PaymentPermit, Refusal> {
        let again = reruns.then(|| payment.clone());
        let admitted = self.admit_named(offer, payment, facilitators, fingerprint, id).await;
        let (Err(Refusal::AlreadyUsed(_)), Some(payment)) = (&admitted, again) else { return admitted };
        match self.rerun(payment, fingerprint).await {
            // Another payment has bought it, under the same name.
            Err(Refusal::OtherRequest) => admitted,
            rerun => rerun,
        }
    }

    /// Leave to run a request once more whose payment is `owed`, for nothing. To be called only for a
    /// payment that [`admit`](Self::admit) has just refused as [`AlreadyUsed`](Refusal::AlreadyUsed) for
    /// this very request, which is where its payer was proven.
    ///
    /// # Errors
    /// [`Refusal`]: what the buyer is told when there is nothing to be run once more.
    pub async fn rerun(&self, payment: MatchedPayment, fingerprint: [u8; 32]) -> Result<PaymentPermit, Refusal> {
        let rerun = self.core.rerun(&payment, B256::from(fingerprint)).await?;
        tracing::info!(payment = %payment.replay_key(), "a lost answer is made once more");
        Ok(PaymentPermit::again(payment, rerun))
    }
}

impl Core {
    async fn rerun(&self, payment: &MatchedPayment, fingerprint: B256) -> Result<Rerun, Refusal> {
        let key = payment.replay_key();
        // That the first answer got lost may still be on its way to the disk.
        self.journal.flush().await.map_err(|_| Refusal::JournalUnavailable)?;
        let claim = self.claim(ClaimKey::Replay(key), fingerprint, self.held_until()).await.map_err(|taken| taken.refusal(fingerprint))?;
        let row = self.journal.read(&key).await.map_err(|_| Refusal::JournalUnavailable)?;
        let Some(row) = row.filter(|row| row.payload.0 == payment.payload_digest && row.fingerprint == fingerprint) else {
            return Err(Refusal::OtherRequest);
        };
        let refused = || row.known().refusal(fingerprint).unwrap_or(Refusal::InProgress);
        let Some(receipt) = row.receipt.clone() else { return Err(refused()) };
        match self.journal.change(key, Change::new(&[Event::RerunBegun])).await {
            Ok(()) => Ok(Rerun { receipt, delivery: self.delivery(key), _claim: claim }),
            Err(WriteError::Unavailable) => Err(Refusal::JournalUnavailable),
            Err(WriteError::InDoubt { transaction }) => Err(Refusal::Unsettled { transaction }),
            Err(WriteError::Conflict(_) | WriteError::Illegal | WriteError::Exposed) => Err(refused()),
        }
    }
}
