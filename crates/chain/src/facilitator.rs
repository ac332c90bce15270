//! A facilitator inside the process: it verifies with the chain's own execution, and settles with
//! a key that pays for gas only. Nobody stands between buyer and seller.
//!
//! Which payers are served: whoever the token itself accepts. An account with a key is checked
//! here first; a deployed smart wallet (ERC-1271) is asked by the token, in the simulated call. A
//! wallet that is not deployed yet (ERC-6492) is deployed by the transaction that takes its money. Payments
//! by Permit2 go through x402's proxies; a payer's allowance for Permit2 must be there.
//!
//! What is simulated is what is sent, in verify and in settle, so that both say the same.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{B256, U256, keccak256};
use alloy_sol_types::SolCall;
use futures_util::future::BoxFuture;
use obol_offer::{Address, Network};
use obol_settle::{Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::{AuthorizationKind, LocalCheck, MatchedPayment, permit2::PERMIT2};
use tokio::{sync::watch, time::Instant};

use crate::{
    account::Account,
    config::SettleConfig,
    erc6492::{self, Malformed, Wrapped},
    error::RpcError,
    job::{self, Progress},
    key::SigningKey,
    permit2,
    proof::Expected,
    reads::Chain,
    rehearsal::Obstacle,
    token::Token::{transferWithAuthorization_0Call as BytesTransfer, transferWithAuthorization_1Call as SplitTransfer},
};

/// Seconds of validity that a settlement needs at least.
const MIN_VALIDITY_LEFT: u64 = 6;

/// Verifies and settles on one chain.
pub struct SelfFacilitator {
    id: String,
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub chain: Arc<Chain>,
    pub account: Account,
    pub config: SettleConfig,
    jobs: Mutex<HashMap<B256, watch::Receiver<Progress>>>,
    /// Transaction numbers in use by jobs of this process.
    pub numbers: Mutex<std::collections::BTreeSet<u64>>,
}

impl SelfFacilitator {
    /// A facilitator with the id `self:<network>`.
    pub fn new(chain: Arc<Chain>, key: SigningKey, config: SettleConfig) -> Self {
        let id = format!("self:{}", chain.network().name);
        let account = Account::new(key, config.max_fee_per_gas);
        Self { id, shared: Arc::new(Shared { chain, account, config, jobs: Mutex::default(), numbers: Mutex::default() }) }
    }

    /// The account that pays for gas.
    pub fn address(&self) -> Address {
        self.shared.account.address()
    }

    /// Which chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.shared.chain
    }
}

impl Facilitator for SelfFacilitator {
    fn id(&self) -> &str {
        &self.id
    }

    /// It sends every settlement itself.
    fn upto(&self, network: &Network) -> Option<Address> {
        (network.chain_id == self.shared.chain.network().chain_id).then(|| self.address())
    }

    fn verify<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, VerifyOutcome> {
        Box::pin(self.shared.verify(payment))
    }

    fn settle<'a>(&'a self, payment: &'a MatchedPayment) -> BoxFuture<'a, SettleOutcome> {
        Box::pin(self.settle_once(payment))
    }
}

impl SelfFacilitator {
    /// Joins the work on this payment, or begins it. The work is a task of its own: it goes on
    /// when nobody waits for it any more.
    async fn settle_once(&self, payment: &MatchedPayment) -> SettleOutcome {
        let key = job_key(payment);
        let Some(mut progress) = self.join(key, payment) else {
            return SettleOutcome::NotAsked { cause: "too many settlements at once".to_owned() };
        };
        let deadline = Instant::now() + self.shared.config.patience;
        loop {
            let known = progress.borrow_and_update().clone();
            if let Progress::Done(outcome) = known {
                return outcome;
            }
            let transaction = if let Progress::Sent(hash) = known { Some(hash.to_string()) } else { None };
            match (tokio::time::timeout_at(deadline, progress.changed()).await, transaction) {
                (Ok(Ok(())), _) => {}
                (Ok(Err(_)), transaction) => {
                    return SettleOutcome::Unknown { cause: "the settlement was cut short".to_owned(), transaction };
                }
                (Err(_), Some(transaction)) => return SettleOutcome::Pending { transaction },
                (Err(_), None) => return SettleOutcome::Unknown { cause: "the nodes are slow".to_owned(), transaction: None },
            }
        }
    }

    fn join(&self, key: B256, payment: &MatchedPayment) -> Option<watch::Receiver<Progress>> {
        let mut jobs = self.shared.jobs();
        if let Some(progress) = jobs.get(&key) {
            return Some(progress.clone());
        }
        if jobs.len() >= self.shared.config.max_jobs {
            return None;
        }
        let (tell, progress) = watch::channel(Progress::Begun);
        jobs.insert(key, progress.clone());
        let leave = Leave { shared: Arc::clone(&self.shared), key };
        let payment = payment.clone();
        tokio::spawn(async move {
            let outcome = job::run(&leave.shared, &payment, &tell).await;
            // Whoever comes after this asks the chain.
            drop(leave);
            tell.send_replace(Progress::Done(outcome));
        });
        Some(progress)
    }
}

/// Takes a job off the list, even one that panicked.
struct Leave {
    shared: Arc<Shared>,
    key: B256,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.jobs().remove(&self.key);
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, HashMap<B256, watch::Receiver<Progress>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verify(&self, payment: &MatchedPayment) -> VerifyOutcome {
        if let Err(reason) = self.check(payment) {
            return VerifyOutcome::Invalid { reason: reason.to_owned() };
        }
        let signed = &payment.authorization;
        let (token, expected) = (payment.terms.asset.address, Expected::from(payment));
        let (us, chain) = (self.account.address(), &self.chain);
        let state = async {
            let head = chain.head().await?;
            chain.is_used(&expected, head.number()).await
        };
        // All that may be moved, not only what is used in the end.
        let rehearsed = self.rehearse(payment, signed.value.0);
        let (used, rehearsed, balance, gas, permit2) =
            tokio::join!(state, rehearsed, chain.balance(token, signed.from), chain.gas_money(us), self.permit2(payment));
        let invalid = |reason: &str| VerifyOutcome::Invalid { reason: reason.to_owned() };
        let spent = if signed.kind.is_permit2() { "permit2_invalid_nonce" } else { "invalid_exact_evm_nonce_already_used" };
        match (permit2, used, balance, gas, rehearsed) {
            (Ok(Some(reason)), ..) => invalid(reason),
            (_, Ok(true), ..) => invalid(spent),
            (_, _, Ok(balance), ..) if balance < signed.value.0 => invalid("insufficient_funds"),
            (_, _, _, Ok(gas), _) if gas == U256::ZERO => {
                VerifyOutcome::Unavailable { cause: format!("the facilitator's account {us} has nothing to pay for gas") }
            }
            (Ok(None), Ok(_), Ok(_), Ok(_), Ok(_)) => VerifyOutcome::Valid { payer: signed.from },
            (.., Err(Obstacle::Refused(reason))) => VerifyOutcome::Invalid { reason },
            (Err(error), ..) | (_, Err(error), ..) | (_, _, Err(error), ..) | (.., Err(error), _) | (.., Err(Obstacle::Node(error))) => {
                VerifyOutcome::Unavailable { cause: error.to_string() }
            }
        }
    }

    /// What stands in the way of a settlement by Permit2. A call of an address without a contract reverts
    /// nothing, so that is looked at.
    pub async fn permit2(&self, payment: &MatchedPayment) -> Result<Option<&'static str>, RpcError> {
        let signed = &payment.authorization;
        let Some(proxy) = signed.kind.spender() else { return Ok(None) };
        let chain = &self.chain;
        let allowance = chain.permit2_allowance(payment.terms.asset.address, signed.from);
        let (proxy, permit2, allowance) = tokio::join!(chain.has_code(proxy), chain.has_code(PERMIT2), allowance);
        Ok(match () {
            () if !(proxy? && permit2?) => Some("permit2_proxy_not_deployed"),
            () if allowance? < signed.value.0 => Some("permit2_allowance_required"),
            () => None,
        })
    }

    /// What needs no node. The gateway has matched the payment already; money is worth looking twice.
    pub fn check(&self, payment: &MatchedPayment) -> Result<(), &'static str> {
        let (terms, signed) = (&payment.terms, &payment.authorization);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let malformed = Wrapped::read(&signed.signature) == Err(Malformed);
        let permit2 = signed.kind.is_permit2();
        let named = signed.kind.facilitator();
        match () {
            () if terms.network.chain_id != self.chain.network().chain_id => Err("invalid_network"),
            () if Some(signed.kind) != AuthorizationKind::of(terms, named) => Err("unsupported_scheme"),
            () if named.is_some_and(|facilitator| facilitator != self.account.address()) => Err("upto_facilitator_mismatch"),
            () if signed.to != terms.pay_to && permit2 => Err("invalid_permit2_recipient_mismatch"),
            () if signed.to != terms.pay_to => Err("invalid_exact_evm_payload_recipient_mismatch"),
            () if signed.value != terms.amount && permit2 => Err("permit2_amount_mismatch"),
            () if signed.value != terms.amount => Err("invalid_exact_evm_payload_authorization_value_mismatch"),
            () if payment.charge > signed.value => Err("invalid_upto_evm_payload_settlement_exceeds_amount"),
            () if payment.charge != signed.value && named.is_none() => Err("invalid_payment_requirements"),
            () if signed.valid_before <= now.saturating_add(MIN_VALIDITY_LEFT) && permit2 => Err("permit2_deadline_expired"),
            () if signed.valid_before <= now.saturating_add(MIN_VALIDITY_LEFT) => {
                Err("invalid_exact_evm_payload_authorization_valid_before")
            }
            () if malformed && permit2 => Err("invalid_permit2_signature"),
            () if malformed => Err("invalid_exact_evm_payload_signature"),
            () => Ok(()),
        }
    }
}

/// What work is shared by: the very same call under the same terms, not only the same nonce.
fn job_key(payment: &MatchedPayment) -> B256 {
    let terms = &payment.terms;
    let (_, call) = transfer_call(payment, payment.charge.0);
    let amount = terms.amount.0.to_be_bytes::<32>();
    let signature = &payment.authorization.signature;
    keccak256([terms.asset.address.as_slice(), terms.pay_to.as_slice(), &amount, &call, signature].concat())
}

/// The call that moves `amount`, and whom it calls. Every ERC-3009 token has the overload for `v, r, s`;
/// contracts as payers need the one for bytes. Those move all that was signed.
pub(crate) fn transfer_call(payment: &MatchedPayment, amount: U256) -> (Address, Vec<u8>) {
    permit2::settle_call(payment, amount).unwrap_or_else(|| (payment.terms.asset.address, token_call(payment)))
}

fn token_call(payment: &MatchedPayment) -> Vec<u8> {
    let signed = &payment.authorization;
    let (after, before) = (U256::from(signed.valid_after), U256::from(signed.valid_before));
    let (from, to, value, nonce) = (signed.from, signed.to, signed.value.0, signed.nonce);
    if let (LocalCheck::SignedByPayer, [rs @ .., v]) = (payment.local_check, signed.signature.as_slice())
        && rs.len() == 64
    {
        let (r, s) = rs.split_at(32);
        let (r, s) = (B256::from_slice(r), B256::from_slice(s));
        return SplitTransfer { from, to, value, validAfter: after, validBefore: before, nonce, v: *v, r, s }.abi_encode();
    }
    let signature = erc6492::inner(&signed.signature).into_owned().into();
    BytesTransfer { from, to, value, validAfter: after, validBefore: before, nonce, signature }.abi_encode()
}
