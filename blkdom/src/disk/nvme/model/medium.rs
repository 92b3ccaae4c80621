//! The model's namespaces: I/O commands upon memory that stands for a medium, with a volatile cache before it. Host only.

use super::super::command::{self, Entry, Status, io};
use super::State;
use super::admin::refusal;
use alloc::vec;
use alloc::vec::Vec;
use split_driver::fakes::FakeXen;

/// LBA Out of Range.
const OUT_OF_RANGE: u16 = 0x080;
/// PRP Offset Invalid.
const INVALID_PAGES: u16 = 0x013;
const PAGE: u64 = 4096;

/// A namespace.
#[derive(Clone, Debug)]
pub struct Medium {
    shift: u8,
    /// What is read.
    pub(in crate::disk) data: Vec<u8>,
    /// What a loss of power leaves.
    pub(in crate::disk) durable: Vec<u8>,
    /// The cache is not followed: what is written is not copied once more by a flush.
    write_through: bool,
    identity: u8,
    read_only: bool,
}

impl Medium {
    /// A medium of `blocks` of `1 << shift` bytes, all zero.
    pub fn new(shift: u8, blocks: u64) -> Self {
        let bytes = usize::try_from(blocks << shift).unwrap_or(0);
        Self {
            shift,
            data: vec![0; bytes],
            durable: vec![0; bytes],
            write_through: false,
            identity: 1,
            read_only: false,
        }
    }

    /// Writes through: for measurements.
    #[must_use]
    pub fn without_cache(self) -> Self {
        Self { write_through: true, durable: Vec::new(), ..self }
    }

    /// With an NGUID of `identity`.
    #[must_use]
    pub fn with_identity(self, identity: u8) -> Self {
        Self { identity, ..self }
    }

    /// Write-protected.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    pub(super) fn resize(&mut self, blocks: u64) {
        let bytes = usize::try_from(blocks << self.shift).unwrap_or(0);
        self.data.resize(bytes, 0);
        if !self.write_through {
            self.durable.resize(bytes, 0);
        }
    }

    pub(in crate::disk) fn flush(&mut self) {
        if !self.write_through {
            self.durable.copy_from_slice(&self.data);
        }
    }

    pub(super) fn describe(&self, bytes: &mut [u8]) {
        let blocks = (self.data.len() >> self.shift) as u64;
        let mut put = |at: usize, value: &[u8]| {
            for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
                *slot = *byte;
            }
        };
        for at in [0, 8, 16] {
            put(at, &blocks.to_le_bytes());
        }
        put(99, &[u8::from(self.read_only)]);
        put(104, &[self.identity; 16]);
        put(130, &[self.shift]);
    }

    pub(in crate::disk) fn range(&self, first: u64, blocks: u64) -> Option<core::ops::Range<usize>> {
        let end = first.checked_add(blocks)?;
        let to = usize::try_from(end.checked_mul(1 << self.shift)?).ok()?;
        (to <= self.data.len()).then(|| (first << self.shift) as usize..to)
    }
}

impl State {
    /// Carries out an I/O command.
    pub(super) fn io(&mut self, entry: &Entry) -> Status {
        let namespace = entry[1];
        let opcode = entry[0] as u8;
        if !self.media.contains_key(&namespace) {
            return refusal(Status::INVALID_NAMESPACE);
        }
        let first = u64::from(entry[11]) << 32 | u64::from(entry[10]);
        let blocks = u64::from(entry[12] & 0xFFFF) + 1;
        if !matches!(opcode, io::FLUSH | io::DATASET_MANAGEMENT)
            && let Some(status) = self.fault(namespace, first, blocks)
        {
            return status;
        }
        match opcode {
            io::FLUSH => {
                self.media.entry(namespace).and_modify(Medium::flush);
                Status::new()
            }
            io::READ | io::WRITE => self.transfer(entry, first, blocks),
            io::WRITE_ZEROES => self.zero(namespace, first, blocks),
            io::DATASET_MANAGEMENT => self.deallocate(entry),
            _ => refusal(Status::INVALID_OPCODE),
        }
    }

    fn fault(&mut self, namespace: u32, first: u64, blocks: u64) -> Option<Status> {
        let hit = |block: u64| (first..first.saturating_add(blocks)).contains(&block);
        let place = self.faults.iter().position(|f| f.namespace == namespace && hit(f.block) && f.times > 0)?;
        let fault = self.faults.get_mut(place)?;
        fault.times -= 1;
        Some(fault.status)
    }

    fn zero(&mut self, namespace: u32, first: u64, blocks: u64) -> Status {
        let Some(medium) = self.media.get_mut(&namespace) else {
            return refusal(Status::INVALID_NAMESPACE);
        };
        match medium.range(first, blocks).and_then(|range| medium.data.get_mut(range)) {
            Some(bytes) => {
                bytes.fill(0);
                Status::new()
            }
            None => refusal(OUT_OF_RANGE),
        }
    }

    fn deallocate(&mut self, entry: &Entry) -> Status {
        if entry[11] != command::DEALLOCATE {
            self.complain("a deallocation that deallocates nothing");
        }
        let address = u64::from(entry[7]) << 32 | u64::from(entry[6]);
        let ranges = u64::from(entry[10] & 0xFF) + 1;
        if address % PAGE + ranges * 16 > PAGE {
            self.complain("ranges beyond a page");
            return refusal(INVALID_PAGES);
        }
        for range in 0..ranges {
            let mut bytes = [0; 16];
            self.xen.device_read(address + range * 16, &mut bytes);
            let value = u128::from_le_bytes(bytes);
            let (blocks, first) = ((value >> 32) as u32, (value >> 64) as u64);
            let status = self.zero(entry[1], first, u64::from(blocks));
            if status != Status::new() {
                return status;
            }
        }
        Status::new()
    }

    fn transfer(&mut self, entry: &Entry, first: u64, blocks: u64) -> Status {
        let Some(medium) = self.media.get(&entry[1]) else {
            return refusal(Status::INVALID_NAMESPACE);
        };
        let Some(range) = medium.range(first, blocks) else {
            return refusal(OUT_OF_RANGE);
        };
        // Against a device that moves more than it says there is nothing but an IOMMU.
        if self.told_shifts.get(&entry[1]).is_none_or(|told| *told < medium.shift) {
            return refusal(Status::INVALID_FIELD);
        }
        let read_only = medium.read_only;
        let limit = if self.transfer_shift == 0 { u64::MAX } else { PAGE << self.transfer_shift };
        if range.len() as u64 > limit {
            self.complain("a transfer beyond the limit");
            return refusal(Status::INVALID_FIELD);
        }
        let Some(pieces) = self.pieces(entry, range.len() as u64) else {
            return refusal(INVALID_PAGES);
        };
        let xen = self.xen.clone();
        let Some(medium) = self.media.get_mut(&entry[1]) else {
            return refusal(Status::INVALID_NAMESPACE);
        };
        if entry[0] as u8 == io::READ {
            medium.read(&xen, range, &pieces);
        } else if read_only {
            return refusal(0x120);
        } else {
            medium.write(&xen, range, &pieces, entry[12] & command::FORCE_UNIT_ACCESS != 0);
        }
        Status::new()
    }

    /// Follows PRP1, PRP2 and a page list, checked as 4.1.1 of the base specification has them.
    fn pieces(&mut self, entry: &Entry, bytes: u64) -> Option<Vec<(u64, usize)>> {
        let first = u64::from(entry[7]) << 32 | u64::from(entry[6]);
        let second = u64::from(entry[9]) << 32 | u64::from(entry[8]);
        let head = (PAGE - first % PAGE).min(bytes);
        let mut pieces = vec![(first, head as usize)];
        let rest = bytes - head;
        let count = rest.div_ceil(PAGE);
        let mut pages = Vec::new();
        if count == 1 {
            pages.push(second);
        } else if count > 1 {
            if second % 8 != 0 || second % PAGE + count * 8 > PAGE {
                self.complain("a page list beyond its page");
                return None;
            }
            let mut list = vec![0; count as usize * 8];
            self.xen.device_read(second, &mut list);
            pages.extend(list.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)));
        }
        if first % 4 != 0 || pages.iter().any(|page| page % PAGE != 0) {
            self.complain("a page entry that is not aligned");
            return None;
        }
        let lengths = (0..count).map(|page| (rest - page * PAGE).min(PAGE) as usize);
        pieces.extend(pages.into_iter().zip(lengths));
        Some(pieces)
    }
}

impl Medium {
    pub(in crate::disk) fn read(&self, xen: &FakeXen, range: core::ops::Range<usize>, pieces: &[(u64, usize)]) {
        let mut at = range.start;
        for (address, bytes) in pieces {
            xen.device_write(*address, self.data.get(at..at + bytes).unwrap_or_default());
            at += bytes;
        }
    }

    pub(in crate::disk) fn write(
        &mut self,
        xen: &FakeXen,
        range: core::ops::Range<usize>,
        pieces: &[(u64, usize)],
        durable: bool,
    ) {
        let mut at = range.start;
        for (address, bytes) in pieces {
            xen.device_read(*address, self.data.get_mut(at..at + bytes).unwrap_or_default());
            at += bytes;
        }
        if durable && let (Some(to), Some(from)) = (self.durable.get_mut(range.clone()), self.data.get(range)) {
            to.copy_from_slice(from);
        }
    }
}
