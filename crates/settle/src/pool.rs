//! All facilitators, shared by all offers: preference, health, and who verifies.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use obol_offer::{Address, Network, networks};
use obol_x402::{MatchedPayment, UptoDirectory, UptoFacilitators};
use url::Url;

use crate::{
    Facilitator, Refusal, Secret, SettleOutcome, VerifyOutcome,
    breaker::Breaker,
    http::{HttpFacilitator, id_of},
    outcome::{examine, tidy},
    supported::{Kinds, Supported},
};

/// The runtime's clock, which a test may hold.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// One facilitator with its health.
pub(crate) struct Member {
    pub facilitator: Arc<dyn Facilitator>,
    breaker: Mutex<Breaker>,
    /// Its last answer to `/supported`, perhaps from an earlier run.
    pub kinds: Mutex<Option<Kinds>>,
}

/// How a facilitator does, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacilitatorHealth {
    /// Base URL, or the name of one inside this process.
    pub id: String,
    /// Whether it is asked freely: its circuit breaker is closed.
    pub healthy: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Kinds of payment of its last `/supported`; `None` when that was never seen.
    pub kinds: Option<usize>,
}

impl Member {
    fn new(facilitator: Arc<dyn Facilitator>) -> Arc<Self> {
        Arc::new(Self { facilitator, breaker: Mutex::default(), kinds: Mutex::default() })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks it to settle, bounded, and believes only what fits. The breaker is told, never asked:
    /// who verified is who settles.
    pub async fn settle(&self, payment: &MatchedPayment, bound: Duration) -> SettleOutcome {
        let asked = tokio::time::timeout(bound, self.facilitator.settle(payment)).await;
        let outcome = asked.unwrap_or_else(|_| SettleOutcome::Unknown { cause: "no answer in time".to_owned(), transaction: None });
        let outcome = examine(outcome, payment);
        match &outcome {
            SettleOutcome::NotAsked { .. } | SettleOutcome::Unknown { transaction: None, .. } => self.breaker().failed(now()),
            _ => self.breaker().succeeded(),
        }
        outcome
    }

    /// Who settles `upto` payments for it on a network.
    fn upto(&self, network: &Network) -> Option<Address> {
        let said = || self.kinds.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|kinds| kinds.upto(network));
        self.facilitator.upto(network).or_else(said)
    }

    fn upto_everywhere(&self) -> UptoFacilitators {
        let mut all = UptoFacilitators::default();
        for network in networks() {
            self.upto(network).into_iter().for_each(|address| all.add(network, address));
        }
        all
    }

    /// 1 when it is known not to take this kind of payment.
    fn rank(&self, payment: &MatchedPayment) -> u8 {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.as_ref().map(|kinds| kinds.takes(payment)) {
            Some(true) | None => 0,
            Some(false) => 1,
        }
    }
}

/// A request under way through a breaker; dropped without an outcome it counts as none.
struct Pass<'a>(Option<&'a Member>);

impl Pass<'_> {
    fn close(mut self, answered: bool) {
        if let Some(member) = self.0.take() {
            if answered { member.breaker().succeeded() } else { member.breaker().failed(now()) }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(member) = self.0 {
            member.breaker().abandoned();
        }
    }
}

/// All facilitators.
pub(crate) struct Pool {
    local: Vec<(&'static str, Arc<Member>)>,
    own: Vec<(&'static str, Url)>,
    defaults: Vec<Url>,
    credentials: Vec<(String, Secret)>,
    remote: RwLock<HashMap<String, Arc<Member>>>,
    client: reqwest::Client,
    verify_timeout: Duration,
    supported: Arc<Supported>,
}

impl Pool {
    pub fn new(config: crate::CashierConfig, client: reqwest::Client, supported: Arc<Supported>) -> Self {
        // The defaults are asked nothing until a payment needs them: a stack that sells for play
        // money, or names its own facilitators, tells them nothing.
        Self {
            local: config.local.into_iter().map(|(network, facilitator)| (network, Member::new(facilitator))).collect(),
            own: config.own,
            defaults: config.default_facilitators,
            credentials: config.credentials.iter().map(|(url, secret)| (id_of(url), secret.clone())).collect(),
            remote: RwLock::default(),
            client,
            verify_timeout: config.verify_timeout,
            supported,
        }
    }

    /// The facilitator behind a base URL; made when first seen.
    pub fn remote(&self, base: &Url) -> Arc<Member> {
        let text = base.as_str().trim_end_matches('/');
        if let Some(member) = self.remote.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Arc::clone(member);
        }
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        let member = remote.entry(text.to_owned()).or_insert_with(|| {
            let id = id_of(base);
            let secret = self.credentials.iter().find(|(known, _)| *known == id).map(|(_, secret)| secret);
            let http = Arc::new(HttpFacilitator::new(base, secret, self.client.clone()));
            let member = Member::new(Arc::<HttpFacilitator>::clone(&http));
            self.supported.watch(&member, http);
            member
        });
        Arc::clone(member)
    }

    /// The facilitator that a row of the journal names.
    pub fn find(&self, id: &str) -> Option<Arc<Member>> {
        if let Some((_, member)) = self.local.iter().find(|(_, member)| member.facilitator.id() == id) {
            return Some(Arc::clone(member));
        }
        let known = self.remote.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = known.values().find(|member| member.facilitator.id() == id) {
            return Some(Arc::clone(member));
        }
        drop(known);
        id.parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https")).map(|url| self.remote(&url))
    }

    /// Whom to ask about a payment, in order. The sandbox's payments never leave the process that
    /// has a sandbox.
    fn candidates(&self, payment: &MatchedPayment, urls: &[Url]) -> Vec<Arc<Member>> {
        let network = payment.terms.network;
        let mut list: Vec<_> = self.local.iter().filter(|(name, _)| *name == network.name).map(|(_, member)| Arc::clone(member)).collect();
        if list.is_empty() || !network.is_sandbox() {
            list.extend(self.own.iter().filter(|(name, _)| *name == network.name).map(|(_, url)| self.remote(url)));
            let urls = if urls.is_empty() { &self.defaults } else { urls };
            list.extend(urls.iter().map(|url| self.remote(url)));
        }
        if let Some(named) = payment.authorization.kind.facilitator() {
            // The payer signed for this one alone.
            list.retain(|member| member.upto(network) == Some(named));
        }
        list.sort_by_key(|member| (member.rank(payment), !member.breaker().is_closed()));
        list
    }

    /// Has a payment verified by the first that gives an answer.
    pub async fn verify(&self, payment: &MatchedPayment, urls: &[Url]) -> Result<(Arc<Member>, Address), Refusal> {
        for member in self.candidates(payment, urls) {
            if !member.breaker().enter(now()) {
                continue;
            }
            let pass = Pass(Some(&member));
            let answer = tokio::time::timeout(self.verify_timeout, member.facilitator.verify(payment)).await;
            let answer = answer.unwrap_or_else(|_| VerifyOutcome::Unavailable { cause: "no answer in time".to_owned() });
            pass.close(!matches!(answer, VerifyOutcome::Unavailable { .. }));
            match answer {
                VerifyOutcome::Valid { payer } => return Ok((member, payer)),
                VerifyOutcome::Invalid { reason } => return Err(Refusal::Invalid { reason: tidy(&reason) }),
                VerifyOutcome::Unavailable { cause } => {
                    tracing::warn!(facilitator = member.facilitator.id(), cause, "no usable answer to verify");
                }
            }
        }
        Err(Refusal::FacilitatorUnavailable)
    }

    /// Who settles `upto` payments, as far as it is known now.
    pub fn upto(&self) -> UptoDirectory {
        let mut local = UptoFacilitators::default();
        let here = self.local.iter().map(|(name, member)| (name, Arc::clone(member)));
        for (name, member) in here.chain(self.own.iter().map(|(name, url)| (name, self.remote(url)))) {
            let Some(network) = Network::find(name) else { continue };
            member.upto(network).into_iter().for_each(|address| local.add(network, address));
        }
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        let known = self.remote.read().unwrap_or_else(PoisonError::into_inner);
        UptoDirectory {
            local,
            defaults: self.defaults.iter().map(|url| bare(url.as_str())).collect(),
            remote: known.iter().map(|(url, member)| (url.clone(), member.upto_everywhere())).collect(),
        }
    }

    /// Lets the stack's own facilitators be known before a payment needs them; with `defaults`, those of offers
    /// that name none, too.
    pub fn know_own(&self, defaults: bool) {
        let defaults = self.defaults.iter().filter(|_| defaults);
        self.own.iter().map(|(_, url)| url).chain(defaults).for_each(|url| drop(self.remote(url)));
    }

    /// Moves when [`upto`](Self::upto) may have changed.
    pub fn supported_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.supported.changes()
    }

    pub fn health(&self) -> Vec<FacilitatorHealth> {
        let remote = self.remote.read().unwrap_or_else(PoisonError::into_inner);
        let members = self.local.iter().map(|(_, member)| member).chain(remote.values());
        let mut list: Vec<_> = members
            .map(|member| {
                let (healthy, failures) = {
                    let breaker = member.breaker();
                    (breaker.is_closed(), breaker.failures())
                };
                let kinds = member.kinds.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Kinds::len);
                FacilitatorHealth { id: member.facilitator.id().to_owned(), healthy, failures, kinds }
            })
            .collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }
}
