//! What IDENTIFY DEVICE tells of a drive. Pure. Floor 3.
//!
//! Words are those of ATA8-ACS 7.16.7, and of ACS-2 7.17.7 where that is newer.

use super::command::{RANGE_BLOCKS, RANGES};
use crate::disk::{Discard, Geometry, SECTOR_BYTES};
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::ops::Range;

/// Words of the structure.
pub const IDENTIFY_WORDS: usize = 256;

/// Why a drive is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The structure's checksum (word 255) is wrong.
    Checksum,
    /// It takes packets (word 0), so it is no disk.
    Packets,
    /// It knows no DMA, or no addresses of blocks (word 49).
    Old,
    /// It knows no addresses of 48 bits (word 83).
    ShortAddresses,
    /// It is locked by a password (word 128).
    Locked,
    /// Blocks of another size than 512 to 4,096 bytes (words 106 and 117).
    BlockSize {
        /// Bytes.
        bytes: u64,
    },
    /// No blocks, or more than 48 bits count (word 100).
    Size {
        /// Blocks.
        blocks: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => formatter.write_str("what it says of itself has a wrong checksum"),
            Self::Packets => formatter.write_str("it is no disk"),
            Self::Old => formatter.write_str("it knows no DMA"),
            Self::ShortAddresses => formatter.write_str("it knows no addresses of 48 bits"),
            Self::Locked => formatter.write_str("it is locked by a password"),
            Self::BlockSize { bytes } => write!(formatter, "its blocks are of {bytes} bytes"),
            Self::Size { blocks } => write!(formatter, "it claims {blocks} blocks"),
        }
    }
}

impl core::error::Error for Unusable {}

/// A drive that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Words 27 to 46.
    pub model: String,
    /// Words 10 to 19.
    pub serial: String,
    /// Words 23 to 26.
    pub firmware: String,
    /// Words 108 to 111, as Linux writes them; empty where they hold no name of the IEEE's.
    pub wwn: String,
    /// A block is of `1 << shift` bytes.
    pub shift: u8,
    /// Commands that it queues, 1 to 32; 0 where it queues none (words 75 and 76).
    pub queue: u8,
    /// Writes can be durable by themselves (word 84).
    pub durable_writes: bool,
    /// Trimmed blocks read the same each time (word 69: DRAT).
    pub trimmed_reads_stable: bool,
    /// Trimmed blocks read as zeroes (word 69: RZAT).
    pub trimmed_reads_zero: bool,
    /// Size and abilities.
    pub geometry: Geometry,
}

impl Identity {
    /// Takes the structure apart.
    ///
    /// # Errors
    /// Why the drive cannot be used.
    pub fn parse(words: &[u16; IDENTIFY_WORDS]) -> Result<Self, Unusable> {
        if !is_whole(words) {
            return Err(Unusable::Checksum);
        }
        if has(words, 0, 15) {
            return Err(Unusable::Packets);
        }
        if !has(words, 49, 8) || !has(words, 49, 9) {
            return Err(Unusable::Old);
        }
        if !told(words, 83) || !has(words, 83, 10) {
            return Err(Unusable::ShortAddresses);
        }
        if has(words, 128, 2) {
            return Err(Unusable::Locked);
        }
        let block = logical_block(words);
        let shift = match u32::try_from(block) {
            Ok(block @ 512..=4096) if block.is_power_of_two() => block.trailing_zeros() as u8,
            _ => return Err(Unusable::BlockSize { bytes: block }),
        };
        let blocks = long(words, 100);
        if blocks == 0 || blocks > 1 << 48 {
            return Err(Unusable::Size { blocks });
        }
        let logical_block = 1 << shift;
        let physical_block = logical_block << logical_per_physical(words);
        let geometry = Geometry {
            sectors: blocks << (shift - 9),
            logical_block,
            physical_block,
            volatile_cache: has_volatile_cache(words),
            read_only: false,
            discard: has(words, 169, 0).then(|| Discard {
                granularity: physical_block,
                alignment: alignment(words, logical_block, physical_block),
                secure: false,
            }),
            write_zeroes: false,
        };
        Ok(Self {
            model: text(words, 27..47),
            serial: text(words, 10..20),
            firmware: text(words, 23..27),
            wwn: world_wide_name(words),
            shift,
            queue: queue(words),
            durable_writes: told(words, 84) && has(words, 84, 6),
            trimmed_reads_stable: has(words, 69, 14),
            trimmed_reads_zero: has(words, 69, 5),
            geometry,
        })
    }

    /// Blocks that one trim can cover.
    pub const fn trim_blocks() -> u32 {
        RANGES * RANGE_BLOCKS
    }

    /// Whether another is the same drive, whose size and abilities may have changed. Another block size makes it another unit: nobody
    /// who uses it could go on.
    pub fn is_same_drive(&self, other: &Self) -> bool {
        self.model == other.model && self.serial == other.serial && self.wwn == other.wwn && self.shift == other.shift
    }
}

fn word(words: &[u16; IDENTIFY_WORDS], at: usize) -> u16 {
    words.get(at).copied().unwrap_or(0)
}

fn has(words: &[u16; IDENTIFY_WORDS], at: usize, bit: u8) -> bool {
    word(words, at) >> bit & 1 != 0
}

/// Whether a word that says so of itself (bit 15 clear, bit 14 set) holds anything.
fn told(words: &[u16; IDENTIFY_WORDS], at: usize) -> bool {
    word(words, at) >> 14 == 0b01
}

/// Words `at` to `at + 3`, the first the lowest.
fn long(words: &[u16; IDENTIFY_WORDS], at: usize) -> u64 {
    (0..4).rev().fold(0, |value, place| value << 16 | u64::from(word(words, at + place)))
}

/// Words 108 to 111, the first the highest. The format is that of an address registered with the IEEE where the first four bits are 5
/// (udev's `ata_id` believes no other).
fn world_wide_name(words: &[u16; IDENTIFY_WORDS]) -> String {
    let name = (108..112).fold(0, |value, at| value << 16 | u64::from(word(words, at)));
    if name >> 60 == 5 { format!("{name:#x}") } else { String::new() }
}

/// A text, whose first character is a word's upper byte; printable whatever the drive says.
fn text(words: &[u16; IDENTIFY_WORDS], place: Range<usize>) -> String {
    let bytes = words.get(place).unwrap_or_default().iter().flat_map(|word| word.to_be_bytes());
    let printable = |byte: u8| if (0x20..0x7F).contains(&byte) { char::from(byte) } else { ' ' };
    String::from(bytes.map(printable).collect::<String>().trim())
}

/// Word 255: with `A5h` below it, a byte that makes the sum of all bytes 0.
fn is_whole(words: &[u16; IDENTIFY_WORDS]) -> bool {
    let sum = words.iter().flat_map(|word| word.to_le_bytes()).fold(0u8, u8::wrapping_add);
    word(words, 255) & 0xFF != 0xA5 || sum == 0
}

/// Bytes of a logical block: word 106, bit 12, and words 117 and 118, in units of two bytes.
fn logical_block(words: &[u16; IDENTIFY_WORDS]) -> u64 {
    match told(words, 106) && has(words, 106, 12) {
        true => 2 * (u64::from(word(words, 118)) << 16 | u64::from(word(words, 117))),
        false => SECTOR_BYTES.into(),
    }
}

/// Logical blocks of a physical one, as a power of two: word 106, bits 13 and 3:0. More than 64 KiB are not believed.
fn logical_per_physical(words: &[u16; IDENTIFY_WORDS]) -> u8 {
    match told(words, 106) && has(words, 106, 13) {
        true => Some(word(words, 106) as u8 & 0xF).filter(|shift| *shift <= 4).unwrap_or(0),
        false => 0,
    }
}

/// Bytes from the beginning to the first physical block's: word 209 says how far into a physical block the beginning lies.
fn alignment(words: &[u16; IDENTIFY_WORDS], logical: u32, physical: u32) -> u32 {
    let offset = if told(words, 209) { u32::from(word(words, 209) & 0x3FFF) * logical } else { 0 };
    if offset < physical { (physical - offset) % physical } else { 0 }
}

/// Words 82 and 85, bit 5: there is a write cache, and it is enabled. Who does not tell may have one.
fn has_volatile_cache(words: &[u16; IDENTIFY_WORDS]) -> bool {
    !told(words, 87) || has(words, 85, 5)
}

/// Words 75 and 76.
fn queue(words: &[u16; IDENTIFY_WORDS]) -> u8 {
    let capabilities = word(words, 76);
    let queues = capabilities != 0xFFFF && capabilities & 1 << 8 != 0;
    if queues { (word(words, 75) as u8 & 0x1F) + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(changes: &[(usize, u16)]) -> [u16; IDENTIFY_WORDS] {
        let mut words = [0; IDENTIFY_WORDS];
        words[49] = 1 << 8 | 1 << 9;
        words[83] = 1 << 14 | 1 << 10;
        words[87] = 1 << 14;
        words[100] = 1000;
        for (at, value) in changes {
            words[*at] = *value;
        }
        words
    }

    fn parse(changes: &[(usize, u16)]) -> Result<Identity, Unusable> {
        Identity::parse(&words(changes))
    }

    #[test]
    fn drives_are_taken_or_refused() {
        let plain = parse(&[]).expect("usable");
        assert_eq!((plain.shift, plain.queue, plain.durable_writes), (9, 0, false));
        let geometry = Geometry { sectors: 1000, logical_block: 512, physical_block: 512, ..Geometry::default() };
        assert_eq!(plain.geometry, geometry);
        assert_eq!(parse(&[(0, 1 << 15)]), Err(Unusable::Packets));
        assert_eq!(parse(&[(49, 1 << 9)]), Err(Unusable::Old));
        assert_eq!(parse(&[(49, 1 << 8)]), Err(Unusable::Old));
        assert_eq!(parse(&[(83, 1 << 14)]), Err(Unusable::ShortAddresses));
        assert_eq!(parse(&[(83, 1 << 10)]), Err(Unusable::ShortAddresses));
        assert_eq!(parse(&[(128, 0b111)]), Err(Unusable::Locked));
        assert_eq!(parse(&[(100, 0)]), Err(Unusable::Size { blocks: 0 }));
        assert_eq!(parse(&[(103, 2)]), Err(Unusable::Size { blocks: (2 << 48) + 1000 }));
        assert_eq!(Identity::parse(&[0; 256]), Err(Unusable::Old));
        assert_eq!(Identity::parse(&[0xFFFF; 256]), Err(Unusable::Packets));
    }

    #[test]
    fn blocks_are_of_the_sizes_told() {
        let sizes = |changes: &[(usize, u16)]| {
            let identity = parse(changes)?;
            let Geometry { sectors, logical_block, physical_block, .. } = identity.geometry;
            Ok((sectors, logical_block, physical_block))
        };
        assert_eq!(sizes(&[(106, 1 << 14 | 1 << 13 | 3)]), Ok((1000, 512, 4096)));
        assert_eq!(sizes(&[(106, 1 << 13 | 3)]), Ok((1000, 512, 512)), "not told");
        assert_eq!(sizes(&[(106, 1 << 14 | 1 << 13 | 15)]), Ok((1000, 512, 512)), "not believed");
        assert_eq!(sizes(&[(106, 1 << 14 | 1 << 12), (117, 2048)]), Ok((8000, 4096, 4096)));
        assert_eq!(sizes(&[(106, 1 << 14 | 1 << 12), (117, 260)]), Err(Unusable::BlockSize { bytes: 520 }));
        assert_eq!(sizes(&[(106, 1 << 14 | 1 << 12)]), Err(Unusable::BlockSize { bytes: 0 }));
        let far = 2 * (0xFFFF << 16);
        assert_eq!(sizes(&[(106, 1 << 14 | 1 << 12), (118, 0xFFFF)]), Err(Unusable::BlockSize { bytes: far }));
    }

    #[test]
    fn abilities_are_those_told() {
        type Words = &'static [(usize, u16)];
        let table: &[(Words, u8, bool, bool)] = &[
            (&[(75, 31), (76, 1 << 8)], 32, false, false),
            (&[(75, 31)], 0, false, false),
            (&[(75, 31), (76, 0xFFFF)], 0, false, false),
            (&[(76, 1 << 8)], 1, false, false),
            (&[(84, 1 << 14 | 1 << 6)], 0, true, false),
            (&[(84, 1 << 6)], 0, false, false),
            (&[(82, 1 << 5), (85, 1 << 5)], 0, false, true),
            (&[(82, 1 << 5)], 0, false, false),
            (&[(87, 0)], 0, false, true),
        ];
        for (row, (changes, queue, durable, cache)) in table.iter().enumerate() {
            let identity = parse(changes).expect("usable");
            let geometry = identity.geometry;
            assert_eq!(
                (identity.queue, identity.durable_writes, geometry.volatile_cache),
                (*queue, *durable, *cache),
                "row {row}"
            );
        }
    }

    #[test]
    fn trims_begin_where_physical_blocks_do() {
        let discard = |changes: &[(usize, u16)]| parse(changes).expect("usable").geometry.discard;
        assert_eq!(discard(&[]), None);
        let of = |granularity, alignment| Some(Discard { granularity, alignment, secure: false });
        assert_eq!(discard(&[(169, 1)]), of(512, 0));
        let large = (106, 1 << 14 | 1 << 13 | 3);
        assert_eq!(discard(&[(169, 1), large]), of(4096, 0));
        assert_eq!(discard(&[(169, 1), large, (209, 1 << 14)]), of(4096, 0));
        assert_eq!(discard(&[(169, 1), large, (209, 1 << 14 | 1)]), of(4096, 3584));
        assert_eq!(discard(&[(169, 1), large, (209, 1)]), of(4096, 0), "not told");
        assert_eq!(discard(&[(169, 1), large, (209, 1 << 14 | 9)]), of(4096, 0), "not believed");
        let identity = parse(&[(69, 1 << 14 | 1 << 5)]).expect("usable");
        assert!(identity.trimmed_reads_stable && identity.trimmed_reads_zero);
    }

    #[test]
    fn texts_are_swapped_and_printable() {
        let mut changed = words(&[]);
        changed[10..20].fill(0x2020);
        changed[10] = u16::from_be_bytes(*b"AB");
        changed[11] = u16::from_be_bytes([b'C', 0x07]);
        changed[12] = u16::from_be_bytes([0xE9, b'D']);
        let identity = Identity::parse(&changed).expect("usable");
        assert_eq!((identity.serial.as_str(), identity.model.as_str()), ("ABC  D", ""));
    }

    #[test]
    fn names_in_the_world_are_as_linux_writes_them() {
        let name = |first| parse(&[(108, first), (109, 0xc500), (110, 0x0a1b), (111, 0x2c3d)]).expect("usable").wwn;
        assert_eq!(name(0x5000), "0x5000c5000a1b2c3d");
        assert_eq!([name(0), name(0x6000)], ["", ""], "not registered with the IEEE");
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        let mut changed = words(&[(255, 0xA5)]);
        let sum = changed.iter().flat_map(|word| word.to_le_bytes()).fold(0u8, u8::wrapping_add);
        changed[255] |= u16::from(0u8.wrapping_sub(sum)) << 8;
        assert!(Identity::parse(&changed).is_ok());
        changed[100] += 1;
        assert_eq!(Identity::parse(&changed), Err(Unusable::Checksum));
    }
}
