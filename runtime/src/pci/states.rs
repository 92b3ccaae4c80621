//! The states of pcifront and pciback as they stand in the store, and what they say of a device. Pure. Floor 2.

use xen_pv_sys::io::xenbus::XenbusState;

pub(super) const INITIALISING: u32 = XenbusState::Initialising as u32;
pub(super) const INITIALISED: u32 = XenbusState::Initialised as u32;
pub(super) const CONNECTED: u32 = XenbusState::Connected as u32;
pub(super) const CLOSING: u32 = XenbusState::Closing as u32;
pub(super) const CLOSED: u32 = XenbusState::Closed as u32;
pub(super) const RECONFIGURING: u32 = XenbusState::Reconfiguring as u32;
pub(super) const RECONFIGURED: u32 = XenbusState::Reconfigured as u32;

/// Where a device of the last life is, for which pciback does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// pciback was told that it may take devices back, and is about to.
    UnderWay,
    /// pciback has taken it back and reset it.
    Returned,
    /// The store does not say that it left.
    Unknown,
}

/// What the store says: our state, pciback's, and the device's, which is `None` where it is not listed.
///
/// The toolstack writes a device's Closing and pciback's Reconfiguring at once. pciback ends that state when it has reset the device, and the
/// toolstack removes the device's nodes later still.
pub(super) fn whereabouts(ours: Option<u32>, theirs: Option<u32>, device: Option<u32>) -> Whereabouts {
    match (theirs, ours, device) {
        (Some(RECONFIGURING), Some(RECONFIGURING), Some(CLOSING)) => Whereabouts::UnderWay,
        (Some(RECONFIGURED | CONNECTED), _, Some(CLOSING) | None) => Whereabouts::Returned,
        _ => Whereabouts::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_back_when_pciback_says_so_and_not_before() {
        use Whereabouts::{Returned, UnderWay, Unknown};
        for (ours, theirs, device, expected) in [
            // The toolstack has asked; pciback waits for our word.
            (CONNECTED, RECONFIGURING, Some(CLOSING), Unknown),
            (RECONFIGURING, RECONFIGURING, Some(CLOSING), UnderWay),
            (RECONFIGURING, RECONFIGURED, Some(CLOSING), Returned),
            (CONNECTED, RECONFIGURED, Some(CLOSING), Returned),
            // The toolstack is about to remove its nodes, and has.
            (CONNECTED, CONNECTED, Some(CLOSING), Returned),
            (CONNECTED, CONNECTED, None, Returned),
            // Another one is taken or given.
            (RECONFIGURING, RECONFIGURING, Some(INITIALISED), Unknown),
            (RECONFIGURING, RECONFIGURED, Some(INITIALISED), Unknown),
            (CONNECTED, CONNECTED, Some(CONNECTED), Unknown),
            // All go.
            (CONNECTED, CLOSING, Some(INITIALISED), Unknown),
            (CLOSED, CLOSED, None, Unknown),
        ] {
            let said = whereabouts(Some(ours), Some(theirs), device);
            assert_eq!(said, expected, "we {ours}, pciback {theirs}, the device {device:?}");
        }
        assert_eq!(whereabouts(Some(CONNECTED), None, None), Unknown, "pciback's directory is gone");
        assert_eq!(whereabouts(None, Some(RECONFIGURING), Some(CLOSING)), Unknown);
    }
}
