//! A facilitator inside the process: it verifies with the chain's own execution, and settles with
//! a key that pays for gas only. Nobody stands between buyer and seller.
//!
//! Which payers are served: whoever the token itself accepts. An account with a key is checked
//! here first; a deployed smart wallet (ERC-1271) is asked by the token, in the simulated call. A
//! wallet that is not deployed yet (ERC-6492) is refused, as the token refuses it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use futures_util::future::BoxFuture;
use obol_offer::{Address, TransferMethod};
use obol_settle::{Facilitator, SettleOutcome, VerifyOutcome};
use obol_x402::{LocalCheck, MatchedPayment};
use tokio::{sync::watch, time::Instant};

use crate::{
    account::Account,
    config::SettleConfig,
    job::{self, Progress},
    key::SigningKey,
    reads::Chain,
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
        let token = payment.terms.asset.address;
        let call = transfer_call(payment);
        let (us, chain) = (self.account.address(), &self.chain);
        let state = async {
            let head = chain.head().await?;
            chain.authorization_state(token, signed.from, signed.nonce, head.number()).await
        };
        let executed = chain.simulate::<Bytes>("eth_call", us, token, &call);
        let (used, executed, balance, gas) = tokio::join!(state, executed, chain.balance(token, signed.from), chain.gas_money(us));
        let invalid = |reason: &str| VerifyOutcome::Invalid { reason: reason.to_owned() };
        match (used, balance, gas, executed) {
            (Ok(true), ..) => invalid("invalid_exact_evm_nonce_already_used"),
            (_, Ok(balance), ..) if balance < signed.value.0 => invalid("insufficient_funds"),
            (_, _, Ok(gas), _) if gas == U256::ZERO => {
                VerifyOutcome::Unavailable { cause: format!("the facilitator's account {us} has nothing to pay for gas") }
            }
            (Ok(_), Ok(_), Ok(_), Ok(_)) => VerifyOutcome::Valid { payer: signed.from },
            (_, _, _, Err(error)) if error.revert().is_some() => invalid(&x402_reason(&error.revert().unwrap_or_default())),
            (Err(error), ..) | (_, Err(error), ..) | (_, _, Err(error), _) | (.., Err(error)) => {
                VerifyOutcome::Unavailable { cause: error.to_string() }
            }
        }
    }

    /// What needs no node. The gateway has matched the payment already; money is worth looking twice.
    pub fn check(&self, payment: &MatchedPayment) -> Result<(), &'static str> {
        let (terms, signed) = (&payment.terms, &payment.authorization);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // ERC-6492 wraps such a signature and ends it with 0x6492, sixteen times.
        let undeployed = signed.signature.last_chunk::<32>().is_some_and(|end| end.chunks(2).all(|pair| pair == [0x64, 0x92]));
        match () {
            () if terms.network.chain_id != self.chain.network().chain_id => Err("invalid_network"),
            () if terms.asset.transfer_method != TransferMethod::Eip3009 => Err("unsupported_scheme"),
            () if signed.to != terms.pay_to => Err("invalid_exact_evm_payload_recipient_mismatch"),
            () if signed.value != terms.amount => Err("invalid_exact_evm_payload_authorization_value_mismatch"),
            () if signed.valid_before <= now.saturating_add(MIN_VALIDITY_LEFT) => {
                Err("invalid_exact_evm_payload_authorization_valid_before")
            }
            () if undeployed => Err("undeployed_smart_wallet"),
            () => Ok(()),
        }
    }
}

/// What work is shared by: the very same call under the same terms, not only the same nonce.
fn job_key(payment: &MatchedPayment) -> B256 {
    let terms = &payment.terms;
    let parts = [terms.asset.address.as_slice(), terms.pay_to.as_slice(), &terms.amount.0.to_be_bytes::<32>(), &transfer_call(payment)];
    keccak256(parts.concat())
}

/// The call that moves the money. Every ERC-3009 token has the overload for `v, r, s`; contracts as
/// payers need the one for bytes.
pub(crate) fn transfer_call(payment: &MatchedPayment) -> Vec<u8> {
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
    let signature = signed.signature.clone().into();
    BytesTransfer { from, to, value, validAfter: after, validBefore: before, nonce, signature }.abi_encode()
}

/// A token's words as the reasons that x402 facilitators give.
pub(crate) fn x402_reason(revert: &str) -> String {
    let words = revert.to_ascii_lowercase();
    let has = |part: &str| words.contains(part);
    let reason = match () {
        () if has("used or canceled") || has("authorization is used") => "invalid_exact_evm_nonce_already_used",
        () if has("not yet valid") => "invalid_exact_evm_payload_authorization_valid_after",
        () if has("expired") => "invalid_exact_evm_payload_authorization_valid_before",
        () if has("exceeds balance") => "insufficient_funds",
        () if has("signature") || has("ecrecover") => "invalid_exact_evm_payload_signature",
        () => "invalid_transaction_state",
    };
    reason.to_owned()
}
