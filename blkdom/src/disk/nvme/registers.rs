//! Registers of an NVMe controller: typed, each at an offset checked against the part that every controller has. Pure. Floor 3.
//!
//! Sections are those of the NVM Express Base Specification 2.0 and, for the doorbells, of the NVMe over PCIe Transport Specification
//! 1.0. Offsets and bits were checked against Linux's `include/linux/nvme.h` and QEMU's `include/block/nvme.h`.

use bitfield_struct::bitfield;
use split_driver::memory::{DeviceAddress, Mmio, Quiesced};
use split_driver::registers::{self, Base, Block};

/// Where the doorbells begin (Transport 3.1.2): the registers below are there in each controller.
pub const DOORBELLS: usize = 0x1000;

/// The registers of BAR 0 before the doorbells.
#[derive(Debug)]
pub enum Properties {}

impl Block for Properties {
    const BYTES: usize = DOORBELLS;
}

/// A register that holds a `T`, at a byte offset into BAR 0.
pub type Reg<T> = registers::Reg<Properties, T>;

/// CAP, controller capabilities, low half (2.0: 3.1.3.1).
pub const CAP_LOW: Reg<u32> = Reg::at(0x00);
/// CAP, high half.
pub const CAP_HIGH: Reg<u32> = Reg::at(0x04);
/// VS, version (2.0: 3.1.3.2).
pub const VS: Reg<Version> = Reg::at(0x08);
/// INTMS, interrupt mask set (2.0: 3.1.3.3): one bit a vector. Not to be touched with MSI-X.
pub const INTMS: Reg<u32> = Reg::at(0x0C);
/// INTMC, interrupt mask clear (2.0: 3.1.3.4).
pub const INTMC: Reg<u32> = Reg::at(0x10);
/// CC, controller configuration (2.0: 3.1.3.5).
pub const CC: Reg<Cc> = Reg::at(0x14);
/// CSTS, controller status (2.0: 3.1.3.6).
pub const CSTS: Reg<Csts> = Reg::at(0x1C);
/// AQA, admin queue attributes (2.0: 3.1.3.8).
pub const AQA: Reg<Aqa> = Reg::at(0x24);
/// ASQ, admin submission queue base address (2.0: 3.1.3.9).
pub const ASQ: Base<Properties> = Base::at(0x28);
/// ACQ, admin completion queue base address (2.0: 3.1.3.10).
pub const ACQ: Base<Properties> = Base::at(0x30);

/// CAP (2.0: 3.1.3.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// MQES: entries of the largest I/O queue, less one.
    pub max_queue_entries: u16,
    /// CQR: queues must be contiguous.
    pub contiguous_queues: bool,
    #[bits(2)]
    _ams: u8,
    #[bits(5)]
    _r19: u8,
    /// TO: how long CSTS.RDY may take to follow CC.EN, in units of 500 ms.
    pub timeout: u8,
    /// DSTRD: doorbells lie `4 << stride` bytes apart.
    #[bits(4)]
    pub doorbell_stride: u8,
    /// NSSRS: subsystem reset.
    pub subsystem_reset: bool,
    /// CSS, bit 0: the NVM command set.
    pub nvm_commands: bool,
    #[bits(5)]
    _css: u8,
    /// CSS, bit 6: one or more I/O command sets, chosen by `Cc::command_sets` 6.
    pub other_commands: bool,
    /// CSS, bit 7: no I/O command set.
    pub admin_only: bool,
    _bps: bool,
    #[bits(2)]
    _cps: u8,
    /// MPSMIN: the smallest memory page is of `4096 << this` bytes.
    #[bits(4)]
    pub smallest_page: u8,
    /// MPSMAX.
    #[bits(4)]
    pub largest_page: u8,
    #[bits(8)]
    _r56: u8,
}

/// VS (2.0: 3.1.3.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Version {
    /// TER.
    pub tertiary: u8,
    /// MNR.
    pub minor: u8,
    /// MJR.
    pub major: u16,
}

impl Version {
    /// Whether it is this version or a later one.
    pub const fn at_least(self, major: u16, minor: u8) -> bool {
        self.major() > major || (self.major() == major && self.minor() >= minor)
    }
}

/// CC (2.0: 3.1.3.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cc {
    /// EN.
    pub enable: bool,
    #[bits(3)]
    _r1: u8,
    /// CSS: 0 is the NVM command set.
    #[bits(3)]
    pub command_sets: u8,
    /// MPS: memory pages are of `4096 << this` bytes.
    #[bits(4)]
    pub page: u8,
    /// AMS: 0 is round robin.
    #[bits(3)]
    pub arbitration: u8,
    /// SHN: 1 asks for a normal shutdown.
    #[bits(2)]
    pub shutdown: u8,
    /// IOSQES: entries of I/O submission queues are of `1 << this` bytes.
    #[bits(4)]
    pub submission_entry: u8,
    /// IOCQES: entries of I/O completion queues are of `1 << this` bytes.
    #[bits(4)]
    pub completion_entry: u8,
    #[bits(8)]
    _r24: u8,
}

/// CSTS (2.0: 3.1.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Csts {
    /// RDY.
    pub ready: bool,
    /// CFS: controller fatal status.
    pub fatal: bool,
    /// SHST: 2 when a shutdown is complete.
    #[bits(2)]
    pub shutdown: u8,
    #[bits(28)]
    _r4: u32,
}

impl Csts {
    /// Whether there is no device behind the register: it reads as all ones.
    pub const fn absent(self) -> bool {
        self.into_bits() == u32::MAX
    }
}

/// AQA (2.0: 3.1.3.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Aqa {
    /// ASQS: entries of the admin submission queue, less one.
    #[bits(12)]
    pub submission: u16,
    #[bits(4)]
    _r12: u8,
    /// ACQS: entries of the admin completion queue, less one.
    #[bits(12)]
    pub completion: u16,
    #[bits(4)]
    _r28: u8,
}

/// Reads and writes typed registers.
pub(super) struct Registers<M> {
    pub(super) mmio: M,
    /// CAP.DSTRD, as it was at first.
    stride: u8,
}

/// CAP. Two halves are as good as a whole: it does not change.
pub fn capabilities(registers: &impl Mmio) -> Cap {
    let [low, high]: [u32; 2] = [CAP_LOW, CAP_HIGH].map(|half| half.read(registers, 0));
    Cap::from(u64::from(high) << 32 | u64::from(low))
}

impl<M: Mmio> Registers<M> {
    pub(super) const fn new(mmio: M) -> Self {
        Self { mmio, stride: 0 }
    }

    pub(super) fn read<T: From<u32>>(&self, register: Reg<T>) -> T {
        register.read(&self.mmio, 0)
    }

    pub(super) fn write<T: Into<u32>>(&self, register: Reg<T>, value: T) {
        register.write(&self.mmio, 0, value);
    }

    pub(super) fn write_base(&self, base: Base<Properties>, address: DeviceAddress) {
        base.write(&self.mmio, 0, address);
    }

    /// Proof that the controller has stopped, where the register says so.
    pub(super) fn confirm<T: From<u32>>(&self, register: Reg<T>, stopped: impl FnOnce(T) -> bool) -> Option<Quiesced> {
        register.confirm(&self.mmio, 0, stopped)
    }

    /// CAP.
    pub(super) fn capabilities(&self) -> Cap {
        capabilities(&self.mmio)
    }

    /// Sets the doorbells' distance. False where those of queues 0 to `queues` lie beyond what is mapped.
    pub(super) fn set_stride(&mut self, stride: u8, queues: u16) -> bool {
        self.stride = stride;
        self.mmio.len() >= self.doorbell(queues, true) + 4
    }

    /// SQyTDBL and CQyHDBL (Transport 3.1.2.1 and 3.1.2.2).
    const fn doorbell(&self, queue: u16, completion: bool) -> usize {
        DOORBELLS + ((2 * queue as usize + completion as usize) << (2 + self.stride))
    }

    pub(super) fn write_submission_tail(&self, queue: u16, tail: u16) {
        self.mmio.write32(self.doorbell(queue, false), u32::from(tail));
    }

    pub(super) fn write_completion_head(&self, queue: u16, head: u16) {
        self.mmio.write32(self.doorbell(queue, true), u32::from(head));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the bits as Linux's and QEMU's headers have them.
    #[test]
    fn fields_lie_where_the_specification_says() {
        let table: &[(u64, u64)] = &[
            (Cap::new().with_max_queue_entries(0xFFFF).into(), 0xFFFF),
            (Cap::new().with_contiguous_queues(true).into(), 1 << 16),
            (Cap::new().with_timeout(0xFF).into(), 0xFF << 24),
            (Cap::new().with_doorbell_stride(0xF).into(), 0xF << 32),
            (Cap::new().with_subsystem_reset(true).into(), 1 << 36),
            (Cap::new().with_nvm_commands(true).into(), 1 << 37),
            (Cap::new().with_other_commands(true).into(), 1 << 43),
            (Cap::new().with_admin_only(true).into(), 1 << 44),
            (Cap::new().with_smallest_page(0xF).into(), 0xF << 48),
            (Cap::new().with_largest_page(0xF).into(), 0xF << 52),
            (u32::from(Cc::new().with_enable(true)).into(), 1),
            (u32::from(Cc::new().with_command_sets(7)).into(), 7 << 4),
            (u32::from(Cc::new().with_page(0xF)).into(), 0xF << 7),
            (u32::from(Cc::new().with_arbitration(7)).into(), 7 << 11),
            (u32::from(Cc::new().with_shutdown(1)).into(), 1 << 14),
            (u32::from(Cc::new().with_submission_entry(6)).into(), 6 << 16),
            (u32::from(Cc::new().with_completion_entry(4)).into(), 4 << 20),
            (u32::from(Csts::new().with_ready(true)).into(), 1),
            (u32::from(Csts::new().with_fatal(true)).into(), 1 << 1),
            (u32::from(Csts::new().with_shutdown(2)).into(), 2 << 2),
            (u32::from(Aqa::new().with_submission(0xFFF)).into(), 0xFFF),
            (u32::from(Aqa::new().with_completion(0xFFF)).into(), 0xFFF << 16),
            (u32::from(Version::new().with_major(1).with_minor(4)).into(), 0x0001_0400),
        ];
        for (row, (ours, theirs)) in table.iter().enumerate() {
            assert_eq!(ours, theirs, "row {row}");
        }
    }
}
