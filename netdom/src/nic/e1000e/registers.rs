//! Registers of the 82574 and its family: typed, each at an offset checked against the register space. Pure. Floor 3.
//!
//! Sections are those of the Intel 82574 GbE Controller Family datasheet, revision 3.4. Offsets and bits were checked
//! against the headers of Linux's e1000e and of QEMU's `hw/net/e1000x_regs.h`.

use split_driver::memory::{DeviceAddress, Mmio, Quiesced};
use split_driver::registers::{self, Base, Block};

mod fields;

pub use fields::{
    Causes, Ctrl, CtrlExt, Dctl, Eec, ExtcnfCtrl, Fwsm, Ivar, Mdic, Rah, Rctl, Rfctl, Rxcsum, Rxcw, Status, Swsm,
    Swsm2, Tctl, Tipg, Txcw,
};

/// Bytes of the register space, BAR 0 (82574 datasheet 10.1.1.1).
pub const SPACE: usize = 0x2_0000;

/// BAR 0.
#[derive(Debug)]
pub enum Space {}

impl Block for Space {
    const BYTES: usize = SPACE;
}

/// A register that holds a `T`, at a byte offset into BAR 0.
pub type Reg<T> = registers::Reg<Space, T>;

/// Reads and writes typed registers.
pub(super) struct Registers<'a, M>(pub(super) &'a M);

impl<M: Mmio> Registers<'_, M> {
    pub(super) fn read<T: From<u32>>(&self, register: Reg<T>) -> T {
        register.read(self.0, 0)
    }

    pub(super) fn write<T: Into<u32>>(&self, register: Reg<T>, value: T) {
        register.write(self.0, 0, value);
    }

    pub(super) fn write_base(&self, base: Base<Space>, address: DeviceAddress) {
        base.write(self.0, 0, address);
    }

    pub(super) fn update<T: From<u32> + Into<u32>>(&self, register: Reg<T>, change: impl FnOnce(T) -> T) {
        register.update(self.0, 0, change);
    }

    /// Proof that the device has stopped, where the register says so.
    pub(super) fn confirm<T: From<u32>>(&self, register: Reg<T>, stopped: impl FnOnce(T) -> bool) -> Option<Quiesced> {
        register.confirm(self.0, 0, stopped)
    }
}

/// CTRL, 82574 datasheet 10.2.2.1.
pub const CTRL: Reg<Ctrl> = Reg::at(0x0_0000);
/// STATUS, 82574 datasheet 10.2.2.2.
pub const STATUS: Reg<Status> = Reg::at(0x0_0008);
/// EEC, 82574 datasheet 10.2.2.3 (EECD in Intel's drivers).
pub const EEC: Reg<Eec> = Reg::at(0x0_0010);
/// `CTRL_EXT`, 82574 datasheet 10.2.2.5.
pub const CTRL_EXT: Reg<CtrlExt> = Reg::at(0x0_0018);
/// MDIC, 82574 datasheet 10.2.2.7: access to the PHY's registers.
pub const MDIC: Reg<Mdic> = Reg::at(0x0_0020);
/// FCAL, 82574 datasheet 10.2.2: bytes 0 to 3 of the address that pause frames are for, 01-80-C2-00-00-01 (IEEE 802.3, annex 31B).
pub const FCAL: Reg<u32> = Reg::at(0x0_0028);
/// FCAH, 82574 datasheet 10.2.2: bytes 4 and 5.
pub const FCAH: Reg<u32> = Reg::at(0x0_002C);
/// FCT, 82574 datasheet 10.2.2: their type, 0x8808.
pub const FCT: Reg<u32> = Reg::at(0x0_0030);
/// FCTTV, 82574 datasheet 10.2.2: for how long those sent stop the other end, in units of 512 bits.
pub const FCTTV: Reg<u32> = Reg::at(0x0_0170);
/// FCRTL, 82574 datasheet 10.2.5: bytes in the packet buffer down to which it waits.
pub const FCRTL: Reg<u32> = Reg::at(0x0_2160);
/// In FCRTL, XONE: a pause frame of no time tells that the wait is over.
pub const SEND_XON: u32 = 1 << 31;
/// FCRTH, 82574 datasheet 10.2.5: bytes in the packet buffer from which on pause frames are sent.
pub const FCRTH: Reg<u32> = Reg::at(0x0_2168);
/// FCRTV of the I217 and later: how long before its end a pause is sent anew.
pub const FCRTV: Reg<u32> = Reg::at(0x0_5F40);
/// SCTL, of the 82571: its SerDes.
pub const SCTL: Reg<u32> = Reg::at(0x0_0024);
/// In SCTL: no loopback, which no reset ends.
pub const NO_LOOPBACK: u32 = 0x0400;
/// TXCW, of the 82571.
pub const TXCW: Reg<Txcw> = Reg::at(0x0_0178);
/// RXCW, of the 82571.
pub const RXCW: Reg<Rxcw> = Reg::at(0x0_0180);
/// VET, 82574 datasheet 10.2.2: the type of 802.1Q tags.
pub const VET: Reg<u32> = Reg::at(0x0_0038);
/// FEXTNVM4 of the I217 and later.
pub const FEXTNVM4: Reg<u32> = Reg::at(0x0_0024);
/// In FEXTNVM4: the beacon lasts 8 us.
pub const BEACON_8_US: u32 = 7;
/// IOSFPC of the I219: how the packet buffer is read.
pub const IOSFPC: Reg<u32> = Reg::at(0x0_0F28);
/// In IOSFPC: the bit of an erratum (Linux: `E1000_RCTL_RDMTS_HEX`).
pub const TRANSMIT_ERRATUM: u32 = 1 << 16;
/// PBECCSTS of the I217 and later: errors of the packet buffer.
pub const PBECCSTS: Reg<u32> = Reg::at(0x0_100C);
/// In PBECCSTS: they are found.
pub const PACKET_BUFFER_ECC: u32 = 1 << 16;
/// KABGTXD of the PCHs: reference of the PHY's transmitter.
pub const KABGTXD: Reg<u32> = Reg::at(0x0_3004);
/// In KABGTXD: `BGSQLBIAS`.
pub const BAND_GAP: u32 = 0x0005_0000;
/// FEXTNVM11 of the I219.
pub const FEXTNVM11: Reg<u32> = Reg::at(0x0_5BBC);
/// In FEXTNVM11: `DISABLE_MULR_FIX`.
pub const SINGLE_READ_FIX_OFF: u32 = 1 << 13;
/// `EXTCNF_CTRL`, 82574 datasheet 10.2.2.
pub const EXTCNF_CTRL: Reg<ExtcnfCtrl> = Reg::at(0x0_0F00);
/// PBA, packet buffer allocation, 82574 datasheet 10.2.2.
pub const PBA: Reg<u32> = Reg::at(0x0_1000);
/// GCR, PCIe control, 82574 datasheet 10.2.3.
pub const GCR: Reg<u32> = Reg::at(0x0_5B00);
/// GCR2, PCIe control 2: bit 0 works round an erratum of PCIe completions on the 82574 and 82583.
pub const GCR2: Reg<u32> = Reg::at(0x0_5B64);
/// SWSM, software semaphore; holds the driver-loaded bit of the 82573.
pub const SWSM: Reg<Swsm> = Reg::at(0x0_5B50);
/// SWSM2, of the 82571.
pub const SWSM2: Reg<Swsm2> = Reg::at(0x0_5B58);
/// FWSM, firmware semaphore; its bit 24 says that the firmware of an I217 to I219 is using the registers.
pub const FWSM: Reg<Fwsm> = Reg::at(0x0_5B54);

/// ICR, 82574 datasheet 10.2.4.1: causes, cleared by writing ones.
pub const ICR: Reg<Causes> = Reg::at(0x0_00C0);
/// ITR, 82574 datasheet 10.2.4.2: the least time between interrupts, in units of 256 ns.
pub const ITR: Reg<u32> = Reg::at(0x0_00C4);
/// ICS, 82574 datasheet 10.2.4: sets causes by software.
pub const ICS: Reg<Causes> = Reg::at(0x0_00C8);
/// IMS, 82574 datasheet 10.2.4: enables interrupts by writing ones.
pub const IMS: Reg<Causes> = Reg::at(0x0_00D0);
/// IMC, 82574 datasheet 10.2.4: disables interrupts by writing ones.
pub const IMC: Reg<Causes> = Reg::at(0x0_00D8);
/// EIAC, 82574 datasheet 10.2.4: causes that an MSI-X message clears.
pub const EIAC: Reg<Causes> = Reg::at(0x0_00DC);
/// IAM, 82574 datasheet 10.2.4: interrupts that an acknowledgement disables.
pub const IAM: Reg<Causes> = Reg::at(0x0_00E0);
/// IVAR, 82574 datasheet 10.2.4: which cause goes to which MSI-X vector.
pub const IVAR: Reg<Ivar> = Reg::at(0x0_00E4);
/// EITR0 to EITR4, 82574 datasheet 10.2.4.2: ITR of each MSI-X vector.
pub const EITR: [Reg<u32>; 5] = Reg::array(0x0_00E8);

/// RCTL, 82574 datasheet 10.2.5.1.
pub const RCTL: Reg<Rctl> = Reg::at(0x0_0100);
/// RDBAL0 and RDBAH0, 82574 datasheet 10.2.5: the receive ring's address.
pub const RDBA: Base<Space> = Base::at(0x0_2800);
/// RDLEN0, 82574 datasheet 10.2.5: bytes of the receive ring, a multiple of 128.
pub const RDLEN: Reg<u32> = Reg::at(0x0_2808);
/// RDH0, 82574 datasheet 10.2.5: the next descriptor that the device fills.
pub const RDH: Reg<u32> = Reg::at(0x0_2810);
/// RDT0, 82574 datasheet 10.2.5: one beyond the last descriptor that the device may fill.
pub const RDT: Reg<u32> = Reg::at(0x0_2818);
/// RDTR, 82574 datasheet 10.2.5: receive interrupt delay. Kept at zero, as Intel advises in favour of ITR.
pub const RDTR: Reg<u32> = Reg::at(0x0_2820);
/// RXDCTL0, 82574 datasheet 10.2.5: prefetch and write-back of receive descriptors.
pub const RXDCTL: Reg<Dctl> = Reg::at(0x0_2828);
/// RADV, 82574 datasheet 10.2.5: absolute receive interrupt delay. Kept at zero.
pub const RADV: Reg<u32> = Reg::at(0x0_282C);
/// RXCSUM, 82574 datasheet 10.2.5.
pub const RXCSUM: Reg<Rxcsum> = Reg::at(0x0_5000);
/// RFCTL, 82574 datasheet 10.2.5.
pub const RFCTL: Reg<Rfctl> = Reg::at(0x0_5008);
/// RAL0, 82574 datasheet 10.2.5: bytes 0 to 3 of the device's own address.
pub const RAL0: Reg<u32> = Reg::at(0x0_5400);
/// RAH0, 82574 datasheet 10.2.5: bytes 4 and 5 of the device's own address, and whether it is valid.
pub const RAH0: Reg<Rah> = Reg::at(0x0_5404);

/// TCTL, 82574 datasheet 10.2.6.1.
pub const TCTL: Reg<Tctl> = Reg::at(0x0_0400);
/// TIPG, 82574 datasheet 10.2.6: inter-packet gaps.
pub const TIPG: Reg<Tipg> = Reg::at(0x0_0410);
/// TDBAL0 and TDBAH0, 82574 datasheet 10.2.6: the transmit ring's address.
pub const TDBA: Base<Space> = Base::at(0x0_3800);
/// TDLEN0, 82574 datasheet 10.2.6: bytes of the transmit ring, a multiple of 128.
pub const TDLEN: Reg<u32> = Reg::at(0x0_3808);
/// TDH0, 82574 datasheet 10.2.6: the next descriptor that the device reads.
pub const TDH: Reg<u32> = Reg::at(0x0_3810);
/// TDT0, 82574 datasheet 10.2.6: one beyond the last descriptor that the device may read.
pub const TDT: Reg<u32> = Reg::at(0x0_3818);
/// TIDV, 82574 datasheet 10.2.6: transmit interrupt delay. Unused: no descriptor asks for it.
pub const TIDV: Reg<u32> = Reg::at(0x0_3820);
/// TXDCTL0, 82574 datasheet 10.2.6: prefetch and write-back of transmit descriptors.
pub const TXDCTL: Reg<Dctl> = Reg::at(0x0_3828);
/// TADV, 82574 datasheet 10.2.6: absolute transmit interrupt delay. Unused, see TIDV.
pub const TADV: Reg<u32> = Reg::at(0x0_382C);
/// TARC0, 82574 datasheet 10.2.6: arbitration between the transmit queues; bit 10 enables queue 0 and is set by reset.
pub const TARC0: Reg<u32> = Reg::at(0x0_3840);

/// CRCERRS, 82574 datasheet 10.2.7: frames with a wrong frame check sequence. Cleared by reading, as all below.
pub const CRCERRS: Reg<u32> = Reg::at(0x0_4000);
/// ALGNERRC, 82574 datasheet 10.2.7: frames with an alignment error.
pub const ALGNERRC: Reg<u32> = Reg::at(0x0_4004);
/// RXERRC, 82574 datasheet 10.2.7: frames during which the PHY signalled an error.
pub const RXERRC: Reg<u32> = Reg::at(0x0_400C);
/// MPC, 82574 datasheet 10.2.7: frames missed because the packet buffer was full.
pub const MPC: Reg<u32> = Reg::at(0x0_4010);
/// XOFFRXC, 82574 datasheet 10.2.7: pause frames received that told the transmitter to stop.
pub const XOFFRXC: Reg<u32> = Reg::at(0x0_4050);
/// ROC, 82574 datasheet 10.2.7: frames longer than the device takes.
pub const ROC: Reg<u32> = Reg::at(0x0_40AC);
/// ECOL, 82574 datasheet 10.2.7: frames given up after 16 collisions.
pub const ECOL: Reg<u32> = Reg::at(0x0_4018);
/// LATECOL, 82574 datasheet 10.2.7: frames that met a late collision.
pub const LATECOL: Reg<u32> = Reg::at(0x0_4020);
/// CEXTERR, 82574 datasheet 10.2.7: carrier extension errors.
pub const CEXTERR: Reg<u32> = Reg::at(0x0_403C);
/// RLEC, 82574 datasheet 10.2.7: frames whose length field is wrong.
pub const RLEC: Reg<u32> = Reg::at(0x0_4040);
