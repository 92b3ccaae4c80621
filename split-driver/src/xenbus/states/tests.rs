//! The table of states. Floor 1.

use super::XenbusState as X;
use super::*;

fn seen(frontend: XenbusState) -> Seen {
    Seen { frontend, removing: false, refused: false, waits: false, reconfigured: false, patience_over: false }
}

const ALL: [XenbusState; 9] = [
    X::Unknown,
    X::Initialising,
    X::InitWait,
    X::Initialised,
    X::Connected,
    X::Closing,
    X::Closed,
    X::Reconfiguring,
    X::Reconfigured,
];

fn vif(state: XenbusState) -> bool {
    state == X::Connected
}

/// Follows the table till it waits, as if each step succeeded.
fn settle(mut phase: Phase, mut seen: Seen) -> Option<Phase> {
    for _ in 0..8 {
        phase = match next(phase, seen, vif) {
            Step::Wait | Step::WaitBriefly => return Some(phase),
            Step::Announce => Phase::InitWait,
            Step::Connect => Phase::Connected,
            Step::Reconfigure => {
                seen.reconfigured = true;
                phase
            }
            Step::Reconfigured => {
                seen.reconfigured = false;
                phase
            }
            Step::Close => Phase::Closing,
            Step::Finish => Phase::Closed,
            Step::Remove => return None,
        };
    }
    panic!("{seen:?} never settles in {phase:?}");
}

/// Rows: where we are. Columns: the frontend's state, from `Unknown` to `Reconfigured`. As Linux' `set_backend_state` leads.
#[test]
fn where_it_settles() {
    use Phase::{Closed as D, Closing as G, Connected as C, InitWait as W, New};
    let table = [
        (New, [D, W, W, W, C, G, D, W, W]),
        (W, [D, W, W, W, C, G, D, W, W]),
        (C, [D, W, W, C, C, G, D, C, C]),
        (G, [D, W, W, W, C, G, D, D, D]),
        (D, [D, W, W, W, C, G, D, D, D]),
    ];
    for (phase, row) in table {
        for (frontend, expected) in ALL.into_iter().zip(row) {
            let got = settle(phase, seen(frontend));
            assert_eq!(got, Some(expected), "{phase:?}, frontend {frontend:?}");
        }
    }
}

#[test]
fn a_refused_frontend_stays_closed() {
    for frontend in ALL {
        let seen = Seen { refused: true, ..seen(frontend) };
        for phase in [Phase::New, Phase::InitWait, Phase::Connected, Phase::Closing] {
            let settled = settle(phase, seen);
            assert!(matches!(settled, Some(Phase::Closing | Phase::Closed)), "{phase:?} {frontend:?}: {settled:?}");
        }
    }
}

/// Linux' netfront waits in its probe while its back end is `Closed` or gone.
#[test]
fn a_frontend_refused_before_it_began_is_not_kept_waiting() {
    for phase in [Phase::New, Phase::InitWait, Phase::Closing] {
        let seen = Seen { refused: true, waits: true, ..seen(X::Initialising) };
        assert_eq!(settle(phase, seen), Some(Phase::Closing), "{phase:?}");
    }
}

#[test]
fn removal_ends_from_anywhere() {
    for phase in [Phase::New, Phase::InitWait, Phase::Connected, Phase::Closing, Phase::Closed] {
        for frontend in ALL {
            let removing = Seen { removing: true, patience_over: true, ..seen(frontend) };
            assert_eq!(settle(phase, removing), None, "{phase:?} {frontend:?}");
        }
    }
    // A connected frontend gets its time, unless it was refused.
    let connected = Seen { removing: true, ..seen(X::Connected) };
    assert_eq!(settle(Phase::Connected, connected), Some(Phase::Closing));
    let refused = Seen { refused: true, ..connected };
    assert_eq!(settle(Phase::Closing, refused), None);
}

/// Step by step, not only where it leads: what is in use is given back before all else, and a frontend that closes gets its time.
#[test]
fn no_step_is_skipped() {
    for frontend in ALL {
        for (refused, removing) in [(false, false), (true, false), (false, true), (true, true)] {
            let seen = Seen { refused, removing, ..seen(frontend) };
            let step = next(Phase::Connected, seen, vif);
            let stays = matches!(step, Step::Wait | Step::Reconfigure) && !refused && !removing;
            assert!(stays || step == Step::Close, "{seen:?}: {step:?}");
        }
        let seen = Seen { removing: true, ..seen(frontend) };
        let waited_for = matches!(frontend, X::Connected | X::Closing);
        let expected = if waited_for { Step::WaitBriefly } else { Step::Finish };
        assert_eq!(next(Phase::Closing, seen, vif), expected, "{frontend:?}");
        assert_eq!(next(Phase::Closing, Seen { patience_over: true, ..seen }, vif), Step::Finish, "{frontend:?}");
        assert_eq!(next(Phase::InitWait, seen, vif), Step::Finish, "{frontend:?}");
        assert_eq!(next(Phase::Closed, seen, vif), Step::Remove, "{frontend:?}");
    }
}
