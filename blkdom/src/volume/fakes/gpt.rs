//! Writes a GPT with anything in it. Host.

use crate::volume::gpt::CRC;
use alloc::vec;
use alloc::vec::Vec;

/// `0FC63DAF-8483-4772-8E79-3D69D8477DE4`: Linux file system.
pub const LINUX: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
/// `E6D6D379-F507-44C2-A23C-238F2A3DF928`: Linux LVM.
pub const LVM: [u8; 16] =
    [0x79, 0xd3, 0xd6, 0xe6, 0x07, 0xf5, 0xc2, 0x44, 0xa2, 0x3c, 0x23, 0x8f, 0x2a, 0x3d, 0xf9, 0x28];

/// A GPT to be written; the fields are what a test may want wrong.
#[derive(Clone)]
pub struct Gpt {
    /// Bytes of a block.
    pub block: usize,
    /// Blocks of the unit.
    pub blocks: u64,
    /// As in the header.
    pub first_usable: u64,
    /// As in the header.
    pub last_usable: u64,
    /// Entries.
    pub count: u32,
    /// Bytes of each.
    pub size: u32,
    /// As in the header.
    pub revision: u32,
    /// As in the header.
    pub header_size: u32,
    /// Type, first block, last block, name; the GUID is the number sixteen times.
    pub entries: Vec<([u8; 16], u64, u64, &'static str)>,
}

impl Gpt {
    /// With 128 entries, none of them used.
    pub fn new(block: usize, blocks: u64) -> Self {
        let table = (16384 / block) as u64;
        Self {
            block,
            blocks,
            first_usable: 2 + table,
            last_usable: blocks - 2 - table,
            count: 128,
            size: 128,
            revision: 0x10000,
            header_size: 92,
            entries: vec![],
        }
    }

    /// With one more partition.
    pub fn with(mut self, kind: [u8; 16], first: u64, last: u64, name: &'static str) -> Self {
        self.entries.push((kind, first, last, name));
        self
    }

    fn entries_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.count as usize * self.size as usize];
        for (place, (kind, first, last, name)) in self.entries.iter().enumerate() {
            let entry = &mut bytes[place * self.size as usize..];
            entry[..16].copy_from_slice(kind);
            entry[16..32].fill(place as u8 + 1);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (unit, place) in name.encode_utf16().zip((56..).step_by(2)) {
                entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
            }
        }
        bytes
    }

    fn header(&self, lba: u64, other: u64, entries_lba: u64) -> Vec<u8> {
        let mut header = b"EFI PART".to_vec();
        header.extend(self.revision.to_le_bytes());
        header.extend(self.header_size.to_le_bytes());
        header.extend([0; 8]);
        for value in [lba, other, self.first_usable, self.last_usable] {
            header.extend(value.to_le_bytes());
        }
        header.extend([0xd1; 16]);
        header.extend(entries_lba.to_le_bytes());
        header.extend(self.count.to_le_bytes());
        header.extend(self.size.to_le_bytes());
        header.extend(CRC.checksum(&self.entries_bytes()).to_le_bytes());
        let crc = CRC.checksum(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header.resize(self.block, 0);
        header
    }

    /// The whole unit.
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.block * self.blocks as usize];
        image[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        let (last, block) = (self.blocks - 1, self.block);
        let entries = self.entries_bytes();
        let table = entries.len().div_ceil(block) as u64;
        let mut put = |lba: u64, bytes: &[u8]| image[lba as usize * block..][..bytes.len()].copy_from_slice(bytes);
        put(1, &self.header(1, last, 2));
        put(2, &entries);
        put(last, &self.header(last, 1, last - table));
        put(last - table, &entries);
        image
    }
}

/// Puts right the CRCs of both copies, as far as they are there: of what was changed in them, all but that is believed.
pub fn mend(image: &mut [u8], block: usize) {
    let last = (image.len() / block).saturating_sub(1);
    for header in [block, last * block] {
        let number = |image: &[u8], place: usize, bytes: usize| {
            let field = image.get(header + place..header + place + bytes)?;
            usize::try_from(field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))).ok()
        };
        let entries = || {
            let begin = number(image, 72, 8)?.checked_mul(block)?;
            let length = number(image, 80, 4)?.checked_mul(number(image, 84, 4)?)?;
            image.get(begin..begin.checked_add(length)?)
        };
        if let Some(crc) = entries().map(|entries| CRC.checksum(entries)) {
            image[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
        }
        let Some(size) = number(image, 12, 4).filter(|size| (20..=block).contains(size)) else {
            continue;
        };
        if let Some(bytes) = image.get_mut(header..header + size) {
            bytes[16..20].fill(0);
            let crc = CRC.checksum(bytes);
            bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        }
    }
}
