//! What Identify tells: of a controller, of its limits, of a namespace. Bytes that are missing read as zero. Pure. Floor 3.
//!
//! Sections: "2.0" is the NVM Express Base Specification 2.0, "NVM" the NVM Command Set Specification 1.0.

use super::command::{LOG_CHANGED_NAMESPACES, NAMESPACE_NOTICES};
use crate::disk::{Discard, Geometry, SECTOR_BYTES};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Bytes of each structure here.
pub const IDENTIFY_BYTES: usize = 4096;

/// Ranges that Dataset Management can carry (NVM: 3.2.3).
const RANGES: u32 = 256;

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// A text of the device, printable whatever it says.
fn text(bytes: &[u8], at: usize, length: usize) -> String {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    let printable = |byte: &u8| if (0x20..0x7F).contains(byte) { char::from(*byte) } else { ' ' };
    String::from(bytes.iter().map(printable).collect::<String>().trim())
}

/// What Identify says of the controller (2.0: 5.17.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    /// SN.
    pub serial: String,
    /// MN.
    pub model: String,
    /// FR.
    pub firmware: String,
    /// MDTS: bytes of data that one command can move.
    pub transfer_bytes: u32,
    /// CNTRLTYPE: 0 where it is not told, 1 for an I/O controller.
    pub kind: u8,
    /// OAES: tells when namespaces change.
    pub notices: bool,
    /// CRDT1 to CRDT3: what to wait before another try, in units of 100 ms.
    pub retry_delays: [u16; 3],
    /// NN: the highest namespace.
    pub namespaces: u32,
    /// ONCS: Dataset Management.
    pub deallocate: bool,
    /// ONCS: Write Zeroes.
    pub write_zeroes: bool,
    /// VWC: a volatile write cache is present.
    pub volatile_cache: bool,
    /// AWUPF: blocks that are written as a whole even if power fails, less one.
    pub atomic_blocks: u16,
}

impl Controller {
    /// Takes the structure apart.
    pub fn parse(bytes: &[u8]) -> Self {
        let mdts = byte(bytes, 77);
        let commands = half(bytes, 520);
        Self {
            serial: text(bytes, 4, 20),
            model: text(bytes, 24, 40),
            firmware: text(bytes, 64, 8),
            // In units of CAP.MPSMIN, 4 KiB here; 0 is no limit.
            transfer_bytes: if (1..20).contains(&mdts) { 4096 << mdts } else { u32::MAX },
            kind: byte(bytes, 111),
            notices: word(bytes, 92) & NAMESPACE_NOTICES != 0,
            retry_delays: [128, 130, 132].map(|at| half(bytes, at)),
            namespaces: word(bytes, 516),
            deallocate: commands & 1 << 2 != 0,
            write_zeroes: commands & 1 << 3 != 0,
            volatile_cache: byte(bytes, 525) & 1 != 0,
            atomic_blocks: half(bytes, 528),
        }
    }
}

/// The controller's limits for commands without data (NVM: 4.1.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// WZSL: bytes that Write Zeroes covers.
    pub zeroes_bytes: u32,
    /// DMRL: ranges of Dataset Management.
    pub discard_ranges: u32,
    /// DMRSL: blocks of a range.
    pub range_blocks: u32,
    /// DMSL: blocks of all ranges.
    pub discard_blocks: u64,
}

impl Limits {
    /// What holds where the controller tells no limits: Write Zeroes then keeps to the size of transfers, as in Linux.
    pub const fn none(transfer_bytes: u32) -> Self {
        Self { zeroes_bytes: transfer_bytes, discard_ranges: RANGES, range_blocks: u32::MAX, discard_blocks: u64::MAX }
    }

    /// Takes the structure apart; a limit of zero is none.
    pub fn parse(bytes: &[u8], transfer_bytes: u32) -> Self {
        let none = Self::none(transfer_bytes);
        let zeroes = byte(bytes, 1);
        Self {
            zeroes_bytes: if (1..20).contains(&zeroes) { 4096 << zeroes } else { none.zeroes_bytes },
            discard_ranges: match byte(bytes, 3) {
                0 => none.discard_ranges,
                ranges => u32::from(ranges),
            },
            range_blocks: match word(bytes, 4) {
                0 => none.range_blocks,
                blocks => blocks,
            },
            discard_blocks: match long(bytes, 8) {
                0 => none.discard_blocks,
                blocks => blocks,
            },
        }
    }
}

/// Why a namespace is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Nothing is there.
    Inactive,
    /// Each block carries metadata.
    Metadata {
        /// Bytes a block.
        bytes: u16,
    },
    /// It is formatted with protection information.
    Protection {
        /// The type, 1 to 3.
        kind: u8,
    },
    /// Blocks of another size than 512 to 4,096 bytes.
    BlockSize {
        /// As a power of two.
        shift: u8,
    },
    /// More sectors than can be counted.
    Size {
        /// Blocks.
        blocks: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inactive => formatter.write_str("it is inactive"),
            Self::Metadata { bytes } => write!(formatter, "its blocks carry {bytes} bytes of metadata"),
            Self::Protection { kind } => {
                write!(formatter, "it is formatted with protection information of type {kind}")
            }
            Self::BlockSize { shift } => write!(formatter, "its blocks are of 2^{shift} bytes"),
            Self::Size { blocks } => write!(formatter, "it claims {blocks} blocks"),
        }
    }
}

impl core::error::Error for Unusable {}

/// What Identify says of a namespace (NVM: 4.1.5.1) that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// NGUID and EUI64: another namespace has others.
    pub identity: [u8; 24],
    /// The UUID of its descriptors, zeroes where these have none. `None` while it is not known.
    pub uuid: Option<[u8; 16]>,
    /// A block is of `1 << shift` bytes.
    pub shift: u8,
    /// Size and abilities.
    pub geometry: Geometry,
}

impl Format {
    /// The namespace's name in the form of Linux' `wwid`: of the UUID, else of the NGUID, else of the EUI64, else empty.
    pub fn wwn(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if let Some(uuid) = self.uuid.filter(|uuid| *uuid != [0; 16]) {
            let [a, b, c, d, e] = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(uuid.get(part).unwrap_or_default()));
            return format!("uuid.{a}-{b}-{c}-{d}-{e}");
        }
        let (nguid, eui) = self.identity.split_at(16);
        let known = [nguid, eui].into_iter().find(|name| name.iter().any(|byte| *byte != 0));
        known.map_or_else(String::new, |name| format!("eui.{}", hex(name)))
    }

    /// Whether two formats are of one namespace, whose size may have changed. Another block size makes it another unit: nobody who uses it
    /// could go on.
    pub fn is_of_same(&self, other: &Self) -> bool {
        let one_uuid = self.uuid.zip(other.uuid).is_none_or(|(one, other)| one == other);
        self.identity == other.identity && one_uuid && self.shift == other.shift
    }

    /// Takes the structure apart.
    ///
    /// # Errors
    /// Why the namespace cannot be used.
    pub fn parse(bytes: &[u8], controller: &Controller) -> Result<Self, Unusable> {
        let blocks = long(bytes, 0);
        if blocks == 0 {
            return Err(Unusable::Inactive);
        }
        let format = format_in_use(bytes);
        let metadata = half(bytes, format);
        if metadata != 0 {
            return Err(Unusable::Metadata { bytes: metadata });
        }
        let protection = byte(bytes, 29) & 0b111;
        if protection != 0 {
            return Err(Unusable::Protection { kind: protection });
        }
        let shift = byte(bytes, format + 2);
        if !(9..=12).contains(&shift) {
            return Err(Unusable::BlockSize { shift });
        }
        let block = 1u32 << shift;
        let sectors = blocks.checked_mul(u64::from(block / SECTOR_BYTES)).ok_or(Unusable::Size { blocks })?;
        let geometry = Geometry {
            sectors,
            logical_block: block,
            physical_block: physical_block(bytes, controller, block),
            volatile_cache: controller.volatile_cache,
            // NSATTR, bit 0.
            read_only: byte(bytes, 99) & 1 != 0,
            discard: controller.deallocate.then(|| Discard {
                granularity: discard_granularity(bytes, block),
                alignment: 0,
                secure: false,
            }),
            write_zeroes: controller.write_zeroes,
        };
        Ok(Self { identity: array(bytes, 104), uuid: None, shift, geometry })
    }
}

/// Where the LBA format in use is described: FLBAS chooses, with two more bits where there are more than 16 formats.
fn format_in_use(bytes: &[u8]) -> usize {
    let chosen = byte(bytes, 26);
    let more = if byte(bytes, 25) > 15 { chosen >> 5 & 0b11 } else { 0 };
    128 + 4 * usize::from(more << 4 | chosen & 0xF)
}

/// NSFEAT, bit 4: the preferred sizes below are told.
fn prefers(bytes: &[u8]) -> bool {
    byte(bytes, 24) & 1 << 4 != 0
}

/// Bytes that are written best (NPWG) and, if power fails, as a whole (NAWUPF or AWUPF): the lesser, as in Linux.
fn physical_block(bytes: &[u8], controller: &Controller, block: u32) -> u32 {
    let preferred = if prefers(bytes) { u32::from(half(bytes, 64)) + 1 } else { 1 };
    // NSFEAT, bit 1: the namespace has an atomic unit of its own.
    let atomic = if byte(bytes, 24) & 1 << 1 != 0 { half(bytes, 36) } else { controller.atomic_blocks };
    let blocks = preferred.min(u32::from(atomic) + 1);
    if blocks.is_power_of_two() { block * blocks } else { block }
}

/// NPDG.
fn discard_granularity(bytes: &[u8], block: u32) -> u32 {
    let preferred = if prefers(bytes) { u32::from(half(bytes, 68)) + 1 } else { 1 };
    block * preferred
}

/// The namespaces in an active namespace list (2.0: 5.17.2.2): ascending, up to the first zero.
pub fn active_namespaces(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let mut before = 0;
    bytes.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).take_while(move |number| {
        let ascends = *number > before && *number < 0xFFFF_FFFE;
        before = *number;
        ascends
    })
}

/// The UUID in a list of namespace identification descriptors (2.0: 5.17.2.3): type, length, two reserved bytes, then the identifier; a
/// length of zero ends the list. A list without a UUID gives zeros.
pub fn uuid(bytes: &[u8]) -> [u8; 16] {
    /// NIDT.
    const UUID: u8 = 3;
    let mut rest = bytes;
    while let Some(([kind, length, _, _], after)) = rest.split_first_chunk()
        && *length != 0
        && let Some((identifier, after)) = after.split_at_checked(usize::from(*length))
    {
        if *kind == UUID
            && let Ok(uuid) = identifier.try_into()
        {
            return uuid;
        }
        rest = after;
    }
    [0; 16]
}

/// Bytes to read of a log page that an event names (2.0: 5.16.1): error information, SMART, changed namespaces.
pub const fn log_bytes(log: u8) -> u32 {
    match log {
        LOG_CHANGED_NAMESPACES => 4096,
        1 => 64,
        _ => 512,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn namespace() -> Vec<u8> {
        let mut bytes = vec![0; IDENTIFY_BYTES];
        bytes[0..8].copy_from_slice(&1000u64.to_le_bytes());
        bytes[26] = 1;
        bytes[130] = 9;
        bytes[134] = 12;
        bytes
    }

    fn changed(at: usize, with: &[u8]) -> Result<Format, Unusable> {
        let mut bytes = namespace();
        bytes[at..at + with.len()].copy_from_slice(with);
        Format::parse(&bytes, &Controller { atomic_blocks: 7, ..Controller::default() })
    }

    #[test]
    fn formats_are_taken_or_refused() {
        let usable = changed(0, &[]).expect("usable");
        assert_eq!((usable.shift, usable.geometry.sectors, usable.geometry.logical_block), (12, 8000, 4096));
        assert_eq!(changed(26, &[0]).map(|format| format.geometry.logical_block), Ok(512));
        assert_eq!(changed(0, &[0; 8]), Err(Unusable::Inactive));
        assert_eq!(changed(0, &[0xFF; 8]), Err(Unusable::Size { blocks: u64::MAX }));
        assert_eq!(changed(132, &[8, 0]), Err(Unusable::Metadata { bytes: 8 }));
        assert_eq!(changed(29, &[2]), Err(Unusable::Protection { kind: 2 }));
        assert_eq!(changed(134, &[13]), Err(Unusable::BlockSize { shift: 13 }));
        assert_eq!(changed(134, &[8]), Err(Unusable::BlockSize { shift: 8 }));
        // Format 17 is format 1 where there are no more than 16.
        assert_eq!(changed(25, &[15, 0x21]).map(|format| format.shift), Ok(12));
        assert_eq!(changed(25, &[17, 0x21]), Err(Unusable::BlockSize { shift: 0 }));
        assert!(changed(99, &[1]).is_ok_and(|format| format.geometry.read_only));
    }

    #[test]
    fn blocks_are_as_large_as_they_are_whole() {
        let physical = |changes: &[(usize, &[u8])]| {
            let mut bytes = namespace();
            for (at, with) in changes {
                bytes[*at..at + with.len()].copy_from_slice(with);
            }
            let controller = Controller { atomic_blocks: 7, deallocate: true, ..Controller::default() };
            let format = Format::parse(&bytes, &controller).expect("usable");
            (format.geometry.physical_block, format.geometry.discard.expect("deallocates").granularity)
        };
        assert_eq!(physical(&[]), (4096, 4096));
        assert_eq!(physical(&[(24, &[1 << 4]), (64, &[3, 0]), (68, &[7, 0])]), (16384, 32768));
        // The controller's atomic unit is 8 blocks, the namespace's own 2.
        assert_eq!(physical(&[(24, &[1 << 4]), (64, &[15, 0])]), (32768, 4096));
        assert_eq!(physical(&[(24, &[1 << 4 | 1 << 1]), (64, &[15, 0]), (36, &[1, 0])]), (8192, 4096));
        assert_eq!(physical(&[(24, &[1 << 4]), (64, &[2, 0])]), (4096, 4096));
    }

    #[test]
    fn names_in_the_world_are_as_linux_writes_them() {
        let name = |at, bytes: &[u8]| changed(at, bytes).expect("usable").wwn();
        assert_eq!(name(120, &[0, 0x25, 0x38, 0x5b, 0x71, 0xb0, 0x0c, 0x42]), "eui.0025385b71b00c42");
        assert_eq!(name(104, &[0xAB; 24]), "eui.abababababababababababababababab", "the longer one counts");
        assert_eq!(name(104, &[0; 24]), "");
        let uuid = core::array::from_fn(|at| 0x10 + at as u8);
        let with = |uuid| Format { uuid: Some(uuid), ..changed(104, &[0xAB; 24]).expect("usable") };
        assert_eq!(with(uuid).wwn(), "uuid.10111213-1415-1617-1819-1a1b1c1d1e1f", "Linux' %pU");
        assert_eq!(with([0; 16]).wwn(), "eui.abababababababababababababababab");
        assert!(!with(uuid).is_of_same(&with([1; 16])));
        assert!(with(uuid).is_of_same(&Format { uuid: None, ..with(uuid) }), "it did not tell this time");
    }

    #[test]
    fn descriptors_are_read_up_to_their_end() {
        let descriptor = |kind, length, value| [vec![kind, length, 0, 0], vec![value; length.into()]].concat();
        let (eui, other, own) = (descriptor(1, 8, 1), descriptor(3, 8, 2), descriptor(3, 16, 3));
        assert_eq!(uuid(&[eui.clone(), other.clone(), own.clone()].concat()), [3; 16]);
        assert_eq!(uuid(&[eui.clone(), vec![0; 4], own.clone()].concat()), [0; 16], "the end comes first");
        assert_eq!(uuid(&[eui, other].concat()), [0; 16]);
        for length in 0..own.len() {
            assert_eq!(uuid(&own[..length]), [0; 16], "cut off at {length}");
        }
        assert_eq!(uuid(&[0xFF; IDENTIFY_BYTES]), [0; 16]);
    }

    #[test]
    fn lists_end_where_they_do_not_ascend() {
        let list = |numbers: &[u32]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            active_namespaces(&bytes).collect::<Vec<_>>()
        };
        assert_eq!(list(&[1, 2, 9, 0, 10]), [1, 2, 9]);
        assert_eq!(list(&[3, 3, 4]), [3]);
        assert_eq!(list(&[1, u32::MAX]), [1]);
    }

    #[test]
    fn no_structure_is_too_short() {
        assert_eq!(Controller::parse(&[]).transfer_bytes, u32::MAX);
        assert_eq!(Limits::parse(&[], 4096), Limits::none(4096));
        assert_eq!(Format::parse(&[1], &Controller::default()), Err(Unusable::Inactive));
        assert_eq!(Format::parse(&[1; 8], &Controller::default()), Err(Unusable::BlockSize { shift: 0 }));
    }
}
