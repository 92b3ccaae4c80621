//! Namespaces, and I/O commands upon them. Pure.

use blkdom::disk::nvme::command::{self, Status, io};

use super::admin::refusal;
use super::{Fetched, Nvme};
use crate::bus::Transfer;
use crate::medium::{Medium, Piece, gather};
use crate::work::Next;

/// Data Transfer Error.
const DATA_TRANSFER: u16 = 0x004;
/// PRP Offset Invalid.
const INVALID_PAGES: u16 = 0x013;
/// LBA Out of Range.
const OUT_OF_RANGE: u16 = 0x080;
/// Attempted Write to Read Only Range.
const READ_ONLY: u16 = 0x120;
const PAGE: u64 = 4096;
/// Commands that are kept for [`Nvme::executed`].
const MOST_KEPT: usize = 1 << 16;

/// A namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    medium: Medium,
    identity: u8,
    read_only: bool,
}

impl Namespace {
    /// `blocks` of `1 << shift` bytes, all zero.
    pub fn new(shift: u8, blocks: u64) -> Self {
        Self { medium: Medium::new(shift, blocks), identity: 1, read_only: false }
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
        self.medium.resize(blocks);
    }

    pub(super) fn flush(&mut self) {
        self.medium.flush();
    }

    pub(super) fn contents(&self) -> (Vec<u8>, Vec<u8>) {
        self.medium.contents()
    }

    pub(super) fn describe(&self, bytes: &mut [u8]) {
        let mut put = |at: usize, value: &[u8]| {
            for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
                *slot = *byte;
            }
        };
        for at in [0, 8, 16] {
            put(at, &self.medium.blocks().to_le_bytes());
        }
        put(99, &[u8::from(self.read_only)]);
        put(104, &[self.identity; 16]);
        put(130, &[self.medium.shift()]);
    }
}

impl Nvme {
    /// Carries out an I/O command.
    pub(super) fn io(&mut self, fetched: Fetched) -> Next<Self> {
        if self.executed.len() < MOST_KEPT {
            self.executed.push(fetched.entry);
        }
        self.begin_io(fetched).unwrap_or_else(|status| self.end_io(&fetched, status))
    }

    fn end_io(&mut self, fetched: &Fetched, status: Status) -> Next<Self> {
        self.answer(fetched, status, 0);
        Next::Done
    }

    /// What there is to wait for; or how it ended at once.
    fn begin_io(&mut self, fetched: Fetched) -> Result<Next<Self>, Status> {
        let entry = &fetched.entry;
        let (number, opcode) = (entry[1], entry[0] as u8);
        let (first, blocks) = (address(entry, 10), u64::from(entry[12] & 0xFFFF) + 1);
        if !self.namespaces.contains_key(&number) {
            return Err(refusal(Status::INVALID_NAMESPACE));
        }
        if !matches!(opcode, io::FLUSH | io::DATASET_MANAGEMENT)
            && let Some(status) = self.error(number, first, blocks)
        {
            return Err(status);
        }
        match opcode {
            io::FLUSH => {
                self.namespaces.entry(number).and_modify(Namespace::flush);
                Err(Status::new())
            }
            io::READ | io::WRITE => self.transfer(fetched, first, blocks),
            io::WRITE_ZEROES => Err(self.zero(number, first, blocks)),
            io::DATASET_MANAGEMENT => self.deallocate(fetched),
            _ => Err(refusal(Status::INVALID_OPCODE)),
        }
    }

    fn error(&mut self, number: u32, first: u64, blocks: u64) -> Option<Status> {
        let hit = |block: u64| (first..first.saturating_add(blocks)).contains(&block);
        let place = self.errors.iter().position(|e| e.namespace == number && hit(e.block) && e.times > 0)?;
        let error = self.errors.get_mut(place)?;
        error.times -= 1;
        Some(error.status)
    }

    fn zero(&mut self, number: u32, first: u64, blocks: u64) -> Status {
        let Some(Namespace { medium, .. }) = self.namespaces.get_mut(&number) else {
            return refusal(Status::INVALID_NAMESPACE);
        };
        match medium.range(first, blocks) {
            Some(range) => {
                medium.zero(range);
                Status::new()
            }
            None => refusal(OUT_OF_RANGE),
        }
    }

    fn deallocate(&mut self, fetched: Fetched) -> Result<Next<Self>, Status> {
        let entry = &fetched.entry;
        if entry[11] != command::DEALLOCATE {
            self.misuse.note("a deallocation that deallocates nothing");
        }
        let (address, ranges) = (address(entry, 6), u64::from(entry[10] & 0xFF) + 1);
        if address % PAGE + ranges * 16 > PAGE {
            self.misuse.note("ranges beyond a page");
            return Err(refusal(INVALID_PAGES));
        }
        let batch = vec![Transfer::read(address, ranges as usize * 16)];
        Ok(Next::then(batch, move |device: &mut Self, batch| {
            let mut status = reached(&batch);
            for range in batch.iter().flat_map(|list| list.data.as_chunks::<16>().0) {
                let value = u128::from_le_bytes(*range);
                let (blocks, first) = ((value >> 32) as u32, (value >> 64) as u64);
                if status == Status::new() {
                    status = device.zero(fetched.entry[1], first, u64::from(blocks));
                }
            }
            device.end_io(&fetched, status)
        }))
    }

    fn transfer(&mut self, fetched: Fetched, first: u64, blocks: u64) -> Result<Next<Self>, Status> {
        let entry = &fetched.entry;
        let Some(Namespace { medium, .. }) = self.namespaces.get(&entry[1]) else {
            return Err(refusal(Status::INVALID_NAMESPACE));
        };
        let range = medium.range(first, blocks).ok_or(refusal(OUT_OF_RANGE))?;
        // Against a device that moves more than it says there is nothing but an IOMMU.
        if self.told_shifts.get(&entry[1]).is_none_or(|told| *told < medium.shift()) {
            return Err(refusal(Status::INVALID_FIELD));
        }
        let limit = if self.transfer_shift == 0 { u64::MAX } else { PAGE << self.transfer_shift };
        let bytes = range.len() as u64;
        if bytes > limit {
            self.misuse.note("a transfer beyond the limit");
            return Err(refusal(Status::INVALID_FIELD));
        }
        let head = address(entry, 6);
        let rest = bytes - (PAGE - head % PAGE).min(bytes);
        let (second, count) = (address(entry, 8), rest.div_ceil(PAGE));
        if count <= 1 {
            let pages: Vec<u64> = (0..count).map(|_| second).collect();
            return self.move_data(fetched, head, &pages);
        }
        if second % 8 != 0 || second % PAGE + count * 8 > PAGE {
            self.misuse.note("a page list beyond its page");
            return Err(refusal(INVALID_PAGES));
        }
        let batch = vec![Transfer::read(second, count as usize * 8)];
        Ok(Next::then(batch, move |device: &mut Self, batch| {
            let list = batch.iter().flat_map(|list| list.data.as_chunks::<8>().0);
            let pages: Vec<u64> = list.map(|entry| u64::from_le_bytes(*entry)).collect();
            let next = match reached(&batch) {
                status if status == Status::new() => device.move_data(fetched, head, &pages),
                status => Err(status),
            };
            next.unwrap_or_else(|status| device.end_io(&fetched, status))
        }))
    }

    /// Moves the data of a command whose first byte is at `head`, and the rest in `pages`, checked as 4.1.1 of the base specification has
    /// them.
    fn move_data(&mut self, fetched: Fetched, head: u64, pages: &[u64]) -> Result<Next<Self>, Status> {
        if !head.is_multiple_of(4) || pages.iter().any(|page| !page.is_multiple_of(PAGE)) {
            self.misuse.note("a page entry that is not aligned");
            return Err(refusal(INVALID_PAGES));
        }
        let entry = &fetched.entry;
        let (number, first, blocks) = (entry[1], address(entry, 10), u64::from(entry[12] & 0xFFFF) + 1);
        let Some(Namespace { medium, read_only, .. }) = self.namespaces.get(&number) else {
            return Err(refusal(Status::INVALID_NAMESPACE));
        };
        let range = medium.range(first, blocks).ok_or(refusal(OUT_OF_RANGE))?;
        let mut left = range.len();
        let rooms =
            std::iter::once((head, (PAGE - head % PAGE) as usize)).chain(pages.iter().map(|page| (*page, 4096)));
        let pieces: Vec<Piece> = rooms
            .map(|(address, room)| {
                let length = room.min(left);
                left -= length;
                (address, length)
            })
            .collect();
        if entry[0] as u8 == io::READ {
            return Ok(Next::then(medium.read(range.start, &pieces), move |device: &mut Self, batch| {
                device.end_io(&fetched, reached(&batch))
            }));
        }
        if *read_only {
            return Err(refusal(READ_ONLY));
        }
        let durable = entry[12] & command::FORCE_UNIT_ACCESS != 0;
        Ok(Next::then(gather(&pieces), move |device: &mut Self, batch| {
            let status = reached(&batch);
            if status == Status::new()
                && let Some(namespace) = device.namespaces.get_mut(&number)
            {
                namespace.medium.write(range.start, &batch, durable);
            }
            device.end_io(&fetched, status)
        }))
    }
}

/// Two words of an entry as one number.
const fn address(entry: &command::Entry, at: usize) -> u64 {
    (entry[at + 1] as u64) << 32 | entry[at] as u64
}

/// How a command went whose memory was reached, or not.
fn reached(batch: &[Transfer]) -> Status {
    if batch.iter().all(|transfer| transfer.done) { Status::new() } else { refusal(DATA_TRANSFER) }
}
