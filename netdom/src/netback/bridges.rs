//! The bridges that a vif may name. Pure. Floor 3.

use crate::ethernet::VlanId;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The bridge that `xl` writes for a vif where its config names none (`libxl_nic.c`).
pub const DEFAULT_BRIDGE: &str = "xenbr0";
/// Bytes of a bridge's name at most.
pub const BRIDGE_BYTES: usize = 64;

/// The bridges that NICs are on, and those that were declared to be without a NIC. A vif on any other is refused: its name is a mistake,
/// and the guest would be alone there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridges {
    wired: Vec<String>,
    internal: Vec<String>,
}

impl Bridges {
    /// The bridges of NICs, each once, and those without one.
    pub fn new<'a>(wired: impl IntoIterator<Item = &'a str>, internal: &[String]) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in wired {
            if names.iter().all(|known| known != name) {
                names.push(name.into());
            }
        }
        Self { wired: names, internal: internal.into() }
    }

    /// Whether NICs are to be on a bridge of this name.
    pub fn is_wired(&self, name: &str) -> bool {
        self.wired.iter().any(|known| known == name)
    }

    /// Whether there is a bridge of this name.
    pub fn has(&self, name: &str) -> bool {
        self.wired.iter().chain(&self.internal).any(|known| known == name)
    }
}

/// What a vif is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A bridge: a trunk, with all its VLANs.
    Trunk(&'a str),
    /// An access port of a VLAN of a bridge.
    Access(&'a str, VlanId),
    /// A bridge that there is, and behind it what is no VLAN.
    NoVlan(&'a str, &'a str),
    /// No bridge.
    None,
}

impl Bridges {
    /// What a vif's `bridge` names: a bridge, or `NAME.VLAN`, as openvswitch's script has it. A bridge whose own name has a dot goes before.
    pub fn find<'a>(&self, name: &'a str) -> Place<'a> {
        if self.has(name) {
            return Place::Trunk(name);
        }
        let Some((bridge, vlan)) = name.rsplit_once('.').filter(|(bridge, _)| self.has(bridge)) else {
            return Place::None;
        };
        let digits = !vlan.is_empty() && vlan.bytes().all(|byte| byte.is_ascii_digit());
        match vlan.parse().ok().filter(|_| digits).and_then(VlanId::new) {
            Some(vlan) => Place::Access(bridge, vlan),
            None => Place::NoVlan(bridge, vlan),
        }
    }
}

impl fmt::Display for Bridges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.wired.iter().chain(&self.internal).enumerate() {
            let separator = if place > 0 { ", " } else { "" };
            let kind = if place < self.wired.len() { "" } else { " (internal)" };
            write!(formatter, "{separator}{name}{kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_vlan() {
        let bridges = Bridges::new(["xenbr0", "a.5"], &["inside".into()]);
        let vlan = |number| VlanId::new(number).unwrap();
        for (name, place) in [
            ("xenbr0", Place::Trunk("xenbr0")),
            ("xenbr0.1", Place::Access("xenbr0", vlan(1))),
            ("xenbr0.4094", Place::Access("xenbr0", vlan(4094))),
            ("inside.7", Place::Access("inside", vlan(7))),
            // The whole name is a bridge's.
            ("a.5", Place::Trunk("a.5")),
            ("a.5.6", Place::Access("a.5", vlan(6))),
            ("a.6", Place::None),
            ("xenbr1.5", Place::None),
            ("xenbr0.0", Place::NoVlan("xenbr0", "0")),
            ("xenbr0.4095", Place::NoVlan("xenbr0", "4095")),
            ("xenbr0.65537", Place::NoVlan("xenbr0", "65537")),
            ("xenbr0.+5", Place::NoVlan("xenbr0", "+5")),
            ("xenbr0.", Place::NoVlan("xenbr0", "")),
            ("xenbr0.5:6", Place::NoVlan("xenbr0", "5:6")),
        ] {
            assert_eq!(bridges.find(name), place, "{name}");
        }
    }
}
