//! Registers of an AHCI host bus adapter: typed, each at an offset checked against the part it belongs to. Pure. Floor 3.
//!
//! Sections are those of the Serial ATA AHCI 1.3.1 Specification. Offsets and bits were checked against Linux's `drivers/ata/ahci.h`
//! and QEMU's `hw/ide/ahci-internal.h`.

use bitfield_struct::bitfield;
use split_driver::memory::{DeviceAddress, Mmio, Quiesced};
use split_driver::registers::{self, Base, Block};

/// Where the ports' registers begin (3.3).
pub const PORTS: usize = 0x100;
/// Bytes of a port's registers (3.3).
pub const PORT_BYTES: usize = 0x80;
/// Ports at most (3.1.4).
pub const MOST_PORTS: u8 = 32;

/// The adapter's own registers.
#[derive(Debug)]
pub enum Adapter {}

impl Block for Adapter {
    const BYTES: usize = PORTS;
}

/// The registers of a port.
#[derive(Debug)]
pub enum OnePort {}

impl Block for OnePort {
    const BYTES: usize = PORT_BYTES;
}

/// A register of the adapter that holds a `T`, at a byte offset into BAR 5.
pub type Reg<T> = registers::Reg<Adapter, T>;

/// A register of each port that holds a `T`, at a byte offset into the port's own.
pub type PortReg<T> = registers::Reg<OnePort, T>;

/// CAP, capabilities (3.1.1).
pub const CAP: Reg<Cap> = Reg::at(0x00);
/// GHC, global control (3.1.2).
pub const GHC: Reg<Ghc> = Reg::at(0x04);
/// IS, interrupt status (3.1.3): one bit a port, cleared by writing it.
pub const IS: Reg<u32> = Reg::at(0x08);
/// PI, ports implemented (3.1.4).
pub const PI: Reg<u32> = Reg::at(0x0C);
/// VS, version (3.1.5).
pub const VS: Reg<Version> = Reg::at(0x10);
/// CAP2, more capabilities (3.1.10).
pub const CAP2: Reg<Cap2> = Reg::at(0x24);
/// BOHC, handing over between firmware and operating system (3.1.11).
pub const BOHC: Reg<Bohc> = Reg::at(0x28);

/// PxCLB and PxCLBU, the command list's address (3.3.1, 3.3.2).
pub const PX_CLB: Base<OnePort> = Base::at(0x00);
/// PxFB and PxFBU, the address that received FISes go to (3.3.3, 3.3.4).
pub const PX_FB: Base<OnePort> = Base::at(0x08);
/// PxIS, interrupt status (3.3.5): cleared by writing it, except for what [`PX_SERR`] says.
pub const PX_IS: PortReg<PortStatus> = PortReg::at(0x10);
/// PxIE, interrupt enable (3.3.6).
pub const PX_IE: PortReg<PortStatus> = PortReg::at(0x14);
/// PxCMD, command and status (3.3.7).
pub const PX_CMD: PortReg<PortCommand> = PortReg::at(0x18);
/// PxTFD, task file data (3.3.8).
pub const PX_TFD: PortReg<TaskFile> = PortReg::at(0x20);
/// PxSIG, signature (3.3.9).
pub const PX_SIG: PortReg<u32> = PortReg::at(0x24);
/// PxSSTS, SATA status (3.3.10).
pub const PX_SSTS: PortReg<LinkStatus> = PortReg::at(0x28);
/// PxSCTL, SATA control (3.3.11).
pub const PX_SCTL: PortReg<LinkControl> = PortReg::at(0x2C);
/// PxSERR, SATA error (3.3.12): cleared by writing it.
pub const PX_SERR: PortReg<u32> = PortReg::at(0x30);
/// PxSACT, queued commands in flight (3.3.13).
pub const PX_SACT: PortReg<u32> = PortReg::at(0x34);
/// PxCI, commands issued (3.3.14).
pub const PX_CI: PortReg<u32> = PortReg::at(0x38);

/// CAP (3.1.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// NP: ports, less one.
    #[bits(5)]
    pub ports: u8,
    #[bits(3)]
    _r5: u8,
    /// NCS: command slots of a port, less one.
    #[bits(5)]
    pub slots: u8,
    #[bits(4)]
    _r13: u8,
    /// SPM: port multipliers.
    pub port_multipliers: bool,
    /// SAM: there is nothing but AHCI.
    pub ahci_only: bool,
    #[bits(8)]
    _r19: u8,
    /// SSS: drives spin up one after another, when told.
    pub staggered_spin_up: bool,
    #[bits(2)]
    _r28: u8,
    /// SNCQ: native command queuing.
    pub queuing: bool,
    /// S64A: 64 bits of address.
    pub long_addresses: bool,
}

/// GHC (3.1.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ghc {
    /// HR: resets the adapter; 0 again when that is done.
    pub reset: bool,
    /// IE: interrupts are sent.
    pub interrupts: bool,
    #[bits(29)]
    _r2: u32,
    /// AE: the adapter is driven by AHCI.
    pub ahci: bool,
}

impl Ghc {
    /// Whether there is no device behind the register: it reads as all ones.
    pub const fn absent(self) -> bool {
        self.into_bits() == u32::MAX
    }
}

/// VS (3.1.5): `0001_0301h` is 1.3.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Version {
    /// The third number.
    pub tertiary: u8,
    /// The second.
    pub minor: u8,
    /// The first.
    pub major: u16,
}

/// CAP2 (3.1.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cap2 {
    /// BOH: [`BOHC`] is there.
    pub handoff: bool,
    #[bits(31)]
    _r1: u32,
}

/// BOHC (3.1.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Bohc {
    /// BOS: the firmware has the adapter.
    pub firmware_owns: bool,
    /// OOS: the operating system wants it.
    pub system_owns: bool,
    #[bits(30)]
    _r2: u32,
}

/// PxIS (3.3.5), and PxIE (3.3.6), whose bits lie at the same places.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PortStatus {
    /// DHRS: a Register FIS arrived: an unqueued command ended.
    pub registers: bool,
    /// PSS: a PIO Setup FIS arrived.
    pub pio_setup: bool,
    /// DSS: a DMA Setup FIS arrived.
    pub dma_setup: bool,
    /// SDBS: a Set Device Bits FIS arrived: queued commands ended.
    pub device_bits: bool,
    #[bits(2)]
    _r4: u8,
    /// PCS: something was plugged in (PxSERR.DIAG.X).
    pub connected: bool,
    #[bits(15)]
    _r7: u16,
    /// PRCS: the link came or went (PxSERR.DIAG.N).
    pub link_changed: bool,
    _r23: bool,
    /// OFS: more data than the command's memory holds.
    pub overflow: bool,
    _r25: bool,
    /// INFS: an error of the link that was mended.
    pub link_error: bool,
    /// IFS: an error of the link that was not.
    pub link_fatal: bool,
    /// HBDS: an error of memory.
    pub bus_data: bool,
    /// HBFS: an address that cannot be reached.
    pub bus_fatal: bool,
    /// TFES: the device reports an error.
    pub task_file: bool,
    _r31: bool,
}

impl PortStatus {
    /// The device could not carry out a command.
    pub const fn is_refusal(self) -> bool {
        self.task_file()
    }

    /// The port stopped for another reason than the device's refusal (6.1.3, 6.2.2).
    pub const fn is_fatal(self) -> bool {
        self.link_fatal() || self.bus_data() || self.bus_fatal()
    }

    /// The link is not what it was.
    pub const fn is_link_change(self) -> bool {
        self.connected() || self.link_changed()
    }

    /// What a running port interrupts for.
    pub const fn of_interest() -> Self {
        Self::new()
            .with_registers(true)
            .with_pio_setup(true)
            .with_device_bits(true)
            .with_connected(true)
            .with_link_changed(true)
            .with_link_fatal(true)
            .with_bus_data(true)
            .with_bus_fatal(true)
            .with_task_file(true)
    }

    /// What a port without a drive interrupts for.
    pub const fn of_the_link() -> Self {
        Self::new().with_connected(true).with_link_changed(true)
    }
}

/// PxCMD (3.3.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PortCommand {
    /// ST: the command list is worked on.
    pub start: bool,
    /// SUD: the drive may spin up.
    pub spin_up: bool,
    /// POD: the drive has power.
    pub power_on: bool,
    /// CLO: forgets BSY and DRQ.
    pub override_busy: bool,
    /// FRE: received FISes are written to memory.
    pub receive: bool,
    #[bits(3)]
    _r5: u8,
    /// CCS: the slot being worked on.
    #[bits(5)]
    pub current_slot: u8,
    _r13: bool,
    /// FR: FISes are being received.
    pub receiving: bool,
    /// CR: the command list is being worked on.
    pub running: bool,
    #[bits(12)]
    _r16: u16,
    /// ICC: 1 asks the link to wake.
    #[bits(4)]
    pub link_power: u8,
}

/// PxTFD (3.3.8): the device's status and error registers (ATA8-ACS 6.2, 6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TaskFile {
    /// ERR.
    pub error: bool,
    #[bits(2)]
    _r1: u8,
    /// DRQ.
    pub data_request: bool,
    _r4: bool,
    /// DF.
    pub fault: bool,
    _r6: bool,
    /// BSY.
    pub busy: bool,
    /// The error register.
    pub reason: u8,
    _r16: u16,
}

impl TaskFile {
    /// The device takes commands.
    pub const fn is_idle(self) -> bool {
        !self.busy() && !self.data_request()
    }

    /// Status and error register, as [`crate::disk::IoError::Device`] has them.
    pub const fn code(self) -> u32 {
        let value = self.into_bits();
        (value & 0xFF) << 8 | value >> 8 & 0xFF
    }
}

/// PxSSTS (3.3.10).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LinkStatus {
    /// DET: 0 nothing there, 1 something without a link, 3 a link, 4 switched off.
    #[bits(4)]
    pub detection: u8,
    /// SPD: the link's generation.
    #[bits(4)]
    pub speed: u8,
    /// IPM: 1 where the link is awake.
    #[bits(4)]
    pub power: u8,
    #[bits(20)]
    _r12: u32,
}

/// PxSSTS.DET and PxSCTL.DET (3.3.10, 3.3.11).
pub mod detection {
    /// PxSSTS: something is there, and does not talk (yet).
    pub const PRESENT: u8 = 1;
    /// PxSSTS: there is a link.
    pub const LINK: u8 = 3;
    /// PxSCTL: COMRESET is being sent.
    pub const RESET: u8 = 1;
}

/// PxSCTL (3.3.11).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LinkControl {
    /// DET: 1 sends COMRESET, for a millisecond or more.
    #[bits(4)]
    pub detection: u8,
    /// SPD: 0 is any generation.
    #[bits(4)]
    pub speed: u8,
    /// IPM: 3 keeps the link from sleeping.
    #[bits(4)]
    pub power: u8,
    #[bits(20)]
    _r12: u32,
}

/// PxSIG (3.3.9) of the devices there are (Serial ATA 3.1: 11.4).
pub mod signature {
    /// A disk.
    pub const DISK: u32 = 0x0000_0101;
    /// A drive of optical media or tapes, that takes packets.
    pub const PACKET: u32 = 0xEB14_0101;
    /// A port multiplier.
    pub const PORT_MULTIPLIER: u32 = 0x9669_0101;
    /// An enclosure.
    pub const ENCLOSURE: u32 = 0xC33C_0101;
}

/// Reads and writes typed registers of the adapter.
pub(super) struct Registers<M> {
    pub(super) mmio: M,
}

impl<M: Mmio> Registers<M> {
    pub(super) fn read<T: From<u32>>(&self, register: Reg<T>) -> T {
        register.read(&self.mmio, 0)
    }

    pub(super) fn write<T: Into<u32>>(&self, register: Reg<T>, value: T) {
        register.write(&self.mmio, 0, value);
    }

    /// Proof that the adapter has stopped, where the register says so.
    pub(super) fn confirm<T: From<u32>>(&self, register: Reg<T>, stopped: impl FnOnce(T) -> bool) -> Option<Quiesced> {
        register.confirm(&self.mmio, 0, stopped)
    }

    /// The registers of a port.
    pub(super) fn port(&self, number: u8) -> PortRegisters<'_, M> {
        PortRegisters { mmio: &self.mmio, base: PORTS + usize::from(number) * PORT_BYTES }
    }
}

/// Reads and writes typed registers of a port.
pub(super) struct PortRegisters<'a, M> {
    mmio: &'a M,
    base: usize,
}

impl<M: Mmio> PortRegisters<'_, M> {
    pub(super) fn read<T: From<u32>>(&self, register: PortReg<T>) -> T {
        register.read(self.mmio, self.base)
    }

    pub(super) fn write<T: Into<u32>>(&self, register: PortReg<T>, value: T) {
        register.write(self.mmio, self.base, value);
    }

    pub(super) fn write_base(&self, base: Base<OnePort>, address: DeviceAddress) {
        base.write(self.mmio, self.base, address);
    }

    /// Proof that the port has stopped, where the register says so.
    pub(super) fn confirm<T: From<u32>>(
        &self,
        register: PortReg<T>,
        stopped: impl FnOnce(T) -> bool,
    ) -> Option<Quiesced> {
        register.confirm(self.mmio, self.base, stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the bits as Linux's and QEMU's headers have them.
    #[test]
    fn fields_lie_where_the_specification_says() {
        let table: &[(u32, u32)] = &[
            (Cap::new().with_ports(31).into(), 0x1F),
            (Cap::new().with_slots(31).into(), 0x1F << 8),
            (Cap::new().with_port_multipliers(true).into(), 1 << 17),
            (Cap::new().with_ahci_only(true).into(), 1 << 18),
            (Cap::new().with_staggered_spin_up(true).into(), 1 << 27),
            (Cap::new().with_queuing(true).into(), 1 << 30),
            (Cap::new().with_long_addresses(true).into(), 1 << 31),
            (Ghc::new().with_reset(true).into(), 1),
            (Ghc::new().with_interrupts(true).into(), 1 << 1),
            (Ghc::new().with_ahci(true).into(), 1 << 31),
            (Version::new().with_major(1).with_minor(3).with_tertiary(1).into(), 0x0001_0301),
            (PortStatus::new().with_registers(true).into(), 1),
            (PortStatus::new().with_pio_setup(true).into(), 1 << 1),
            (PortStatus::new().with_dma_setup(true).into(), 1 << 2),
            (PortStatus::new().with_device_bits(true).into(), 1 << 3),
            (PortStatus::new().with_connected(true).into(), 1 << 6),
            (PortStatus::new().with_link_changed(true).into(), 1 << 22),
            (PortStatus::new().with_overflow(true).into(), 1 << 24),
            (PortStatus::new().with_link_error(true).into(), 1 << 26),
            (PortStatus::new().with_link_fatal(true).into(), 1 << 27),
            (PortStatus::new().with_bus_data(true).into(), 1 << 28),
            (PortStatus::new().with_bus_fatal(true).into(), 1 << 29),
            (PortStatus::new().with_task_file(true).into(), 1 << 30),
            (PortCommand::new().with_start(true).into(), 1),
            (PortCommand::new().with_spin_up(true).into(), 1 << 1),
            (PortCommand::new().with_power_on(true).into(), 1 << 2),
            (PortCommand::new().with_override_busy(true).into(), 1 << 3),
            (PortCommand::new().with_receive(true).into(), 1 << 4),
            (PortCommand::new().with_current_slot(31).into(), 0x1F << 8),
            (PortCommand::new().with_receiving(true).into(), 1 << 14),
            (PortCommand::new().with_running(true).into(), 1 << 15),
            (PortCommand::new().with_link_power(1).into(), 1 << 28),
            (TaskFile::new().with_error(true).into(), 1),
            (TaskFile::new().with_data_request(true).into(), 1 << 3),
            (TaskFile::new().with_fault(true).into(), 1 << 5),
            (TaskFile::new().with_busy(true).into(), 1 << 7),
            (TaskFile::from(0x4051).code(), 0x5140),
            (LinkStatus::new().with_detection(3).with_speed(1).with_power(1).into(), 0x113),
            (LinkControl::new().with_detection(1).with_power(3).into(), 0x301),
        ];
        for (row, (ours, theirs)) in table.iter().enumerate() {
            assert_eq!(ours, theirs, "row {row}");
        }
    }
}
