//! Units in memory, and what is written on them, sound or not, for tests and fuzzers. Host.

pub mod gpt;
pub mod lvm;

use crate::disk::{Geometry, IoError, UnitId};
use crate::volume::{self, Catalogue, Claims, Sectors, Source, UnitRef};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::fakes::block_on;

/// The unit of controller `number`.
pub const fn unit(number: u16) -> UnitRef {
    UnitRef { controller: number, unit: UnitId(0) }
}

/// Units in memory: unit `n` is the only one of controller `n`.
#[derive(Default)]
pub struct Units {
    /// What is on them.
    pub bytes: Vec<Vec<u8>>,
    /// What they are.
    pub sources: Vec<Source>,
    /// All reads: unit, sector, sectors.
    pub reads: RefCell<Vec<(UnitRef, u64, u32)>>,
    /// Sectors that fail.
    pub bad: Vec<(UnitRef, u64)>,
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
    pub fn add(&mut self, bytes: Vec<u8>, logical_block: u32) -> UnitRef {
        let number = self.bytes.len() as u16;
        let geometry =
            Geometry { sectors: bytes.len() as u64 / 512, logical_block, physical_block: 4096, ..Geometry::default() };
        self.sources.push(Source {
            unit: unit(number),
            name: format!("nvme{number}n1"),
            aliases: Vec::new(),
            geometry,
        });
        self.bytes.push(bytes);
        unit(number)
    }

    /// Scans them, but for what is claimed for writing.
    pub fn scan(&self, claims: &Claims) -> Catalogue {
        block_on(volume::scan(self, &self.sources, &claims.begin_scan()))
    }

    /// Scans with nothing claimed.
    pub fn catalogue(&self) -> Catalogue {
        self.scan(&Claims::new())
    }

    /// One unit.
    pub fn one(bytes: Vec<u8>, logical_block: u32) -> Self {
        let mut units = Self::default();
        units.add(bytes, logical_block);
        units
    }
}

/// The names that things are known by.
pub fn names(catalogue: &Catalogue) -> Vec<String> {
    catalogue.names().map(ToString::to_string).collect()
}
