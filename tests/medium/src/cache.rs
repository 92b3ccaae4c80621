//! A drive's volatile cache over an image file. Host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes that are written as a whole: of a write of several sectors, any of them may be lost.
pub const SECTOR: u64 = 512;

type Sector = [u8; SECTOR as usize];

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Sectors whose last contents were lost.
    pub lost: usize,
    /// Sectors that had reached the medium although nobody had asked for it.
    pub kept: usize,
}

/// The image, and what was written since the last flush.
pub(crate) struct Cache {
    file: File,
    bytes: u64,
    dirty: BTreeMap<u64, Box<Sector>>,
}

impl Cache {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len() / SECTOR * SECTOR;
        Ok(Self { file, bytes, dirty: BTreeMap::new() })
    }

    /// The drive's size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn unflushed(&self) -> usize {
        self.dirty.len()
    }

    /// Whether the range is whole sectors within the drive.
    pub(crate) fn holds(&self, offset: u64, length: u64) -> bool {
        let whole = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR);
        whole && offset.checked_add(length).is_some_and(|end| end <= self.bytes)
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        let first = offset / SECTOR;
        let last = first + buffer.len() as u64 / SECTOR;
        for (sector, content) in self.dirty.range(first..last) {
            let place = ((sector - first) * SECTOR) as usize;
            if let Some(part) = buffer.get_mut(place..place + SECTOR as usize) {
                part.copy_from_slice(&content[..]);
            }
        }
        Ok(())
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let first = offset / SECTOR;
        let (sectors, _) = bytes.as_chunks::<{ SECTOR as usize }>();
        self.dirty.extend((first..).zip(sectors.iter().map(|sector| Box::new(*sector))));
    }

    /// Zeroes, which need no room in the cache: like a drive that discards or zeroes by its map, they are durable at once.
    pub(crate) fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        const CHUNK: u64 = 1 << 20;
        let end = offset + length;
        let sectors: Vec<u64> = self.dirty.range(offset / SECTOR..end / SECTOR).map(|(sector, _)| *sector).collect();
        for sector in sectors {
            self.dirty.remove(&sector);
        }
        let zeroes = vec![0; CHUNK.min(length) as usize];
        for start in (offset..end).step_by(CHUNK as usize) {
            let count = CHUNK.min(end - start) as usize;
            self.file.write_all_at(zeroes.get(..count).unwrap_or_default(), start)?;
        }
        Ok(())
    }

    /// Makes a range durable.
    pub(crate) fn flush_range(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let sectors: Vec<u64> =
            self.dirty.range(offset / SECTOR..(offset + length) / SECTOR).map(|(sector, _)| *sector).collect();
        for sector in sectors {
            if let Some(content) = self.dirty.remove(&sector) {
                self.file.write_all_at(&content[..], sector * SECTOR)?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.flush_range(0, self.bytes)
    }

    /// Of each sector that was not flushed, chance decides whether it had reached the medium.
    pub(crate) fn cut_power(&mut self, seed: u64) -> io::Result<Loss> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut loss = Loss::default();
        for (sector, content) in std::mem::take(&mut self.dirty) {
            if random.random::<bool>() {
                self.file.write_all_at(&content[..], sector * SECTOR)?;
                loss.kept += 1;
            } else {
                loss.lost += 1;
            }
        }
        Ok(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str, sectors: u64) -> (Cache, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("medium-{name}-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(sectors * SECTOR).unwrap();
        (Cache::new(file).unwrap(), path)
    }

    /// What a file holds and what the drive says, of one sector.
    fn sector(cache: &Cache, path: &std::path::Path, sector: u64) -> (u8, u8) {
        let mut seen = [0; SECTOR as usize];
        cache.read(sector * SECTOR, &mut seen).unwrap();
        let durable = std::fs::read(path).unwrap();
        (durable[(sector * SECTOR) as usize], seen[0])
    }

    #[test]
    fn what_is_not_flushed_is_seen_and_not_durable() {
        let (mut cache, path) = cache("flush", 8);
        cache.write(SECTOR, &[7; 2 * SECTOR as usize]);
        assert_eq!(sector(&cache, &path, 1), (0, 7));
        cache.flush_range(SECTOR, SECTOR).unwrap();
        assert_eq!((sector(&cache, &path, 1), sector(&cache, &path, 2)), ((7, 7), (0, 7)));
        cache.zero(0, 8 * SECTOR).unwrap();
        assert_eq!((sector(&cache, &path, 1), cache.unflushed()), ((0, 0), 0));
        assert!(cache.holds(7 * SECTOR, SECTOR) && !cache.holds(7 * SECTOR, 2 * SECTOR) && !cache.holds(1, SECTOR));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_power_cut_loses_some_of_what_was_not_flushed_and_nothing_else() {
        let (mut cache, path) = cache("cut", 64);
        cache.write(0, &[1; 64 * SECTOR as usize]);
        cache.flush().unwrap();
        cache.write(32 * SECTOR, &[2; 32 * SECTOR as usize]);
        let loss = cache.cut_power(3).unwrap();
        assert_eq!(loss.lost + loss.kept, 32);
        assert!(loss.lost > 4 && loss.kept > 4, "{loss:?}");
        let values: Vec<u8> = (0..64).map(|index| sector(&cache, &path, index).0).collect();
        assert!(values[..32].iter().all(|value| *value == 1));
        assert_eq!(values[32..].iter().filter(|value| **value == 1).count(), loss.lost);
        std::fs::remove_file(path).unwrap();
    }
}
