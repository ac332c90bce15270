//! What a buyer is told who presents the same payment again.

use crate::State;

/// What the same payment gets when it is presented again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It may be used: it is verified again, and a 402 follows only if that fails.
    Usable,
    /// 409: another request is working on it.
    InProgress,
    /// 409 with the receipt: it has bought an answer already.
    AlreadyUsed,
    /// 503 with `Retry-After`: nobody knows yet. Never a 402, for a second signature may pay twice.
    Unsettled,
    /// 402: it can never be used again, and it was not charged.
    Void,
}

impl Answer {
    /// What follows from a state. `Settling` counts as unsettled here: a request that is working
    /// on it at this moment is known in memory, and answered `InProgress` before the row is read.
    pub const fn of(state: State) -> Self {
        match state {
            State::Reserved => Self::InProgress,
            State::Settling | State::Pending | State::Unknown => Self::Unsettled,
            State::Settled | State::Delivered | State::Owed | State::Rerunning | State::Lost | State::Refunded => Self::AlreadyUsed,
            State::Released | State::Refused => Self::Usable,
            State::Expired => Self::Void,
        }
    }

    /// One phrase for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Usable => "may be used again",
            Self::InProgress => "409, in progress",
            Self::AlreadyUsed => "409 with the receipt",
            Self::Unsettled => "503 with `Retry-After`",
            Self::Void => "402, a new payment",
        }
    }
}
