//! The verifying load of the power-loss tests: what a guest writes until its machine is killed, and what the medium must hold then. Host
//! and Linux user space.
//!
//! Each lane of the load owns a region of the disk and works alone in it: a sequence of writes, discards and flushes that the seed decides.
//! Each sector that is written carries its number and the operation that wrote it. After a flush the lane writes into a *ledger*, on
//! another disk that loses nothing, how many operations came before the flush: those must be found on the medium whatever happens then.
//! What came later may be there or not, each sector for itself; anything else is a fault.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh64::xxh64;

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Bytes of a ledger's entry, one a lane.
pub const ENTRY: usize = 4096;
/// Sectors of the alignment of all operations: a page.
const ALIGNMENT: u64 = 8;
/// Sectors of the largest operation.
pub const LARGEST: u64 = 512;
/// So many operations a lane does at most beyond the last one that its ledger knows: those until the next flush, and those until the one
/// after it, which are under way when the ledger is written.
const AHEAD: u64 = 2 * FLUSH_EVERY as u64 + 2;
/// A flush comes after so many operations at most.
const FLUSH_EVERY: u32 = 12;

const MAGIC: [u8; 8] = *b"oxidom\x01\0";

/// A load: what both the guest and the check must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Decides all operations.
    pub seed: u64,
    /// Lanes, each with its region.
    pub lanes: u64,
    /// Sectors of a region.
    pub region: u64,
}

/// One operation of a lane; sectors are the disk's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stamps sectors.
    Write {
        /// The first.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Gives sectors up: they hold zeroes, or what they held before.
    Discard {
        /// The first.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Makes what came before durable.
    Flush,
}

impl Load {
    /// A load on a disk of so many sectors.
    pub fn new(seed: u64, lanes: u64, sectors: u64) -> Self {
        Self { seed, lanes, region: sectors / lanes / ALIGNMENT * ALIGNMENT }
    }

    /// The operations of a lane, numbered from 1, without end.
    pub fn operations(&self, lane: u64) -> Operations {
        let random = StdRng::seed_from_u64(self.seed ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Operations { random, first: lane * self.region, region: self.region, since_flush: 0 }
    }

    /// Fills sectors with their stamps.
    pub fn stamp(&self, lane: u64, number: u64, first: u64, buffer: &mut [u8]) {
        let (sectors, _) = buffer.as_chunks_mut::<SECTOR>();
        for (sector, bytes) in (first..).zip(sectors) {
            let fields = [self.seed, lane, number, sector];
            let (head, body) = bytes.split_at_mut(8 + 8 * fields.len());
            let (magic, numbers) = head.split_at_mut(8);
            magic.copy_from_slice(&MAGIC);
            for (place, field) in numbers.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
                *place = field.to_le_bytes();
            }
            body.fill((number ^ sector) as u8);
            let (content, digest) = bytes.split_at_mut(SECTOR - 8);
            digest.copy_from_slice(&xxh64(content, 0).to_le_bytes());
        }
    }

    /// Which operation wrote a sector of this lane; `None` where it holds no stamp of this load, which zeroes do not either.
    fn stamped(&self, lane: u64, sector: u64, bytes: &[u8; SECTOR]) -> Option<u64> {
        let (content, digest) = bytes.split_at(SECTOR - 8);
        if digest != xxh64(content, 0).to_le_bytes() || !content.starts_with(&MAGIC) {
            return None;
        }
        let field = |index: usize| {
            let bytes = content.get(8 + 8 * index..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let same = field(0)? == self.seed && field(1)? == lane && field(3)? == sector;
        same.then(|| field(2)).flatten()
    }

    /// What a lane writes into its place of the ledger: its operations up to `number` are durable.
    pub fn entry(&self, lane: u64, number: u64) -> Vec<u8> {
        let mut entry = [self.seed, lane, number].map(u64::to_le_bytes).concat();
        let digest = xxh64(&entry, 1).to_le_bytes();
        entry.extend(digest);
        entry.resize(ENTRY, 0);
        entry
    }

    /// How many operations of the lane are durable; 0 where it has not written the ledger yet.
    fn durable(&self, lane: u64, ledger: &[u8]) -> Result<u64, String> {
        let place = lane as usize * ENTRY;
        let entry = ledger.get(place..place + 32).ok_or("the ledger is too short")?;
        if entry.iter().all(|byte| *byte == 0) {
            return Ok(0);
        }
        let numbers: Vec<u64> = entry.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        match numbers.as_slice() {
            [seed, of, number, digest] if *digest == xxh64(&entry[..24], 1) && *seed == self.seed && *of == lane => {
                Ok(*number)
            }
            _ => Err(format!("the ledger's entry of lane {lane} is of another load, or torn")),
        }
    }

    /// How many operations of all lanes are durable.
    ///
    /// # Errors
    /// Where the ledger is of another load, or an entry is torn.
    pub fn all_durable(&self, ledger: &[u8]) -> Result<u64, String> {
        (0..self.lanes).map(|lane| self.durable(lane, ledger)).sum()
    }

    /// Holds the medium against the ledger.
    ///
    /// # Errors
    /// The first sector that holds what it must not.
    pub fn check(&self, medium: &[u8], ledger: &[u8]) -> Result<Checked, String> {
        let mut checked = Checked::default();
        for lane in 0..self.lanes {
            let durable = self.durable(lane, ledger)?;
            checked.operations += durable;
            let mut sectors = vec![Allowed::default(); self.region as usize];
            for (number, operation) in (1..=durable + AHEAD).zip(self.operations(lane)) {
                let (sector, count, written) = match operation {
                    Operation::Write { sector, sectors } => (sector, sectors, true),
                    Operation::Discard { sector, sectors } => (sector, sectors, false),
                    Operation::Flush => continue,
                };
                let from = (sector - lane * self.region) as usize;
                let touched = sectors.get_mut(from..from + count as usize).ok_or("an operation leaves its region")?;
                touched.iter_mut().for_each(|allowed| allowed.touch(number, written, number <= durable));
            }
            for (sector, allowed) in (lane * self.region..).zip(&sectors) {
                let place = sector as usize * SECTOR;
                let bytes = medium.get(place..).and_then(<[u8]>::first_chunk::<SECTOR>);
                let bytes = bytes.ok_or("the medium is too short")?;
                let found = self.stamped(lane, sector, bytes);
                let empty = found.is_none() && bytes.iter().all(|byte| *byte == 0);
                if found.is_none() && !empty {
                    return Err(format!("sector {sector} of lane {lane} is torn, or was never written so"));
                }
                if !allowed.holds(found) {
                    return Err(format!(
                        "sector {sector} of lane {lane} holds operation {found:?}; {allowed:?}, and {durable} operations are durable"
                    ));
                }
                checked.sectors += u64::from(found.is_some());
            }
        }
        Ok(checked)
    }
}

/// What a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Operations that had to be durable.
    pub operations: u64,
    /// Sectors that hold a stamp, each of them a right one.
    pub sectors: u64,
}

/// What a sector may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Allowed {
    /// The last durable operation on it that wrote it; 0 for none.
    last: u64,
    /// It was discarded after that, durably or not: it may hold zeroes, or what it held before.
    discarded: bool,
    /// Operations that wrote it before the durable discard: it may hold one of them still.
    before: Vec<u64>,
    /// Those that may have reached it although no flush covers them.
    later: Vec<u64>,
}

impl Allowed {
    fn touch(&mut self, number: u64, written: bool, durable: bool) {
        match (written, durable) {
            (true, true) => *self = Self { last: number, ..Self::default() },
            (true, false) => self.later.push(number),
            (false, true) => {
                self.discarded = true;
                self.before.push(self.last);
            }
            (false, false) => self.discarded = true,
        }
    }

    fn holds(&self, found: Option<u64>) -> bool {
        match found {
            None => self.last == 0 || self.discarded,
            Some(number) => number == self.last || self.later.contains(&number) || self.before.contains(&number),
        }
    }
}

/// A lane's operations.
pub struct Operations {
    random: StdRng,
    first: u64,
    region: u64,
    since_flush: u32,
}

impl Iterator for Operations {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        if self.since_flush >= FLUSH_EVERY || self.random.random_range(0..FLUSH_EVERY) == 0 {
            self.since_flush = 0;
            return Some(Operation::Flush);
        }
        self.since_flush += 1;
        // Mostly small, now and then large.
        let largest = if self.random.random_range(0..8) == 0 { LARGEST } else { 64 }.min(self.region);
        let sectors = self.random.random_range(1..=largest / ALIGNMENT) * ALIGNMENT;
        let places = (self.region - sectors) / ALIGNMENT;
        let sector = self.first + self.random.random_range(0..=places) * ALIGNMENT;
        Some(match self.random.random_range(0..16) {
            0 => Operation::Discard { sector, sectors },
            _ => Operation::Write { sector, sectors },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does `count` operations of a lane on a medium that loses nothing.
    fn apply(load: &Load, lane: u64, count: usize, medium: &mut [u8]) {
        for (number, operation) in (1..).zip(load.operations(lane)).take(count) {
            match operation {
                Operation::Write { sector, sectors } => {
                    let from = sector as usize * SECTOR;
                    let to = from + sectors as usize * SECTOR;
                    load.stamp(lane, number, sector, &mut medium[from..to]);
                }
                Operation::Discard { sector, sectors } => {
                    let from = sector as usize * SECTOR;
                    medium[from..from + sectors as usize * SECTOR].fill(0);
                }
                Operation::Flush => {}
            }
        }
    }

    fn ledger(load: &Load, numbers: &[u64]) -> Vec<u8> {
        (0..).zip(numbers).flat_map(|(lane, number)| load.entry(lane, *number)).collect()
    }

    #[test]
    fn what_is_there_passes_and_what_is_lost_does_not() {
        let load = Load::new(7, 2, 4096);
        let mut medium = vec![0; 4096 * SECTOR];
        assert_eq!(load.check(&medium, &vec![0; 2 * ENTRY]).unwrap().operations, 0);
        apply(&load, 0, 60, &mut medium);
        apply(&load, 1, 40, &mut medium);
        // Nothing was said to be durable, or all was, or some: all of it may be there, the operations ahead included.
        load.check(&medium, &ledger(&load, &[60, 40])).unwrap();
        load.check(&medium, &ledger(&load, &[45, 30])).unwrap();
        // More was said to be durable than is there.
        assert!(load.check(&medium, &ledger(&load, &[90, 40])).is_err());
        assert_eq!(load.all_durable(&ledger(&load, &[90, 40])), Ok(130));
        // One sector of what is durable went back, is torn, or is another's.
        let stamped = (0..4096).find(|sector| medium[sector * SECTOR] != 0).unwrap() * SECTOR;
        for damage in 0..3 {
            let mut damaged = medium.clone();
            match damage {
                0 => damaged[stamped..stamped + SECTOR].fill(0),
                1 => damaged[stamped + 100] ^= 1,
                _ => damaged.copy_within(stamped..stamped + SECTOR, stamped + SECTOR),
            }
            assert!(load.check(&damaged, &ledger(&load, &[60, 40])).is_err(), "{damage}");
        }
        // A ledger of another load says so.
        let other = Load { seed: 8, ..load };
        assert!(other.check(&medium, &ledger(&load, &[60, 40])).is_err());
    }

    #[test]
    fn a_flush_comes_soon_and_operations_stay_in_their_region() {
        let load = Load::new(3, 4, 1 << 15);
        let mut since = 0;
        for operation in load.operations(2).take(5000) {
            since += 1;
            match operation {
                Operation::Flush => since = 0,
                Operation::Write { sector, sectors } | Operation::Discard { sector, sectors } => {
                    assert!(sector >= 2 * load.region && sector + sectors <= 3 * load.region && sectors > 0);
                }
            }
            assert!(since <= FLUSH_EVERY as usize);
        }
    }
}
