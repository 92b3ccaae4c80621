//! The bridges that a vif may name. Pure. Floor 3.

use crate::ethernet::VlanId;
use crate::switch::Vlans;
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
    /// A bridge, and VLANs of it.
    Port(&'a str, Vlans),
    /// A bridge that there is, and behind it what names no VLANs.
    NoVlan(&'a str, &'a str),
    /// No bridge.
    None,
}

impl Bridges {
    /// What a vif's `bridge` names, as openvswitch's script has it (`NAME[.VLAN][:VLAN[:VLAN...]]`): the VLAN of frames without a tag, and those
    /// of frames that have one; all, where none is named. A bridge whose own name has a dot goes before.
    pub fn find<'a>(&self, name: &'a str) -> Place<'a> {
        let (port, tagged) = name.split_once(':').map_or((name, None), |(port, tagged)| (port, Some(tagged)));
        let (bridge, native) = match port.rsplit_once('.') {
            _ if self.has(port) => (port, None),
            Some((bridge, vlan)) if self.has(bridge) => (bridge, Some(vlan)),
            _ => return Place::None,
        };
        let wrong = Place::NoVlan(bridge, name.get(bridge.len() + 1..).unwrap_or_default());
        let native = match native.map(vlan) {
            Some(None) => return wrong,
            Some(native) => native,
            None => None,
        };
        let vlans = match (native, tagged.map(|tagged| tagged.split(':').map(vlan).collect())) {
            (None, None) => Vlans::TRUNK,
            (Some(native), None) => Vlans::access(native),
            (native, Some(Some(tagged))) => Vlans::new(native, tagged),
            (_, Some(None)) => return wrong,
        };
        Place::Port(bridge, vlans)
    }
}

/// A VLAN by its number.
fn vlan(text: &str) -> Option<VlanId> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).and_then(VlanId::new)
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
        let number = |number| VlanId::new(number).unwrap();
        let access = |bridge, vlan| Place::Port(bridge, Vlans::access(number(vlan)));
        let tagged = |bridge, native: Option<u16>, vlans: &[u16]| {
            Place::Port(bridge, Vlans::new(native.map(number), vlans.iter().copied().map(number).collect()))
        };
        for (name, place) in [
            ("xenbr0", Place::Port("xenbr0", Vlans::TRUNK)),
            ("xenbr0.1", access("xenbr0", 1)),
            ("xenbr0.4094", access("xenbr0", 4094)),
            ("inside.7", access("inside", 7)),
            ("xenbr0:5", tagged("xenbr0", None, &[5])),
            ("xenbr0:5:4094:5", tagged("xenbr0", None, &[5, 4094])),
            ("xenbr0.7:5:6", tagged("xenbr0", Some(7), &[5, 6])),
            ("xenbr0.7:7", tagged("xenbr0", Some(7), &[7])),
            // The whole name is a bridge's.
            ("a.5", Place::Port("a.5", Vlans::TRUNK)),
            ("a.5:6", tagged("a.5", None, &[6])),
            ("a.5.6", access("a.5", 6)),
            ("a.6", Place::None),
            ("xenbr1.5", Place::None),
            ("xenbr1:5", Place::None),
            ("xenbr0.0", Place::NoVlan("xenbr0", "0")),
            ("xenbr0.4095", Place::NoVlan("xenbr0", "4095")),
            ("xenbr0.65537", Place::NoVlan("xenbr0", "65537")),
            ("xenbr0.+5", Place::NoVlan("xenbr0", "+5")),
            ("xenbr0.", Place::NoVlan("xenbr0", "")),
            ("xenbr0.:5", Place::NoVlan("xenbr0", ":5")),
            ("xenbr0:", Place::NoVlan("xenbr0", "")),
            ("xenbr0:0", Place::NoVlan("xenbr0", "0")),
            ("xenbr0:5:", Place::NoVlan("xenbr0", "5:")),
            ("xenbr0.5:6,7", Place::NoVlan("xenbr0", "5:6,7")),
        ] {
            assert_eq!(bridges.find(name), place, "{name}");
        }
    }
}
