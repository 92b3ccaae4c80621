//! What a back end does next, as a table of where it is and what it sees. Pure. Floor 1.
//!
//! ```text
//!             announce           connect              close            closed
//! (New) 1 ------------> InitWait 2 ----> Connected 4 -----> Closing 5 -----> Closed 6
//!                        |  ^                                 ^               |  |
//!                        |  +------- announce: the frontend begins anew ------|--+
//!                        +----------- close: Windows closes before it connects
//! ```

use xen_pv_sys::io::xenbus::XenbusState;

/// How far the back end of a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Found, nothing written yet.
    New,
    /// What we offer is written.
    InitWait,
    /// Rings are in use.
    Connected,
    /// Rings are given back; the frontend has yet to say that it is done.
    Closing,
    /// Nothing in use.
    Closed,
}

impl Phase {
    /// What our `state` node says in it.
    pub(super) const fn state(self) -> XenbusState {
        match self {
            Self::New => XenbusState::Initialising,
            Self::InitWait => XenbusState::InitWait,
            Self::Connected => XenbusState::Connected,
            Self::Closing => XenbusState::Closing,
            Self::Closed => XenbusState::Closed,
        }
    }
}

/// What is seen of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The frontend's state; `Unknown` where its directory is gone.
    pub(super) frontend: XenbusState,
    /// The toolstack wants it gone (`online` is 0).
    pub(super) removing: bool,
    /// The frontend broke the protocol, and has not begun anew since.
    pub(super) refused: bool,
    /// It was refused while it was `Initialising`, and is so still; or who it is could not be found out.
    pub(super) waits: bool,
    /// We reported [`XenbusState::Reconfigured`] to a frontend that was reconfiguring.
    pub(super) reconfigured: bool,
    /// The frontend has had its time to close.
    pub(super) patience_over: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until something changes.
    Wait,
    /// Nothing, until the frontend closes or its time is up.
    WaitBriefly,
    /// Write what we offer, go to `InitWait`.
    Announce,
    /// Take up the rings, go to `Connected`.
    Connect,
    /// Read again what may change at run time, answer `Reconfigured`.
    Reconfigure,
    /// Reconfiguration is over: `Connected` again.
    Reconfigured,
    /// Give the rings back, go to `Closing`.
    Close,
    /// Go to `Closed`.
    Finish,
    /// Delete our directory.
    Remove,
}

/// The next step. `connects` says whether a kind takes the rings up in a state of its frontend.
pub(super) fn next(phase: Phase, seen: Seen, connects: impl Fn(XenbusState) -> bool) -> Step {
    if seen.removing {
        return next_of_removal(phase, seen);
    }
    if seen.refused {
        return match (phase, seen.frontend) {
            (Phase::New | Phase::InitWait | Phase::Connected, _) => Step::Close,
            // Linux' netfront, as it is probed, waits for a back end that is neither `Closed` nor gone, and all other devices of its guest
            // wait with it. It takes `Closing`, and closes.
            (Phase::Closing, XenbusState::Initialising | XenbusState::Unknown) if seen.waits => Step::Wait,
            (Phase::Closed, XenbusState::Initialising) if seen.waits => Step::Close,
            (Phase::Closing, XenbusState::Closed | XenbusState::Unknown | XenbusState::Initialising) => Step::Finish,
            (Phase::Closing | Phase::Closed, _) => Step::Wait,
        };
    }
    match (phase, seen.frontend) {
        (Phase::New, _) => Step::Announce,

        (Phase::InitWait, XenbusState::Closing | XenbusState::Closed | XenbusState::Unknown) => Step::Close,
        (Phase::InitWait, state) if connects(state) => Step::Connect,
        (Phase::InitWait, _) => Step::Wait,

        (Phase::Connected, XenbusState::Reconfiguring) if !seen.reconfigured => Step::Reconfigure,
        (Phase::Connected, XenbusState::Connected) if seen.reconfigured => Step::Reconfigured,
        (
            Phase::Connected,
            XenbusState::Initialised | XenbusState::Connected | XenbusState::Reconfiguring | XenbusState::Reconfigured,
        ) => Step::Wait,
        // It closes, is gone, or begins anew without a word.
        (Phase::Connected, _) => Step::Close,

        (Phase::Closing, XenbusState::Closing) => Step::Wait,
        (Phase::Closing, _) => Step::Finish,

        (Phase::Closed, XenbusState::Closing) => Step::Close,
        (
            Phase::Closed,
            XenbusState::Initialising | XenbusState::InitWait | XenbusState::Initialised | XenbusState::Connected,
        ) => Step::Announce,
        (Phase::Closed, _) => Step::Wait,
    }
}

/// The toolstack waits for `Closed` (10 s), then for the directory to be gone. A frontend that was connected gets time to close; one
/// that never was, or is gone, is not waited for.
fn next_of_removal(phase: Phase, seen: Seen) -> Step {
    match phase {
        Phase::Connected => Step::Close,
        Phase::Closed => Step::Remove,
        Phase::New | Phase::InitWait => Step::Finish,
        Phase::Closing => match seen.frontend {
            XenbusState::Connected | XenbusState::Closing if !seen.refused && !seen.patience_over => Step::WaitBriefly,
            _ => Step::Finish,
        },
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
