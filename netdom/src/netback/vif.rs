//! A vif as its frontend made it: what it said, what it can do, and what it wants. Pure. Floor 3.
//!
//! Its rings are in [`super::rings`] and [`super::control_ring`]. How its packets wait, and for what, is the data path's.

use super::config::{Features, VifConfig};
use super::request::Membership;
use crate::ethernet::MacAddress;
use crate::offload::ability::Ability;
use crate::packet::Offload;
use xen_pv_sys::PAGE_SIZE;

/// Groups that a guest may list (as many as Linux' netback takes).
const GROUPS: usize = 64;

/// What is known of a connected vif by its frontend's word.
pub(crate) struct Vif {
    pub(crate) config: VifConfig,
    pub(crate) ability: Ability,
    /// The groups that the guest lists.
    groups: heapless::Vec<MacAddress, GROUPS>,
}

impl Vif {
    /// A vif without groups.
    pub(crate) fn new(mut config: VifConfig) -> Self {
        config.headroom = within_page(config.headroom);
        Self { ability: config.features.ability(config.headroom), config, groups: heapless::Vec::new() }
    }

    /// Changes the bytes before a packet in its first receive slot.
    pub(crate) fn set_headroom(&mut self, headroom: u16) {
        self.config.headroom = within_page(headroom);
        self.ability = self.config.features.ability(self.config.headroom);
    }

    /// Whether the guest wants frames to this address: unicast and broadcast always, groups as it said.
    pub(crate) fn wants(&self, destination: MacAddress) -> bool {
        let group = destination.is_group() && destination != MacAddress::BROADCAST;
        !group || !self.config.features.multicast_control || self.groups.contains(&destination)
    }

    /// The groups that the guest lists.
    pub(crate) fn groups(&self) -> &[MacAddress] {
        &self.groups
    }

    /// Changes the list of groups. False where it is full.
    pub(crate) fn change_groups(&mut self, membership: Membership) -> bool {
        match membership {
            Membership::Join(address) => self.groups.contains(&address) || self.groups.push(address).is_ok(),
            Membership::Leave(address) => {
                self.groups.retain(|group| *group != address);
                true
            }
        }
    }

    /// Receive slots that a packet of `length` bytes takes: those of its bytes, behind the headroom, and one for each extra info.
    pub(crate) fn slots_for(&self, length: u32, offload: Offload, hashed: bool) -> u32 {
        let headroom = u32::from(self.config.headroom);
        let data = (length + headroom).div_ceil(PAGE_SIZE as u32).max(1);
        data + u32::from(offload.gso.is_some()) + u32::from(hashed) + u32::from(headroom > 0)
    }
}

/// Headroom that leaves at least a byte of a page, so that each slot takes a packet further.
fn within_page(headroom: u16) -> u16 {
    headroom.min(PAGE_SIZE as u16 - 1)
}

impl Features {
    /// What a guest with these features takes, with `headroom` bytes left free before a packet in its first slot.
    ///
    /// A guest that asks for headroom gets segments in place of super-frames: XDP programs work on packets of one page, and Linux'
    /// netfront drops the others while it has a program. (Linux' netback sends it super-frames all the same.)
    fn ability(&self, headroom: u16) -> Ability {
        let chains = self.scatter_gather;
        let supers = chains && headroom == 0;
        Ability {
            checksum_v4: self.checksum_v4,
            checksum_v6: self.checksum_v6,
            gso_v4: self.gso_tcpv4 && self.checksum_v4 && supers,
            gso_v6: self.gso_tcpv6 && self.checksum_v6 && supers,
            told_headers: false,
            longest: if chains { 0xffff } else { PAGE_SIZE - usize::from(headroom).min(PAGE_SIZE) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of super-frame for a guest that says so, takes that checksum blank, takes chains, and wants no headroom.
    #[test]
    fn super_frames_want_three_features_and_no_headroom() {
        for bits in 0..32_u8 {
            let has = |bit: u8| bits & 1 << bit != 0;
            let features = Features {
                scatter_gather: has(0),
                gso_tcpv4: has(1),
                checksum_v4: has(2),
                gso_tcpv6: has(3),
                checksum_v6: has(4),
                ..Features::default()
            };
            let ability = features.ability(0);
            assert_eq!(ability.gso_v4, has(0) && has(1) && has(2), "{features:?}");
            assert_eq!(ability.gso_v6, has(0) && has(3) && has(4), "{features:?}");
            let ability = features.ability(1);
            assert!(!ability.gso_v4 && !ability.gso_v6, "beside headroom: {features:?}");
        }
    }
}
