//! Ethernet addresses (IEEE 802-2014, 8) and 802.1Q tags. Pure. Floor 3.

use core::fmt;
use core::net::Ipv6Addr;
use core::num::NonZeroU16;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The bridge group address, to which bridges send their BPDUs (IEEE 802.1D-2004, table 7-10).
    pub const BRIDGE_GROUP: Self = Self([0x01, 0x80, 0xc2, 0x00, 0x00, 0x00]);

    /// From six pairs of hexadecimal digits with colons between.
    pub fn parse(text: &str) -> Option<Self> {
        let mut address = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut address {
            let part = parts.next()?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(address))
    }

    /// Whether it is a group's, broadcast among them.
    pub const fn is_group(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// Whether it can be one station's: it is neither a group's nor zero.
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self::default()
    }

    /// Whether it is one of 01-80-C2-00-00-00 to -0F, which are for the two ends of a link.
    pub const fn is_link_local(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0x00, 0x00, last] if last < 0x10)
    }

    /// The link-local address that is made of it (RFC 4291, 2.5.6 and appendix A).
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The tag control information of an 802.1Q tag: priority, drop eligibility and VLAN identifier (IEEE 802.1Q-2018, 9.6). Held inverted, so that
/// `Option<Tag>` has its size.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(NonZeroU16);

impl Tag {
    /// Bytes of a tag in a frame: its type, and this.
    pub const BYTES: usize = 4;

    /// From the 16 bits of a frame. `None` where they name VLAN 4095, which no frame may (IEEE 802.1Q-2018, table 9-2).
    pub const fn new(control: u16) -> Option<Self> {
        match (control & 0xFFF, NonZeroU16::new(!control)) {
            (0xFFF, _) | (_, None) => None,
            (_, Some(inverted)) => Some(Self(inverted)),
        }
    }

    /// The 16 bits, as a frame has them.
    pub const fn control(self) -> u16 {
        !self.0.get()
    }

    /// VID: the VLAN, 0 where the tag tells a priority alone.
    pub const fn vlan(self) -> u16 {
        self.control() & 0xFFF
    }

    /// PCP: the priority, 0 to 7.
    pub const fn priority(self) -> u8 {
        (self.control() >> 13) as u8
    }

    /// DEI: the frame may be dropped before others.
    pub const fn drop_eligible(self) -> bool {
        self.control() & 1 << 12 != 0
    }
}

/// A VLAN: 1 to 4094 (IEEE 802.1Q-2018, table 9-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(NonZeroU16);

impl VlanId {
    /// `None` where there is no such VLAN.
    pub const fn new(vlan: u16) -> Option<Self> {
        match NonZeroU16::new(vlan) {
            Some(number) if vlan < 0xFFF => Some(Self(number)),
            _ => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Its tag, with the priority and the drop eligibility of another tag's 16 bits.
    pub const fn tag(self, control: u16) -> Tag {
        // Not all ones: this VLAN is not 4095. The other branch is never taken.
        match NonZeroU16::new(!(control & 0xF000 | self.get())) {
            Some(inverted) => Tag(inverted),
            None => Tag(self.0),
        }
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tag({:#06x})", self.control())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn parts_of_a_tag() {
        let tag = Tag::new(0xB123).unwrap();
        assert_eq!((tag.control(), tag.priority(), tag.drop_eligible(), tag.vlan()), (0xB123, 5, true, 0x123));
        for control in 0..=u16::MAX {
            assert_eq!(Tag::new(control).map(Tag::control), (control & 0xFFF != 0xFFF).then_some(control));
        }
        assert_eq!(size_of::<Option<Tag>>(), 2);
    }

    #[test]
    fn numbers_of_vlans() {
        assert_eq!(
            [0, 1, 4094, 4095, 0xffff].map(|vlan| VlanId::new(vlan).map(VlanId::get)),
            [None, Some(1), Some(4094), None, None]
        );
        let tag = VlanId::new(0x123).unwrap().tag(0xBFFF);
        assert_eq!((tag.control(), VlanId::new(4094).unwrap().tag(0xFFFF).control()), (0xB123, 0xFFFE));
    }

    #[test]
    fn text_and_back() {
        let address = MacAddress([0x00, 0x16, 0x3e, 0x0a, 0x02, 0xff]);
        assert_eq!(MacAddress::parse("00:16:3E:0a:02:ff"), Some(address));
        assert_eq!(address.to_string(), "00:16:3e:0a:02:ff");
        for wrong in
            ["", "00:16:3e:0a:02", "00:16:3e:0a:02:ff:00", "00:16:3e:0a:02:+f", "0:16:3e:0a:02:ff", "00163e0a02ff"]
        {
            assert_eq!(MacAddress::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn kinds() {
        let station = MacAddress([2, 0, 0, 0, 0, 1]);
        assert!(station.is_station() && !station.is_group() && !station.is_link_local());
        assert!(!MacAddress::default().is_station() && !MacAddress::default().is_group());
        assert!(MacAddress::BROADCAST.is_group() && !MacAddress::BROADCAST.is_link_local());
        assert!(MacAddress::BRIDGE_GROUP.is_group() && MacAddress::BRIDGE_GROUP.is_link_local());
        assert!(!MacAddress([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
    }
}
