//! VLANs: which one a packet is of, where its tag is, and which tag it has where it goes. Pure. Floor 3.
//!
//! A port has its VLANs ([`Vlans`]): on an access port frames have no tag; on a trunk those of a VLAN have its tag, and those of none have
//! none; a port may be both. A NIC's port is a trunk for all. A tag may be among a frame's bytes, or apart from them: a NIC takes it out and
//! puts it in. Only 802.1Q tags tell a VLAN. What stands behind the outer tag, another tag or not, belongs to the frame.

use crate::ethernet::Tag;
use crate::offload::head::Head;
use crate::offload::headers::{ETHERTYPE_VLAN, MAX_HEADERS};
use crate::packet::{Fragment, Fragments, Packet, Pool};
use crate::statistics::DropCause;
use crate::switch::Vlans;

/// Bytes before a tag: both addresses.
const ADDRESSES: usize = 12;

/// The VLAN of a packet, and its tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tagging {
    /// The VLAN; 0 for none.
    pub(crate) vlan: u16,
    /// The tag that it has on a trunk, where that is not among its bytes as they are.
    apart: Option<Tag>,
    /// Whether the outer tag among its bytes is its own, not the frame's behind it.
    among: bool,
}

/// What is to be done to a packet's bytes, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// The outer tag is taken out.
    remove: bool,
    /// This tag is put in.
    insert: Option<Tag>,
}

impl Edit {
    /// Whether the packet stays as it is.
    pub(crate) const fn is_none(&self) -> bool {
        !self.remove && self.insert.is_none()
    }

    /// The tag to be put in, to be left to a NIC.
    pub(crate) const fn take_insert(&mut self) -> Option<Tag> {
        self.insert.take()
    }
}

impl Tagging {
    /// Of a packet with this head that comes from a port with these VLANs.
    ///
    /// # Errors
    /// [`DropCause::Vlan`]: it is of none of them. On an access port frames have no tag, or one that tells a priority alone.
    pub(crate) fn new(vlans: &Vlans, head: &Head) -> Result<Self, DropCause> {
        match (vlans.native(), outer(head)) {
            (Some(native), None) if head.tags.is_empty() && !head.is_tagged() => {
                return Ok(Self { vlan: native.get(), apart: Some(native.tag(0)), among: false });
            }
            // No other tag may come to light when this one is taken out.
            (Some(native), Some(control)) if control & 0xfff == 0 && head.tags.len() == 1 && !head.is_tagged() => {
                return Ok(Self { vlan: native.get(), apart: Some(native.tag(control)), among: true });
            }
            _ => {}
        }
        let tagging = Self::of_trunk(head, None);
        if vlans.carry_tagged(tagging.vlan) { Ok(tagging) } else { Err(DropCause::Vlan) }
    }

    /// Of a packet that comes from a trunk for all VLANs; `taken` is the tag that a NIC took out.
    pub(crate) fn of_trunk(head: &Head, taken: Option<Tag>) -> Self {
        if taken.is_none() && head.tags.is_empty() {
            return Self { vlan: 0, apart: None, among: false };
        }
        let outer = outer(head);
        // VLAN 4095 is none; no access port is of it either.
        let control = taken.map(Tag::control).or(outer).unwrap_or_default();
        Self { vlan: control & 0xfff, apart: taken, among: taken.is_none() && outer.is_some() }
    }

    /// What is to be done to it for a port that carries its VLAN.
    pub(crate) fn edit_for(&self, vlans: &Vlans) -> Edit {
        self.edit(vlans.is_untagged(self.vlan))
    }

    /// What is to be done to it for a port where it has no tag, or where it has its own.
    pub(crate) const fn edit(&self, untagged: bool) -> Edit {
        match (untagged, self.apart) {
            (true, _) => Edit { remove: self.among, insert: None },
            // As it came.
            (false, None) => Edit { remove: false, insert: None },
            (false, Some(tag)) => Edit { remove: self.among, insert: Some(tag) },
        }
    }
}

/// The control information of the outer tag, where it is an 802.1Q tag.
fn outer(head: &Head) -> Option<u16> {
    head.tags.outer().filter(|(protocol, _)| *protocol == ETHERTYPE_VLAN).map(|(_, control)| control)
}

/// Edits a packet in local memory: in a page of its own for its headers, so that no other copy of it changes. The packet's head then.
///
/// # Errors
/// Why the packet is lost.
#[inline(never)]
pub(super) fn apply(packet: &mut Packet, edit: Edit, pool: &Pool) -> Result<Head, DropCause> {
    let mut bytes = [0; MAX_HEADERS + Tag::BYTES];
    let first = packet.fragments.first().ok_or(DropCause::Unsuitable)?;
    let read = usize::from(first.length).min(MAX_HEADERS);
    let place = bytes.get_mut(..read).ok_or(DropCause::Unsuitable)?;
    if read < ADDRESSES + Tag::BYTES || !first.buffer.read(first.offset.into(), place) {
        return Err(DropCause::Unsuitable);
    }
    let mut length = read;
    if edit.remove {
        bytes.copy_within(ADDRESSES + Tag::BYTES..length, ADDRESSES);
        length -= Tag::BYTES;
    }
    if let Some(tag) = edit.insert {
        bytes.copy_within(ADDRESSES..length, ADDRESSES + Tag::BYTES);
        length += Tag::BYTES;
        let [a, b] = ETHERTYPE_VLAN.to_be_bytes();
        let [c, d] = tag.control().to_be_bytes();
        bytes.get_mut(ADDRESSES..ADDRESSES + Tag::BYTES).ok_or(DropCause::Unsuitable)?.copy_from_slice(&[a, b, c, d]);
    }
    let bytes = bytes.get(..length).ok_or(DropCause::Unsuitable)?;
    let buffer = pool.take().ok_or(DropCause::NoBuffer)?;
    if !buffer.write(0, bytes) {
        return Err(DropCause::NoBuffer);
    }
    let mut fragments = Fragments::new();
    // Both lengths are below a page's.
    let mut all = fragments.push(Fragment { buffer, offset: 0, length: length as u16 }).is_ok();
    let mut skip = read as u16;
    core::mem::take(&mut packet.fragments).for_each_taken(|mut fragment| {
        let skipped = core::mem::take(&mut skip);
        fragment.offset += skipped;
        fragment.length -= skipped;
        all &= fragment.length == 0 || fragments.push(fragment).is_ok();
    });
    packet.fragments = fragments;
    Head::parse(bytes).filter(|_| all).ok_or(DropCause::Unsuitable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::VlanId;
    use alloc::vec::Vec;

    fn head(tags: &[(u16, u16)]) -> Head {
        let mut frame = Vec::from([2; 12]);
        for (protocol, control) in tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend([0x88, 0xb5]);
        frame.resize(60, 0);
        Head::parse(&frame).unwrap()
    }

    #[test]
    fn tags_by_port() {
        let vlan = |number| VlanId::new(number).unwrap();
        let access = &Vlans::access(vlan(100));
        let both = &Vlans::new(Some(vlan(100)), Vec::from([vlan(200)]));
        let some = &Vlans::new(None, Vec::from([vlan(200)]));
        let trunk = &Vlans::TRUNK;
        let tag = |control| Tag::new(control).unwrap();
        let edit = |remove, insert| Edit { remove, insert };
        let own = |number: u16| Ok((number, edit(true, None), edit(false, None)));
        let table: [(_, &[(u16, u16)], _); 20] = [
            // From an access port: untagged, or a priority alone, which is kept.
            (access, &[], Ok((100, edit(false, None), edit(false, Some(tag(100)))))),
            (access, &[(0x8100, 0xa000)], Ok((100, edit(true, None), edit(true, Some(tag(0xa064)))))),
            // Any other tag, its own VLAN's, too, and tags behind tags.
            (access, &[(0x8100, 100)], Err(DropCause::Vlan)),
            (access, &[(0x8100, 200)], Err(DropCause::Vlan)),
            (access, &[(0x88a8, 0)], Err(DropCause::Vlan)),
            (access, &[(0x8100, 0), (0x8100, 200)], Err(DropCause::Vlan)),
            (access, &[(0x8100, 0), (0x8100, 0), (0x8100, 200)], Err(DropCause::Vlan)),
            // From a trunk for all.
            (trunk, &[], Ok((0, edit(false, None), edit(false, None)))),
            (trunk, &[(0x8100, 0x6064)], own(100)),
            (trunk, &[(0x8100, 100), (0x8100, 200)], own(100)),
            (trunk, &[(0x88a8, 100), (0x8100, 200)], Ok((0, edit(false, None), edit(false, None)))),
            // From a trunk for one: its frames, with any tags behind, and no others.
            (some, &[(0x8100, 200)], own(200)),
            (some, &[(0x8100, 200), (0x8100, 100)], own(200)),
            (some, &[], Err(DropCause::Vlan)),
            (some, &[(0x8100, 0)], Err(DropCause::Vlan)),
            (some, &[(0x8100, 100)], Err(DropCause::Vlan)),
            // From a port that is both.
            (both, &[], Ok((100, edit(false, None), edit(false, Some(tag(100)))))),
            (both, &[(0x8100, 200)], own(200)),
            (both, &[(0x8100, 100)], Err(DropCause::Vlan)),
            (both, &[(0x8100, 0), (0x8100, 200)], Err(DropCause::Vlan)),
        ];
        for (vlans, tags, expected) in table {
            let tagging = Tagging::new(vlans, &head(tags));
            let found = tagging.map(|tagging| (tagging.vlan, tagging.edit(true), tagging.edit(false)));
            assert_eq!(found, expected, "{vlans:?} {tags:x?}");
        }
        // A NIC took the outer one.
        for (tags, taken) in [(&[][..], 0x6064), (&[(0x8100, 200)], 100)] {
            let tagging = Tagging::of_trunk(&head(tags), Some(tag(taken)));
            let found = (tagging.vlan, tagging.edit(true), tagging.edit(false));
            assert_eq!(found, (100, edit(false, None), edit(false, Some(tag(taken)))), "{tags:x?}");
        }
        // What leaves a port that is both.
        let edits = [100, 200].map(|number| Tagging::new(trunk, &head(&[(0x8100, number)])).unwrap().edit_for(both));
        assert_eq!(edits, [edit(true, None), edit(false, None)]);
    }
}
