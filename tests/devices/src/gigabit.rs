//! What the MACs of the 82574, the 82576 and its successors have in common, register by register: 82576 datasheet 7.1.2, 8.2.1 and 8.3. Pure.

use crate::advanced::{Errors, Received, Verify};
use crate::bus::Misuse;
use crate::ethernet::{Address, is_broadcast, is_multicast};
use crate::filter;
use crate::igb::registers::{self as reg, count};
use crate::packet::Headers;
use crate::registers::Registers;
use crate::statistics::{self, SHORTEST};

/// A frame goes to the wire: it is padded and counted.
pub fn emit(registers: &mut Registers, misuse: &mut Misuse, frame: &mut Vec<u8>) {
    if frame.len() < SHORTEST && !registers.has(reg::TCTL, reg::TCTL_PSP) {
        misuse.note("a short frame while TCTL.PSP is clear");
    }
    let bytes = statistics::sent(registers, frame);
    registers.count_wide(count::TOT, bytes);
}

/// Whether the filters of addresses and VLANs take a frame; `own` are the places of RAL of its own addresses.
pub fn accepts(
    registers: &Registers,
    mut own: impl Iterator<Item = usize>,
    address: Address,
    vlan: Option<u16>,
) -> bool {
    let filters = |bit: u32| registers.has(reg::RCTL, bit);
    let mut own = || own.any(|place| filter::holds(registers, place, address));
    let by_address = if is_broadcast(address) {
        filters(reg::RCTL_BAM)
    } else if is_multicast(address) {
        let bit = filter::multicast_bit(address, registers.get(reg::RCTL) >> 12);
        filters(reg::RCTL_MPE) || filter::has_bit(registers, reg::MTA, bit) || own()
    } else {
        filters(reg::RCTL_UPE) || own()
    };
    let listed = |tag: u16| filter::has_bit(registers, reg::VFTA, usize::from(tag & 0xFFF));
    by_address && vlan.is_none_or(|tag| !filters(reg::RCTL_VFE) || listed(tag))
}

/// What a descriptor tells of a frame's checksums.
pub fn describe(registers: &Registers, headers: &Headers) -> Received {
    let checks = |bit: u32| registers.has(reg::RXCSUM, bit);
    let verify = Verify { network: checks(reg::RXCSUM_IPOFLD), transport: checks(reg::RXCSUM_TUOFLD) };
    Received::describe(headers, verify, Errors::I82576)
}

/// Pause frames are to be sent: are their marks in a packet buffer of `buffer` bytes, and their contents, such that they can?
pub fn check_pause(registers: &Registers, misuse: &mut Misuse, buffer: u32) {
    let get = |offset| registers.get(offset);
    if let Some(fault) = crate::pause::fault(get(reg::FCRTL) & 0xFFFF, get(reg::FCRTH) & 0xFFFF, buffer) {
        misuse.note(fault);
    }
    if [reg::FCAL, reg::FCAH, reg::FCT].map(get) != [0x00C2_8001, 0x0100, 0x8808] || get(reg::FCTTV) == 0 {
        misuse.note("pause frames are sent with an address, a type or a time that is none");
    }
}
