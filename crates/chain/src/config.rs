//! How the facilitator in the process works.

use std::time::Duration;

/// How a [`SelfFacilitator`](crate::SelfFacilitator) works. The default fits chains with blocks of
/// a few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleConfig {
    /// How long `settle` waits for the chain before it answers `Pending`. Work on the transaction
    /// goes on after that. Keep it below the cashier's `settle_timeout`.
    pub patience: Duration,
    /// A transaction that is in no block after this is sent again, for a quarter more.
    pub bump_after: Duration,
    /// First wait between two looks at a transaction; it grows to `poll_longest`.
    pub poll_first: Duration,
    /// Longest wait between two looks.
    pub poll_longest: Duration,
    /// Most paid per unit of gas, in wei: what a lying node or a mad market can cost.
    pub max_fee_per_gas: u128,
    /// Most gas for one settlement, a quarter above the estimate included. An ordinary one takes 60,000 to
    /// 90,000, one that deploys the payer's wallet several times as much.
    pub max_gas: u64,
    /// Most settlements at once; more are not begun.
    pub max_jobs: usize,
}

impl Default for SettleConfig {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(45),
            bump_after: Duration::from_secs(12),
            poll_first: Duration::from_millis(250),
            poll_longest: Duration::from_secs(1),
            max_fee_per_gas: 500_000_000_000,
            max_gas: 1_000_000,
            max_jobs: 512,
        }
    }
}
