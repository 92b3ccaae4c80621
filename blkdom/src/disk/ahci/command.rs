//! Commands as the adapter and the drive read them: Register FISes, command headers, memory lists, ranges to trim. Pure. Floor 3.
//!
//! Sections: "AHCI" is Serial ATA AHCI 1.3.1, "ACS" is ATA8-ACS (and, for what is newer, ACS-2), "SATA" is Serial ATA 3.1.

use split_driver::memory::DeviceAddress;

/// Words of a Register FIS from host to device (SATA 10.3.4).
pub const FIS_WORDS: usize = 5;
/// Bytes of memory that one entry of a memory list can name (AHCI 4.2.3.3): 4 MiB.
pub const ENTRY_BYTES: u32 = 1 << 22;

/// Opcodes (ACS 7).
pub mod opcode {
    /// DATA SET MANAGEMENT (ACS-2: 7.5).
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    /// READ DMA EXT (ACS 7.27).
    pub const READ_DMA: u8 = 0x25;
    /// READ LOG EXT (ACS 7.31).
    pub const READ_LOG: u8 = 0x2F;
    /// WRITE DMA EXT (ACS 7.62).
    pub const WRITE_DMA: u8 = 0x35;
    /// WRITE DMA FUA EXT (ACS 7.63).
    pub const WRITE_DMA_DURABLE: u8 = 0x3D;
    /// READ FPDMA QUEUED (ACS 7.30).
    pub const READ_QUEUED: u8 = 0x60;
    /// WRITE FPDMA QUEUED (ACS 7.65).
    pub const WRITE_QUEUED: u8 = 0x61;
    /// FLUSH CACHE EXT (ACS 7.14).
    pub const FLUSH: u8 = 0xEA;
    /// IDENTIFY DEVICE (ACS 7.16).
    pub const IDENTIFY: u8 = 0xEC;
}

/// The log that says which queued command failed (ACS A.7).
pub const LOG_QUEUED_ERROR: u8 = 0x10;
/// Features of DATA SET MANAGEMENT: the ranges are of no use any more (ACS-2: 7.5).
const TRIM: u16 = 1;
/// The device register's bit that says that addresses are of blocks (ACS 6.2).
const LBA: u8 = 1 << 6;
/// The device register's bit that makes a queued write durable (ACS 7.65).
const DURABLE: u8 = 1 << 7;
/// FIS type: registers from host to device (SATA 10.3.1).
pub const FIS_TO_DEVICE: u8 = 0x27;
/// The FIS is a command, not a change of the control register (SATA 10.3.4).
const IS_COMMAND: u8 = 1 << 7;

/// A command and its arguments, as a drive has registers for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The opcode.
    pub opcode: u8,
    /// Features.
    pub features: u16,
    /// The address, of 48 bits.
    pub address: u64,
    /// The count: 0 is 65,536.
    pub count: u16,
    /// The device register.
    pub device: u8,
}

impl Task {
    /// A command without arguments.
    pub const fn plain(opcode: u8) -> Self {
        Self { opcode, features: 0, address: 0, count: 0, device: 0 }
    }

    /// READ DMA EXT, WRITE DMA EXT or WRITE DMA FUA EXT of 1 to 65,536 blocks.
    pub const fn unqueued(opcode: u8, first: u64, blocks: u32) -> Self {
        Self { opcode, features: 0, address: first, count: blocks as u16, device: LBA }
    }

    /// READ FPDMA QUEUED or WRITE FPDMA QUEUED of 1 to 65,536 blocks, without its tag.
    pub const fn queued(opcode: u8, first: u64, blocks: u32, durable: bool) -> Self {
        let device = if durable { LBA | DURABLE } else { LBA };
        Self { opcode, features: blocks as u16, address: first, count: 0, device }
    }

    /// The same with the tag of a queued command (ACS 7.30.3).
    #[must_use]
    pub const fn with_tag(self, tag: u8) -> Self {
        Self { count: (tag as u16) << 3, ..self }
    }

    /// READ LOG EXT, the first block of a log.
    pub const fn read_log(log: u8) -> Self {
        Self { count: 1, address: log as u64, ..Self::plain(opcode::READ_LOG) }
    }

    /// DATA SET MANAGEMENT with one block of ranges.
    pub const fn trim() -> Self {
        Self { features: TRIM, count: 1, device: LBA, ..Self::plain(opcode::DATA_SET_MANAGEMENT) }
    }

    /// Whether it writes to the drive.
    pub const fn is_write(&self) -> bool {
        use opcode::{DATA_SET_MANAGEMENT, WRITE_DMA, WRITE_DMA_DURABLE, WRITE_QUEUED};
        matches!(self.opcode, DATA_SET_MANAGEMENT | WRITE_DMA | WRITE_DMA_DURABLE | WRITE_QUEUED)
    }

    /// Whether it is queued.
    pub const fn is_queued(&self) -> bool {
        matches!(self.opcode, opcode::READ_QUEUED | opcode::WRITE_QUEUED)
    }

    /// The Register FIS (SATA 10.3.4).
    pub const fn fis(&self) -> [u32; FIS_WORDS] {
        let [low, high] = self.features.to_le_bytes();
        let address = self.address;
        [
            u32::from_le_bytes([FIS_TO_DEVICE, IS_COMMAND, self.opcode, low]),
            address as u32 & 0xFF_FFFF | (self.device as u32) << 24,
            (address >> 24) as u32 & 0xFF_FFFF | (high as u32) << 24,
            self.count as u32,
            0,
        ]
    }

    /// Takes a FIS apart; `None` where it is no command.
    pub const fn parse(fis: [u32; FIS_WORDS]) -> Option<Self> {
        let [first, low, high, count, _] = fis;
        let [kind, flags, opcode, features] = first.to_le_bytes();
        if kind != FIS_TO_DEVICE || flags != IS_COMMAND {
            return None;
        }
        Some(Self {
            opcode,
            features: u16::from_le_bytes([features, (high >> 24) as u8]),
            address: (high as u64 & 0xFF_FFFF) << 24 | low as u64 & 0xFF_FFFF,
            count: count as u16,
            device: (low >> 24) as u8,
        })
    }

    /// For the log.
    pub fn describe(&self) -> alloc::string::String {
        let (name, blocks) = match self.opcode {
            opcode::READ_DMA => ("read", self.count),
            opcode::READ_QUEUED => ("queued read", self.features),
            opcode::WRITE_DMA | opcode::WRITE_DMA_DURABLE => ("write", self.count),
            opcode::WRITE_QUEUED => ("queued write", self.features),
            opcode::DATA_SET_MANAGEMENT => return "trim".into(),
            opcode::FLUSH => return "flush".into(),
            other => return alloc::format!("command {other:#x}"),
        };
        alloc::format!("{name} of {} blocks from {}", u32::from(blocks.wrapping_sub(1)) + 1, self.address)
    }
}

/// The first word of a command header (AHCI 4.2.2): five words of FIS, a memory list of so many entries.
pub const fn header(write: bool, entries: u16) -> u32 {
    FIS_WORDS as u32 | (write as u32) << 6 | (entries as u32) << 16
}

/// An entry of a memory list (AHCI 4.2.3.3). `bytes` are even, from 2 to [`ENTRY_BYTES`].
pub const fn entry(address: DeviceAddress, bytes: u32) -> [u32; 4] {
    let [low, high] = address.halves();
    [low, high, 0, bytes.wrapping_sub(1) & (ENTRY_BYTES - 1)]
}

/// The queued command that failed, as the log of queued errors names it (ACS A.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedCommand {
    /// The tag of the command that failed.
    pub tag: u8,
    /// Status and error register, as [`crate::disk::IoError::Device`] has them.
    pub code: u32,
}

impl FailedCommand {
    /// Takes the log apart; `None` where it names no queued command, or its checksum is wrong.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [flags, _, status, error, ..] = *bytes.first_chunk::<512>()?;
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        // NQ, bit 7: it was no queued command that failed.
        let known = sum == 0 && flags & 1 << 7 == 0;
        known.then(|| Self { tag: flags & 0x1F, code: u32::from(status) << 8 | u32::from(error) })
    }
}

/// Ranges that fit in a block (ACS-2: 7.5.3.2).
pub const RANGES: u32 = 64;
/// Blocks of a range.
pub const RANGE_BLOCKS: u32 = 0xFFFF;

/// The ranges of a trim: first block in bits 47:0, count in bits 63:48. As many as a block of data holds; the rest are empty.
pub fn ranges(first: u64, blocks: u32) -> impl Iterator<Item = u64> {
    (0..u64::from(RANGES)).map(move |place| {
        let before = place * u64::from(RANGE_BLOCKS);
        let count = u64::from(blocks).saturating_sub(before).min(u64::from(RANGE_BLOCKS));
        if count == 0 { 0 } else { (first + before) | count << 48 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn commands_are_as_the_specification_draws_them() {
        let read = Task::queued(opcode::READ_QUEUED, 0x1234_5678_9ABC, 0x1FF, false).with_tag(31);
        assert_eq!(read.fis(), [0xFF60_8027, 0x4078_9ABC, 0x0112_3456, 0x00F8, 0]);
        let write = Task::queued(opcode::WRITE_QUEUED, 1, 65_536, true).with_tag(0);
        assert_eq!(write.fis(), [0x0061_8027, 0xC000_0001, 0, 0, 0]);
        let write = Task::unqueued(opcode::WRITE_DMA, 0xFFFF_FFFF_FFFF, 8);
        assert_eq!(write.fis(), [0x0035_8027, 0x40FF_FFFF, 0x00FF_FFFF, 8, 0]);
        assert_eq!(Task::trim().fis(), [0x0106_8027, 0x4000_0000, 0, 1, 0]);
        assert_eq!(Task::read_log(0x10).fis(), [0x002F_8027, 0x10, 0, 1, 0]);
        assert_eq!(Task::plain(opcode::IDENTIFY).fis(), [0x00EC_8027, 0, 0, 0, 0]);
        for task in [read, write, Task::trim()] {
            assert_eq!(Task::parse(task.fis()), Some(task));
        }
        assert_eq!(Task::parse([0x0060_0027, 0, 0, 0, 0]), None);
        assert_eq!(header(true, 3), 0x0003_0045);
        assert_eq!(entry(DeviceAddress::made_up(0x1_2345_6000), 4096), [0x2345_6000, 1, 0, 0xFFF]);
        assert_eq!(entry(DeviceAddress::made_up(0), ENTRY_BYTES)[3], 0x3F_FFFF);
    }

    #[test]
    fn ranges_cover_what_is_trimmed() {
        let list = |first, blocks| ranges(first, blocks).take_while(|range| *range != 0).collect::<Vec<_>>();
        assert_eq!(list(5, 1), [1 << 48 | 5]);
        assert_eq!(list(5, 65_536), [0xFFFF << 48 | 5, 1 << 48 | (5 + 65_535)]);
        assert_eq!(list(0, u32::MAX).len(), 64);
        assert_eq!(ranges(0, 1).count(), 64);
    }

    #[test]
    fn the_log_names_a_command_or_none() {
        let mut log = vec![0; 512];
        (log[0], log[2], log[3]) = (7, 0x41, 0x40);
        let sum = |log: &mut [u8]| {
            log[511] = 0;
            log[511] = 0u8.wrapping_sub(log.iter().fold(0, |sum, byte| byte.wrapping_add(sum)));
        };
        sum(&mut log);
        assert_eq!(FailedCommand::parse(&log), Some(FailedCommand { tag: 7, code: 0x4140 }));
        log[3] = 4;
        assert_eq!(FailedCommand::parse(&log), None, "checksum");
        log[0] = 1 << 7;
        sum(&mut log);
        assert_eq!(FailedCommand::parse(&log), None, "no queued command");
        assert_eq!(FailedCommand::parse(&log[1..]), None);
    }
}
