//! A bond as a port of the switch: its NICs are ports of the table, and none of the switch. Floor 3.

use crate::bond::lacp::{FRAME, is_slow};
use crate::bond::{Bond, MEMBERS};
use crate::ethernet::MacAddress;
use crate::packet::Packet;
use crate::switch::PortId;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::time::{Duration, Instant};

/// A NIC's place in a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The bond's port.
    pub(crate) bond: PortId,
    /// Its place there.
    pub(crate) place: u8,
}

/// A bond as a port.
pub(crate) struct BondPort {
    pub(super) bond: Bond,
    pub(super) bridge: String,
    /// The ports of its NICs, by their places.
    pub(super) nics: [Option<PortId>; MEMBERS],
    /// Stations behind the bond, each with its VLAN, that the network outside is still to be told of.
    pub(super) announced: VecDeque<(u16, MacAddress)>,
    /// When it is to be told of all of them again, and how long after the time before; none where it was told often enough.
    pub(super) again: Option<(Instant, Duration)>,
    /// The active member, as it was told of last.
    pub(super) told: Option<usize>,
    /// When its protocol is looked at; none where it has none.
    pub(super) due: Option<Instant>,
}

impl BondPort {
    /// Its members' state.
    pub(super) const fn state(&self) -> &Bond {
        &self.bond
    }

    /// The same, to be restored.
    pub(super) const fn state_mut(&mut self) -> &mut Bond {
        &mut self.bond
    }

    /// Takes from the frames that a member received, from `first` on, those that go no further.
    pub(super) fn sift(&mut self, place: usize, frames: &mut Vec<Packet>, first: usize, now: Instant) {
        if self.bond.lacp().is_some() {
            self.take_slow(place, frames, first, now);
        }
        if !self.bond.receives(place) {
            frames.truncate(first);
        }
    }

    /// Takes the frames of slow protocols, which are for the bond alone.
    fn take_slow(&mut self, place: usize, frames: &mut Vec<Packet>, first: usize, now: Instant) {
        let mut kept = first;
        for index in first..frames.len() {
            let mut bytes = [0; FRAME];
            let slow = frames.get(index).and_then(|frame| slow_frame(frame, &mut bytes));
            if let Some(length) = slow {
                self.bond.handle_frame(place, bytes.get(..length).unwrap_or_default(), now);
                self.due = Some(now);
            } else {
                frames.swap(kept, index);
                kept += 1;
            }
        }
        frames.truncate(kept);
    }
}

/// Reads a frame of a slow protocol, and says how much of it; `None` where it is another one, of which its addresses and its type are looked at.
fn slow_frame(frame: &Packet, bytes: &mut [u8; FRAME]) -> Option<usize> {
    let fragment = frame.fragments.first().filter(|_| frame.tag.is_none())?;
    let length = usize::from(fragment.length).min(FRAME);
    let mut read = |length: usize| {
        let place = bytes.get_mut(..length)?;
        (fragment.buffer.read(fragment.offset.into(), place) && is_slow(place)).then_some(length)
    };
    read(ADDRESSES.min(length)).and_then(|_| read(length))
}

/// Bytes of a frame up to its type.
const ADDRESSES: usize = 14;
