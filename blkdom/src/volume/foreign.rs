//! Tables that Linux reads and blkdom does not: each is refused by its name. Pure. Floor 3.
//!
//! Linux' `block/partitions/` knows more than GPT and MBR, and Debian's kernels have nearly all of it. It looks for some of those
//! before it looks for an MBR: a boot record's signature in the first sector does not say then that there is one.

use super::region::{Region, Sectors};
use crate::disk::SECTOR_BYTES;

/// SGI's volume header (`SGI_LABEL_MAGIC`), big-endian: looked for before an MBR (sgi.c).
const SGI: [u8; 4] = [0x0b, 0xe5, 0xa9, 0x41];
/// A partition's type in the MBR of a Windows dynamic disk (`LDM_PARTITION`), whose own table Linux looks for before an MBR (ldm.c).
const DYNAMIC: u8 = 0x42;
/// BSD's and OSF's disklabel (`BSD_DISKMAGIC`), little-endian.
const BSD: [u8; 4] = [0x57, 0x45, 0x56, 0x82];

/// The name of the table that Linux takes instead of the MBR that seems to stand in a first sector whose entries are of these types.
pub(super) fn before_mbr(bytes: &[u8], kinds: [u8; 4]) -> Option<&'static str> {
    if bytes.starts_with(&SGI) {
        return Some("an SGI volume header (dvh)");
    }
    kinds.contains(&DYNAMIC).then_some("a Windows dynamic disk (LDM)")
}

/// The name of the table in a first sector that has no signature of a boot record.
pub(super) fn without_mbr(bytes: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match () {
        () if has(0, &SGI) => Some("an SGI volume header (dvh)"),
        () if has(508, &[0xda, 0xbe]) => Some("a Sun disklabel"),
        () if has(0, b"ER") => Some("an Apple partition map"),
        () if has(64, &BSD) => Some("a BSD or OSF disklabel"),
        () if is_atari(bytes) => Some("an Atari root sector"),
        () => None,
    }
}

/// A root sector of Atari's: entries of flags, three letters, start and size, of which the first bit says that one counts (atari.c).
fn is_atari(bytes: &[u8]) -> bool {
    let entries = bytes.get(0x1c6..0x1f6).unwrap_or_default();
    entries.chunks_exact(12).any(|entry| {
        let (flags, letters) = entry.split_at(1);
        flags.iter().all(|flags| flags & 1 != 0) && letters.iter().take(3).all(u8::is_ascii_alphanumeric)
    })
}

/// Sectors in the first of which a rigid disk block may lie (`RDB_ALLOCATION_LIMIT`).
const RIGID_DISK_SECTORS: usize = 16;
/// Its magic.
const RIGID_DISK: &[u8] = b"RDSK";

/// Whether one of the first sectors is a rigid disk block of Amiga's whose longs, as many as its second says, add up to zero (amiga.c).
pub(super) async fn is_amiga<S: Sectors>(unit: &Region<'_, S>) -> bool {
    let size = SECTOR_BYTES as usize;
    let Ok(bytes) = unit.read(0, RIGID_DISK_SECTORS * size).await else {
        return false;
    };
    bytes.chunks_exact(size).any(|sector| {
        let longs = sector.as_chunks().0.iter().copied().map(u32::from_be_bytes);
        let summed = longs.clone().nth(1).unwrap_or_default() & 0x7f;
        sector.starts_with(RIGID_DISK) && longs.take(summed as usize).fold(0, u32::wrapping_add) == 0
    })
}

/// A table within a primary partition of the MBR, whose partitions Linux numbers behind all others (`subtypes` in msdos.c).
pub(super) struct Within {
    /// The name of the format.
    pub(super) name: &'static str,
    /// The sector of the partition that has its mark.
    pub(super) sector: u64,
    /// The mark's offset in that sector, in bytes, and its bytes.
    at: usize,
    magic: &'static [u8],
}

impl Within {
    /// What may be in a partition of this type.
    pub(super) const fn of(kind: u8) -> Option<Self> {
        let (name, sector, at, magic): (_, _, _, &[u8]) = match kind {
            0xa5 | 0xa6 | 0xa9 => ("a BSD disklabel", 1, 0, &BSD),
            // `SOLARIS_X86_VTOC_SANE`; the older type is that of Linux' swap space, too.
            0x82 | 0xbf => ("a Solaris VTOC", 1, 12, &[0xee, 0xde, 0x0d, 0x60]),
            // `UNIXWARE_DISKMAGIC`.
            0x63 => ("a UnixWare disklabel", 29, 4, &[0x0d, 0x60, 0x5e, 0xca]),
            0x81 => ("a Minix table", 0, 510, &[0x55, 0xaa]),
            _ => return None,
        };
        Some(Self { name, sector, at, magic })
    }

    /// Whether that sector has the mark.
    pub(super) fn is_marked(&self, bytes: &[u8]) -> bool {
        bytes.get(self.at..).is_some_and(|rest| rest.starts_with(self.magic))
    }
}
