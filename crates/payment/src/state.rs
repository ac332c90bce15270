//! Where a payment can be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where one payment stands. Every state is a durable row; there is no hidden one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Verified and bound to one request; the upstream may be called. No money was asked for.
    Reserved,
    /// The facilitator is about to be asked, or is being asked, to move the money.
    Settling,
    /// The facilitator sent a transaction and has not seen it confirmed (`settlement_pending`).
    Pending,
    /// Nobody knows whether money moved.
    Unknown,
    /// Money moved; the answer is on its way to the buyer.
    Settled,
    /// Money moved and the whole answer was handed to the buyer's connection.
    Delivered,
    /// Money moved and the answer did not reach the buyer.
    Owed,
    /// Money moved, the answer got lost, and the request is being run once more for nothing.
    Rerunning,
    /// Money moved, and the answer of the second run got lost too. Only a refund is left.
    Lost,
    /// Money moved, and the seller says that it was sent back.
    Refunded,
    /// Given back unused: the facilitator was not asked.
    Released,
    /// The facilitator refused cleanly: nothing moved.
    Refused,
    /// Closed as unpaid: a finalised chain read shows that it was not made, and can never be.
    Expired,
}

impl State {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::Reserved,
        Self::Settling,
        Self::Pending,
        Self::Unknown,
        Self::Settled,
        Self::Delivered,
        Self::Owed,
        Self::Rerunning,
        Self::Lost,
        Self::Refunded,
        Self::Released,
        Self::Refused,
        Self::Expired,
    ];

    /// Stable identifier, as journalled.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Settling => "settling",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Settled => "settled",
            Self::Delivered => "delivered",
            Self::Owed => "owed",
            Self::Rerunning => "rerunning",
            Self::Lost => "lost",
            Self::Refunded => "refunded",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }

    /// One sentence for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Reserved => "Verified and bound to one request; the upstream may be called. No money was asked for.",
            Self::Settling => "The facilitator is about to be asked, or is being asked, to move the money.",
            Self::Pending => "The facilitator sent a transaction and has not seen it confirmed.",
            Self::Unknown => "Nobody knows whether money moved. The facilitator is asked again.",
            Self::Settled => "Money moved; the answer is on its way to the buyer.",
            Self::Delivered => "Money moved and the whole answer was handed to the buyer's connection.",
            Self::Owed => "Money moved and the answer did not reach the buyer.",
            Self::Rerunning => "Money moved, the answer got lost, and the request is being run once more for nothing.",
            Self::Lost => "Money moved, and the answer of the second run got lost too. Only a refund is left.",
            Self::Refunded => "Money moved, and the seller says that it was sent back.",
            Self::Released => "Given back unused: the facilitator was not asked.",
            Self::Refused => "The facilitator refused cleanly: nothing moved.",
            Self::Expired => "Closed as unpaid: the chain shows that it was not made, and can never be.",
        }
    }

    /// Whether nothing can follow.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Delivered | Self::Refunded | Self::Expired)
    }

    /// Whether it is certain that money moved.
    pub const fn is_paid(self) -> bool {
        matches!(self, Self::Settled | Self::Delivered | Self::Refunded | Self::Rerunning) || self.is_owed()
    }

    /// Whether a buyer has paid for nothing, and nothing is under way.
    pub const fn is_owed(self) -> bool {
        matches!(self, Self::Owed | Self::Lost)
    }

    /// Whether money may or may not have moved. Never answered with a 402.
    pub const fn is_unsettled(self) -> bool {
        matches!(self, Self::Settling | Self::Pending | Self::Unknown)
    }

    /// Whether work on it goes on, or is to be resumed after a restart.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Reserved | Self::Settled | Self::Rerunning) || self.is_unsettled()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
