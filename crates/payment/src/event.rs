//! What can happen to a payment.

use std::fmt;

/// What happened to one payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A facilitator would settle it, and a request was bound to it.
    Admitted,
    /// The upstream failed, or the buyer left before the money was asked for.
    GivenBack,
    /// The upstream answered, and the money is to be taken.
    CaptureBegun,
    /// The facilitator says that money moved.
    SettleSettled,
    /// The facilitator refuses, and names no transaction.
    SettleRefused,
    /// The request to settle never left, or was turned away unread.
    SettleNotAsked,
    /// The facilitator names a transaction that is not confirmed.
    SettlePending,
    /// Time-out, garbage, or a contradiction.
    SettleUnknown,
    /// The whole answer was handed to the buyer's connection.
    Delivered,
    /// The buyer left before the whole answer was out.
    DeliveryFailed,
    /// The buyer came again, and the offer runs a lost request once more.
    RerunBegun,
    /// The seller says that the money was sent back.
    Refunded,
    /// The process that worked on it is gone.
    Restarted,
    /// `validBefore` has passed, and a finalised chain read shows the authorization unused.
    FoundUnused,
    /// A finalised chain read shows the nonce cancelled, or used for another transfer.
    FoundSpent,
}

impl Event {
    /// Every event, in the order of the documentation.
    pub const ALL: [Self; 15] = [
        Self::Admitted,
        Self::GivenBack,
        Self::CaptureBegun,
        Self::SettleSettled,
        Self::SettleRefused,
        Self::SettleNotAsked,
        Self::SettlePending,
        Self::SettleUnknown,
        Self::Delivered,
        Self::DeliveryFailed,
        Self::RerunBegun,
        Self::Refunded,
        Self::Restarted,
        Self::FoundUnused,
        Self::FoundSpent,
    ];

    /// Stable identifier.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::GivenBack => "given_back",
            Self::CaptureBegun => "capture_begun",
            Self::SettleSettled => "settle_settled",
            Self::SettleRefused => "settle_refused",
            Self::SettleNotAsked => "settle_not_asked",
            Self::SettlePending => "settle_pending",
            Self::SettleUnknown => "settle_unknown",
            Self::Delivered => "delivered",
            Self::DeliveryFailed => "delivery_failed",
            Self::RerunBegun => "rerun_begun",
            Self::Refunded => "refunded",
            Self::Restarted => "restarted",
            Self::FoundUnused => "found_unused",
            Self::FoundSpent => "found_spent",
        }
    }

    /// One sentence for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Admitted => "A facilitator would settle it, and a request was bound to it.",
            Self::GivenBack => "The upstream failed, or the buyer left before the money was asked for.",
            Self::CaptureBegun => "The upstream answered, and the money is to be taken.",
            Self::SettleSettled => "The facilitator says that money moved.",
            Self::SettleRefused => "The facilitator refuses, and names no transaction.",
            Self::SettleNotAsked => "The request to settle never left, or was turned away unread.",
            Self::SettlePending => "The facilitator names a transaction that is not confirmed.",
            Self::SettleUnknown => "Time-out, garbage, or a contradiction.",
            Self::Delivered => "The whole answer was handed to the buyer's connection.",
            Self::DeliveryFailed => "The buyer left before the whole answer was out.",
            Self::RerunBegun => "The buyer came again, and the offer runs a lost request once more.",
            Self::Refunded => "The seller says that the money was sent back.",
            Self::Restarted => "The process that worked on it is gone.",
            Self::FoundUnused => "`validBefore` has passed, and a finalised chain read shows the authorization unused.",
            Self::FoundSpent => "A finalised chain read shows the nonce cancelled, or used for another transfer.",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
