//! Units in memory, and tables written into them. Host.

use crate::disk::{Geometry, IoError, UnitId};
use crate::volume::{Catalogue, Claims, Sectors, Source, UnitRef};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::fakes::block_on;

pub(crate) const fn unit(number: u16) -> UnitRef {
    UnitRef { controller: number, unit: UnitId(0) }
}

/// Units in memory: unit `n` is the only one of controller `n`.
#[derive(Default)]
pub(crate) struct Units {
    pub(crate) bytes: Vec<Vec<u8>>,
    pub(crate) sources: Vec<Source>,
    /// All reads: unit, sector, sectors.
    pub(crate) reads: RefCell<Vec<(UnitRef, u64, u32)>>,
    /// Sectors that fail.
    pub(crate) bad: Vec<(UnitRef, u64)>,
}

impl Sectors for Units {
    async fn read(&self, unit: UnitRef, sector: u64, sectors: u32) -> Result<Vec<u8>, IoError> {
        self.reads.borrow_mut().push((unit, sector, sectors));
        assert!(sectors <= 256, "too much for one read");
        let number = usize::from(unit.controller);
        let block = u64::from(self.sources[number].geometry.logical_block) / 512;
        assert!(sector.is_multiple_of(block) && u64::from(sectors).is_multiple_of(block), "not whole blocks");
        let range = sector..sector + u64::from(sectors);
        if self.bad.iter().any(|(bad, sector)| *bad == unit && range.contains(sector)) {
            return Err(IoError::Device { code: 0x281 });
        }
        let bytes = &self.bytes[number];
        Ok(bytes[sector as usize * 512..][..sectors as usize * 512].to_vec())
    }
}

impl Units {
    /// Adds a unit that is called `nvme<n>n1`.
    pub(crate) fn add(&mut self, bytes: Vec<u8>, logical_block: u32) -> UnitRef {
        let number = self.bytes.len() as u16;
        let geometry =
            Geometry { sectors: bytes.len() as u64 / 512, logical_block, physical_block: 4096, ..Geometry::default() };
        self.sources.push(Source { unit: unit(number), name: format!("nvme{number}n1"), geometry });
        self.bytes.push(bytes);
        unit(number)
    }

    pub(crate) fn scan(&self, claims: &Claims) -> Catalogue {
        block_on(Catalogue::scan(self, &self.sources, &claims.written()))
    }

    /// Scans with nothing claimed.
    pub(crate) fn catalogue(&self) -> Catalogue {
        self.scan(&Claims::new())
    }

    /// One unit.
    pub(crate) fn one(bytes: Vec<u8>, logical_block: u32) -> Self {
        let mut units = Self::default();
        units.add(bytes, logical_block);
        units
    }
}

/// The names that things are known by.
pub(crate) fn names(catalogue: &Catalogue) -> Vec<alloc::string::String> {
    catalogue.names().map(ToString::to_string).collect()
}

/// `0FC63DAF-8483-4772-8E79-3D69D8477DE4`: Linux file system.
pub(crate) const LINUX: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
/// `E6D6D379-F507-44C2-A23C-238F2A3DF928`: Linux LVM.
pub(crate) const LVM: [u8; 16] =
    [0x79, 0xd3, 0xd6, 0xe6, 0x07, 0xf5, 0xc2, 0x44, 0xa2, 0x3c, 0x23, 0x8f, 0x2a, 0x3d, 0xf9, 0x28];

/// A GPT to be written; the fields are what a test may want wrong.
#[derive(Clone)]
pub(crate) struct Gpt {
    pub(crate) block: usize,
    pub(crate) blocks: u64,
    pub(crate) first_usable: u64,
    pub(crate) last_usable: u64,
    pub(crate) count: u32,
    pub(crate) size: u32,
    pub(crate) revision: u32,
    pub(crate) header_size: u32,
    /// Type, first block, last block, name; the GUID is the number sixteen times.
    pub(crate) entries: Vec<([u8; 16], u64, u64, &'static str)>,
}

impl Gpt {
    pub(crate) fn new(block: usize, blocks: u64) -> Self {
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

    pub(crate) fn with(mut self, kind: [u8; 16], first: u64, last: u64, name: &'static str) -> Self {
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
        header.extend(crate::volume::gpt::CRC.checksum(&self.entries_bytes()).to_le_bytes());
        let crc = crate::volume::gpt::CRC.checksum(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header.resize(self.block, 0);
        header
    }

    /// The whole unit.
    pub(crate) fn image(&self) -> Vec<u8> {
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
