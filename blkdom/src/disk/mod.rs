//! What the data path asks of a disk driver. A driver is a file below; it sees registers and DMA memory through
//! `split_driver::memory` only, so that the same code runs on hardware, on a model and in a fuzzer. Floor 3.
//!
//! A [`Disk`] is a controller; what it holds are its *units*: the namespaces of an NVMe controller, the drives of an AHCI one. All
//! sectors are of 512 bytes, whatever a unit's logical block is, as in `io/blkif.h`.

pub mod ahci;
pub mod halt;
pub mod nvme;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use split_driver::memory::{DeviceAddress, Quiesced};
use split_driver::time::Instant;

/// Bytes of a sector: what addresses and counts mean here, as in `io/blkif.h`.
pub const SECTOR_BYTES: u32 = 512;

/// A unit of a controller, counted from 0 in the order that they were found in; never given to another unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u16);

/// What a unit is, which decides how it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// A namespace, by its number: `nvme0n1`.
    Namespace(u32),
    /// A drive, by its port: `sda` is that of port 0.
    Drive(u8),
}

/// What a unit can do and how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of a logical block: addresses and lengths of commands are multiples of it. 512 to 4,096.
    pub logical_block: u32,
    /// Bytes that the medium writes as a whole; a multiple of `logical_block`.
    pub physical_block: u32,
    /// It has a volatile write cache: what was written is durable after a flush only.
    pub volatile_cache: bool,
    /// Nothing can be written.
    pub read_only: bool,
    /// What discarding can do, if anything.
    pub discard: Option<Discard>,
    /// It writes zeroes without being sent any.
    pub write_zeroes: bool,
}

/// What discarding a unit's sectors can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discard {
    /// Bytes of the smallest range that is discarded.
    pub granularity: u32,
    /// Bytes that the first such range lies off the beginning.
    pub alignment: u32,
    /// Discarded sectors are beyond recovery, where that is asked for.
    pub secure: bool,
}

/// A unit as its driver found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its place in the controller.
    pub id: UnitId,
    /// Namespace or drive.
    pub kind: UnitKind,
    /// The model, as the device says; printable.
    pub model: String,
    /// The serial number, as the device says; printable.
    pub serial: String,
    /// The name that no other device in the world has, as Linux writes it: `0x5000c500a1b2c3d4` of a drive, `eui.0025385b71b00c42` or `uuid.` of
    /// a namespace. Empty where it has none.
    pub wwn: String,
    /// Size and abilities.
    pub geometry: Geometry,
}

/// A run of memory that the device reads or writes: whole logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins; a multiple of 512. A segment does not cross a page's end.
    pub address: DeviceAddress,
    /// Bytes.
    pub bytes: u32,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Medium to memory.
    Read,
    /// Memory to medium.
    Write {
        /// Complete only when it is durable.
        force_unit_access: bool,
    },
    /// Makes all writes that completed before durable. No sectors, no data.
    Flush,
    /// The sectors' contents are of no use any more. No data.
    Discard {
        /// They must be beyond recovery.
        secure: bool,
    },
    /// The sectors become zeroes. No data.
    WriteZeroes,
}

/// The submitter's name of a command; comes back in its [`Completion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What a driver is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Which unit.
    pub unit: UnitId,
    /// What.
    pub operation: Operation,
    /// The first sector.
    pub sector: u64,
    /// How many.
    pub sectors: u32,
    /// The memory, for `Read` and `Write`: as many bytes as there are sectors.
    pub data: &'a [Segment],
    /// The submitter's name for it.
    pub tag: Tag,
}

/// Why a driver does not take a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full, or it is starting or recovering: try again after a completion, or upon [`Disk::poll`] having brought something.
    Full,
    /// There is no such unit, or no longer.
    NoUnit,
    /// The unit cannot do that.
    Unsupported,
    /// Not whole logical blocks, beyond the end, or data of another length.
    Malformed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "the queue is full, or the driver is starting or recovering",
            Self::NoUnit => "there is no such unit",
            Self::Unsupported => "the unit cannot do that",
            Self::Malformed => "not whole blocks within the unit",
        })
    }
}

impl core::error::Error for Refusal {}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The medium or the device reported an error for this command.
    Device {
        /// What it reported, in its own terms: an NVMe status field, or an ATA status and error register.
        code: u32,
    },
    /// The device did not answer in time, and the command was given up.
    TimedOut,
    /// The device cannot do that after all.
    Unsupported,
    /// The unit or its controller is gone.
    Gone,
}

impl fmt::Display for IoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { code } => write!(formatter, "the device reports error {code:#x}"),
            Self::TimedOut => formatter.write_str("the device did not answer in time"),
            Self::Unsupported => formatter.write_str("the device cannot do that"),
            Self::Gone => formatter.write_str("the device is gone"),
        }
    }
}

impl core::error::Error for IoError {}

/// A command is done: its memory is the submitter's again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The submitter's name for it.
    pub tag: Tag,
    /// How it went.
    pub result: Result<(), IoError>,
}

/// Something about a controller that its users must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is ready: [`Disk::units`] says with what. Comes again when it has recovered.
    Ready,
    /// A unit came.
    Added(UnitId),
    /// A unit's size or abilities are others now.
    Changed(UnitId),
    /// A unit went. Its commands have completed with [`IoError::Gone`].
    Removed(UnitId),
    /// The controller stopped working and is being reset; no command is lost by that.
    Recovering(String),
    /// The controller is no longer of use, and why. Commands that it may still be at work on complete after [`Disk::remove`].
    Failed(String),
}

/// A disk controller. Nothing blocks: starting, recovery and time-outs are steps of [`Disk::poll`].
///
/// Interrupts are one-shot, as those of a NIC: one that arrived stays disabled until [`Disk::enable_interrupts`]. A round is
///
/// ```text
/// disk.handle_interrupt(vector)                       where one arrived
/// loop {
///     disk.poll(now, &mut completions);               completions, steps of the state machine, time-outs
///     disk.submit(...)                                any number
///     disk.ring();                                    one doorbell write for all of them
///     if nothing else is to do and !disk.enable_interrupts() { break }      then block, at most until disk.deadline()
/// }
/// ```
pub trait Disk {
    /// The driver and the device, for the log: `NVMe 1.4, QEMU NVMe Ctrl`.
    fn name(&self) -> String;
    /// What it holds now.
    fn units(&self) -> &[Unit];
    /// Takes a command, or so much of its beginning as the device can do in one: gives the sectors taken, at least one logical block
    /// (0 for `Flush`). The submitter asks again for the rest, with the same tag where it likes; each part completes by itself.
    ///
    /// # Errors
    /// Why nothing was taken.
    fn submit(&mut self, command: &Command<'_>) -> Result<u32, Refusal>;
    /// Tells the device of what was submitted.
    fn ring(&mut self);
    /// Collects completions, goes on with starting or recovery, and sees to what takes too long.
    fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>);
    /// When `poll` must be called even if no interrupt arrives; `None` where nothing is waited for.
    fn deadline(&self) -> Option<Instant>;
    /// Something that happened to the controller or its units.
    fn poll_event(&mut self) -> Option<Event>;
    /// Acknowledges the interrupt of `vector` (0 where there is only one) and keeps it disabled until it is enabled again.
    fn handle_interrupt(&mut self, vector: usize);
    /// Enables interrupts. True where completions are there already: poll once more instead of blocking.
    fn enable_interrupts(&mut self) -> bool;
    /// The device no longer reaches memory: its registers are no longer touched, and all commands complete with [`IoError::Gone`] at
    /// the next `poll`.
    fn remove(&mut self, proof: Quiesced);
    /// Stops DMA and interrupts for good; writes what the cache holds where the device has a command for that. Commands complete with
    /// [`IoError::Gone`] at the next `poll` where the device says that it has stopped, and otherwise after [`Disk::remove`].
    fn quiesce(&mut self);
}
