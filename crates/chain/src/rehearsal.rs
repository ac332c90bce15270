//! A settlement tried out on the newest block, as it will be sent: whether it goes through, what it takes, and
//! why not, in the words of x402 facilitators. Verify and settle both ask this.

use alloy_primitives::{Bytes, U64, U256};
use alloy_sol_types::decode_revert_reason;
use obol_offer::Address;
use obol_x402::{Authorization, MatchedPayment, signing};

use crate::{
    erc6492::{MULTICALL3, Parts, Wrapped},
    error::RpcError,
    facilitator::{Shared, transfer_call},
    permit2,
};

/// Why a settlement is refused that would take more gas than the configuration allows.
const GAS_ABOVE_BOUND: &str = "gas_above_bound";
/// Words of nodes for a call that does not end within the gas that it was given.
const OUT_OF_GAS: &[&str] = &["out of gas", "outofgas", "gas required exceeds"];

/// A settlement that would succeed on the newest block.
pub(crate) struct Rehearsed {
    pub to: Address,
    pub data: Bytes,
    /// What it may take.
    pub gas: u64,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// The contracts refuse it; a reason that x402 facilitators give.
    Refused(String),
    /// No node tells.
    Node(RpcError),
}

impl Obstacle {
    fn refused(reason: &str) -> Self {
        Self::Refused(reason.to_owned())
    }
}

impl From<RpcError> for Obstacle {
    fn from(error: RpcError) -> Self {
        match error.revert() {
            Some(words) => Self::Refused(contracts_reason(error.revert_data(), &words)),
            None if error.says(OUT_OF_GAS) => Self::refused(GAS_ABOVE_BOUND),
            None => Self::Node(error),
        }
    }
}

impl Shared {
    /// Executes the settlement of `amount` on the newest block, without its effects.
    pub async fn rehearse(&self, payment: &MatchedPayment, amount: U256) -> Result<Rehearsed, Obstacle> {
        let most = self.config.max_gas;
        let (target, call) = transfer_call(payment, amount);
        let wallet = self.undeployed(payment).await?;
        let (to, data) = match &wallet {
            Some(wallet) => (MULTICALL3, wallet.deploying(target, &call)),
            None => (target, call.clone()),
        };
        let (us, chain) = (self.account.address(), &self.chain);
        let error = match chain.simulate::<U64>("eth_estimateGas", us, to, &data, most).await {
            Ok(gas) => {
                let gas = gas.to::<u64>();
                let gas = gas.saturating_add(gas / 4);
                return if gas > most { Err(Obstacle::refused(GAS_ABOVE_BOUND)) } else { Ok(Rehearsed { to, data: data.into(), gas }) };
            }
            Err(error) => error,
        };
        // Multicall3 keeps the contracts' words to itself.
        let (Some(wallet), Some(words)) = (wallet, error.revert()) else { return Err(error.into()) };
        let returned: Bytes = chain.simulate("eth_call", us, MULTICALL3, &wallet.in_parts(target, &call), most).await?;
        Err(match Parts::read(&returned) {
            Some(Parts::NoWallet) => Obstacle::refused("smart_wallet_deployment_failed"),
            Some(Parts::NoTransfer(data)) => {
                Obstacle::Refused(contracts_reason(Some(&data), &decode_revert_reason(&data).unwrap_or_default()))
            }
            Some(Parts::Done) | None => Obstacle::Refused(contracts_reason(None, &words)),
        })
    }

    /// Whose wallet has to be deployed first, if the payer is such a wallet. An account whose key has signed
    /// needs nobody deployed, whatever it wraps its signature in; nor does Permit2, which a wallet has to
    /// have approved.
    async fn undeployed(&self, payment: &MatchedPayment) -> Result<Option<Wrapped>, Obstacle> {
        let signed = &payment.authorization;
        let Ok(Some(wrapped)) = Wrapped::read(&signed.signature) else { return Ok(None) };
        let plain = Authorization { signature: wrapped.signature.to_vec(), ..signed.clone() };
        if signed.kind.is_permit2() || signing::recover(&payment.terms, &plain) == Some(signed.from) {
            return Ok(None);
        }
        let (wallet, multicall) = tokio::join!(self.chain.has_code(signed.from), self.chain.has_code(MULTICALL3));
        match (wallet?, multicall?) {
            (true, _) => Ok(None),
            (false, true) => Ok(Some(wrapped)),
            (false, false) => Err(Obstacle::refused("invalid_exact_evm_payload_undeployed_smart_wallet")),
        }
    }
}

/// What a contract returned when it reverted, and its words, as a reason that x402 facilitators give.
fn contracts_reason(data: Option<&[u8]>, words: &str) -> String {
    data.and_then(permit2::refusal).map_or_else(|| x402_reason(words), str::to_owned)
}

/// A token's words as the reasons that x402 facilitators give.
fn x402_reason(revert: &str) -> String {
    let words = revert.to_ascii_lowercase();
    let has = |part: &str| words.contains(part);
    let reason = match () {
        () if has("used or canceled") || has("authorization is used") => "invalid_exact_evm_nonce_already_used",
        () if has("not yet valid") => "invalid_exact_evm_payload_authorization_valid_after",
        () if has("expired") => "invalid_exact_evm_payload_authorization_valid_before",
        () if has("exceeds balance") => "insufficient_funds",
        () if has("exceeds allowance") => "permit2_allowance_required",
        () if has("transfer_from_failed") => "permit2_simulation_failed",
        () if has("signature") || has("ecrecover") => "invalid_exact_evm_payload_signature",
        () => "invalid_transaction_state",
    };
    reason.to_owned()
}
