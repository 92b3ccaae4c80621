//! Registers of the 82574: those of its own, by the section of the 82574 datasheet (revision 3.4) that has them, and those that the 82576
//! kept. Pure.

use crate::queues::Direction;

pub use crate::buffers::RFCTL;
pub use crate::igb::registers::{
    CTRL, CTRL_EXT, CTRL_EXT_IAME, CTRL_MASTER_DISABLE, CTRL_RFCE, CTRL_RST, CTRL_SLU, CTRL_TFCE, CTRL_VME, EEC,
    EEC_AUTO_READ, EEC_PRESENT, FCAH, FCAL, FCRTH, FCRTL, FCT, FCTTV, MDIC, MDIC_ERROR, MDIC_READY, MTA, PCIE_END,
    RAH_AV, RAL, RCTL, RCTL_BAM, RCTL_EN, RCTL_LBM, RCTL_LPE, RCTL_MPE, RCTL_SECRC, RCTL_UPE, RCTL_VFE, RXCSUM,
    RXCSUM_IPOFLD, RXCSUM_TUOFLD, SPACE, STATUS, STATUS_LU, STATUS_MASTER, SWSM, SWSM_SMBI, TCTL, TCTL_EN, TCTL_PSP,
    VET, VFTA, clears, count,
};

/// STATUS.SPEED of 1,000 Mbit/s, 10.2.2.2.
pub const SPEED_1000: u32 = 2;
/// CTRL_EXT.EIAME: a message disables its cause where IAM has it, 10.2.2.5.
pub const CTRL_EXT_EIAME: u32 = 1 << 24;
/// ICR, 10.2.4.1.
pub const ICR: usize = 0x0_00C0;
/// ICS.
pub const ICS: usize = 0x0_00C8;
/// IMS.
pub const IMS: usize = 0x0_00D0;
/// IMC.
pub const IMC: usize = 0x0_00D8;
/// EIAC: causes that a message clears.
pub const EIAC: usize = 0x0_00DC;
/// IAM.
pub const IAM: usize = 0x0_00E0;
/// IVAR, 10.2.4.
pub const IVAR: usize = 0x0_00E4;
/// CTRL: the SerDes' link is in reset.
pub const CTRL_LRST: u32 = 1 << 3;
/// SCTL, of the 82571: SerDes control.
pub const SCTL: usize = 0x0_0024;
/// SCTL: in loopback.
pub const SCTL_LOOPBACK: u32 = 0x0410;
/// SCTL: in loopback no longer.
pub const SCTL_NO_LOOPBACK: u32 = 0x0400;
/// TXCW, of the 82571: what is advertised over SerDes.
pub const TXCW: usize = 0x0_0178;
/// TXCW: the link is negotiated.
pub const TXCW_ANE: u32 = 1 << 31;
/// RXCW, of the 82571: what the link partner advertises.
pub const RXCW: usize = 0x0_0180;
/// RXCW: the partner sends what it advertises.
pub const RXCW_C: u32 = 1 << 29;
/// RXCW: the receiver is in step.
pub const RXCW_SYNCH: u32 = 1 << 30;
/// RXCW: negotiation is complete.
pub const RXCW_ANC: u32 = 1 << 31;
/// SWSM2, of the 82571.
pub const SWSM2: usize = 0x0_5B58;
/// SWSM: software has the semaphore, not firmware.
pub const SWSM_SWESMBI: u32 = 1 << 1;
/// RCTL.DPF: pause frames are dropped, whatever the filters say, 10.2.5.1.
pub const RCTL_DPF: u32 = 1 << 22;
/// EITR 0, 10.2.4.2: interval of an MSI-X vector, in units of 256 ns.
pub const EITR: usize = 0x0_00E8;
/// EITR: the interval.
pub const EITR_INTERVAL: u32 = 0xFFFF;
/// EXTCNF_CTRL, 10.2.2.
pub const EXTCNF_CTRL: usize = 0x0_0F00;
/// EXTCNF_CTRL: software has the bus to the PHY.
pub const EXTCNF_MDIO: u32 = 1 << 5;
/// PBA: KiB of packet memory for receive, 10.2.2.
pub const PBA: usize = 0x0_1000;
/// TARC0, 10.2.6.
pub const TARC0: usize = 0x0_3840;
/// MRQC: receive side scaling, 10.2.5.
pub const MRQC: usize = 0x0_5818;
/// First register of the receive queue.
pub const RECEIVE: usize = 0x0_2800;
/// First register of the transmit queue.
pub const TRANSMIT: usize = 0x0_3800;
/// GCR; the registers of PCI Express begin here.
pub const GCR: usize = 0x0_5B00;

/// First register of a receive queue.
pub const fn receive(queue: usize) -> usize {
    RECEIVE + 0x100 * queue
}

/// First register of a transmit queue.
pub const fn transmit(queue: usize) -> usize {
    TRANSMIT + 0x100 * queue
}

/// Which queue's register `offset` is, and how far from the queue's first.
pub const fn queue_of(offset: usize) -> Option<(Direction, usize, usize)> {
    match offset {
        RECEIVE..0x2840 => Some((Direction::Receive, 0, offset - RECEIVE)),
        TRANSMIT..0x3840 => Some((Direction::Transmit, 0, offset - TRANSMIT)),
        _ => None,
    }
}
