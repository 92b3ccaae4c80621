//! Registers of the 82599 and its successors: typed, each at an offset checked against the register space. Pure. Floor 3.
//!
//! Sections are those of the Intel 82599 10 GbE Controller datasheet, revision 3.4. Offsets and bits were checked against the headers of
//! Linux's ixgbe.

use crate::nic::advanced::queues::{self, Receive, Transmit};
use split_driver::registers::{self, Block};

mod fields;

pub use queues::{RDT, TDT};

pub use fields::{
    Anlp1, Autoc, Autoc2, Causes, Ctrl, CtrlExt, Dmatxctl, Eec, Eerd, Eitr, Esdp, Fctrl, Gpie, Hlreg0, I2cctl, Links,
    Links2, Mflcn, Mmngc, Msca, Pcs1gana, Pcs1glsta, Rah, Rdrxctl, Rttdcs, Rxcsum, Rxctrl, Rxdctl, Secrxctrl,
    Secrxstat, Srrctl, Status, Txdctl,
};

/// Bytes of the register space that are used, of the 512 KiB of BAR 0 (82599 datasheet 8.1.1).
pub const SPACE: usize = 0x2_0000;

/// BAR 0.
#[derive(Debug)]
pub enum Space {}

impl Block for Space {
    const BYTES: usize = SPACE;
}

/// A register that holds a `T`, at a byte offset into BAR 0.
pub type Reg<T> = registers::Reg<Space, T>;

/// Where the registers of a receive queue below 64 begin.
pub const fn receive(queue: usize) -> usize {
    0x1000 + queues::BYTES * queue
}

/// Where the registers of a transmit queue begin.
pub const fn transmit(queue: usize) -> usize {
    0x6000 + queues::BYTES * queue
}

/// CTRL, 82599 datasheet 8.2.3.1.1.
pub const CTRL: Reg<Ctrl> = Reg::at(0x0_0000);
/// STATUS, 82599 datasheet 8.2.3.1.2.
pub const STATUS: Reg<Status> = Reg::at(0x0_0008);
/// `CTRL_EXT`, 82599 datasheet 8.2.3.1.3.
pub const CTRL_EXT: Reg<CtrlExt> = Reg::at(0x0_0018);
/// ESDP, 82599 datasheet 8.2.3.1.4: software-definable pins, which are those of an SFP+ module.
pub const ESDP: Reg<Esdp> = Reg::at(0x0_0020);
/// I2CCTL, 82599 datasheet 8.2.3.1.5.
pub const I2CCTL: Reg<I2cctl> = Reg::at(0x0_0028);
/// EEC, 82599 datasheet 8.2.3.2.1.
pub const EEC: Reg<Eec> = Reg::at(0x1_0010);
/// EERD, 82599 datasheet 8.2.3.2.2: reads a word of the non-volatile memory.
pub const EERD: Reg<Eerd> = Reg::at(0x1_0014);
/// CORECTL, of the 82599's analogue part: takes the words of a start-up sequence, one after the other (Linux: `IXGBE_CORECTL`).
pub const CORECTL: Reg<u32> = Reg::at(0x1_4F00);

/// EICR, 82599 datasheet 8.2.3.5.1: causes, cleared by writing ones.
pub const EICR: Reg<Causes> = Reg::at(0x0_0800);
/// EIAC, 82599 datasheet 8.2.3.5.5: causes that a message clears.
pub const EIAC: Reg<Causes> = Reg::at(0x0_0810);
/// EITR, 82599 datasheet 8.2.3.5.12: the least time between interrupts, by vector.
pub const EITR: [Reg<Eitr>; 16] = Reg::array(0x0_0820);
/// EIMS, 82599 datasheet 8.2.3.5.3: enables interrupts by writing ones.
pub const EIMS: Reg<Causes> = Reg::at(0x0_0880);
/// EIMC, 82599 datasheet 8.2.3.5.4: disables interrupts by writing ones.
pub const EIMC: Reg<Causes> = Reg::at(0x0_0888);
/// EIAM, 82599 datasheet 8.2.3.5.6: interrupts that a message or a reading of EICR disables.
pub const EIAM: Reg<Causes> = Reg::at(0x0_0890);
/// GPIE, 82599 datasheet 8.2.3.5.18.
pub const GPIE: Reg<Gpie> = Reg::at(0x0_0898);
/// IVAR, 82599 datasheet 8.2.3.5.16: the vectors of two queues, receive and transmit each, a byte each.
pub const IVAR: [Reg<u32>; 8] = Reg::array(0x0_0900);
/// `IVAR_MISC`, 82599 datasheet 8.2.3.5.17: the vector of all other causes in its second byte.
pub const IVAR_MISC: Reg<u32> = Reg::at(0x0_0A00);
/// In IVAR and `IVAR_MISC`: the vector counts.
pub const IVAR_VALID: u8 = 0x80;
/// `EIMC_EX`, 82599 datasheet 8.2.3.5.9: disables the interrupts of all 64 vectors.
pub const EIMC_EX: [Reg<u32>; 2] = [Reg::at(0x0_0AB0), Reg::at(0x0_0AB4)];

/// SWSM, 82599 datasheet 8.2.3.4: the semaphore of the drivers of both ports, taken by reading, and that of firmware, taken by writing.
pub const SWSM: usize = 0x1_0140;
/// `SW_FW_SYNC`, 82599 datasheet 8.2.3.4: which parts of the device are in use by software, and by firmware.
pub const SW_FW_SYNC: usize = 0x1_0160;
/// FCTTV(0), 82599 datasheet 8.2.3.3.2: for how long pause frames stop the other end, in units of 512 bits, twice.
pub const FCTTV: Reg<u32> = Reg::at(0x0_3200);
/// FCRTL(0), 82599 datasheet 8.2.3.3.3: bytes in packet buffer 0 down to which it waits.
pub const FCRTL: Reg<u32> = Reg::at(0x0_3220);
/// In FCRTL, XONE: a pause frame of no time tells that the wait is over.
pub const SEND_XON: u32 = 1 << 31;
/// FCRTH(0), 82599 datasheet 8.2.3.3.4: bytes in packet buffer 0 from which on pause frames are sent.
pub const FCRTH: Reg<u32> = Reg::at(0x0_3260);
/// In FCRTH, FCEN: they are.
pub const SEND_XOFF: u32 = 1 << 31;
/// FCRTV, 82599 datasheet 8.2.3.3.5: how long before its end a pause is sent anew.
pub const FCRTV: Reg<u32> = Reg::at(0x0_32A0);
/// FCCFG, 82599 datasheet 8.2.3.3.7: [`SEND_PAUSE`] or nothing.
pub const FCCFG: Reg<u32> = Reg::at(0x0_3D00);
/// In FCCFG, TFCE: pause frames are sent for the whole link.
pub const SEND_PAUSE: u32 = 1 << 3;
/// RDRXCTL, 82599 datasheet 8.2.3.8.8.
pub const RDRXCTL: Reg<Rdrxctl> = Reg::at(0x0_2F00);
/// RXPBSIZE(0), 82599 datasheet 8.2.3.8.9: bytes of receive packet buffer 0.
pub const RXPBSIZE: Reg<u32> = Reg::at(0x0_3C00);
/// RXCTRL, 82599 datasheet 8.2.3.8.10.
pub const RXCTRL: Reg<Rxctrl> = Reg::at(0x0_3000);
/// MPC, 82599 datasheet 8.2.3.23.4: frames missed because packet buffer 0 was full. Cleared by reading, as all counters.
pub const MPC: Reg<u32> = Reg::at(0x0_3FA0);
/// CRCERRS, 82599 datasheet 8.2.3.23.1.
pub const CRCERRS: Reg<u32> = Reg::at(0x0_4000);
/// ILLERRC, 82599 datasheet 8.2.3.23.2: frames with an illegal symbol.
pub const ILLERRC: Reg<u32> = Reg::at(0x0_4004);
/// RLEC, 82599 datasheet 8.2.3.23: frames whose length field is wrong.
pub const RLEC: Reg<u32> = Reg::at(0x0_4040);
/// ROC, 82599 datasheet 8.2.3.23: frames longer than the device takes.
pub const ROC: Reg<u32> = Reg::at(0x0_40AC);
/// LXOFFRXCNT, 82599 datasheet 8.2.3.23: pause frames received that told the transmitter to stop.
pub const LXOFFRXCNT: Reg<u32> = Reg::at(0x0_41A8);
/// PCS1GLSTA, 82599 datasheet 8.2.3.22: auto-negotiation of a link of 1 Gbit/s over fibre.
pub const PCS1GLSTA: Reg<Pcs1glsta> = Reg::at(0x0_420C);
/// PCS1GANA, 82599 datasheet 8.2.3.22: what is advertised in it.
pub const PCS1GANA: Reg<Pcs1gana> = Reg::at(0x0_4218);
/// PCS1GANLP, 82599 datasheet 8.2.3.22: what the other end advertises.
pub const PCS1GANLP: Reg<Pcs1gana> = Reg::at(0x0_421C);
/// MSCA, 82599 datasheet 8.2.3.22.11: access to a PHY's registers.
pub const MSCA: Reg<Msca> = Reg::at(0x0_425C);
/// MSRWD, 82599 datasheet 8.2.3.22.12: what is written to them in the low half, what was read in the high one.
pub const MSRWD: Reg<u32> = Reg::at(0x0_4260);
/// HLREG0, 82599 datasheet 8.2.3.22.8.
pub const HLREG0: Reg<Hlreg0> = Reg::at(0x0_4240);
/// MAXFRS, 82599 datasheet 8.2.3.22.13: bytes of the largest frame, frame check sequence included, in the high half.
pub const MAXFRS: Reg<u32> = Reg::at(0x0_4268);
/// MFLCN, 82599 datasheet 8.2.3.22.34: what is done to pause frames.
pub const MFLCN: Reg<Mflcn> = Reg::at(0x0_4294);
/// AUTOC, 82599 datasheet 8.2.3.22.19.
pub const AUTOC: Reg<Autoc> = Reg::at(0x0_42A0);
/// AUTOC2, 82599 datasheet 8.2.3.22.22.
pub const AUTOC2: Reg<Autoc2> = Reg::at(0x0_42A8);
/// MMNGC, 82599 datasheet 8.2.3.22: whether firmware lets the link be changed.
pub const MMNGC: Reg<Mmngc> = Reg::at(0x0_42D0);
/// LINKS, 82599 datasheet 8.2.3.22.20.
pub const LINKS: Reg<Links> = Reg::at(0x0_42A4);
/// ANLP1, 82599 datasheet 8.2.3.22.23: what the other end of a backplane advertises.
pub const ANLP1: Reg<Anlp1> = Reg::at(0x0_42B0);
/// LINKS2, 82599 datasheet 8.2.3.22: whether it negotiates.
pub const LINKS2: Reg<Links2> = Reg::at(0x0_4324);
/// RTTDCS, 82599 datasheet 8.2.3.10.3.
pub const RTTDCS: Reg<Rttdcs> = Reg::at(0x0_4900);
/// DMATXCTL, 82599 datasheet 8.2.3.9.2.
pub const DMATXCTL: Reg<Dmatxctl> = Reg::at(0x0_4A80);
/// RXCSUM, 82599 datasheet 8.2.3.7.5.
pub const RXCSUM: Reg<Rxcsum> = Reg::at(0x0_5000);
/// FCTRL, 82599 datasheet 8.2.3.7.1.
pub const FCTRL: Reg<Fctrl> = Reg::at(0x0_5080);
/// VLNCTRL, 82599 datasheet 8.2.3.7.2: the type of 802.1Q tags; without VFE (bit 30) none is filtered.
pub const VLNCTRL: Reg<u32> = Reg::at(0x0_5088);
/// MRQC, 82599 datasheet 8.2.3.7.12 (its alias of the 82598).
pub const MRQC: Reg<u32> = Reg::at(0x0_5818);
/// RETA, 82599 datasheet 8.2.3.7.13 (its alias of the 82598): the first of 32 words.
pub const RETA: usize = 0x0_5C00;
/// ERETA, X550: the first of 96 words with the entries behind RETA's.
pub const ERETA: usize = 0x0_EE80;
/// RSSRK, 82599 datasheet 8.2.3.7.14 (its alias of the 82598): the first of 10 words.
pub const RSSRK: usize = 0x0_5C80;
/// MTQC, 82599 datasheet 8.2.3.9.15: zero is one pool of queues.
pub const MTQC: Reg<u32> = Reg::at(0x0_8120);
/// SECRXCTRL, 82599 datasheet 8.2.3.12.6.
pub const SECRXCTRL: Reg<Secrxctrl> = Reg::at(0x0_8D00);
/// SECRXSTAT, 82599 datasheet 8.2.3.12.7.
pub const SECRXSTAT: Reg<Secrxstat> = Reg::at(0x0_8D04);
/// RAL(0), 82599 datasheet 8.2.3.7.8: bytes 0 to 3 of the device's own address.
pub const RAL: Reg<u32> = Reg::at(0x0_A200);
/// RAH(0), 82599 datasheet 8.2.3.7.9.
pub const RAH: Reg<Rah> = Reg::at(0x0_A204);

/// `DCA_RXCTRL`, 82599 datasheet 8.2.3.11.1.
pub const DCA_RXCTRL: Receive<u32> = Receive::at(0x0C);
/// SRRCTL, 82599 datasheet 8.2.3.8.7.
pub const SRRCTL: Receive<Srrctl> = Receive::at(0x14);
/// RXDCTL, 82599 datasheet 8.2.3.8.6.
pub const RXDCTL: Receive<Rxdctl> = Receive::at(0x28);
/// RSCCTL, 82599 datasheet 8.2.3.8.13: zero joins no frames.
pub const RSCCTL: Receive<u32> = Receive::at(0x2C);
/// QPRDC, 82599 datasheet 8.2.3.23: frames of the queue that were dropped for want of a buffer.
pub const QPRDC: Receive<u32> = Receive::at(0x30);
/// The offset of QPRDC's queues from the other registers of theirs.
pub const QPRDC_BLOCK: usize = 0x400;

/// `DCA_TXCTRL`, 82599 datasheet 8.2.3.11.2.
pub const DCA_TXCTRL: Transmit<u32> = Transmit::at(0x0C);
/// TXDCTL, 82599 datasheet 8.2.3.9.10.
pub const TXDCTL: Transmit<Txdctl> = Transmit::at(0x28);
/// In `DCA_RXCTRL`: data and headers may be written in another order (bits 13 and 15).
pub const DCA_RX_RELAXED: u32 = 1 << 13 | 1 << 15;
/// In `DCA_TXCTRL`: descriptors may be written back in another order (bit 11).
pub const DCA_TX_RELAXED: u32 = 1 << 11;
