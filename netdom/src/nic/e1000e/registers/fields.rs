//! What the bits of the registers mean, as the 82574 datasheet has them. Pure. Floor 3.

use bitfield_struct::bitfield;

/// CTRL, 82574 datasheet 10.2.2.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctrl {
    /// Full duplex, where duplex is forced.
    pub full_duplex: bool,
    _r1: bool,
    /// Blocks new requests to memory.
    pub master_disable: bool,
    /// Resets the link, on fibre.
    pub link_reset: bool,
    _r4: bool,
    /// Detects the speed from the PHY.
    pub auto_speed: bool,
    /// Lets the MAC report the PHY's link.
    pub set_link_up: bool,
    _r7: bool,
    #[bits(2)]
    pub speed: u8,
    _r10: bool,
    /// Takes `speed` instead of the PHY's.
    pub force_speed: bool,
    /// Takes `full_duplex` instead of the PHY's.
    pub force_duplex: bool,
    #[bits(6)]
    _r13: u8,
    /// MEHE of the I217 and later: errors of the packet buffer are handled.
    pub memory_errors: bool,
    #[bits(6)]
    _r20: u8,
    /// Resets all but the PHY and the PCI configuration. Clears itself.
    pub reset: bool,
    /// Obeys pause frames.
    pub receive_flow_control: bool,
    /// Sends pause frames.
    pub transmit_flow_control: bool,
    _r29: bool,
    /// Takes 802.1Q tags out of frames.
    pub vlan_mode: bool,
    /// Resets the PHY.
    pub phy_reset: bool,
}

/// STATUS, 82574 datasheet 10.2.2.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// Full duplex.
    pub full_duplex: bool,
    /// The link is up.
    pub link_up: bool,
    #[bits(2)]
    pub lan_id: u8,
    /// Transmission is paused.
    pub paused: bool,
    _r5: bool,
    /// 0: 10, 1: 100, otherwise 1,000 Mbit/s.
    #[bits(2)]
    pub speed: u8,
    #[bits(11)]
    _r8: u16,
    /// Requests to memory may still be under way.
    pub master_enabled: bool,
    #[bits(12)]
    _r20: u16,
}

/// EEC, 82574 datasheet 10.2.2.3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Eec {
    #[bits(9)]
    _r0: u16,
    /// The non-volatile memory was read into the registers.
    pub auto_read_done: bool,
    #[bits(22)]
    _r10: u32,
}

/// `CTRL_EXT`, 82574 datasheet 10.2.2.5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CtrlExt {
    #[bits(22)]
    _r0: u32,
    /// Reserved, and to be set on the PCHs (Linux: `e1000_initialize_hw_bits_ich8lan`, where it has no name either).
    pub must_be_set: bool,
    _r23: bool,
    /// EIAME: an MSI-X message disables the interrupts in IAM.
    pub message_auto_mask: bool,
    #[bits(2)]
    _r25: u8,
    /// IAME: reading ICR disables the interrupts in IAM.
    pub read_auto_mask: bool,
    /// `DRV_LOAD`: tells the firmware that a driver is at work.
    pub driver_loaded: bool,
    /// `INT_TIMERS_CLEAR_ENA`.
    pub timers_clear: bool,
    _r30: bool,
    /// `PBA_CLR`: enabling an interrupt clears its pending bit.
    pub pending_clear: bool,
}

/// MDIC, 82574 datasheet 10.2.2.7.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Mdic {
    /// What was read, or is to be written.
    pub data: u16,
    /// The PHY's register.
    #[bits(5)]
    pub register: u8,
    /// The PHY's address; MDICNFG has it from the 82580 on.
    #[bits(5)]
    pub phy: u8,
    /// 1: write, 2: read.
    #[bits(2)]
    pub operation: u8,
    /// The operation has ended.
    pub ready: bool,
    _r29: bool,
    /// It failed.
    pub error: bool,
    _r31: bool,
}

/// TXCW, 82571 software developer's manual 13: what is advertised over SerDes (IEEE 802.3, clause 37).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Txcw {
    #[bits(5)]
    _r0: u8,
    /// Full duplex.
    pub full_duplex: bool,
    _r6: bool,
    /// Pauses in both directions.
    pub symmetric: bool,
    /// And in one.
    pub asymmetric: bool,
    #[bits(22)]
    _r9: u32,
    /// ANE: the link is negotiated.
    pub negotiate: bool,
}

/// RXCW, 82571 software developer's manual 13: what the other end advertises.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rxcw {
    #[bits(7)]
    _r0: u8,
    /// Pauses in both directions.
    pub symmetric: bool,
    /// And in one.
    pub asymmetric: bool,
    #[bits(18)]
    _r9: u32,
    /// RXIV: symbols that are none were received. Stays until read.
    pub invalid: bool,
    _r28: bool,
    /// RXCFG: the other end negotiates.
    pub configures: bool,
    /// RXSYNCH: the receiver is in step. Low until read, where it was not.
    pub synchronised: bool,
    /// ANC: a negotiation has ended.
    pub negotiated: bool,
}

/// SWSM2 of the 82571.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Swsm2 {
    _r0: bool,
    /// A driver of one of the two ports has cleared SWSM since power-on.
    pub locked: bool,
    #[bits(30)]
    _r2: u32,
}

/// `EXTCNF_CTRL`, 82574 datasheet 10.2.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ExtcnfCtrl {
    #[bits(5)]
    _r0: u8,
    /// Software owns the bus to the PHY.
    pub mdio_owned: bool,
    #[bits(26)]
    _r6: u32,
}

/// SWSM, 82574 datasheet 10.2.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Swsm {
    /// SMBI: a driver has the semaphore. Set by reading.
    pub driver: bool,
    /// SWESMBI: software has the semaphore, not firmware.
    pub software: bool,
    _r2: bool,
    /// The driver-loaded bit of the 82573.
    pub driver_loaded: bool,
    #[bits(28)]
    _r4: u32,
}

/// FWSM of the I217 and later.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Fwsm {
    #[bits(24)]
    _r0: u32,
    /// The firmware is using the register bus: a write may be lost.
    pub arbiter_busy: bool,
    #[bits(7)]
    _r25: u8,
}

/// The bits of ICR, ICS, IMS, IMC, EIAC and IAM, 82574 datasheet 10.2.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Causes {
    /// TXDW: a transmit descriptor was written back.
    pub transmitted: bool,
    /// TXQE: the transmit queue is empty.
    pub transmit_empty: bool,
    /// LSC: the link changed.
    pub link: bool,
    _r3: bool,
    /// RXDMT0: few receive descriptors are left.
    pub receive_low: bool,
    _r5: bool,
    /// RXO: a frame found no descriptor.
    pub overrun: bool,
    /// RXT0: a frame was received.
    pub received: bool,
    _r8: bool,
    /// MDAC: an access to the PHY is complete.
    pub mdio: bool,
    #[bits(6)]
    _r10: u8,
    /// SRPD: a small frame was received.
    pub small: bool,
    /// ACK: a TCP acknowledgement was received.
    pub ack: bool,
    /// MNG: the management firmware says something.
    pub management: bool,
    _r19: bool,
    /// RXQ0: MSI-X only, a frame was received.
    pub receive_queue0: bool,
    /// RXQ1: MSI-X only.
    pub receive_queue1: bool,
    /// TXQ0: MSI-X only, a transmit descriptor was written back.
    pub transmit_queue0: bool,
    /// TXQ1: MSI-X only.
    pub transmit_queue1: bool,
    /// OTHER: MSI-X only, any of the causes below bit 20.
    pub other: bool,
    #[bits(6)]
    _r25: u8,
    /// The interrupt line is asserted.
    pub asserted: bool,
}

/// IVAR, 82574 datasheet 10.2.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ivar {
    #[bits(3)]
    pub receive0: u8,
    pub receive0_valid: bool,
    #[bits(3)]
    pub receive1: u8,
    pub receive1_valid: bool,
    #[bits(3)]
    pub transmit0: u8,
    pub transmit0_valid: bool,
    #[bits(3)]
    pub transmit1: u8,
    pub transmit1_valid: bool,
    #[bits(3)]
    pub other: u8,
    pub other_valid: bool,
    #[bits(11)]
    _r20: u16,
    /// Writes back every transmit descriptor, asked for or not.
    pub every_write_back: bool,
}

/// RCTL, 82574 datasheet 10.2.5.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rctl {
    _r0: bool,
    /// Receives.
    pub enable: bool,
    /// Stores frames with errors.
    pub store_bad: bool,
    /// Receives unicast frames for any address.
    pub unicast_promiscuous: bool,
    /// Receives all multicast frames.
    pub multicast_promiscuous: bool,
    /// Receives frames beyond 1,522 bytes.
    pub long_packets: bool,
    #[bits(2)]
    pub loopback: u8,
    #[bits(2)]
    pub threshold: u8,
    #[bits(2)]
    pub descriptor_type: u8,
    #[bits(2)]
    pub multicast_offset: u8,
    _r14: bool,
    /// Receives broadcasts.
    pub broadcast: bool,
    /// BSIZE: 0 is 2,048 bytes; with `size_extension`, 3 is 4,096.
    #[bits(2)]
    pub buffer_size: u8,
    pub vlan_filter: bool,
    #[bits(3)]
    _r19: u8,
    /// Drops pause frames that are not for this address.
    pub discard_pause: bool,
    pub pass_control: bool,
    _r24: bool,
    /// BSEX: multiplies the buffer size by 16.
    pub size_extension: bool,
    /// SECRC: takes the frame check sequence off.
    pub strip_crc: bool,
    #[bits(4)]
    pub flexible_size: u8,
    _r31: bool,
}

/// RXDCTL and TXDCTL, 82574 datasheet 10.2.5 and 10.2.6.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Dctl {
    #[bits(6)]
    pub prefetch: u8,
    #[bits(2)]
    _r6: u8,
    #[bits(6)]
    pub host: u8,
    #[bits(2)]
    _r14: u8,
    /// Descriptors that are written back together.
    #[bits(6)]
    pub write_back: u8,
    /// Must be one in TXDCTL (82574 datasheet 10.2.6; Linux sets it too).
    pub count: bool,
    _r23: bool,
    /// Thresholds are counted in descriptors.
    pub granularity: bool,
    #[bits(7)]
    _r25: u8,
}

/// RXCSUM, 82574 datasheet 10.2.5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rxcsum {
    #[bits(8)]
    pub start: u8,
    /// Verifies IPv4 header checksums.
    pub ip: bool,
    /// Verifies TCP and UDP checksums.
    pub transport: bool,
    #[bits(3)]
    _r10: u8,
    /// Reports the RSS hash in place of the packet checksum.
    pub hash: bool,
    #[bits(18)]
    _r14: u32,
}

/// RFCTL, 82574 datasheet 10.2.5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rfctl {
    pub iscsi_disable: bool,
    #[bits(5)]
    _r1: u8,
    pub nfs_write_disable: bool,
    pub nfs_read_disable: bool,
    #[bits(4)]
    _r8: u8,
    /// `ACK_DIS`: no interrupt for each TCP acknowledgement.
    pub ack_disable: bool,
    #[bits(2)]
    _r13: u8,
    /// EXTEN: extended write-back descriptors.
    pub extended_status: bool,
    /// Parses no IPv6 extension headers.
    pub ipv6_extension_disable: bool,
    pub new_ipv6_extension_disable: bool,
    #[bits(14)]
    _r18: u16,
}

/// RAH, 82574 datasheet 10.2.5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rah {
    /// Bytes 4 and 5.
    pub high: u16,
    #[bits(15)]
    _r16: u16,
    /// The address counts.
    pub valid: bool,
}

/// TCTL, 82574 datasheet 10.2.6.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Tctl {
    _r0: bool,
    /// Transmits.
    pub enable: bool,
    _r2: bool,
    /// Pads frames to 64 bytes.
    pub pad_short: bool,
    pub collision_threshold: u8,
    #[bits(10)]
    pub collision_distance: u16,
    #[bits(2)]
    _r22: u8,
    /// Sends again after a late collision.
    pub retransmit_late: bool,
    #[bits(3)]
    _r25: u8,
    /// Reads several descriptors at a time.
    pub multiple_requests: bool,
    #[bits(3)]
    _r29: u8,
}

/// TIPG, 82574 datasheet 10.2.6.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Tipg {
    #[bits(10)]
    pub transmit: u16,
    #[bits(10)]
    pub receive1: u16,
    #[bits(10)]
    pub receive2: u16,
    #[bits(2)]
    _r30: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the bits as Intel's own driver headers spell them.
    #[test]
    fn fields_lie_where_intel_says() {
        let table: &[(u32, u32)] = &[
            (Ctrl::new().with_master_disable(true).into(), 0x0000_0004),
            (Ctrl::new().with_set_link_up(true).into(), 0x0000_0040),
            (Ctrl::new().with_force_speed(true).into(), 0x0000_0800),
            (Ctrl::new().with_memory_errors(true).into(), 0x0008_0000),
            (Ctrl::new().with_receive_flow_control(true).into(), 0x0800_0000),
            (Ctrl::new().with_transmit_flow_control(true).into(), 0x1000_0000),
            (CtrlExt::new().with_must_be_set(true).into(), 0x0040_0000),
            (Ctrl::new().with_reset(true).into(), 0x0400_0000),
            (Ctrl::new().with_phy_reset(true).into(), 0x8000_0000),
            (Status::new().with_link_up(true).into(), 0x0000_0002),
            (Status::new().with_speed(2).into(), 0x0000_0080),
            (Status::new().with_master_enabled(true).into(), 0x0008_0000),
            (Eec::new().with_auto_read_done(true).into(), 0x0000_0200),
            (CtrlExt::new().with_message_auto_mask(true).into(), 0x0100_0000),
            (CtrlExt::new().with_read_auto_mask(true).into(), 0x0800_0000),
            (CtrlExt::new().with_driver_loaded(true).into(), 0x1000_0000),
            (CtrlExt::new().with_pending_clear(true).into(), 0x8000_0000),
            (ExtcnfCtrl::new().with_mdio_owned(true).into(), 0x0000_0020),
            (Swsm::new().with_driver_loaded(true).into(), 0x0000_0008),
            (Fwsm::new().with_arbiter_busy(true).into(), 0x0100_0000),
            (Causes::new().with_link(true).into(), 0x0000_0004),
            (Causes::new().with_overrun(true).into(), 0x0000_0040),
            (Causes::new().with_received(true).into(), 0x0000_0080),
            (Causes::new().with_mdio(true).into(), 0x0000_0200),
            (Causes::new().with_ack(true).into(), 0x0002_0000),
            (Causes::new().with_receive_queue0(true).into(), 0x0010_0000),
            (Causes::new().with_transmit_queue0(true).into(), 0x0040_0000),
            (Causes::new().with_other(true).into(), 0x0100_0000),
            (Causes::new().with_asserted(true).into(), 0x8000_0000),
            (Ivar::new().with_transmit0(1).with_transmit0_valid(true).into(), 0x0000_0900),
            (Ivar::new().with_other(2).with_other_valid(true).into(), 0x000A_0000),
            (Ivar::new().with_every_write_back(true).into(), 0x8000_0000),
            (Rctl::new().with_enable(true).into(), 0x0000_0002),
            (Rctl::new().with_unicast_promiscuous(true).into(), 0x0000_0008),
            (Rctl::new().with_long_packets(true).into(), 0x0000_0020),
            (Rctl::new().with_broadcast(true).into(), 0x0000_8000),
            (Rctl::new().with_buffer_size(3).into(), 0x0003_0000),
            (Rctl::new().with_vlan_filter(true).into(), 0x0004_0000),
            (Rctl::new().with_discard_pause(true).into(), 0x0040_0000),
            (Rctl::new().with_size_extension(true).into(), 0x0200_0000),
            (Rctl::new().with_strip_crc(true).into(), 0x0400_0000),
            (Dctl::new().with_write_back(1).with_granularity(true).into(), 0x0101_0000),
            (Dctl::new().with_count(true).into(), 0x0040_0000),
            (Rxcsum::new().with_ip(true).with_transport(true).into(), 0x0000_0300),
            (Rxcsum::new().with_hash(true).into(), 0x0000_2000),
            (Rfctl::new().with_nfs_write_disable(true).into(), 0x0000_0040),
            (Rfctl::new().with_ack_disable(true).into(), 0x0000_1000),
            (Rfctl::new().with_extended_status(true).into(), 0x0000_8000),
            (Rfctl::new().with_ipv6_extension_disable(true).into(), 0x0001_0000),
            (Rah::new().with_valid(true).into(), 0x8000_0000),
            (Tctl::new().with_pad_short(true).into(), 0x0000_0008),
            (Tctl::new().with_collision_threshold(0xFF).into(), 0x0000_0FF0),
            (Tctl::new().with_collision_distance(0x3FF).into(), 0x003F_F000),
            (Tctl::new().with_retransmit_late(true).into(), 0x0100_0000),
            (Tctl::new().with_multiple_requests(true).into(), 0x1000_0000),
        ];
        for (row, (ours, theirs)) in table.iter().enumerate() {
            assert_eq!(ours, theirs, "row {row}");
        }
    }
}
