//! What the bits of the registers mean, as the 82576 datasheet has them. Pure. Floor 3.

use bitfield_struct::bitfield;

/// ICR and its like, 82576 datasheet 8.8.9.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Causes {
    /// TXDW: packets were sent.
    pub sent: bool,
    _r1: bool,
    /// LSC: the link's state changed.
    pub link: bool,
    #[bits(4)]
    _r3: u8,
    /// RXDW: frames were received.
    pub received: bool,
    #[bits(14)]
    _r8: u16,
    /// FER: memory of the device lost what it held.
    pub fatal: bool,
    #[bits(7)]
    _r23: u8,
    /// DRSTA: the device was reset, or asks for it.
    pub reset: bool,
    /// The interrupt is asserted.
    pub asserted: bool,
}

/// GPIE, 82576 datasheet 8.8.14.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gpie {
    /// NSICR: each reading of ICR clears it.
    pub clear_on_read: bool,
    #[bits(3)]
    _r1: u8,
    /// `Multiple_MSIX`.
    pub msix: bool,
    #[bits(25)]
    _r5: u32,
    /// EIAME: a message disables its vector.
    pub auto_mask: bool,
    /// `PBA_support`.
    pub pending_bits: bool,
}

/// EITR, 82576 datasheet 8.8.15.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Eitr {
    #[bits(2)]
    _r0: u8,
    /// The least time between two interrupts, in microseconds.
    #[bits(13)]
    pub interval: u16,
    #[bits(16)]
    _r15: u16,
    /// `CNT_INGR`: the time that runs now stays as it is.
    pub keep_counter: bool,
}

/// RXCSUM, 82576 datasheet 8.10.15.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Rxcsum {
    #[bits(8)]
    _r0: u8,
    /// IPOFL: IPv4 header checksums are verified.
    pub ip: bool,
    /// TUOFL: TCP and UDP checksums are verified.
    pub transport: bool,
    #[bits(3)]
    _r10: u8,
    /// PCSD: descriptors have the RSS hash, not the sum of fragments.
    pub hash: bool,
    #[bits(18)]
    _r14: u32,
}

/// SRRCTL, 82576 datasheet 8.10.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Srrctl {
    /// BSIZEPACKET: KiB of a buffer.
    #[bits(7)]
    pub kibibytes: u8,
    #[bits(18)]
    _r7: u32,
    /// DESCTYPE: 1 is advanced, one buffer.
    #[bits(3)]
    pub kind: u8,
    #[bits(3)]
    _r28: u8,
    /// `Drop_En`: without a buffer a frame is dropped, and those of other queues go on.
    pub drop: bool,
}

/// RXDCTL and TXDCTL, 82576 datasheet 8.10.10 and 8.12.13.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Dctl {
    /// PTHRESH: descriptors below which more are fetched.
    #[bits(5)]
    pub prefetch: u8,
    #[bits(3)]
    _r5: u8,
    /// HTHRESH: descriptors that are worth a fetch.
    #[bits(5)]
    pub host: u8,
    #[bits(3)]
    _r13: u8,
    /// WTHRESH: descriptors that are worth a write-back.
    #[bits(5)]
    pub write_back: u8,
    #[bits(4)]
    _r21: u8,
    /// The queue is enabled.
    pub enable: bool,
    /// SWFLUSH: pending write-backs are made now.
    pub flush: bool,
    #[bits(5)]
    _r27: u8,
}
