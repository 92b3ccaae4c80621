//! How a device is told of the buffers for received frames. Pure.

use crate::bus::Misuse;
use crate::igb::registers::RCTL;
use crate::receive::Settings;
use crate::registers::Registers;

/// RCTL.DTYP: 0 for whole frames, 1 for packet split. 82574 datasheet 10.2.5.1.
const RCTL_TYPE: u32 = 3 << 10;
/// RCTL.BSEX: BSIZE counts 16 times as much.
const RCTL_EXTENDED: u32 = 1 << 25;
/// RFCTL, 82574 datasheet 10.2.5.
pub const RFCTL: usize = 0x0_5008;
/// RFCTL.EXTEN: descriptors are written back in the extended format.
const RFCTL_EXTENDED: u32 = 1 << 15;

/// Where the size of buffers stands, and the form of their descriptors.
#[derive(Clone, Copy, Debug)]
pub enum Buffers {
    /// In SRRCTL of each queue, 82576 datasheet 8.10.2.
    Queue {
        /// SRRCTL from a receive queue's first register.
        control: usize,
        /// SRRCTL.BSIZEPACKET, from bit 0 on.
        size: u32,
        /// The most that may stand there, in KiB.
        largest: u32,
        /// SRRCTL.DROP_EN.
        drop: u32,
    },
    /// In RCTL and RFCTL for the whole device, 82574 datasheet 10.2.5.1.
    Device,
}

impl Buffers {
    /// As the registers of the queue whose first is at `first` say.
    pub fn settings(&self, registers: &Registers, first: usize) -> Settings {
        match *self {
            Self::Queue { control, size, drop, .. } => {
                let control = registers.get(first + control);
                let buffer = ((control & size) as usize) << 10;
                Settings { buffer, drop: control & drop != 0, clears_done: false }
            }
            Self::Device => Settings { buffer: size(registers.get(RCTL)), drop: false, clears_done: true },
        }
    }

    /// Notes settings with which a queue must not be enabled.
    pub fn check(&self, registers: &Registers, first: usize, misuse: &mut Misuse) {
        match *self {
            Self::Queue { control, size, largest, .. } => {
                let control = registers.get(first + control);
                match control >> 25 & 7 {
                    1 => {}
                    0 => misuse.note("a receive queue with legacy descriptors"),
                    kind => {
                        misuse.note(format!("a receive queue with descriptors of type {kind}, which is not modelled"));
                    }
                }
                if !(1..=largest).contains(&(control & size)) {
                    misuse.note(format!("SRRCTL.BSIZEPACKET is not of 1 to {largest} KB"));
                }
            }
            Self::Device => {
                if !registers.has(RFCTL, RFCTL_EXTENDED) {
                    misuse.note("a receive queue with legacy descriptors");
                }
                if registers.has(RCTL, RCTL_TYPE) {
                    misuse.note("a receive queue with packet split, which is not modelled");
                }
                if size(registers.get(RCTL)) == 0 {
                    misuse.note("RCTL.BSEX with a BSIZE of 0, which is reserved");
                }
            }
        }
    }
}

/// Bytes of a buffer by RCTL: FLXBUF in KiB where it is set, or else BSIZE; 0 where that is reserved.
const fn size(control: u32) -> usize {
    let flexible = control >> 27 & 0xF;
    let size = 2048 >> (control >> 16 & 3);
    match (flexible, control & RCTL_EXTENDED != 0) {
        (1.., _) => (flexible as usize) << 10,
        (0, false) => size,
        (0, true) if size < 2048 => size * 16,
        (0, true) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_datasheet() {
        // 82574 datasheet 10.2.5.1: BSIZE and BSEX; FLXBUF.
        let rows = [(0, 2048), (1, 1024), (2, 512), (3, 256), (0x201, 16384), (0x202, 8192), (0x203, 4096), (0x200, 0)];
        for (bits, bytes) in rows {
            assert_eq!(size(bits << 16), bytes, "{bits:#x}");
        }
        assert_eq!(size(3 << 27 | 0x203 << 16), 3072);
    }

    #[test]
    fn a_device_without_extended_descriptors_is_not_modelled() {
        let (mut registers, mut misuse) = (Registers::new(0x6000), Misuse::default());
        registers.set(RCTL, 1 << 10 | 0x200 << 16);
        Buffers::Device.check(&registers, 0x2800, &mut misuse);
        assert_eq!(misuse.list().len(), 3);
        let mut misuse = Misuse::default();
        registers.set(RFCTL, RFCTL_EXTENDED);
        registers.set(RCTL, 0x203 << 16);
        Buffers::Device.check(&registers, 0x2800, &mut misuse);
        assert_eq!(misuse.list(), [""; 0]);
        assert_eq!(Buffers::Device.settings(&registers, 0x2800).buffer, 4096);
    }
}
