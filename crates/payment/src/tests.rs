use proptest::prelude::*;

use crate::{Answer, Event, State, TRANSITIONS, document, next};

/// Everything that can be reached from `from` in any number of steps.
fn reachable(from: State) -> Vec<State> {
    let mut seen = vec![from];
    let mut i = 0;
    while let Some(state) = seen.get(i).copied() {
        for event in Event::ALL {
            if let Some(to) = next(Some(state), event)
                && !seen.contains(&to)
            {
                seen.push(to);
            }
        }
        i += 1;
    }
    seen
}

fn predecessors(state: State) -> Vec<(Option<State>, Event)> {
    TRANSITIONS.iter().filter(|t| t.2 == state && t.0 != Some(state)).map(|t| (t.0, t.1)).collect()
}

#[test]
fn the_documentation_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/payment-states.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), document(), "run: UPDATE_DOCS=1 cargo test -p obol-payment");
}

#[test]
fn every_pair_has_at_most_one_successor() {
    for (i, (from, event, _)) in TRANSITIONS.iter().enumerate() {
        assert!(!TRANSITIONS[..i].iter().any(|t| t.0 == *from && t.1 == *event), "{from:?} {event} is listed twice");
    }
}

#[test]
fn every_state_and_event_is_of_use_and_listed_once() {
    for (i, state) in State::ALL.into_iter().enumerate() {
        assert!(!predecessors(state).is_empty(), "{state} cannot be reached");
        assert_eq!(State::ALL.iter().position(|s| *s == state), Some(i));
        assert_eq!(journalled(state), state.code());
    }
    for (i, event) in Event::ALL.into_iter().enumerate() {
        assert!(TRANSITIONS.iter().any(|t| t.1 == event), "{event} does nothing");
        assert_eq!(Event::ALL.iter().position(|e| *e == event), Some(i));
    }
}

/// The journalled spelling must be the documented one.
fn journalled(state: State) -> String {
    format!("{state:?}").to_lowercase()
}

#[test]
fn nothing_leaves_a_terminal_state_and_everything_leaves_the_others() {
    for state in State::ALL {
        let leaves = Event::ALL.into_iter().any(|event| next(Some(state), event).is_some_and(|to| to != state));
        assert_eq!(leaves, !state.is_terminal(), "{state}");
    }
}

#[test]
fn money_is_only_settled_after_settling_was_journalled() {
    for (from, event) in predecessors(State::Settled) {
        assert_eq!(event, Event::SettleSettled);
        assert!(from.unwrap().is_unsettled(), "{from:?}");
    }
    assert_eq!(predecessors(State::Settling), [(Some(State::Reserved), Event::CaptureBegun)]);
    for state in [State::Pending, State::Unknown] {
        assert!(predecessors(state).iter().all(|(from, _)| from.unwrap().is_unsettled()), "{state}");
    }
    let answering = [State::Settled, State::Rerunning].map(Some);
    assert_eq!(predecessors(State::Delivered), answering.map(|from| (from, Event::Delivered)));
    assert!(predecessors(State::Owed).iter().all(|(from, _)| answering.contains(from)));
}

#[test]
fn doubt_ends_only_in_success_or_in_proof_of_non_use() {
    for event in Event::ALL {
        let to = next(Some(State::Unknown), event);
        assert!(matches!(to, None | Some(State::Unknown | State::Settled | State::Expired)), "{event} {to:?}");
        let to = next(Some(State::Pending), event);
        assert!(matches!(to, None | Some(State::Pending | State::Unknown | State::Settled | State::Expired)), "{event} {to:?}");
    }
    for state in [State::Pending, State::Unknown] {
        assert!(!reachable(state).iter().any(|s| matches!(s, State::Released | State::Refused | State::Reserved)), "{state}");
    }
}

#[test]
fn a_lost_request_runs_once_more_at_most() {
    assert_eq!(predecessors(State::Rerunning), [(Some(State::Owed), Event::RerunBegun)]);
    // Only a run that reached nobody leads back to where another may begin.
    let back: Vec<_> = TRANSITIONS.iter().filter(|t| t.0 == Some(State::Rerunning) && t.2 == State::Owed).map(|t| t.1).collect();
    assert_eq!(back, [Event::GivenBack]);
    assert_eq!(next(Some(State::Rerunning), Event::Restarted), Some(State::Lost));
    assert!(!reachable(State::Lost).contains(&State::Rerunning));
    for state in State::ALL {
        assert_eq!(next(Some(state), Event::Refunded), state.is_owed().then_some(State::Refunded), "{state}");
    }
}

#[test]
fn a_paid_payment_is_never_charged_again() {
    for state in State::ALL.into_iter().filter(|s| s.is_paid()) {
        assert!(reachable(state).iter().all(|s| s.is_paid()), "{state}");
        assert_eq!(Answer::of(state), Answer::AlreadyUsed);
    }
}

#[test]
fn answers_agree_with_the_table() {
    for state in State::ALL {
        let admits = next(Some(state), Event::Admitted).is_some();
        assert_eq!(Answer::of(state) == Answer::Usable, admits, "{state}");
        assert_eq!(Answer::of(state) == Answer::Unsettled, state.is_unsettled(), "{state}");
        // A restart resolves every open row, and touches no closed one.
        assert_eq!(next(Some(state), Event::Restarted).is_some(), state.is_open(), "{state}");
        if let Some(to) = next(Some(state), Event::Restarted) {
            assert!(!to.is_open() || to == State::Unknown, "{state} -> {to}");
        }
    }
}

proptest! {
    /// Random lives, with refused events in between: facts that were true stay true.
    #[test]
    fn any_order_of_events_keeps_the_money_rules(events in prop::collection::vec(0..Event::ALL.len(), 0..60)) {
        let (mut state, mut asked, mut paid) = (None, false, false);
        for event in events.into_iter().map(|i| Event::ALL[i]) {
            let Some(to) = next(state, event) else { continue };
            asked |= to == State::Settling;
            prop_assert!(!to.is_paid() || asked, "paid without having asked");
            prop_assert!(!paid || to.is_paid(), "a paid payment became {to}");
            paid |= to.is_paid();
            if state.is_some_and(|s: State| matches!(s, State::Pending | State::Unknown)) {
                prop_assert!(Answer::of(to) != Answer::Usable && Answer::of(to) != Answer::InProgress);
            }
            state = Some(to);
        }
    }
}
