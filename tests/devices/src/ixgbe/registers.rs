//! Registers of the 82599 and the X540: offsets and bits, by the section of the 82599 datasheet (331520) that has them. Pure.

use crate::queues::Direction;

/// Bytes of registers; flash lies beyond.
pub const SPACE: usize = 0x2_0000;

/// CTRL, 8.2.3.1.1.
pub const CTRL: usize = 0x0_0000;
/// CTRL: PCIe master disable.
pub const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// CTRL: link reset.
pub const CTRL_LRST: u32 = 1 << 3;
/// CTRL: device reset.
pub const CTRL_RST: u32 = 1 << 26;
/// STATUS, 8.2.3.1.2.
pub const STATUS: usize = 0x0_0008;
/// STATUS: requests to memory are allowed or on their way.
pub const STATUS_MASTER: u32 = 1 << 19;
/// CTRL_EXT, 8.2.3.1.3.
pub const CTRL_EXT: usize = 0x0_0018;
/// ESDP, 8.2.3.1.4: SDP2 is high where a module is in its cage.
pub const ESDP: usize = 0x0_0020;
/// I2CCTL, 8.2.3.1.5: clock in, clock out, data in, data out.
pub const I2CCTL: usize = 0x0_0028;

/// ESDP: SDP3's value, which turns a module's laser off.
pub const ESDP_SDP3: u32 = 1 << 3;
/// ESDP: SDP5's value, which is a module's rate select.
pub const ESDP_SDP5: u32 = 1 << 5;
/// ESDP: SDP5 is an output.
pub const ESDP_SDP5_DIR: u32 = 1 << 13;

/// EEC, 8.2.3.2.1.
pub const EEC: usize = 0x1_0010;
/// EEC: present, auto read done, and for the X540's flash that an update is done.
pub const EEC_PRESENT: u32 = 1 << 8;
/// EEC: auto read done.
pub const EEC_AUTO_READ: u32 = 1 << 9;
/// CORECTL, of the analogue part: takes the words of a module's start-up sequence.
pub const CORECTL: usize = 0x1_4F00;
/// EERD, 8.2.3.2.2.
pub const EERD: usize = 0x1_0014;
/// SWSM, 8.2.3.4.
pub const SWSM: usize = 0x1_0140;
/// SWSM: taken by reading.
pub const SWSM_SMBI: u32 = 1 << 0;
/// FWSM, 8.2.3.4.
pub const FWSM: usize = 0x1_0148;
/// FWSM: firmware is valid, in no manageability mode.
pub const FWSM_VALID: u32 = 1 << 15;
/// SW_FW_SYNC, 8.2.3.4. On the X540 reading takes bit 31 (X540 datasheet 8.2.3.4).
pub const SW_FW_SYNC: usize = 0x1_0160;
/// SW_FW_SYNC: software has the PHY of port 0.
pub const SW_FW_SYNC_PHY: u32 = 1 << 1;
/// SW_FW_SYNC: software has the registers of the link.
pub const SW_FW_SYNC_MAC: u32 = 1 << 3;
/// SW_FW_SYNC: the X540's register semaphore.
pub const SW_FW_SYNC_REGISTERS: u32 = 1 << 31;

/// EICR, 8.2.3.5.1.
pub const EICR: usize = 0x0_0800;
/// EICS, 8.2.3.5.2.
pub const EICS: usize = 0x0_0808;
/// EIMS, 8.2.3.5.3.
pub const EIMS: usize = 0x0_0880;
/// EIMC, 8.2.3.5.4.
pub const EIMC: usize = 0x0_0888;
/// EIAC, 8.2.3.5.5.
pub const EIAC: usize = 0x0_0810;
/// EIAM, 8.2.3.5.6.
pub const EIAM: usize = 0x0_0890;
/// EICS_EX, 8.2.3.5.7: two registers.
pub const EICS_EX: usize = 0x0_0A90;
/// EIMS_EX, 8.2.3.5.8.
pub const EIMS_EX: usize = 0x0_0AA0;
/// EIMC_EX, 8.2.3.5.9.
pub const EIMC_EX: usize = 0x0_0AB0;
/// EIAM_EX, 8.2.3.5.10.
pub const EIAM_EX: usize = 0x0_0AD0;
/// GPIE, 8.2.3.5.18.
pub const GPIE: usize = 0x0_0898;
/// GPIE: SDP2 interrupts.
pub const GPIE_SDP2: u32 = 1 << 2;
/// GPIE: several vectors.
pub const GPIE_MSIX: u32 = 1 << 4;
/// GPIE: reading EICR clears bits 16 to 29 alone.
pub const GPIE_OCD: u32 = 1 << 5;
/// GPIE: EIAM works when a message is sent.
pub const GPIE_EIAME: u32 = 1 << 30;
/// IVAR, 8.2.3.5.16: 64 registers for two queues each.
pub const IVAR: usize = 0x0_0900;
/// IVAR_MISC, 8.2.3.5.17.
pub const IVAR_MISC: usize = 0x0_0A00;

/// FCTRL, 8.2.3.7.1.
pub const FCTRL: usize = 0x0_5080;
/// FCTRL: all multicast.
pub const FCTRL_MPE: u32 = 1 << 8;
/// FCTRL: all unicast.
pub const FCTRL_UPE: u32 = 1 << 9;
/// FCTRL: broadcast.
pub const FCTRL_BAM: u32 = 1 << 10;
/// VLNCTRL, 8.2.3.7.2.
pub const VLNCTRL: usize = 0x0_5088;
/// VLNCTRL: the filter of VLANs is on.
pub const VLNCTRL_VFE: u32 = 1 << 30;
/// MCSTCTRL, 8.2.3.7.3.
pub const MCSTCTRL: usize = 0x0_5090;
/// MCSTCTRL: the table of multicast addresses is on.
pub const MCSTCTRL_MFE: u32 = 1 << 2;
/// RXCSUM, 8.2.3.7.5.
pub const RXCSUM: usize = 0x0_5000;
/// RXCSUM: descriptors hold the hash and not a fragment's checksum.
pub const RXCSUM_PCSD: u32 = 1 << 13;
/// MTA, 8.2.3.7.7: 128 registers.
pub const MTA: usize = 0x0_5200;
/// RAL and RAH, 8.2.3.7.8 and 9: 128 pairs.
pub const RAL: usize = 0x0_A200;
pub use crate::filter::ADDRESS_VALID as RAH_AV;
/// VFTA, 8.2.3.7.11: 128 registers.
pub const VFTA: usize = 0x0_A000;
/// MRQC, 8.2.3.7.12.
pub const MRQC: usize = 0x0_EC80;
/// RSSRK, 8.2.3.7.14: 10 registers.
pub const RSSRK: usize = 0x0_EB80;
/// RETA, 8.2.3.7.13: 32 registers.
pub const RETA: usize = 0x0_EB00;

/// ERETA, of the X550: 96 registers.
pub const ERETA: usize = 0x0_EE80;

/// First register of receive queue 0, 8.2.3.8.1; the next is 0x40 further.
pub const RECEIVE: usize = 0x0_1000;
/// First register of receive queue 64.
pub const RECEIVE_HIGH: usize = 0x0_D000;
/// SRRCTL from a queue's first register, 8.2.3.8.7.
pub const SRRCTL: usize = 0x14;
/// SRRCTL: frames without descriptors are dropped.
pub const SRRCTL_DROP: u32 = 1 << 28;
/// RXDCTL: strip the VLAN's tag, 8.2.3.8.6.
pub const RXDCTL_VME: u32 = 1 << 30;
/// RSCCTL from a queue's first register, 8.2.3.8.13.
pub const RSCCTL: usize = 0x2C;
/// RDRXCTL, 8.2.3.8.8.
pub const RDRXCTL: usize = 0x0_2F00;
/// RDRXCTL: the frame check sequence is stripped.
pub const RDRXCTL_CRCSTRIP: u32 = 1 << 1;
/// RDRXCTL: DMA is initialised.
pub const RDRXCTL_DMAIDONE: u32 = 1 << 3;
/// RXCTRL, 8.2.3.8.10.
pub const RXCTRL: usize = 0x0_3000;
/// RXCTRL: receive.
pub const RXCTRL_RXEN: u32 = 1 << 0;
/// SECRXCTRL and SECRXSTAT, 8.2.3.12.8 and 9.
pub const SECRXCTRL: usize = 0x0_8D00;
/// SECRXCTRL: the receive path is halted.
pub const SECRXCTRL_RX_DIS: u32 = 1 << 1;
/// SECRXSTAT.
pub const SECRXSTAT: usize = 0x0_8D04;
/// SECTXCTRL and SECTXSTAT, 8.2.3.12.
pub const SECTXCTRL: usize = 0x0_8800;
/// SECTXSTAT.
pub const SECTXSTAT: usize = 0x0_8804;

/// DMATXCTL, 8.2.3.9.2.
pub const DMATXCTL: usize = 0x0_4A80;
/// DMATXCTL: transmit.
pub const DMATXCTL_TE: u32 = 1 << 0;
/// First register of transmit queue 0, 8.2.3.9.5; the next is 0x40 further.
pub const TRANSMIT: usize = 0x0_6000;

/// FCTTV 0, 8.2.3.3.2: the time of pause frames.
pub const FCTTV: usize = 0x0_3200;
/// FCRTL 0, 8.2.3.3.3: the low mark.
pub const FCRTL: usize = 0x0_3220;
/// FCRTH 0, 8.2.3.3.4: the high mark.
pub const FCRTH: usize = 0x0_3260;
/// FCRTH: the marks count.
pub const FCRTH_FCEN: u32 = 1 << 31;
/// RXPBSIZE 0, 8.2.3.8.9.
pub const RXPBSIZE: usize = 0x0_3C00;
/// FCCFG, 8.2.3.3.7.
pub const FCCFG: usize = 0x0_3D00;
/// FCCFG: pause frames are sent for the whole link.
pub const FCCFG_TFCE: u32 = 1 << 3;
/// MFLCN, 8.2.3.22.34.
pub const MFLCN: usize = 0x0_4294;
/// MFLCN: pause frames are dropped.
pub const MFLCN_DPF: u32 = 1 << 1;
/// MFLCN: pause frames are obeyed.
pub const MFLCN_RFCE: u32 = 1 << 3;
/// HLREG0, 8.2.3.22.8.
pub const HLREG0: usize = 0x0_4240;
/// HLREG0: the frame check sequence is stripped.
pub const HLREG0_RXCRCSTRP: u32 = 1 << 1;
/// HLREG0: jumbo frames.
pub const HLREG0_JUMBOEN: u32 = 1 << 2;
/// HLREG0: short frames are padded.
pub const HLREG0_TXPADEN: u32 = 1 << 10;
/// HLREG0: loopback.
pub const HLREG0_LPBK: u32 = 1 << 15;
/// MSCA, 8.2.3.22.11.
pub const MSCA: usize = 0x0_425C;
/// MSRWD, 8.2.3.22.12.
pub const MSRWD: usize = 0x0_4260;
/// PCS1GLSTA, 8.2.3.22.
pub const PCS1GLSTA: usize = 0x0_420C;
/// PCS1GLSTA: a link of 1 Gbit/s was negotiated.
pub const PCS1GLSTA_AN_COMPLETE: u32 = 1 << 16;
/// PCS1GANLP, 8.2.3.22: what the link partner advertises in it.
pub const PCS1GANLP: usize = 0x0_421C;
/// MAXFRS, 8.2.3.22.13: the longest jumbo frame in the upper half.
pub const MAXFRS: usize = 0x0_4268;
/// AUTOC, 8.2.3.22.19.
pub const AUTOC: usize = 0x0_42A0;
/// AUTOC: a link of 1 Gbit/s is not one of SFI.
pub const AUTOC_1G_BACKPLANE: u32 = 1 << 9;
/// AUTOC: restart; clears itself.
pub const AUTOC_RESTART: u32 = 1 << 12;
/// LINKS, 8.2.3.22.20.
pub const LINKS: usize = 0x0_42A4;
/// LINKS: up.
pub const LINKS_UP: u32 = 1 << 30;
/// LINKS: 100 Mbit/s.
pub const LINKS_100M: u32 = 1 << 28;
/// LINKS, of the X550: 5 Gbit/s in place of 100 Mbit/s, 2.5 in place of 10.
pub const LINKS_OTHER: u32 = 1 << 27;
/// LINKS: 1 Gbit/s.
pub const LINKS_1G: u32 = 2 << 28;
/// LINKS: 10 Gbit/s.
pub const LINKS_10G: u32 = 3 << 28;
/// LINKS: backplane autonegotiation is complete.
pub const LINKS_AN_COMPLETE: u32 = 1 << 31;
/// AUTOC2, 8.2.3.22.22.
pub const AUTOC2: usize = 0x0_42A8;
/// MMNGC, 8.2.3.22: firmware's.
pub const MMNGC: usize = 0x0_42D0;
/// MMNGC: nobody else is to change the link.
pub const MMNGC_VETO: u32 = 1 << 0;
/// ANLP1, 8.2.3.22.23: of the link partner.
pub const ANLP1: usize = 0x0_42B0;

/// LINKS2, 8.2.3.22.
pub const LINKS2: usize = 0x0_4324;
/// LINKS2: the link partner of a backplane negotiates.
pub const LINKS2_AN: u32 = 1 << 6;

/// Counters that reading clears, 8.2.3.23.
pub mod count {
    pub use crate::statistics::count::*;

    /// CRCERRS.
    pub const CRCERRS: usize = 0x4000;
    /// RLEC: length errors.
    pub const RLEC: usize = 0x4040;
    /// RXMPC 0: frames missed for want of packet memory.
    pub const MPC: usize = 0x3FA0;
    /// LXONRXCNT.
    pub const LXONRXCNT: usize = 0x41A4;
    /// LXOFFRXCNT.
    pub const LXOFFRXCNT: usize = 0x41A8;
    /// RUC: too short.
    pub const RUC: usize = 0x40A4;
    /// ROC: too long.
    pub const ROC: usize = 0x40AC;
    /// TORL.
    pub const TOR: usize = 0x40C0;
    /// TPR.
    pub const TPR: usize = 0x40D0;
    /// RXNFGPC: good frames that did not pass the filters are counted too.
    pub const RXNFGPC: usize = 0x41B0;
    /// QPRC 0; the next is 0x40 further, up to 15.
    pub const QPRC: usize = 0x1030;
    /// QBRC_L 0.
    pub const QBRC: usize = 0x1034;
    /// QPRDC 0.
    pub const QPRDC: usize = 0x1430;
    /// QPTC 0; the next is 4 further, up to 15.
    pub const QPTC: usize = 0x8680;
    /// QBTC_L 0; the next is 8 further.
    pub const QBTC: usize = 0x8700;
}

/// First register of a receive queue.
pub const fn receive(queue: usize) -> usize {
    if queue < 64 { RECEIVE + 0x40 * queue } else { RECEIVE_HIGH + 0x40 * (queue - 64) }
}

/// First register of a transmit queue.
pub const fn transmit(queue: usize) -> usize {
    TRANSMIT + 0x40 * queue
}

/// Which queue's register `offset` is, and how far from the queue's first.
pub const fn queue_of(offset: usize) -> Option<(Direction, usize, usize)> {
    let place = offset & 0x3F;
    match offset {
        0x1000..0x2000 => Some((Direction::Receive, (offset - RECEIVE) / 0x40, place)),
        0xD000..0xE000 => Some((Direction::Receive, 64 + (offset - RECEIVE_HIGH) / 0x40, place)),
        0x6000..0x8000 => Some((Direction::Transmit, (offset - TRANSMIT) / 0x40, place)),
        _ => None,
    }
}

/// Where the register at `offset` lies, if it has several addresses (the 82598's, 8.2.2).
pub const fn canonical(offset: usize) -> usize {
    match offset {
        0x5400..0x5480 => RAL + offset - 0x5400,
        0x5818 => MRQC,
        0x5C00..0x5C80 => RETA + offset - 0x5C00,
        0x5C80..0x5CA8 => RSSRK + offset - 0x5C80,
        // SRRCTL 0 to 15.
        0x2100..0x2140 => RECEIVE + 0x10 * (offset - 0x2100) + SRRCTL,
        0x6030..0x6430 if offset % 0x40 == 0x30 => count::QPTC + (offset - 0x6030) / 0x10,
        _ => offset,
    }
}

/// Whether reading the register clears it.
pub const fn clears(offset: usize) -> bool {
    match offset {
        0x3F00..0x4200 | 0x8600..0x8780 | 0x87A0..0x87B0 | 0x2F50..0x2F5C | 0xCF00..0xCF70 => true,
        0x1000..0x1800 => matches!(offset & 0x3F, 0x30..0x3C),
        _ => false,
    }
}
