//! What hostile partition tables and LVM metadata make of the catalogue of volumes. Host.
//!
//! An input is a list of changes to tables that are sound; most of the time their CRCs are put right afterwards, so that what is behind
//! them is reached. What must hold: reads are bounded and within the unit, every volume that can be had lies within its units and off
//! what was read to find it, no two of one table or one group have a sector in common, and errors fit into a node of the store.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use blkdom::volume::fakes::gpt::{self, Gpt, LINUX};
use blkdom::volume::fakes::lvm::{self, Disk, Text};
use blkdom::volume::fakes::{Units, names};
use blkdom::volume::{Catalogue, NameError, Piece};

/// Changes of an input, at most.
const CHANGES: usize = 24;
/// Sectors of a unit.
const SECTORS: usize = 1024;
/// Reads of one unit, at most: 4 of the tables, 64 of boot records, 20 labels, headers and texts of 8 areas (in two parts each), and 10
/// marks of something larger, of the unit and of two physical volumes.
const READS: usize = 160;

/// Numbers that bugs like.
const NUMBERS: [u64; 20] =
    [0, 1, 2, 3, 4, 7, 8, 33, 34, 63, 64, 127, 128, 1000, 1023, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 1 << 63, u64::MAX];

/// Pieces of metadata.
const WORDS: [&str; 32] = [
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    "\"",
    "\n",
    "#",
    "\\",
    "segment1 {",
    "segment2 {",
    "type = \"thin\"\n",
    "type = \"snapshot\"\n",
    "origin = \"a\"\n",
    "cow_store = \"b\"\n",
    "\"pv0\"",
    "\"pv1\"",
    "\"a\"",
    "stripe_count = 2\n",
    "stripe_size = 16\n",
    "pv1 {",
    "b {",
    "vg1 {",
    "status = [\"EXPORTED\"]\n",
    "extent_count = 2\n",
    "-",
    "9223372036854775807",
    "4294967295",
    "0",
    "seqno = 9\n",
    "\u{fc}",
];

/// A change to a unit.
#[derive(Arbitrary, Debug)]
enum Change {
    /// A number of a header, an entry or a boot record: which of them, and what it becomes.
    Field { unit: bool, field: u8, number: u8 },
    /// The same, by a little.
    Nudge { unit: bool, field: u8, by: i8 },
    /// Any byte of the first 16 KiB.
    Byte { unit: bool, at: u16, value: u8 },
    /// Text is taken out of the metadata, and a word put there.
    Word { unit: bool, at: u16, remove: u8, word: u8 },
    /// A line of the metadata comes once more, elsewhere.
    Line { unit: bool, from: u8, to: u8 },
    /// The metadata's n-th number becomes another one.
    Number { unit: bool, nth: u8, number: u8 },
    /// A sector cannot be read.
    Bad { unit: bool, sector: u16 },
}

/// What an input is.
struct Input {
    /// The CRCs stay as they were.
    broken: bool,
    /// Blocks of 4,096 bytes.
    large: bool,
    /// Which of the kinds of table there are.
    kind: u8,
    changes: Vec<Change>,
}

/// Reads an input. Every input is one.
fn decode(input: &[u8]) -> Input {
    let mut bytes = Unstructured::new(input);
    let bits: u8 = bytes.arbitrary().unwrap_or(0);
    let mut changes = Vec::new();
    while changes.len() < CHANGES && !bytes.is_empty() {
        match bytes.arbitrary() {
            Ok(change) => changes.push(change),
            Err(_) => break,
        }
    }
    Input { broken: bits & 7 == 7, large: bits & 8 != 0, kind: bits >> 4, changes }
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let Input { broken, large, kind, changes } = decode(input);
    let lines = changes.iter().map(|change| format!("{change:?}\n"));
    std::iter::once(format!("broken {broken}, large {large}, kind {kind}\n")).chain(lines).collect()
}

/// Where the numbers of a table are: place and bytes.
type Fields = [(usize, usize)];

fn field(image: &mut [u8], fields: &Fields, which: u8, change: impl Fn(u64) -> u64) {
    let (place, bytes) = fields[usize::from(which) % fields.len()];
    if let Some(field) = image.get_mut(place..place + bytes) {
        let value = field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        field.copy_from_slice(&change(value).to_le_bytes()[..bytes]);
    }
}

/// Changes bytes and numbers of an image.
fn change_image(units: &mut Units, fields: &Fields, change: &Change) {
    let place = |unit: bool, units: &Units| usize::from(unit) % units.bytes.len();
    match change {
        Change::Field { unit, field: which, number } => {
            let to = NUMBERS[usize::from(*number) % NUMBERS.len()];
            let image = place(*unit, units);
            field(&mut units.bytes[image], fields, *which, |_| to);
        }
        Change::Nudge { unit, field: which, by } => {
            let image = place(*unit, units);
            field(&mut units.bytes[image], fields, *which, |value| value.wrapping_add_signed((*by).into()));
        }
        Change::Byte { unit, at, value } => {
            let image = place(*unit, units);
            units.bytes[image][usize::from(*at) % 16384] = *value;
        }
        Change::Bad { unit, sector } => {
            let image = place(*unit, units);
            units.bad.push((units.sources[image].unit, u64::from(*sector) % 64));
        }
        Change::Word { .. } | Change::Line { .. } | Change::Number { .. } => {}
    }
}

/// Changes a metadata text.
fn change_text(text: &mut String, change: &Change) {
    match change {
        Change::Word { at, remove, word, .. } => {
            let boundary = |mut at: usize| {
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let begin = boundary(usize::from(*at) % (text.len() + 1));
            let end = boundary((begin + usize::from(*remove % 32)).min(text.len()));
            text.replace_range(begin..end, WORDS[usize::from(*word) % WORDS.len()]);
        }
        Change::Line { from, to, .. } => {
            let mut lines: Vec<&str> = text.lines().collect();
            let line = lines[usize::from(*from) % lines.len()];
            lines.insert(usize::from(*to) % lines.len(), line);
            *text = lines.join("\n");
        }
        Change::Number { nth, number, .. } => {
            let digits = text.match_indices(|character: char| character.is_ascii_digit());
            // A number begins where no digit is before.
            let starts: Vec<usize> = digits.map(|(at, _)| at).filter(|at| !ends_in_digit(&text[..*at])).collect();
            let Some(begin) = starts.get(usize::from(*nth) % starts.len().max(1)) else {
                return;
            };
            let length = text[*begin..].bytes().take_while(u8::is_ascii_digit).count();
            let number = NUMBERS[usize::from(*number) % NUMBERS.len()];
            text.replace_range(*begin..*begin + length, &number.to_string());
        }
        _ => {}
    }
}

fn ends_in_digit(text: &str) -> bool {
    text.ends_with(|character: char| character.is_ascii_digit())
}

/// Checks what must hold of what was found, and notes what that was.
fn check(units: &Units, catalogue: &Catalogue, seen: &mut Vec<u64>) {
    let reads = units.reads.borrow();
    for source in &units.sources {
        let own = reads.iter().filter(|(unit, ..)| *unit == source.unit);
        assert!(own.count() <= READS, "too many reads");
    }
    let volumes: Vec<_> = catalogue.volumes().collect();
    let mut parts: Vec<(Piece, &str)> = Vec::new();
    for (name, volume) in &volumes {
        let is_whole = units.sources.iter().any(|source| source.name == *name);
        for extent in volume.extents() {
            let source = units.sources.iter().find(|source| source.unit == extent.unit).expect("a unit that there is");
            let end = extent.sector.checked_add(extent.sectors).expect("64 bits");
            assert!(end <= source.geometry.sectors, "{name} leaves its unit: {extent:?}");
            assert!(
                extent.sector.is_multiple_of(u64::from(source.geometry.logical_block) / 512),
                "{name} is not aligned"
            );
            if is_whole {
                continue;
            }
            // Where something was not believed, it was read all the same.
            for (unit, sector, sectors) in reads.iter().filter(|_| catalogue.notes().is_empty()) {
                let read = Piece { unit: *unit, sector: *sector, sectors: (*sectors).into() };
                // The label of a physical volume is in its partition.
                assert!(
                    !read.overlaps(&extent) || read.sector == extent.sector,
                    "{name} holds what was read: {read:?}"
                );
            }
            parts.push((extent, name));
        }
        let total: u64 = volume.pieces(0, volume.sectors()).take(10_000).map(|piece| piece.sectors).sum();
        assert!(total <= volume.sectors());
        seen.push(u64::from(64 - volume.sectors().leading_zeros()) << 8 | volume.extents().take(5).count() as u64);
    }
    // A logical volume lies in a partition; but partitions have nothing in common, nor have logical volumes.
    for (place, (extent, name)) in parts.iter().enumerate() {
        let alike = |other: &str| name.contains('/') == other.contains('/');
        let mut others = parts.iter().skip(place + 1).filter(|(_, other)| alike(other));
        assert!(!others.any(|(other, _)| other.overlaps(extent)), "{name} has sectors in common with another one");
    }
    check_names(catalogue, seen);
}

fn check_names(catalogue: &Catalogue, seen: &mut Vec<u64>) {
    for note in catalogue.notes() {
        // Without numbers and names.
        let words = note.split(' ').skip(1).filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
        let words: String = words.take(8).collect();
        seen.push(hash(words.as_bytes()));
    }
    let all = names(catalogue);
    seen.push(all.len().min(16) as u64);
    for name in all.iter().map(String::as_str).chain(["vg0/a", "vg0/b", "PARTLABEL=twice", "sda", ""]) {
        let Err(error) = catalogue.resolve(name) else {
            continue;
        };
        assert!(error.to_string().len() < 2000, "{error}");
        if let NameError::Unusable { reason, .. } = &error {
            seen.push(hash(format!("{:?}", std::mem::discriminant(reason)).as_bytes()));
        }
    }
}

/// `fuzz gpt`: partition tables, both kinds.
#[derive(Default)]
pub struct PartitionTables;

/// Numbers of the primary header, of three entries, and of the MBR, for blocks of `block` bytes.
fn table_fields(block: usize, last: usize) -> Vec<(usize, usize)> {
    let mut fields: Vec<_> =
        (0..4).flat_map(|entry| [(450, 1), (454, 4), (458, 4)].map(|(at, bytes)| (at + entry * 16, bytes))).collect();
    for header in [block, last * block] {
        let numbers = [(8, 4), (12, 4), (24, 8), (32, 8), (40, 8), (48, 8), (72, 8), (80, 4), (84, 4)];
        fields.extend(numbers.map(|(at, bytes)| (header + at, bytes)));
    }
    for entry in 0..3 {
        fields.extend([(32, 8), (40, 8), (56, 2)].map(|(at, bytes)| (2 * block + entry * 128 + at, bytes)));
    }
    // The first three extended boot records of the MBR.
    for record in [600, 700, 800] {
        let numbers = [(450, 1), (454, 4), (458, 4), (466, 1), (470, 4), (474, 4)];
        fields.extend(numbers.map(|(at, bytes)| (record * block + at, bytes)));
    }
    fields
}

/// An MBR with three primary partitions and three logical ones.
fn mbr(block: usize, blocks: usize) -> Vec<u8> {
    let mut image = vec![0; block * blocks];
    image[440..444].copy_from_slice(&[1, 0xcd, 0xab, 0x12]);
    let mut entry = |at: usize, slot: usize, kind: u8, start: u32, length: u32| {
        let record = &mut image[at * block..][..512];
        record[446 + slot * 16 + 4] = kind;
        record[454 + slot * 16..458 + slot * 16].copy_from_slice(&start.to_le_bytes());
        record[458 + slot * 16..462 + slot * 16].copy_from_slice(&length.to_le_bytes());
        record[510..512].copy_from_slice(&[0x55, 0xaa]);
    };
    entry(0, 0, 0x83, 64, 64);
    entry(0, 1, 0x8e, 128, 64);
    entry(0, 2, 0x83, 200, 300);
    entry(0, 3, 0x0f, 600, 400);
    for (place, (record, next)) in [(600, 100), (700, 200), (800, 0)].into_iter().enumerate() {
        entry(record, 0, 0x83, 8, 50 + place as u32);
        if next > 0 {
            entry(record, 1, 0x05, next, 100);
        }
    }
    image
}

impl Target for PartitionTables {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let input = decode(input);
        let block = if input.large { 4096 } else { 512 };
        let table = Gpt::new(block, SECTORS as u64);
        let table = table.with(LINUX, 64, 127, "a").with(LINUX, 128, 255, "twice").with(LINUX, 300, 300, "twice");
        let is_gpt = input.kind & 3 != 0;
        let image = if is_gpt { table.image() } else { mbr(block, SECTORS) };
        let mut units = Units::one(image, block as u32);
        let fields = table_fields(block, SECTORS - 1);
        for change in &input.changes {
            change_image(&mut units, &fields, change);
        }
        if is_gpt && !input.broken {
            gpt::mend(&mut units.bytes[0], block);
        }
        let catalogue = units.catalogue();
        check(&units, &catalogue, seen);
    }
}

/// `fuzz lvm`: labels, headers and texts on two disks.
#[derive(Default)]
pub struct VolumeGroups;

/// Numbers of the label, of the physical volume's header, and of the metadata area's header.
const LVM_FIELDS: [(usize, usize); 17] = [
    (512 + 8, 8),
    (512 + 20, 4),
    (512 + 64, 8),
    (512 + 72, 8),
    (512 + 80, 8),
    (512 + 88, 8),
    (512 + 96, 8),
    (512 + 104, 8),
    (512 + 112, 8),
    (512 + 120, 8),
    (512 + 128, 8),
    (4096 + 20, 4),
    (4096 + 24, 8),
    (4096 + 32, 8),
    (4096 + 40, 8),
    (4096 + 48, 8),
    (4096 + 60, 4),
];

impl Target for VolumeGroups {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let input = decode(input);
        let more = Text::volume("b", "\"pv0\", 4, \"pv1\", 0", 2, 4) + &Text::volume("c", "\"pv1\", 8", 1, 2);
        let text = Text { physical: 2, more, ..Text::default() }.to_string();
        // Extents begin behind the small metadata area; ten of them fit.
        let text = text.replace("pe_start = 2048", "pe_start = 80").replace("pe_count = 100", "pe_count = 14");
        let mut texts = [text.clone(), text];
        for change in &input.changes {
            let (Change::Word { unit, .. } | Change::Line { unit, .. } | Change::Number { unit, .. }) = change else {
                continue;
            };
            change_text(&mut texts[usize::from(*unit)], change);
            if input.kind & 1 == 0 {
                // The same in both copies.
                texts[usize::from(!*unit)] = texts[usize::from(*unit)].clone();
            }
        }
        let mut units = Units::default();
        for (text, number) in texts.iter().zip(1..) {
            let mut disk = Disk::new(number, SECTORS, text);
            disk.area_bytes = 36864;
            units.add(disk.image(), if input.large { 4096 } else { 512 });
        }
        for change in &input.changes {
            change_image(&mut units, &LVM_FIELDS, change);
        }
        if !input.broken {
            units.bytes.iter_mut().for_each(|image| lvm::mend(image));
        }
        let catalogue = units.catalogue();
        check(&units, &catalogue, seen);
    }
}
