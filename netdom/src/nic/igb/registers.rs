//! Registers of the 82576 and its successors: typed, each at an offset checked against the register space. Pure. Floor 3.
//!
//! Sections are those of the Intel 82576EB GbE Controller datasheet, revision 2.63. Offsets and bits were checked against the headers of
//! Linux's igb and of QEMU's `hw/net/igb_regs.h`. Those that the 82574 has too are its; 8.2, 8.3, 8.10.1, 8.12.1 and 8.19 have them.

use crate::nic::advanced::queues::{self, Receive, Transmit};
use crate::nic::e1000e::registers as e1000e;

mod fields;

pub use queues::{RDT, TDT};

pub use fields::{Causes, Dctl, Eitr, Gpie, Rxcsum, Srrctl};

pub use e1000e::{
    ALGNERRC, CRCERRS, CTRL, CTRL_EXT, Ctrl, CtrlExt, ECOL, EEC, Eec, LATECOL, MDIC, MPC, Mdic, RCTL, RFCTL, RLEC, ROC,
    RXERRC, Rah, Rctl, Reg, SPACE, STATUS, Status, TCTL, Tctl, VET, XOFFRXC,
};

/// Where the registers of a receive queue begin.
pub const fn receive(queue: usize) -> usize {
    0xC000 + queues::BYTES * queue
}

/// Where the registers of a transmit queue begin.
pub const fn transmit(queue: usize) -> usize {
    0xE000 + queues::BYTES * queue
}

/// RXPBS, 82576 datasheet 8.3: the size of the receive packet buffer.
pub const RXPBS: Reg<u32> = Reg::at(0x0_2404);

/// ICR, 82576 datasheet 8.8.9: causes that are not of a queue; without MSI-X, all. It and the next three are at the places that the 82574 has
/// them at, where Linux writes them too; those from 0x1500 on are not in QEMU.
pub const ICR: Reg<Causes> = Reg::at(0x0_00C0);
/// IMS, 82576 datasheet 8.8.11: enables interrupts by writing ones.
pub const IMS: Reg<Causes> = Reg::at(0x0_00D0);
/// IMC, 82576 datasheet 8.8.12: disables interrupts by writing ones.
pub const IMC: Reg<Causes> = Reg::at(0x0_00D8);
/// IAM, 82576 datasheet 8.8.13: interrupts that an acknowledgement disables.
pub const IAM: Reg<Causes> = Reg::at(0x0_00E0);
/// EEMNGCTL, 82576 datasheet 8.4: what was done with the non-volatile memory.
pub const EEMNGCTL: Reg<u32> = Reg::at(0x0_1010);
/// The same of the I210 and I211.
pub const EEMNGCTL_I210: Reg<u32> = Reg::at(0x1_2030);
/// In EEMNGCTL, `CFG_DONE`: the PHY of port 0 is set up; the next bits are of the other ports.
pub const SET_UP: u32 = 1 << 18;
/// GPIE, 82576 datasheet 8.8.14.
pub const GPIE: Reg<Gpie> = Reg::at(0x0_1514);
/// EIMS, 82576 datasheet 8.8.3: enables vectors by writing ones.
pub const EIMS: Reg<u32> = Reg::at(0x0_1524);
/// EIMC, 82576 datasheet 8.8.4: disables vectors by writing ones.
pub const EIMC: Reg<u32> = Reg::at(0x0_1528);
/// EIAC, 82576 datasheet 8.8.5: vectors whose messages clear them.
pub const EIAC: Reg<u32> = Reg::at(0x0_152C);
/// EIAM, 82576 datasheet 8.8.6: vectors whose messages disable them.
pub const EIAM: Reg<u32> = Reg::at(0x0_1530);
/// EICR, 82576 datasheet 8.8.1: vectors to be sent, cleared by writing ones.
pub const EICR: Reg<u32> = Reg::at(0x0_1580);
/// EITR, 82576 datasheet 8.8.15: the least time between interrupts, by vector.
pub const EITR: [Reg<Eitr>; 16] = Reg::array(0x0_1680);
/// IVAR, 82576 datasheet 8.8.16: the vectors of two queues, receive and transmit each, a byte each. Which two, differs by device.
pub const IVAR: usize = 0x0_1700;
/// Words of IVAR.
pub const IVAR_WORDS: usize = 8;
/// `IVAR_MISC`, 82576 datasheet 8.8.17: the vector of all other causes in its second byte.
pub const IVAR_MISC: Reg<u32> = Reg::at(0x0_1740);
/// In IVAR and `IVAR_MISC`: the vector counts.
pub const IVAR_VALID: u8 = 0x80;

/// VMOLR(0), 82576 datasheet 8.14: of the one pool that all queues are in without virtual machines.
pub const VMOLR: Reg<u32> = Reg::at(0x0_5AD0);
/// DVMOLR(0), I350 datasheet 8.10.20: the same.
pub const DVMOLR: Reg<u32> = Reg::at(0x0_C038);
/// In VMOLR and DVMOLR: STRVLAN.
pub const STRIP_TAG: u32 = 1 << 30;
/// RXCSUM, 82576 datasheet 8.10.15.
pub const RXCSUM: Reg<Rxcsum> = Reg::at(0x0_5000);
/// RLPML, 82576 datasheet 8.10.14: bytes of the largest frame, frame check sequence included.
pub const RLPML: Reg<u32> = Reg::at(0x0_5004);
/// RAL(0), 82576 datasheet 8.10.16: bytes 0 to 3 of the device's own address.
pub const RAL: Reg<u32> = Reg::at(0x0_5400);
/// RAH(0), 82576 datasheet 8.10.17.
pub const RAH: Reg<Rah> = Reg::at(0x0_5404);
/// MRQC, 82576 datasheet 8.10.20: 2 spreads frames over queues by their hash.
pub const MRQC: Reg<u32> = Reg::at(0x0_5818);
/// SWSM, 82576 datasheet 8.6: the semaphore of the drivers of all ports, taken by reading, and that of firmware, taken by writing.
pub const SWSM: usize = 0x0_5B50;
/// `SW_FW_SYNC`, 82576 datasheet 8.6: which parts of the device are in use by software, and by firmware.
pub const SW_FW_SYNC: usize = 0x0_5B5C;
/// RETA, 82576 datasheet 8.10.21: the first of 32 words.
pub const RETA: usize = 0x0_5C00;
/// RSSRK, 82576 datasheet 8.10.22: the first of 10 words.
pub const RSSRK: usize = 0x0_5C80;

/// SRRCTL, 82576 datasheet 8.10.2.
pub const SRRCTL: Receive<Srrctl> = Receive::at(0x0C);
/// RXDCTL, 82576 datasheet 8.10.10.
pub const RXDCTL: Receive<Dctl> = Receive::at(0x28);
/// RQDPC, 82576 datasheet 8.10.12: frames of the queue that were dropped for want of a buffer. Reading clears it, but for the I210's.
pub const RQDPC: Receive<u32> = Receive::at(0x30);

/// TXDCTL, 82576 datasheet 8.12.13.
pub const TXDCTL: Transmit<Dctl> = Transmit::at(0x28);
