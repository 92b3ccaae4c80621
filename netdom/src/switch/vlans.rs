//! The VLANs of a port (IEEE 802.1Q-2018, 8.8): which frames it takes, and which of them leave it without their tag. Pure. Floor 3.

use crate::ethernet::VlanId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// The VLANs of a port. Frames of one of them, the native VLAN, have no tag there; frames of the others have theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlans {
    native: Option<VlanId>,
    tagged: Tagged,
}

/// The VLANs whose frames have their tags.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tagged {
    /// All, and frames of no VLAN besides.
    All,
    /// None: frames of no VLAN alone.
    None,
    /// These, in order.
    These(Box<[VlanId]>),
}

impl Vlans {
    /// Of a trunk for all VLANs, which takes frames of no VLAN, too: of a NIC's port, and of a guest's without a VLAN.
    pub const TRUNK: Self = Self { native: None, tagged: Tagged::All };

    /// Of a port that takes frames of no VLAN alone.
    pub const NONE: Self = Self { native: None, tagged: Tagged::None };

    /// Of an access port of a VLAN.
    pub fn access(vlan: VlanId) -> Self {
        Self::new(Some(vlan), Vec::new())
    }

    /// Of a port with a native VLAN, where it has one, and those VLANs with their tags. A port with neither takes nothing.
    pub fn new(native: Option<VlanId>, mut tagged: Vec<VlanId>) -> Self {
        tagged.sort_unstable();
        tagged.dedup();
        Self { native, tagged: Tagged::These(tagged.into()) }
    }

    /// The VLAN of frames without a tag; `None` where these are of no VLAN.
    pub const fn native(&self) -> Option<VlanId> {
        self.native
    }

    /// Whether frames of a VLAN, or of none (0), may go to the port.
    pub fn carry(&self, vlan: u16) -> bool {
        self.is_untagged(vlan) || self.carry_tagged(vlan)
    }

    /// Whether frames of a VLAN leave the port without its tag.
    pub fn is_untagged(&self, vlan: u16) -> bool {
        self.native.is_some_and(|native| native.get() == vlan)
    }

    /// Whether frames with the tag of a VLAN, or those of none (0), may come from the port as they are.
    pub fn carry_tagged(&self, vlan: u16) -> bool {
        match &self.tagged {
            Tagged::All => true,
            Tagged::None => vlan == 0,
            Tagged::These(vlans) => vlans.binary_search_by_key(&vlan, |known| known.get()).is_ok(),
        }
    }
}

impl fmt::Display for Vlans {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(native) = self.native {
            write!(formatter, "VLAN {native}")?;
        }
        match &self.tagged {
            Tagged::All => formatter.write_str("all VLANs"),
            Tagged::None => formatter.write_str("no VLAN"),
            Tagged::These(vlans) => {
                for (place, vlan) in vlans.iter().enumerate() {
                    let words = match (place, self.native) {
                        (0, None) => "tagged VLANs ",
                        (0, Some(_)) => ", tagged VLANs ",
                        _ => ", ",
                    };
                    write!(formatter, "{words}{vlan}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn vlan(number: u16) -> VlanId {
        VlanId::new(number).unwrap()
    }

    #[test]
    fn what_a_port_carries() {
        let access = Vlans::access(vlan(5));
        let both = Vlans::new(Some(vlan(5)), Vec::from([vlan(9), vlan(7), vlan(9)]));
        let some = Vlans::new(None, Vec::from([vlan(9), vlan(7)]));
        for (vlans, carried, untagged, words) in [
            (&Vlans::TRUNK, &[0, 5, 7, 9, 4094][..], &[][..], "all VLANs"),
            (&Vlans::NONE, &[0], &[], "no VLAN"),
            (&access, &[5], &[5], "VLAN 5"),
            (&both, &[5, 7, 9], &[5], "VLAN 5, tagged VLANs 7, 9"),
            (&some, &[7, 9], &[], "tagged VLANs 7, 9"),
        ] {
            let all = [0, 5, 7, 9, 4094];
            assert_eq!(all.into_iter().filter(|vlan| vlans.carry(*vlan)).collect::<Vec<_>>(), carried);
            assert_eq!(all.into_iter().filter(|vlan| vlans.is_untagged(*vlan)).collect::<Vec<_>>(), untagged);
            assert_eq!(vlans.to_string(), words);
        }
    }
}
