//! Registers of the 82576 and its successors: offsets and bits, by the section of the 82576 datasheet (revision 2.63) that has them. Pure.

use crate::queues::Direction;

pub use crate::filter::ADDRESS_VALID as RAH_AV;

/// Bytes of registers, BAR 0.
pub const SPACE: usize = 0x2_0000;

/// CTRL, 8.2.1.
pub const CTRL: usize = 0x0_0000;
/// CTRL: PCIe master disable.
pub const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// CTRL: set link up.
pub const CTRL_SLU: u32 = 1 << 6;
/// CTRL: device reset of this port.
pub const CTRL_RST: u32 = 1 << 26;
/// CTRL: pause frames are obeyed.
pub const CTRL_RFCE: u32 = 1 << 27;
/// CTRL: pause frames are sent.
pub const CTRL_TFCE: u32 = 1 << 28;
/// CTRL: reset of all ports, from the 82580 on.
pub const CTRL_DEV_RST: u32 = 1 << 29;
/// CTRL: tags of VLANs are stripped.
pub const CTRL_VME: u32 = 1 << 30;
/// CTRL: reset of the PHY.
pub const CTRL_PHY_RST: u32 = 1 << 31;
/// STATUS, 8.2.2.
pub const STATUS: usize = 0x0_0008;
/// STATUS: link up.
pub const STATUS_LU: u32 = 1 << 1;
/// STATUS: the PHY was reset.
pub const STATUS_PHYRA: u32 = 1 << 10;
/// STATUS: requests to memory are allowed or on their way.
pub const STATUS_MASTER: u32 = 1 << 19;
/// STATUS: all ports were reset; cleared by writing it. From the 82580 on.
pub const STATUS_DEV_RST_SET: u32 = 1 << 20;
/// STATUS: the reset of this port is done. From the 82580 on.
pub const STATUS_RST_DONE: u32 = 1 << 21;
/// EEC, 8.4.1.
pub const EEC: usize = 0x0_0010;
/// EEC: present.
pub const EEC_PRESENT: u32 = 1 << 8;
/// EEC: auto read done.
pub const EEC_AUTO_READ: u32 = 1 << 9;
/// EEC: the I210 has a flash (Linux: `EECD_FLASH_DETECTED_I210`).
pub const EEC_FLASH: u32 = 1 << 19;
/// EEC: an update of the flash is done.
pub const EEC_UPDATED: u32 = 1 << 26;
/// EERD, 8.4.2.
pub const EERD: usize = 0x0_0014;
/// CTRL_EXT, 8.2.3.
pub const CTRL_EXT: usize = 0x0_0018;
/// CTRL_EXT: what ICR shows is masked by IAM when it is read.
pub const CTRL_EXT_IAME: u32 = 1 << 27;
/// MDIC, 8.2.4.
pub const MDIC: usize = 0x0_0020;
/// MDIC: done.
pub const MDIC_READY: u32 = 1 << 28;
/// MDIC: interrupt when done.
pub const MDIC_INTERRUPT: u32 = 1 << 29;
/// MDIC: no PHY answered.
pub const MDIC_ERROR: u32 = 1 << 30;
/// FCAL, 8.3.1: of the address that pause frames are for.
pub const FCAL: usize = 0x0_0028;
/// FCAH, 8.3.2.
pub const FCAH: usize = 0x0_002C;
/// FCT, 8.3.3: their type.
pub const FCT: usize = 0x0_0030;
/// FCTTV, 8.3.4: their time.
pub const FCTTV: usize = 0x0_0170;
/// FCRTL, 8.3.5: the low mark.
pub const FCRTL: usize = 0x0_2160;
/// FCRTH, 8.3.6: the high mark.
pub const FCRTH: usize = 0x0_2168;
/// VET: EtherType of tags.
pub const VET: usize = 0x0_0038;
/// RCTL, 8.10.1.
pub const RCTL: usize = 0x0_0100;
/// RCTL: receive.
pub const RCTL_EN: u32 = 1 << 1;
/// RCTL: all unicast.
pub const RCTL_UPE: u32 = 1 << 3;
/// RCTL: all multicast.
pub const RCTL_MPE: u32 = 1 << 4;
/// RCTL: long packets.
pub const RCTL_LPE: u32 = 1 << 5;
/// RCTL: loopback of the MAC.
pub const RCTL_LBM: u32 = 1 << 6;
/// RCTL: broadcast.
pub const RCTL_BAM: u32 = 1 << 15;
/// RCTL: the filter of VLANs is on.
pub const RCTL_VFE: u32 = 1 << 18;
/// RCTL: the frame check sequence is stripped.
pub const RCTL_SECRC: u32 = 1 << 26;
/// TCTL, 8.12.1.
pub const TCTL: usize = 0x0_0400;
/// TCTL: transmit.
pub const TCTL_EN: u32 = 1 << 1;
/// TCTL: short frames are padded.
pub const TCTL_PSP: u32 = 1 << 3;
/// MDICNFG: where the PHY is, from the 82580 on.
pub const MDICNFG: usize = 0x0_0E04;
/// EEMNGCTL; the I210's lies at [`EEMNGCTL_I210`].
pub const EEMNGCTL: usize = 0x0_1010;
/// The same of the I210.
pub const EEMNGCTL_I210: usize = 0x1_2030;
/// EEMNGCTL: the PHY is set up.
pub const EEMNGCTL_DONE: u32 = 1 << 18;

/// ICR, 8.8.9.
pub const ICR: usize = 0x0_1500;
/// ICS, 8.8.10.
pub const ICS: usize = 0x0_1504;
/// IMS, 8.8.11.
pub const IMS: usize = 0x0_1508;
/// IMC, 8.8.12.
pub const IMC: usize = 0x0_150C;
/// IAM, 8.8.13.
pub const IAM: usize = 0x0_1510;
/// GPIE, 8.8.14.
pub const GPIE: usize = 0x0_1514;
/// GPIE: reading ICR always clears it.
pub const GPIE_NSICR: u32 = 1 << 0;
/// GPIE: several vectors.
pub const GPIE_MSIX: u32 = 1 << 4;
/// GPIE: EIAM works when a message is sent.
pub const GPIE_EIAME: u32 = 1 << 30;
/// EICS, 8.8.2.
pub const EICS: usize = 0x0_1520;
/// EIMS, 8.8.3.
pub const EIMS: usize = 0x0_1524;
/// EIMC, 8.8.4.
pub const EIMC: usize = 0x0_1528;
/// EIAC, 8.8.5.
pub const EIAC: usize = 0x0_152C;
/// EIAM, 8.8.6.
pub const EIAM: usize = 0x0_1530;
/// EICR, 8.8.1.
pub const EICR: usize = 0x0_1580;
/// IVAR, 8.8.16: 8 registers.
pub const IVAR: usize = 0x0_1700;
/// IVAR_MISC, 8.8.17.
pub const IVAR_MISC: usize = 0x0_1740;

/// RXPBS: packet memory for receive, in KB.
pub const RXPBS: usize = 0x0_2404;
/// TXPBS: packet memory for transmit.
pub const TXPBS: usize = 0x0_3404;

/// RXCSUM, 8.10.15.
pub const RXCSUM: usize = 0x0_5000;
/// RXCSUM: checksums of IPv4 headers are verified.
pub const RXCSUM_IPOFLD: u32 = 1 << 8;
/// RXCSUM: checksums of TCP and UDP are verified.
pub const RXCSUM_TUOFLD: u32 = 1 << 9;
/// RXCSUM: descriptors hold the hash and not a fragment's checksum.
pub const RXCSUM_PCSD: u32 = 1 << 13;
/// RLPML, 8.10.14: bytes of the longest long packet, all included.
pub const RLPML: usize = 0x0_5004;
/// MTA, 8.10.15: 128 registers.
pub const MTA: usize = 0x0_5200;
/// RAL and RAH, 8.10.16 and 17: 16 pairs.
pub const RAL: usize = 0x0_5400;
/// The pairs from 16 on.
pub const RAL_HIGH: usize = 0x0_54E0;
/// VFTA, 8.10.18: 128 registers.
pub const VFTA: usize = 0x0_5600;
/// MRQC, 8.10.20.
pub const MRQC: usize = 0x0_5818;
/// GCR; the registers of PCI Express begin here.
pub const GCR: usize = 0x0_5B00;
/// GCR: capabilities of version 2.
pub const GCR_VERSION_2: u32 = 1 << 18;
/// SWSM: the semaphore of software.
pub const SWSM: usize = 0x0_5B50;
/// SWSM: taken by reading.
pub const SWSM_SMBI: u32 = 1 << 0;
/// SWSM: taken by writing, where firmware does not have it.
pub const SWSM_SWESMBI: u32 = 1 << 1;
/// FWSM: the semaphore of firmware.
pub const FWSM: usize = 0x0_5B54;
/// FWSM: firmware is valid, in no manageability mode.
pub const FWSM_VALID: u32 = 1 << 15;
/// SW_FW_SYNC.
pub const SW_FW_SYNC: usize = 0x0_5B5C;
/// SW_FW_SYNC: software has the PHY of port 0.
pub const SW_FW_SYNC_PHY: u32 = 1 << 1;
/// Where the registers of PCI Express end.
pub const PCIE_END: usize = 0x0_5BFF;
/// RETA, 8.10.21: 32 registers.
pub const RETA: usize = 0x0_5C00;
/// RSSRK, 8.10.22: 10 registers.
pub const RSSRK: usize = 0x0_5C80;

/// First register of receive queue 0, 8.10.5; the next is 0x40 further.
pub const RECEIVE: usize = 0x0_C000;
/// SRRCTL from a queue's first register, 8.10.2.
pub const SRRCTL: usize = 0x0C;
/// DVMOLR of pool 0, I350 datasheet 8.10.20.
pub const DVMOLR: usize = RECEIVE + 0x38;
/// DVMOLR: tags are stripped.
pub const DVMOLR_STRVLAN: u32 = 1 << 30;
/// SRRCTL: frames without descriptors are dropped.
pub const SRRCTL_DROP: u32 = 1 << 31;
/// RQDPC from a queue's first register, 8.10.12. Reading clears it, but for the I210's, which is written (Linux's
/// igb, `igb_update_stats`).
pub const RQDPC: usize = 0x30;
/// First register of transmit queue 0, 8.12.8; the next is 0x40 further.
pub const TRANSMIT: usize = 0x0_E000;

/// Counters that reading clears, 8.19.
pub mod count {
    pub use crate::statistics::count::*;

    /// The first.
    pub const FIRST: usize = 0x4000;
    /// RLEC: length errors.
    pub const RLEC: usize = 0x4040;
    /// MPC: frames missed for want of packet memory.
    pub const MPC: usize = 0x4010;
    /// XONRXC.
    pub const XONRXC: usize = 0x4048;
    /// XOFFRXC.
    pub const XOFFRXC: usize = 0x4050;
    /// ROC: too long.
    pub const ROC: usize = 0x40AC;
    /// TORL.
    pub const TOR: usize = 0x40C0;
    /// TOTL.
    pub const TOT: usize = 0x40C8;
    /// TPR.
    pub const TPR: usize = 0x40D0;
    /// Behind the last.
    pub const END: usize = 0x4130;
}

/// First register of a receive queue.
pub const fn receive(queue: usize) -> usize {
    RECEIVE + 0x40 * queue
}

/// First register of a transmit queue.
pub const fn transmit(queue: usize) -> usize {
    TRANSMIT + 0x40 * queue
}

/// RAL of an address.
pub const fn ral(index: usize) -> usize {
    if index < 16 { RAL + 8 * index } else { RAL_HIGH + 8 * (index - 16) }
}

/// Which queue's register `offset` is, and how far from the queue's first; of 16 queues.
pub const fn queue_of(offset: usize) -> Option<(Direction, usize, usize)> {
    let (queue, place) = ((offset & 0x3FF) / 0x40, offset & 0x3F);
    match offset & !0x3FF {
        RECEIVE => Some((Direction::Receive, queue, place)),
        TRANSMIT => Some((Direction::Transmit, queue, place)),
        _ => None,
    }
}

/// Where the register at `offset` lies, if it has several addresses (those of the 82575 and older, 8.1.3).
pub const fn canonical(offset: usize) -> usize {
    match offset {
        0x00C0 => ICR,
        0x00C8 => ICS,
        0x00D0 => IMS,
        0x00D8 => IMC,
        0x00E0 => IAM,
        // Four queues, 0x100 apart.
        0x2800..0x2C00 if offset & 0xFF < 0x40 => RECEIVE + (offset & 0x300) / 4 + (offset & 0x3F),
        0x3800..0x3C00 if offset & 0xFF < 0x40 => TRANSMIT + (offset & 0x300) / 4 + (offset & 0x3F),
        _ => offset,
    }
}

/// Whether reading the register clears it.
pub const fn clears(offset: usize) -> bool {
    matches!(offset, count::FIRST..count::END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_addresses_name_the_same_registers() {
        let table =
            [(0xC0, ICR), (0xE0, IAM), (0x2800, RECEIVE), (0x2B28, receive(3) + 0x28), (0x3918, transmit(1) + 0x18)];
        for (old, new) in table {
            assert_eq!(canonical(old), new, "{old:#x}");
        }
        assert_eq!((canonical(0x2840), canonical(0x2C00), canonical(0xC4)), (0x2840, 0x2C00, 0xC4));
        assert_eq!(queue_of(0xE3E8), Some((Direction::Transmit, 15, 0x28)));
        assert_eq!((queue_of(0xC400), queue_of(0xD000)), (None, None));
    }
}
