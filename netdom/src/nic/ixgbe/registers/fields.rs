//! What the bits of the registers mean, as the 82599 datasheet has them. Pure. Floor 3.

use bitfield_struct::bitfield;

/// CTRL, 82599 datasheet 8.2.3.1.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctrl {
    #[bits(2)]
    _r0: u8,
    /// Blocks new requests to memory.
    pub master_disable: bool,
    /// LRST: resets the link.
    pub link_reset: bool,
    #[bits(22)]
    _r4: u32,
    /// RST: resets all but the link and the PCI configuration. Clears itself.
    pub reset: bool,
    #[bits(5)]
    _r27: u8,
}

/// STATUS, 82599 datasheet 8.2.3.1.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Status {
    #[bits(2)]
    _r0: u8,
    /// LAN ID: which port it is.
    #[bits(2)]
    pub port: u8,
    #[bits(15)]
    _r4: u16,
    /// Requests to memory may still be under way.
    pub master_enabled: bool,
    #[bits(12)]
    _r20: u16,
}

/// `CTRL_EXT`, 82599 datasheet 8.2.3.1.3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CtrlExt {
    #[bits(16)]
    _r0: u16,
    /// `NS_DIS`: all requests to memory are snooped.
    pub no_snoop_disable: bool,
    /// `RO_DIS`: all requests to memory stay in order.
    pub relaxed_order_disable: bool,
    #[bits(10)]
    _r18: u16,
    /// `DRV_LOAD`: the firmware leaves the device to its driver.
    pub driver_loaded: bool,
    #[bits(3)]
    _r29: u8,
}

/// ESDP, 82599 datasheet 8.2.3.1.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Esdp {
    #[bits(2)]
    _r0: u8,
    /// SDP2's value: an SFP+ module is in the cage.
    pub module: bool,
    /// SDP3's value: an SFP+ module's laser is off.
    pub laser_off: bool,
    _r4: bool,
    /// SDP5's value: the rate select of an SFP+ module, RS0 and RS1 (SFF-8431): 10 Gbit/s, not 1.
    pub fast: bool,
    #[bits(7)]
    _r6: u8,
    /// SDP5 is an output.
    pub fast_driven: bool,
    #[bits(18)]
    _r14: u32,
}

/// I2CCTL, 82599 datasheet 8.2.3.1.5: the wires to an SFP+ module. High is released: either end may pull a wire low.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct I2cctl {
    /// `I2C_CLK_IN`: the clock now.
    pub clock: bool,
    /// `I2C_CLK_OUT`: this end's clock.
    pub clock_out: bool,
    /// `I2C_DATA_IN`: the data now.
    pub data: bool,
    /// `I2C_DATA_OUT`: this end's data.
    pub data_out: bool,
    #[bits(28)]
    _r4: u32,
}

/// EERD, 82599 datasheet 8.2.3.2.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Eerd {
    /// Begins to read.
    pub start: bool,
    /// `data` is there.
    pub done: bool,
    /// Which word of the non-volatile memory.
    #[bits(14)]
    pub address: u16,
    /// What it holds.
    pub data: u16,
}

/// AUTOC2, 82599 datasheet 8.2.3.22.22.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Autoc2 {
    #[bits(28)]
    _r0: u32,
    /// The link is disabled, in three ways (Linux: `IXGBE_AUTOC2_LINK_DISABLE_MASK`).
    #[bits(3)]
    pub disabled: u8,
    _r31: bool,
}

/// MMNGC, 82599 datasheet 8.2.3.22.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Mmngc {
    /// `MNG_VETO`: firmware has the link, and drivers are not to change it.
    pub veto: bool,
    #[bits(31)]
    _r1: u32,
}

/// EEC, 82599 datasheet 8.2.3.2.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Eec {
    #[bits(9)]
    _r0: u16,
    /// `AUTO_RD`: the non-volatile memory was read into the registers.
    pub auto_read_done: bool,
    #[bits(22)]
    _r10: u32,
}

/// EICR and its like, 82599 datasheet 8.2.3.5.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Causes {
    /// RTxQ: by vector, or as IVAR says.
    pub queues: u16,
    _flow_director: bool,
    /// A frame was missed for want of room in the packet buffer.
    pub missed: bool,
    _pci: bool,
    _mailbox: bool,
    /// LSC: the link's state changed.
    pub link: bool,
    _linksec: bool,
    _management: bool,
    /// The X540 or X550 is too hot.
    pub thermal: bool,
    #[bits(2)]
    _r24: u8,
    /// `GPI_SDP2`: an SFP+ module was put in, or taken out.
    pub module: bool,
    _r27: bool,
    /// ECC: memory of the device lost what it held.
    pub memory: bool,
    /// DHER: a descriptor could not be handled.
    pub descriptor: bool,
    #[bits(2)]
    _r30: u8,
}

/// EITR, 82599 datasheet 8.2.3.5.12.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Eitr {
    #[bits(3)]
    _r0: u8,
    /// The least time between two interrupts, in units of 2 us.
    #[bits(9)]
    pub interval: u16,
    #[bits(19)]
    _r12: u32,
    /// `CNT_WDIS`: the time that runs now stays as it is.
    pub keep_counter: bool,
}

/// GPIE, 82599 datasheet 8.2.3.5.18.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gpie {
    #[bits(2)]
    _r0: u8,
    /// `SDP2_GPIEN`: SDP2 interrupts.
    pub module: bool,
    _r3: bool,
    /// `Multiple_MSIX`.
    pub msix: bool,
    /// OCD: reading EICR clears nothing.
    pub keep_on_read: bool,
    #[bits(24)]
    _r6: u32,
    /// EIAME: a message disables its interrupt.
    pub auto_mask: bool,
    /// `PBA_support`.
    pub pending_bits: bool,
}

/// RDRXCTL, 82599 datasheet 8.2.3.8.8.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rdrxctl {
    _r0: bool,
    /// CRCStrip: as in [`Hlreg0`].
    pub strip_crc: bool,
    _r2: bool,
    /// DMAIDONE: the DMA engine is set up after a reset.
    pub ready: bool,
    #[bits(13)]
    _r4: u16,
    /// RSCFRSTSIZE: to be zero.
    #[bits(5)]
    pub rsc_first_size: u8,
    #[bits(3)]
    _r22: u8,
    /// RSCACKC: to be set.
    pub rsc_ack: bool,
    /// `FCOE_WRFIX`: to be set.
    pub fcoe_write_fix: bool,
    #[bits(5)]
    _r27: u8,
}

/// RXCTRL, 82599 datasheet 8.2.3.8.10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rxctrl {
    /// RXEN.
    pub enable: bool,
    #[bits(31)]
    _r1: u32,
}

/// HLREG0, 82599 datasheet 8.2.3.22.8.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Hlreg0 {
    /// TXCRCEN.
    pub add_crc: bool,
    /// RXCRCSTRP: the frame check sequence is not received.
    pub strip_crc: bool,
    /// JUMBOEN: frames may be as long as MAXFRS says.
    pub jumbo: bool,
    #[bits(7)]
    _r3: u8,
    /// TXPADEN: short frames are padded.
    pub pad: bool,
    #[bits(4)]
    _r11: u8,
    /// LPBK.
    pub loopback: bool,
    #[bits(16)]
    _r16: u16,
}

/// MFLCN, 82599 datasheet 8.2.3.22.34.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Mflcn {
    /// PMCF: MAC control frames are passed on.
    pub pass_control: bool,
    /// DPF: pause frames are dropped.
    pub discard_pause: bool,
    _r2: bool,
    /// RFCE: pause frames are obeyed.
    pub obey: bool,
    #[bits(28)]
    _r4: u32,
}

/// AUTOC, 82599 datasheet 8.2.3.22.19.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Autoc {
    #[bits(9)]
    _r0: u16,
    /// `1G_PMA_PMD`: a link of 1 Gbit/s is one of a backplane, not of an SFP+ module (SFI).
    pub backplane: bool,
    #[bits(2)]
    _r10: u8,
    /// `Restart_AN`: begins anew with the link. Clears itself.
    pub restart: bool,
    /// LMS: which kind of link. 2: 1 Gbit/s, negotiated; 3: 10 Gbit/s, serial.
    #[bits(3)]
    pub mode: u8,
    #[bits(12)]
    _r16: u16,
    /// What a backplane advertises: pauses in both directions.
    pub symmetric: bool,
    /// And in one.
    pub asymmetric: bool,
    #[bits(2)]
    _r30: u8,
}

/// ANLP1, 82599 datasheet 8.2.3.22.23.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Anlp1 {
    #[bits(10)]
    _r0: u16,
    /// The other end advertises pauses in both directions.
    pub symmetric: bool,
    /// And in one.
    pub asymmetric: bool,
    #[bits(4)]
    _r12: u8,
    /// The state of auto-negotiation: 0 until a restart has taken hold.
    #[bits(4)]
    pub state: u8,
    #[bits(12)]
    _r20: u16,
}

/// LINKS2, 82599 datasheet 8.2.3.22.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Links2 {
    #[bits(6)]
    _r0: u8,
    /// The other end of a backplane negotiates.
    pub partner_negotiates: bool,
    #[bits(25)]
    _r7: u32,
}

/// PCS1GANA and PCS1GANLP, 82599 datasheet 8.2.3.22.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Pcs1gana {
    #[bits(7)]
    _r0: u8,
    /// Pauses in both directions.
    pub symmetric: bool,
    /// And in one.
    pub asymmetric: bool,
    #[bits(23)]
    _r9: u32,
}

/// PCS1GLSTA, 82599 datasheet 8.2.3.22.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Pcs1glsta {
    #[bits(16)]
    _r0: u16,
    /// Auto-negotiation ended.
    pub negotiated: bool,
    _r17: bool,
    /// The other end said nothing.
    pub timed_out: bool,
    #[bits(13)]
    _r19: u16,
}

/// MSCA, 82599 datasheet 8.2.3.22.11, for PHYs of clause 45 of IEEE 802.3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Msca {
    /// The register.
    pub register: u16,
    /// The device in the PHY (MMD).
    #[bits(5)]
    pub device: u8,
    /// The PHY's address.
    #[bits(5)]
    pub phy: u8,
    /// 0: address, 1: write, 3: read.
    #[bits(2)]
    pub operation: u8,
    #[bits(2)]
    _r28: u8,
    /// Begins; clears itself at the end.
    pub command: bool,
    _r31: bool,
}

/// LINKS, 82599 datasheet 8.2.3.22.20.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Links {
    #[bits(27)]
    _r0: u32,
    /// X550: `speed` is of 2.5 and 5 Gbit/s.
    pub other_speeds: bool,
    /// 1: 100 Mbit/s, 2: 1 Gbit/s, 3: 10 Gbit/s.
    #[bits(2)]
    pub speed: u8,
    /// The link is up.
    pub up: bool,
    /// `KX_AN_COMP`: a backplane has negotiated.
    pub negotiated: bool,
}

/// RTTDCS, 82599 datasheet 8.2.3.10.3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rttdcs {
    #[bits(6)]
    _r0: u8,
    /// ARBDIS: nothing is sent while MTQC changes.
    pub arbiter_disable: bool,
    #[bits(25)]
    _r7: u32,
}

/// DMATXCTL, 82599 datasheet 8.2.3.9.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Dmatxctl {
    /// TE.
    pub enable: bool,
    #[bits(15)]
    _r1: u16,
    /// VT: the type of an 802.1Q tag.
    pub tag_type: u16,
}

/// RXCSUM, 82599 datasheet 8.2.3.7.5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rxcsum {
    #[bits(13)]
    _r0: u16,
    /// PCSD: descriptors have the RSS hash, not the sum of fragments.
    pub hash: bool,
    #[bits(18)]
    _r14: u32,
}

/// FCTRL, 82599 datasheet 8.2.3.7.1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Fctrl {
    #[bits(8)]
    _r0: u8,
    /// MPE.
    pub multicast_promiscuous: bool,
    /// UPE.
    pub unicast_promiscuous: bool,
    /// BAM: broadcasts are received.
    pub broadcast: bool,
    #[bits(21)]
    _r11: u32,
}

/// SECRXCTRL, 82599 datasheet 8.2.3.12.6.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Secrxctrl {
    /// SECRX_DIS: no IPsec, no `LinkSec`.
    pub engine_disable: bool,
    /// RX_DIS: frames wait before the engine.
    pub receive_disable: bool,
    #[bits(30)]
    _r2: u32,
}

/// SECRXSTAT, 82599 datasheet 8.2.3.12.7.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Secrxstat {
    /// SECRX_RDY: nothing is left in the engine.
    pub ready: bool,
    #[bits(31)]
    _r1: u32,
}

/// RAH, 82599 datasheet 8.2.3.7.9.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rah {
    /// Bytes 4 and 5 of the address.
    pub high: u16,
    #[bits(15)]
    _r16: u16,
    /// AV: the address is one.
    pub valid: bool,
}

/// SRRCTL, 82599 datasheet 8.2.3.8.7.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Srrctl {
    /// BSIZEPACKET: KiB of a buffer.
    #[bits(5)]
    pub kibibytes: u8,
    #[bits(20)]
    _r5: u32,
    /// DESCTYPE: 1 is advanced, one buffer.
    #[bits(3)]
    pub kind: u8,
    /// Drop_En: without a buffer a frame is dropped, and those of other queues go on.
    pub drop: bool,
    #[bits(3)]
    _r29: u8,
}

/// RXDCTL, 82599 datasheet 8.2.3.8.6.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rxdctl {
    #[bits(25)]
    _r0: u32,
    /// The queue is enabled.
    pub enable: bool,
    #[bits(4)]
    _r26: u8,
    /// VME: tags are taken out.
    pub strip_tag: bool,
    _r31: bool,
}

/// TXDCTL, 82599 datasheet 8.2.3.9.10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Txdctl {
    /// PTHRESH: descriptors below which more are fetched.
    #[bits(7)]
    pub prefetch: u8,
    _r7: bool,
    /// HTHRESH: descriptors that are worth a fetch.
    #[bits(7)]
    pub host: u8,
    _r15: bool,
    /// WTHRESH: descriptors that are worth a write-back.
    #[bits(7)]
    pub write_back: u8,
    #[bits(2)]
    _r23: u8,
    /// The queue is enabled.
    pub enable: bool,
    /// SWFLSH: pending write-backs are made now.
    pub flush: bool,
    #[bits(5)]
    _r27: u8,
}
