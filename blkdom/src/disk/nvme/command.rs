//! Entries of the queues: commands as they are written for the device, and what it answers, copied once and then taken apart. Pure.
//! Floor 3.
//!
//! Sections: "2.0" is the NVM Express Base Specification 2.0, "NVM" the NVM Command Set Specification 1.0.

use bitfield_struct::bitfield;
use split_driver::memory::DeviceAddress;

/// Words of a submission queue entry (2.0: 3.3.3.1).
pub const COMMAND_WORDS: usize = 16;
/// Words of a completion queue entry (2.0: 3.3.3.2).
pub const ANSWER_WORDS: usize = 4;

/// A submission queue entry. The command's identifier is set when it is sent.
pub type Entry = [u32; COMMAND_WORDS];

/// Opcodes of admin commands (2.0: 5).
pub mod admin {
    /// Delete I/O Submission Queue (2.0: 5.7).
    pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
    /// Create I/O Submission Queue (2.0: 5.5).
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    /// Get Log Page (2.0: 5.16).
    pub const GET_LOG_PAGE: u8 = 0x02;
    /// Delete I/O Completion Queue (2.0: 5.6).
    pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
    /// Create I/O Completion Queue (2.0: 5.4).
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    /// Identify (2.0: 5.17).
    pub const IDENTIFY: u8 = 0x06;
    /// Abort (2.0: 5.1).
    pub const ABORT: u8 = 0x08;
    /// Set Features (2.0: 5.27).
    pub const SET_FEATURES: u8 = 0x09;
    /// Asynchronous Event Request (2.0: 5.2).
    pub const ASYNC_EVENT_REQUEST: u8 = 0x0C;
}

/// Opcodes of I/O commands (NVM: 3.2; Flush is 2.0: 7.1).
pub mod io {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write (NVM: 3.2.6).
    pub const WRITE: u8 = 0x01;
    /// Read (NVM: 3.2.4).
    pub const READ: u8 = 0x02;
    /// Write Zeroes (NVM: 3.2.8).
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management (NVM: 3.2.3).
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// What Identify is asked for (CNS, 2.0: 5.17.1).
pub mod cns {
    /// The namespace's data structure.
    pub const NAMESPACE: u8 = 0x00;
    /// The controller's data structure.
    pub const CONTROLLER: u8 = 0x01;
    /// The list of active namespaces.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// The namespace's list of identification descriptors.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// The controller's limits for a command set (NVM: 4.1.5.4).
    pub const COMMAND_SET_CONTROLLER: u8 = 0x06;
}

/// Features (2.0: 5.27.1).
pub mod feature {
    /// Number of queues.
    pub const QUEUES: u8 = 0x07;
    /// Which asynchronous events are sent.
    pub const ASYNC_EVENTS: u8 = 0x0B;
}

/// The log page that names namespaces which changed (2.0: 5.16.1.5); reading it lets the next such event come.
pub const LOG_CHANGED_NAMESPACES: u8 = 0x04;
/// Namespace attribute notices, in OAES and in the feature that enables them.
pub const NAMESPACE_NOTICES: u32 = 1 << 8;

/// Word 12 of Write: complete when the data are on the medium (FUA, NVM: 3.2.6).
pub const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Word 11 of Dataset Management: deallocate (AD, NVM: 3.2.3).
pub const DEALLOCATE: u32 = 1 << 2;

/// The status field of an answer, with the phase bit below it (2.0: 3.3.3.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// P: alternates each time that the device goes round the queue.
    pub phase: bool,
    /// SC: the code, of its type.
    pub code: u8,
    /// SCT: 0 generic, 1 command-specific, 2 media, 3 path.
    #[bits(3)]
    pub kind: u8,
    /// CRD: which delay to wait before another try; 0 is none.
    #[bits(2)]
    pub delay: u8,
    /// M: there is more in the error log.
    pub more: bool,
    /// DNR: another try would fail too.
    pub do_not_retry: bool,
}

impl Status {
    /// Invalid Command Opcode.
    pub const INVALID_OPCODE: u16 = 0x001;
    /// Invalid Field in Command.
    pub const INVALID_FIELD: u16 = 0x002;
    /// Command Abort Requested.
    pub const ABORT_REQUESTED: u16 = 0x007;
    /// Invalid Namespace or Format.
    pub const INVALID_NAMESPACE: u16 = 0x00B;

    /// Type and code: 0 is success.
    pub const fn value(self) -> u16 {
        (self.kind() as u16) << 8 | self.code() as u16
    }
}

/// A completion queue entry. Nothing of it is believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Word 0, of a meaning that depends on the command.
    pub result: u32,
    /// SQHD: how far the device has read the submission queue.
    pub head: u16,
    /// SQID: the submission queue.
    pub queue: u16,
    /// CID: the command.
    pub id: u16,
    /// How it went.
    pub status: Status,
}

impl Answer {
    /// Takes an entry apart.
    pub const fn parse(words: [u32; ANSWER_WORDS]) -> Self {
        let [result, _, queue, status] = words;
        Self {
            result,
            head: queue as u16,
            queue: (queue >> 16) as u16,
            id: status as u16,
            status: Status::from_bits((status >> 16) as u16),
        }
    }
}

/// The low and high halves of a block's number.
pub const fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

/// A command without data.
pub const fn plain(opcode: u8, namespace: u32, words: [u32; 2]) -> Entry {
    let mut entry = [0; COMMAND_WORDS];
    entry[0] = opcode as u32;
    entry[1] = namespace;
    [entry[10], entry[11]] = words;
    entry
}

/// A command with one page of data (2.0: 4.1.1).
pub const fn with_page(opcode: u8, namespace: u32, words: [u32; 2], page: DeviceAddress) -> Entry {
    with_pages(plain(opcode, namespace, words), page, None)
}

/// Sets PRP1 and PRP2 (2.0: 4.1.1).
pub const fn with_pages(mut entry: Entry, first: DeviceAddress, second: Option<DeviceAddress>) -> Entry {
    [entry[6], entry[7]] = first.halves();
    if let Some(second) = second {
        [entry[8], entry[9]] = second.halves();
    }
    entry
}

/// Identify (2.0: 5.17).
pub const fn identify(what: u8, namespace: u32, page: DeviceAddress) -> Entry {
    with_page(admin::IDENTIFY, namespace, [what as u32, 0], page)
}

/// Get Log Page (2.0: 5.16), its first `bytes`; clears the event that told of it.
pub const fn log_page(log: u8, bytes: u32, page: DeviceAddress) -> Entry {
    let words = (bytes / 4 - 1) & 0xFFFF;
    with_page(admin::GET_LOG_PAGE, u32::MAX, [log as u32 | words << 16, 0], page)
}

/// Set Features (2.0: 5.27), not saved across a power cycle.
pub const fn set_feature(feature: u8, value: u32) -> Entry {
    plain(admin::SET_FEATURES, 0, [feature as u32, value])
}

/// Create I/O Completion Queue (2.0: 5.4): contiguous, with interrupts.
pub const fn create_completion_queue(queue: u16, depth: u16, vector: u16, address: DeviceAddress) -> Entry {
    let size = (depth as u32 - 1) << 16 | queue as u32;
    with_page(admin::CREATE_COMPLETION_QUEUE, 0, [size, (vector as u32) << 16 | 0b11], address)
}

/// Create I/O Submission Queue (2.0: 5.5): contiguous, answered in the completion queue of the same number.
pub const fn create_submission_queue(queue: u16, depth: u16, address: DeviceAddress) -> Entry {
    let size = (depth as u32 - 1) << 16 | queue as u32;
    with_page(admin::CREATE_SUBMISSION_QUEUE, 0, [size, (queue as u32) << 16 | 0b1], address)
}

/// Abort (2.0: 5.1).
pub const fn abort(queue: u16, id: u16) -> Entry {
    plain(admin::ABORT, 0, [(id as u32) << 16 | queue as u32, 0])
}

/// A command upon `blocks` (1 to 65,536) from `first` on (NVM: 3.2): Read, Write, Write Zeroes. `flags` are word 12's.
pub const fn upon_blocks(opcode: u8, namespace: u32, first: u64, blocks: u32, flags: u32) -> Entry {
    let mut entry = plain(opcode, namespace, halves(first));
    entry[12] = (blocks.wrapping_sub(1) & 0xFFFF) | flags;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_the_specification_draws_them() {
        let at = DeviceAddress::made_up;
        let blocks = upon_blocks(io::READ, 7, 0x1_2345_6789, 8, 0);
        let read = with_pages(blocks, at(0xA_0000_1000), Some(at(0xB_0000_2000)));
        assert_eq!(read, [2, 7, 0, 0, 0, 0, 0x1000, 0xA, 0x2000, 0xB, 0x2345_6789, 1, 7, 0, 0, 0]);
        assert_eq!(upon_blocks(io::WRITE, 1, 0, 65_536, FORCE_UNIT_ACCESS)[12], 0x4000_FFFF);
        assert_eq!(create_completion_queue(1, 256, 1, at(0x1000))[10..12], [0x00FF_0001, 0x0001_0003]);
        assert_eq!(create_submission_queue(1, 256, at(0x1000))[10..12], [0x00FF_0001, 0x0001_0001]);
        assert_eq!(abort(1, 0x0203)[10], 0x0203_0001);
        assert_eq!(log_page(4, 4096, at(0))[10], 0x03FF_0004);
        let answer = Answer::parse([5, 0, 0x0001_0009, 0xC285_0102]);
        assert_eq!((answer.result, answer.head, answer.queue, answer.id), (5, 9, 1, 0x0102));
        assert!(answer.status.phase() && answer.status.more() && answer.status.do_not_retry());
        assert_eq!(answer.status.value(), 0x142);
    }
}
