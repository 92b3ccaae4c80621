//! Counters that all the models have at the same places: 82599 datasheet 8.2.3.23, 82576 datasheet 8.19. Pure.

use crate::ethernet::{Address, destination, is_broadcast, is_multicast};
use crate::registers::Registers;

/// Bytes of the shortest frame, without its frame check sequence.
pub const SHORTEST: usize = 60;
/// Bytes of the frame check sequence.
pub const FRAME_CHECK: usize = 4;

/// The counters.
pub mod count {
    /// GPRC: good packets received.
    pub const GPRC: usize = 0x4074;
    /// BPRC.
    pub const BPRC: usize = 0x4078;
    /// MPRC.
    pub const MPRC: usize = 0x407C;
    /// GPTC.
    pub const GPTC: usize = 0x4080;
    /// GORCL.
    pub const GORC: usize = 0x4088;
    /// GOTCL.
    pub const GOTC: usize = 0x4090;
    /// TPT.
    pub const TPT: usize = 0x40D4;
    /// MPTC.
    pub const MPTC: usize = 0x40F0;
    /// BPTC.
    pub const BPTC: usize = 0x40F4;
}

fn of_all_and_groups(registers: &mut Registers, address: Address, [broadcast, multicast]: [usize; 2]) {
    match address {
        address if is_broadcast(address) => registers.count(broadcast, 1),
        address if is_multicast(address) => registers.count(multicast, 1),
        _ => {}
    }
}

/// Pads a frame for the wire and counts it. Its bytes, with the frame check sequence.
pub fn sent(registers: &mut Registers, frame: &mut Vec<u8>) -> u64 {
    frame.resize(frame.len().max(SHORTEST), 0);
    let bytes = (frame.len() + FRAME_CHECK) as u64;
    registers.count(count::GPTC, 1);
    registers.count(count::TPT, 1);
    registers.count_wide(count::GOTC, bytes);
    of_all_and_groups(registers, destination(frame), [count::BPTC, count::MPTC]);
    bytes
}

/// Counts a good frame that was received, of so many bytes with its frame check sequence.
pub fn received(registers: &mut Registers, frame: &[u8], bytes: usize) {
    registers.count(count::GPRC, 1);
    registers.count_wide(count::GORC, bytes as u64);
    of_all_and_groups(registers, destination(frame), [count::BPRC, count::MPRC]);
}
