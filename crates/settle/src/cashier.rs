//! From a matched payment to a permit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use obol_offer::{Amount, B256, Offer, OfferName, Scheme, U256};
use obol_payment::{Answer, State};
use obol_x402::{LocalCheck, MatchedPayment, PaymentId, ReplayKey, UptoDirectory};
use tokio::sync::{mpsc, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    CashierConfig, CashierStats, ChainFinding, ChainViews, FacilitatorHealth, OpenError, PaymentPermit, Refusal, SharedJournal,
    claims::{Claim, ClaimKey, Claims, Taken},
    doubts::Doubts,
    exposure::{Exposed, Exposures},
    http,
    journal::{Database, Journal, Reservation, Rounds, Row, WriteError, name_of, tend},
    ledger, outcome,
    pool::{Member, Pool},
    recovery::{self, FirstLook},
    refusal::Known,
    stats::Counters,
    supported::Supported,
};

/// How often it is looked whether a database, or what a process left in it, is there to be taken.
const TAKEOVER_GLANCE: Duration = Duration::from_millis(250);

/// Admits payments and captures money. Cheap to clone.
#[derive(Clone)]
pub struct Cashier {
    pub(crate) core: Arc<Core>,
    recovered: watch::Receiver<bool>,
    /// Ends the background tasks when the last clone is gone.
    stop: Arc<DropGuard>,
}

/// What permits and background tasks share.
pub(crate) struct Core {
    pub journal: Journal,
    pub doubts: Doubts,
    pub exposures: Arc<Exposures>,
    max_exposure: u64,
    pub pool: Pool,
    pub counters: Arc<Counters>,
    pub tasks: TaskTracker,
    pub settle_timeout: Duration,
    hold: Duration,
    pub chains: ChainViews,
    pub verify_transfers: Vec<&'static str>,
    /// To the recovery task.
    pub ask_again: mpsc::UnboundedSender<recovery::Case>,
    claims: Arc<Claims>,
}

impl Cashier {
    /// Opens the journal and brings unfinished rows to a state that can be served:
    /// reserved rows are released, settling rows become unknown and are asked about at once, and
    /// then again and again in the background: on their chain when it can be read, else at the
    /// facilitator that was asked before.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: CashierConfig) -> Result<Self, OpenError> {
        if let Some(shared) = config.shared.clone() {
            return Self::open_shared(config, &shared).await;
        }
        let path = config.journal.clone();
        let opened = tokio::task::spawn_blocking(move || Journal::open(&path)).await;
        let (journal, unknown) =
            opened.map_err(|error| OpenError::Corrupt { path: config.journal.clone(), cause: format!("reading it failed: {error}") })??;
        let archiving = config.archiving;
        let client = http::client().map_err(OpenError::Client)?;
        let this = Self::assemble(config, journal, unknown, client);
        tokio::spawn(ledger::keep_bounded(Arc::downgrade(&this.core), archiving, this.stop.token().clone()));
        Ok(this)
    }

    /// A database that is merely not there is waited for in the background: nothing is lost, and
    /// nothing is [recovered](Self::is_recovered) before.
    async fn open_shared(config: CashierConfig, shared: &SharedJournal) -> Result<Self, OpenError> {
        let database = Database::new(shared.url.expose(), shared.takeover).map_err(|cause| OpenError::Database { cause })?;
        let (database, mut rounds) = (Arc::new(database), Rounds::default());
        let (client, archiving) = (http::client().map_err(OpenError::Client)?, config.archiving);
        let mut unknown = Vec::new();
        while !rounds.is_settled {
            match database.round(&mut rounds).await {
                Ok(found) => unknown.extend(found),
                Err(error) if error.is_final() => return Err(OpenError::Database { cause: error.to_string() }),
                Err(error) => {
                    tracing::warn!(%error, "the journal's database is not available yet");
                    break;
                }
            }
            if !rounds.is_settled {
                tokio::time::sleep(TAKEOVER_GLANCE).await;
            }
        }
        let this = Self::assemble(config, Journal::in_database(Arc::clone(&database)), unknown, client);
        let core = Arc::downgrade(&this.core);
        tokio::spawn(tend(core.clone(), database, rounds, this.stop.token().clone()));
        tokio::spawn(ledger::keep_bounded(core, archiving, this.stop.token().clone()));
        Ok(this)
    }

    /// Starts the background tasks on an open journal.
    pub(crate) fn assemble(mut config: CashierConfig, journal: Journal, unknown: Vec<(ReplayKey, Row)>, client: reqwest::Client) -> Self {
        let stop = CancellationToken::new();
        let supported = Supported::open(&config.journal, stop.clone());
        let (ask_again, cases) = mpsc::unbounded_channel();
        let (hold, max_exposure) = (config.hold, config.max_exposure);
        let (settle_timeout, policy, first_look) = (config.settle_timeout, config.recovery, config.first_look);
        let core = Arc::new(Core {
            journal,
            doubts: Doubts::default(),
            exposures: Arc::default(),
            max_exposure,
            chains: std::mem::take(&mut config.chains),
            verify_transfers: std::mem::take(&mut config.verify_transfers),
            pool: Pool::new(config, client, supported),
            counters: Arc::default(),
            tasks: TaskTracker::new(),
            settle_timeout,
            hold,
            ask_again,
            claims: Arc::default(),
        });
        let (first, recovered) = FirstLook::new(&unknown, first_look);
        let mut open = Vec::with_capacity(unknown.len());
        for (key, row) in unknown {
            if row.unpaid.is_some() {
                core.exposures.remember(&key, &row);
            }
            core.doubts.add(key, row.fingerprint, row.transaction);
            open.push(recovery::Case { key, fingerprint: row.fingerprint, at_once: true });
        }
        tokio::spawn(recovery::run(Arc::downgrade(&core), cases, policy, open, first, stop.clone()));
        Self { core, recovered, stop: Arc::new(stop.drop_guard()) }
    }

    /// Whether everything that an earlier run left open was looked at once, or
    /// [`first_look`](CashierConfig::first_look) has passed; never while the journal's database is not
    /// connected. What is unknown then is recorded with the time of the next attempt; what was so before
    /// is asked about at once, and not waited for.
    pub fn is_recovered(&self) -> bool {
        *self.recovered.borrow() && self.core.journal.is_ready()
    }

    /// Waits until [`is_recovered`](Self::is_recovered).
    pub async fn recovered(&self) {
        // The sender goes only with the cashier.
        let _ = self.recovered.clone().wait_for(|recovered| *recovered).await;
        while !self.core.journal.is_ready() {
            tokio::time::sleep(TAKEOVER_GLANCE).await;
        }
    }

    /// Claims the payment, has it verified, and reserves it durably for one request.
    ///
    /// `fingerprint` binds it to method, path, query and (as far as known) body. May be dropped at
    /// any time: whatever was claimed or reserved is given back.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has moved except where it says so.
    pub async fn admit(
        &self,
        offer: &OfferName,
        payment: MatchedPayment,
        facilitators: &[url::Url],
        fingerprint: [u8; 32],
    ) -> Result<PaymentPermit, Refusal> {
        self.admit_named(offer, payment, facilitators, fingerprint, None).await
    }

    /// As [`admit`](Self::admit), for a purchase that its payer has named. Another payment of that payer
    /// under the same name is the same purchase when request and terms are the same: it is
    /// refused with what the first one bought, and otherwise with
    /// [`OtherPurchase`](Refusal::OtherPurchase).
    ///
    /// # Errors
    /// [`Refusal`]; nothing has moved except where it says so.
    pub async fn admit_named(
        &self,
        offer: &OfferName,
        payment: MatchedPayment,
        facilitators: &[url::Url],
        fingerprint: [u8; 32],
        id: Option<&PaymentId>,
    ) -> Result<PaymentPermit, Refusal> {
        let started = Instant::now();
        let key = payment.replay_key();
        let admitted = self.core.admit(offer, payment, facilitators, B256::from(fingerprint), id).await;
        let admitted = match admitted {
            Ok(permit) => Ok(permit),
            Err(refusal) => Err(self.core.replay(&key, refusal).await),
        };
        let counters = &self.core.counters;
        counters.admit_took(started.elapsed());
        match &admitted {
            Ok(_) => counters.admitted.add(),
            Err(refusal) => counters.refuse(refusal),
        }
        admitted
    }

    /// What became of a payment that is no longer asked for: its time has passed, or the price has
    /// changed. `None` when it was not charged and never will be, so that another may be signed.
    ///
    /// `keys` are those it may be known under; only the very payload that was admitted then is
    /// told about it.
    pub async fn what_became_of(&self, keys: &[ReplayKey], payload_digest: [u8; 32]) -> Option<Refusal> {
        let told = |known: Known| {
            let fingerprint = known.fingerprint;
            known.refusal(fingerprint).filter(|refusal| !matches!(refusal, Refusal::Invalid { .. }))
        };
        let claimed = keys.iter().map(|key| ClaimKey::Replay(*key)).chain([ClaimKey::Payload(payload_digest)]);
        for claim in claimed {
            match self.core.claims.look(&claim) {
                Some(Some(known)) => return told(known),
                Some(None) => return Some(Refusal::InProgress),
                None => {}
            }
        }
        for key in keys {
            match self.core.journal.read(key).await {
                Err(_) => return Some(Refusal::JournalUnavailable),
                Ok(row) => {
                    let row = row.filter(|row| row.payload.0 == payload_digest);
                    if let Some(refusal) = row.and_then(|row| told(row.known())) {
                        return Some(refusal);
                    }
                }
            }
        }
        None
    }

    /// Waits until every settlement that was begun has an outcome in the journal.
    pub async fn drain(&self) {
        self.core.tasks.close();
        self.core.tasks.wait().await;
        // Every outcome was handed to the journal before its task ended.
        if self.core.journal.flush().await.is_err() {
            tracing::error!("outcomes could not be written; they are asked about again at the next start");
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> CashierStats {
        self.core.counters.snapshot(self.core.doubts.len(), self.core.tasks.len())
    }

    /// How the facilitators seen so far do, by id.
    pub fn facilitators(&self) -> Vec<FacilitatorHealth> {
        self.core.pool.health()
    }

    /// Lets facilitators be known before their first payment, so that what they support is.
    pub fn watch_facilitators(&self, urls: &[url::Url]) {
        for url in urls {
            self.core.pool.remote(url);
        }
    }

    /// As [`watch_facilitators`](Self::watch_facilitators), for those of an offer. The stack's own are asked
    /// only when it must be known who settles `upto`.
    pub fn watch_offer(&self, offer: &Offer) {
        self.watch_facilitators(&offer.facilitators);
        if offer.payments.iter().any(|tag| tag.terms.scheme == Scheme::Upto) {
            self.core.pool.know_own(offer.facilitators.is_empty());
        }
    }

    /// Who settles `upto` payments, as far as it is known now.
    pub fn upto_directory(&self) -> UptoDirectory {
        self.core.pool.upto()
    }

    /// Moves when [`upto_directory`](Self::upto_directory) may have changed.
    pub fn upto_changes(&self) -> watch::Receiver<()> {
        self.core.pool.supported_changes()
    }
}

impl Core {
    async fn admit(
        self: &Arc<Self>,
        offer: &OfferName,
        payment: MatchedPayment,
        facilitators: &[url::Url],
        fingerprint: B256,
        id: Option<&PaymentId>,
    ) -> Result<PaymentPermit, Refusal> {
        let until = tokio::time::Instant::now() + self.hold;
        // Another process may be quicker between the look at the journal and the reservation. A buyer
        // who retries wants what the first try gets, wherever that is, so it is looked once more.
        let mut looks = if self.journal.is_shared() { 3 } else { 1 };
        loop {
            looks -= 1;
            match self.reserve(offer, &payment, facilitators, fingerprint, id, until).await {
                Ok((member, reservation, exposed)) => {
                    return Ok(PaymentPermit::new(Arc::clone(self), payment, member, fingerprint, reservation, exposed));
                }
                Err(Refusal::InProgress) if looks > 0 && tokio::time::Instant::now() < until => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn reserve(
        self: &Arc<Self>,
        offer: &OfferName,
        payment: &MatchedPayment,
        facilitators: &[url::Url],
        fingerprint: B256,
        id: Option<&PaymentId>,
        until: tokio::time::Instant,
    ) -> Result<(Arc<Member>, Reservation, Option<Exposed>), Refusal> {
        let key = payment.replay_key();
        let signed = payment.local_check == LocalCheck::SignedByPayer;
        let taken = |taken: Taken| taken.refusal(fingerprint);

        let first = if signed { ClaimKey::Replay(key) } else { ClaimKey::Payload(payment.payload_digest) };
        let mut claim: Claim = self.claim(first, fingerprint, until).await.map_err(taken)?;
        // A payload that only the facilitator can check says nothing yet about its payer, unless it
        // is the very one that was seen before.
        let is_his = |row: &Row| signed || row.payload.0 == payment.payload_digest;
        let is_same = |row: &Row| is_his(row) && row.fingerprint == fingerprint;
        let seen = self.journal.read_when_done(&key, is_same, until).await.map_err(|_| Refusal::JournalUnavailable)?;
        if let Some(row) = seen
            && is_his(&row)
            && let Some(refusal) = row.known().refusal(fingerprint)
        {
            return Err(refusal);
        }
        if signed {
            self.refuse_in_doubt(payment, fingerprint)?;
            self.refuse_named(&mut claim, payment, fingerprint, id, until).await?;
        }
        let (member, payer) = match self.pool.verify(payment, facilitators).await {
            Err(Refusal::Invalid { reason }) => return Err(self.judge(payment, reason).await),
            verified => verified?,
        };
        if payer != payment.authorization.from {
            return Err(Refusal::Invalid { reason: "payer_mismatch".to_owned() });
        }
        if !signed {
            claim.add(ClaimKey::Replay(key)).map_err(taken)?;
            self.refuse_named(&mut claim, payment, fingerprint, id, until).await?;
        }
        self.refuse_in_doubt(payment, fingerprint)?;
        let limit = (payment.terms.scheme != Scheme::Exact).then(|| self.exposure_limit(payment));
        let exposed = match limit {
            Some(limit) if !self.journal.is_shared() => Some(self.exposures.enter(payment, limit).ok_or(Refusal::Exposed)?),
            _ => None,
        };
        let row = Row::new(offer, member.facilitator.id(), fingerprint, payment).named(id);
        let reservation = self.journal.reserve(key, row, claim, limit).await.map_err(|error| match error {
            WriteError::Conflict(row) if matches!(row.state, State::Reserved | State::Settling) => Refusal::InProgress,
            WriteError::Conflict(row) => taken(Taken::Known(Box::new(row.known()))),
            WriteError::InDoubt { transaction } => Refusal::Unsettled { transaction },
            WriteError::Exposed => Refusal::Exposed,
            WriteError::Unavailable | WriteError::Illegal => Refusal::JournalUnavailable,
        })?;
        Ok((member, reservation, exposed))
    }

    /// The answer again, to whoever may have it and where it was kept.
    async fn replay(&self, key: &ReplayKey, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::AlreadyUsed(receipt) => match self.journal.answer(key).await {
                Some(answer) => Refusal::Answered { receipt, answer: Arc::new(answer) },
                None => Refusal::AlreadyUsed(receipt),
            },
            other => other,
        }
    }

    /// Claims a payment. While it is worked on for the very same request, its end is waited for,
    /// within bounds: a buyer who retries wants what the first try gets.
    pub async fn claim(&self, key: ClaimKey, fingerprint: B256, until: tokio::time::Instant) -> Result<Claim, Taken> {
        self.hold_until(until, || self.claims.claim(key, fingerprint)).await
    }

    /// When a retry that begins now is held no longer.
    pub fn held_until(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.hold
    }

    /// Tries until nobody works on the same for the same request, within bounds.
    async fn hold_until<T>(&self, until: tokio::time::Instant, mut attempt: impl FnMut() -> Result<T, Taken>) -> Result<T, Taken> {
        loop {
            match attempt() {
                Err(Taken::Same(mut over)) => {
                    // Nothing is ever sent: it closes.
                    if tokio::time::timeout_at(until, over.changed()).await.is_err() {
                        return Err(Taken::Same(over));
                    }
                }
                done => return done,
            }
        }
    }

    /// Claims the payer's name for the purchase, and refuses what was bought under it already. The
    /// payer is proven by then: by the signature, or by the facilitator's verdict.
    async fn refuse_named(
        &self,
        claim: &mut Claim,
        payment: &MatchedPayment,
        fingerprint: B256,
        id: Option<&PaymentId>,
        until: tokio::time::Instant,
    ) -> Result<(), Refusal> {
        let Some(id) = id else { return Ok(()) };
        let name = name_of(payment.authorization.from, id.as_str());
        let told = match self.hold_until(until, || claim.add(ClaimKey::Named(name))).await {
            Ok(()) => None,
            // What became of the first one, which the journal is about to know too.
            Err(Taken::Known(known)) => Some(known),
            Err(Taken::Same(_)) => return Err(Refusal::InProgress),
            Err(Taken::Other) => return Err(Refusal::OtherPurchase),
        };
        let unavailable = |_| Refusal::JournalUnavailable;
        let named = self.journal.named(&name).await.map_err(unavailable)?;
        let Some((key, row)) = named.filter(|(key, _)| *key != payment.replay_key()) else { return Ok(()) };
        // Another process may be working on it.
        let row = self.journal.read_when_done(&key, |row| row.fingerprint == fingerprint, until).await.map_err(unavailable)?.unwrap_or(row);
        let known = told.map_or_else(|| row.known(), |known| *known);
        let (terms, ours) = (&payment.terms, payment.replay_key());
        let same_terms = (key.chain_id, key.contract, row.pay_to, row.amount) == (ours.chain_id, ours.contract, terms.pay_to, terms.amount);
        match Answer::of(known.state) {
            Answer::Usable | Answer::Void => Ok(()),
            _ if !same_terms || row.fingerprint != fingerprint => Err(Refusal::OtherPurchase),
            _ => Err(self.replay(&key, known.refusal(fingerprint).unwrap_or(Refusal::InProgress)).await),
        }
    }

    /// What a verdict of "invalid" means for the buyer. An authorization that was used before it
    /// came here may have paid this seller, and then a 402 would ask for the money twice.
    async fn judge(&self, payment: &MatchedPayment, reason: String) -> Refusal {
        let spent = outcome::says_spent(&reason);
        if !spent && !outcome::says_reverts(&reason) {
            return Refusal::Invalid { reason };
        }
        match self.look_before(payment).await {
            Some(ChainFinding::Settled { transaction, .. }) => {
                tracing::warn!(payment = %payment.replay_key(), transaction, "a payment was made before it came here; nothing was served for it");
                Refusal::Spent { transaction: outcome::transaction(&transaction) }
            }
            Some(ChainFinding::UsedElsewhere { .. } | ChainFinding::Unused { is_final: true, .. }) => Refusal::Invalid { reason },
            _ if spent => Refusal::Spent { transaction: None },
            _ => Refusal::Invalid { reason },
        }
    }

    /// While one payment of a payer is unknown for a request, no second one is taken for it.
    fn refuse_in_doubt(&self, payment: &MatchedPayment, fingerprint: B256) -> Result<(), Refusal> {
        match self.doubts.find(payment.authorization.from, fingerprint) {
            Some(transaction) => Err(Refusal::Unsettled { transaction }),
            None => Ok(()),
        }
    }

    /// What one payer may owe for answers that leave before they are settled, in atomic units.
    fn exposure_limit(&self, payment: &MatchedPayment) -> Amount {
        let unit = U256::from(10).checked_pow(U256::from(payment.terms.asset.decimals)).unwrap_or(U256::MAX);
        Amount(unit.saturating_mul(U256::from(self.max_exposure)))
    }

    /// A payment is no longer of unknown outcome: it `pays`, or never will.
    pub fn resolved(&self, key: &ReplayKey, row: &Row, pays: bool) {
        self.doubts.remove(key, row.fingerprint);
        self.exposures.conclude(key, row, pays);
    }

    /// Remembers an unknown outcome, and has the facilitator asked again.
    pub fn doubt(&self, key: ReplayKey, fingerprint: B256, transaction: Option<String>) {
        self.doubts.add(key, fingerprint, transaction);
        // The receiver is gone only when the cashier is.
        let _ = self.ask_again.send(recovery::Case { key, fingerprint, at_once: false });
    }

    /// The same for one that a process left which is gone: it is asked about at once.
    pub fn doubt_of_another(&self, key: ReplayKey, row: &Row) {
        if !self.doubts.has(&key, row.fingerprint) {
            self.doubts.add(key, row.fingerprint, row.transaction.clone());
            let _ = self.ask_again.send(recovery::Case { key, fingerprint: row.fingerprint, at_once: true });
        }
    }
}
