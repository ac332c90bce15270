//! The one table. What is not in it cannot happen.

use crate::{Event, State};

/// One allowed transition: from (`None` is a payment never seen), on, to.
pub type Transition = (Option<State>, Event, State);

/// Every allowed transition.
///
/// Once a settlement may have been asked for, only its success or proof of non-use ends the doubt:
/// a later refusal ("nonce already used") may well mean that the first attempt moved the money.
/// `reserved` + `settle_not_asked` is there because a failed write of `settling` may or may not
/// have reached the disk.
/// A lost request is run once more at most: after a crash during that run nobody knows whether it
/// was, so that only a refund is left. `rerunning` + `given_back` is a run that reached nobody.
pub const TRANSITIONS: &[Transition] = {
    use Event as E;
    use State as S;
    &[
        (None, E::Admitted, S::Reserved),
        (Some(S::Released), E::Admitted, S::Reserved),
        (Some(S::Refused), E::Admitted, S::Reserved),
        (Some(S::Reserved), E::GivenBack, S::Released),
        (Some(S::Reserved), E::SettleNotAsked, S::Released),
        (Some(S::Reserved), E::Restarted, S::Released),
        (Some(S::Reserved), E::CaptureBegun, S::Settling),
        (Some(S::Settling), E::SettleSettled, S::Settled),
        (Some(S::Settling), E::SettleRefused, S::Refused),
        (Some(S::Settling), E::SettleNotAsked, S::Released),
        (Some(S::Settling), E::SettlePending, S::Pending),
        (Some(S::Settling), E::SettleUnknown, S::Unknown),
        (Some(S::Settling), E::Restarted, S::Unknown),
        (Some(S::Pending), E::SettleSettled, S::Settled),
        (Some(S::Pending), E::SettleRefused, S::Unknown),
        (Some(S::Pending), E::SettleNotAsked, S::Pending),
        (Some(S::Pending), E::SettlePending, S::Pending),
        (Some(S::Pending), E::SettleUnknown, S::Unknown),
        (Some(S::Pending), E::Restarted, S::Unknown),
        (Some(S::Pending), E::FoundUnused, S::Expired),
        (Some(S::Pending), E::FoundSpent, S::Expired),
        (Some(S::Unknown), E::SettleSettled, S::Settled),
        (Some(S::Unknown), E::SettleRefused, S::Unknown),
        (Some(S::Unknown), E::SettleNotAsked, S::Unknown),
        (Some(S::Unknown), E::SettlePending, S::Unknown),
        (Some(S::Unknown), E::SettleUnknown, S::Unknown),
        (Some(S::Unknown), E::Restarted, S::Unknown),
        (Some(S::Unknown), E::FoundUnused, S::Expired),
        (Some(S::Unknown), E::FoundSpent, S::Expired),
        (Some(S::Settled), E::Delivered, S::Delivered),
        (Some(S::Settled), E::DeliveryFailed, S::Owed),
        (Some(S::Settled), E::Restarted, S::Owed),
        (Some(S::Owed), E::RerunBegun, S::Rerunning),
        (Some(S::Owed), E::Refunded, S::Refunded),
        (Some(S::Rerunning), E::GivenBack, S::Owed),
        (Some(S::Rerunning), E::Delivered, S::Delivered),
        (Some(S::Rerunning), E::DeliveryFailed, S::Lost),
        (Some(S::Rerunning), E::Restarted, S::Lost),
        (Some(S::Lost), E::Refunded, S::Refunded),
    ]
};

/// What `event` makes of a payment in `state` (`None`: never seen); `None` when it may not happen.
pub fn next(state: Option<State>, event: Event) -> Option<State> {
    TRANSITIONS.iter().find(|(from, on, _)| *from == state && *on == event).map(|(_, _, to)| *to)
}
