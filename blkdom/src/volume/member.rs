//! Disks and partitions that are a part of something larger: what lies within must be written through that alone. Pure. Floor 3.
//!
//! A leg of a RAID1 whose superblock lies at the end begins with what the array begins with: a partition table, or a physical volume of
//! LVM. A write to one leg by itself makes it differ from the others. So a volume within a member is refused by name, as lvm2
//! refuses it; the member itself may be had as a whole.
//!
//! Multipath leaves no mark on a disk.

use super::Piece;
use super::region::{ReadError, Region, Sectors};
use crate::disk::SECTOR_BYTES;
use core::fmt;

/// Of what something is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// An array of Linux' md, whose superblock is of this version (Linux: `md_p.h`).
    Md(&'static str),
    /// A volume of Intel's firmware RAID (mdadm: `super-intel.c`).
    Imsm,
    /// A volume of SNIA's disk data format (DDF 2.0: 5.5).
    Ddf,
    /// A resource of DRBD, by its internal metadata (drbd-utils: `drbdmeta.c`).
    Drbd,
    /// A cache or a backing device of bcache (Linux: `bcache_ondisk.h`).
    Bcache,
    /// An encrypted volume (LUKS2 on-disk format: 2.1).
    Luks,
    /// A pool of ZFS (ZFS on-disk format: 1.2.1).
    Zfs,
    /// An OSD of Ceph (`BlueStore.cc`).
    Bluestore,
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md(version) => write!(formatter, "an md array (superblock {version})"),
            Self::Imsm => formatter.write_str("an Intel firmware RAID"),
            Self::Ddf => formatter.write_str("a DDF RAID"),
            Self::Drbd => formatter.write_str("a DRBD resource"),
            Self::Bcache => formatter.write_str("a bcache device"),
            Self::Luks => formatter.write_str("a LUKS volume"),
            Self::Zfs => formatter.write_str("a ZFS pool"),
            Self::Bluestore => formatter.write_str("a Ceph OSD"),
        }
    }
}

impl Member {
    /// What takes the mark off that an earlier use left behind; the device comes after it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Md(_) | Self::Imsm | Self::Ddf => "mdadm --zero-superblock",
            Self::Drbd => "wipefs -a -t drbd",
            Self::Bcache => "wipefs -a -t bcache",
            Self::Luks => "wipefs -a -t crypto_LUKS",
            Self::Zfs => "zpool labelclear -f",
            Self::Bluestore => "wipefs -a -t ceph_bluestore",
        }
    }
}

/// `MD_SB_MAGIC`.
const MD_MAGIC: u32 = 0xa92b_4efc;
/// `MD_RESERVED_BYTES`: what a superblock of version 0.90 may lie in.
const MD_RESERVED: u64 = 64 << 10;
/// `DRBD_MAGIC` and 4 to 6: metadata of 8.x, those that were not closed, and of 9.
const DRBD_MAGICS: [u32; 3] = [0x8374_026b, 0x8374_026c, 0x8374_026d];
/// `DDF_HEADER_MAGIC`.
const DDF_MAGIC: u32 = 0xde11_de11;
/// The magic of a bcache superblock.
const BCACHE_MAGIC: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_le_bytes(*field))
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    little(bytes, at).map(u32::swap_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|field| u64::from_le_bytes(*field))
}

/// A superblock of md's version 1, which says itself at which sector it lies.
fn is_md_1(bytes: &[u8], offset: u64) -> bool {
    little(bytes, 0) == Some(MD_MAGIC)
        && little(bytes, 4) == Some(1)
        && long(bytes, 144) == Some(offset / u64::from(SECTOR_BYTES))
}

/// One of version 0.90, in the order of bytes of the machine that wrote it.
fn is_md_0(bytes: &[u8]) -> bool {
    [little, big].iter().any(|number| number(bytes, 0) == Some(MD_MAGIC) && number(bytes, 4) == Some(0))
}

fn is_ddf(bytes: &[u8]) -> bool {
    let revision = bytes.get(32..35);
    [little(bytes, 0), big(bytes, 0)].contains(&Some(DDF_MAGIC))
        && (revision == Some(b"01.") || revision == Some(b"02."))
}

/// A label's list of names and values, as XDR, whose first name is `version`.
fn is_zfs(bytes: &[u8]) -> bool {
    bytes.first() == Some(&1)
        && bytes.get(4..12) == Some(&[0, 0, 0, 0, 0, 0, 0, 1])
        && bytes.get(20..31) == Some(b"\0\0\0\x07version")
}

/// What a sector at the beginning says; `offset` is where it lies, in bytes.
fn at_beginning(bytes: &[u8], offset: u64) -> Option<Member> {
    match offset {
        0 if is_md_1(bytes, 0) => Some(Member::Md("1.1")),
        0 if bytes.starts_with(b"LUKS\xba\xbe\0\x01") || bytes.starts_with(b"LUKS\xba\xbe\0\x02") => Some(Member::Luks),
        0 if bytes.starts_with(b"bluestore block device\n") => Some(Member::Bluestore),
        4096 if is_md_1(bytes, 4096) => Some(Member::Md("1.2")),
        4096 if bytes.get(24..40) == Some(&BCACHE_MAGIC) && long(bytes, 8) == Some(8) => Some(Member::Bcache),
        16384 if is_zfs(bytes) => Some(Member::Zfs),
        _ => None,
    }
}

/// What a sector says that lies at this byte.
type Recognise = fn(&[u8], u64) -> Option<Member>;
/// The offset of a mark, by the size of the region in bytes, and its recognition.
type AtEnd = (fn(u64) -> Option<u64>, Recognise);

/// The marks near the end.
const AT_END: [AtEnd; 7] = [
    (
        |size| (size & !(MD_RESERVED - 1)).checked_sub(MD_RESERVED),
        |bytes, _| is_md_0(bytes).then_some(Member::Md("0.90")),
    ),
    (|size| (size & !4095).checked_sub(8192), |bytes, at| is_md_1(bytes, at).then_some(Member::Md("1.0"))),
    (
        |size| (size & !4095).checked_sub(4096),
        |bytes, _| big(bytes, 60).filter(|magic| DRBD_MAGICS.contains(magic)).map(|_| Member::Drbd),
    ),
    (|size| size.checked_sub(1024), is_imsm),
    // Of drives with blocks of 4,096 bytes.
    (|size| size.checked_sub(8192), is_imsm),
    (|size| size.checked_sub(512), |bytes, _| is_ddf(bytes).then_some(Member::Ddf)),
    (|size| size.checked_sub(257 * 512), |bytes, _| is_ddf(bytes).then_some(Member::Ddf)),
];

fn is_imsm(bytes: &[u8], _at: u64) -> Option<Member> {
    bytes.starts_with(b"Intel Raid ISM Cfg Sig. ").then_some(Member::Imsm)
}

/// The offsets in a region of `size` bytes at which a member has its mark, each with its recognition.
fn marks(size: u64) -> impl Iterator<Item = (u64, Recognise)> {
    let beginning = [0, 4096, 16384].map(|offset| (offset, at_beginning as Recognise));
    let end = AT_END.into_iter().filter_map(move |(place, recognise)| Some((place(size)?, recognise)));
    beginning.into_iter().chain(end)
}

/// What the marks of something say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// What the region is a member of, if of anything.
    pub(super) member: Option<Member>,
    /// The byte at which a mark might be that could not be read.
    pub(super) unread: Option<(u64, ReadError)>,
}

/// Of what `region` is a part, if of anything. Marks that lie in `inner` do not count: they are those of a partition, or what a guest
/// wrote at the end of its volume. Nor does one count that a guest may write. One that cannot be read is said, and no more: a bad sector
/// must not take all that lies beside it.
pub(super) async fn find<S: Sectors>(region: &Region<'_, S>, inner: &[Piece]) -> Marks {
    let mut found = Marks::default();
    for (offset, recognise) in marks(region.bytes_long()) {
        let sector = region.start.saturating_add(offset / u64::from(SECTOR_BYTES));
        let mark = Piece { unit: region.unit(), sector, sectors: 1 };
        if inner.iter().any(|inner| inner.overlaps(&mark)) {
            continue;
        }
        match region.read(offset, SECTOR_BYTES as usize).await {
            Ok(bytes) => {
                found.member = recognise(&bytes, offset);
                if found.member.is_some() {
                    break;
                }
            }
            Err(ReadError::Claimed | ReadError::Outside) => {}
            Err(error) => {
                found.unread.get_or_insert((offset, error));
            }
        }
    }
    found
}
