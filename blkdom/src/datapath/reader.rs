//! The control plane's reads (partition tables, LVM's metadata), by the same disks as everybody's. Floor 3.
//!
//! One at a time, through pages of their own: they wait for no guest's, and no guest waits for theirs.

use super::operation::Owner;
use super::pages::Pages;
use super::{DataPath, DiskSlot, READER};
use crate::blkback::request::SECTORS_PER_PAGE;
use crate::disk::{Command, IoError, Operation, Refusal, SECTOR_BYTES, Segment};
use crate::volume::{Sectors, UnitRef};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;
use xen_pv_sys::PAGE_SIZE;

/// Pages of a read; longer ones are made of several.
pub(super) const PAGES: usize = 8;

/// A read at work.
struct Read {
    unit: UnitRef,
    sector: u64,
    sectors: u32,
    submitted: u32,
    parts: u32,
    failure: Option<IoError>,
    /// Nobody waits for it any more.
    abandoned: bool,
    waker: Option<Waker>,
}

impl Read {
    fn is_done(&self) -> bool {
        self.parts == 0 && (self.failure.is_some() || self.submitted >= self.sectors)
    }
}

/// The read at work, and who waits for its end.
pub(super) struct ReaderState {
    pages: Vec<u32>,
    read: Option<Read>,
    /// Counts reads.
    generation: u16,
    waiters: VecDeque<Waker>,
}

impl ReaderState {
    pub(super) fn new(pages: &mut Pages) -> Self {
        let pages = (0..PAGES).map_while(|_| pages.take()).collect();
        Self { pages, read: None, generation: 0, waiters: VecDeque::new() }
    }

    /// Begins a read of at most so many sectors; gives how many, and its name. `None` while another one is at work.
    fn start(&mut self, unit: UnitRef, sector: u64, sectors: u32) -> Option<(u32, u16)> {
        if self.read.is_some() {
            return None;
        }
        let room = self.pages.len() as u32 * u32::from(SECTORS_PER_PAGE);
        let sectors = sectors.min(room);
        let failure = (sectors == 0).then_some(IoError::Unsupported);
        self.generation = self.generation.wrapping_add(1);
        self.read =
            Some(Read { unit, sector, sectors, submitted: 0, parts: 0, failure, abandoned: false, waker: None });
        Some((sectors, self.generation))
    }

    /// The end of a read: its bytes, added to `bytes`.
    fn poll(
        &mut self,
        generation: u16,
        pages: &Pages,
        bytes: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Poll<Result<(), IoError>> {
        let Some(read) = self.read.as_mut().filter(|_| self.generation == generation) else {
            return Poll::Ready(Err(IoError::Gone));
        };
        if !read.is_done() {
            read.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (failure, mut left) = (read.failure, read.sectors as usize * SECTOR_BYTES as usize);
        self.end();
        if let Some(failure) = failure {
            return Poll::Ready(Err(failure));
        }
        for page in &self.pages {
            let (start, length) = (bytes.len(), left.min(PAGE_SIZE));
            bytes.resize(start + length, 0);
            if !bytes.get_mut(start..).is_some_and(|bytes| pages.read(*page, 0, bytes)) {
                return Poll::Ready(Err(IoError::Gone));
            }
            left -= length;
        }
        Poll::Ready(Ok(()))
    }

    /// Nobody waits for a read any more; its pages are free as soon as the disk is done with them.
    fn abandon(&mut self, generation: u16) {
        if generation == self.generation
            && let Some(read) = &mut self.read
        {
            read.abandoned = true;
            self.wake();
        }
    }

    fn end(&mut self) {
        self.read = None;
        if let Some(waiter) = self.waiters.pop_front() {
            waiter.wake();
        }
    }

    /// After something happened to the read.
    fn wake(&mut self) {
        let Some(read) = self.read.as_mut() else {
            return;
        };
        if read.abandoned {
            // What was not submitted never will be.
            read.sectors = read.submitted;
        }
        if !read.is_done() {
            return;
        }
        if read.abandoned {
            self.end();
        } else if let Some(waker) = read.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn handle_completion(&mut self, owner: Owner, result: Result<(), IoError>) {
        if let Some(read) = self.read.as_mut().filter(|_| owner.generation == self.generation) {
            read.parts = read.parts.saturating_sub(1);
            if let Err(error) = result {
                read.failure.get_or_insert(error);
            }
            self.wake();
        }
    }

    /// Submits what is to be submitted.
    fn submit(&mut self, disks: &mut [Option<DiskSlot>], pages: &Pages, data: &mut Vec<Segment>) {
        loop {
            let Some(read) = self.read.as_mut().filter(|read| read.failure.is_none() && read.submitted < read.sectors)
            else {
                return;
            };
            let Some(slot) = disks.get_mut(usize::from(read.unit.controller)).and_then(Option::as_mut) else {
                read.failure = Some(IoError::Gone);
                return self.wake();
            };
            data.clear();
            gather(&self.pages, pages, read.submitted, read.sectors, data);
            let owner = Owner { vbd: READER, operation: 0, generation: self.generation, unit: read.unit.unit.0 };
            let command = Command {
                unit: read.unit.unit,
                operation: Operation::Read,
                sector: read.sector.saturating_add(read.submitted.into()),
                sectors: read.sectors - read.submitted,
                data,
                tag: owner.tag(),
            };
            match slot.disk.submit(&command) {
                Ok(taken) => {
                    read.submitted += taken.min(command.sectors);
                    read.parts += 1;
                    slot.in_flight += 1;
                    slot.quiet = true;
                }
                Err(Refusal::Full) => return,
                Err(refusal) => {
                    let error = if refusal == Refusal::NoUnit { IoError::Gone } else { IoError::Unsupported };
                    read.failure = Some(error);
                    return self.wake();
                }
            }
        }
    }
}

/// The memory of the sectors `from..to` of a read.
fn gather(numbers: &[u32], pages: &Pages, from: u32, to: u32, data: &mut Vec<Segment>) {
    let page_bytes = PAGE_SIZE as u32;
    let (mut at, end) = (from * SECTOR_BYTES, to * SECTOR_BYTES);
    while at < end {
        let Some(page) = numbers.get((at / page_bytes) as usize).and_then(|page| pages.device_address(*page)) else {
            return;
        };
        let within = at % page_bytes;
        let bytes = (page_bytes - within).min(end - at);
        data.push(Segment { address: page.in_page(within as usize), bytes });
        at += bytes;
    }
}

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    pub(super) fn submit_read(&mut self) {
        self.reader.submit(&mut self.disks, &self.pages, &mut self.round.data);
    }
}

/// Reads sectors for the control plane, by way of the data path's disks.
pub struct Reader<H: Hypervisor + DeviceMapping + Keep> {
    path: Rc<RefCell<DataPath<H>>>,
    wake: Rc<dyn Fn()>,
}

impl<H: Hypervisor + DeviceMapping + Keep> Clone for Reader<H> {
    fn clone(&self) -> Self {
        Self { path: Rc::clone(&self.path), wake: Rc::clone(&self.wake) }
    }
}

impl<H: Hypervisor + DeviceMapping + Keep> Reader<H> {
    /// A reader over a data path; `wake` has somebody call [`DataPath::poll`].
    pub fn new(path: Rc<RefCell<DataPath<H>>>, wake: impl Fn() + 'static) -> Self {
        Self { path, wake: Rc::new(wake) }
    }

    /// Reads as much of the beginning as goes at once.
    async fn read_some(&self, unit: UnitRef, sector: u64, sectors: u32, bytes: &mut Vec<u8>) -> Result<u32, IoError> {
        let (taken, generation) = poll_fn(|context| {
            let reader = &mut self.path.borrow_mut().reader;
            match reader.start(unit, sector, sectors) {
                Some(started) => Poll::Ready(started),
                None => {
                    reader.waiters.push_back(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        let _abandon = Abandon { path: &self.path, generation };
        (self.wake)();
        poll_fn(|context| {
            let path = &mut *self.path.borrow_mut();
            path.reader.poll(generation, &path.pages, bytes, context)
        })
        .await?;
        Ok(taken)
    }
}

/// Gives a read up where its future is dropped.
struct Abandon<'a, H: Hypervisor + DeviceMapping + Keep> {
    path: &'a RefCell<DataPath<H>>,
    generation: u16,
}

impl<H: Hypervisor + DeviceMapping + Keep> Drop for Abandon<'_, H> {
    fn drop(&mut self) {
        self.path.borrow_mut().reader.abandon(self.generation);
    }
}

impl<H: Hypervisor + DeviceMapping + Keep> Sectors for Reader<H> {
    async fn read(&self, unit: UnitRef, sector: u64, sectors: u32) -> Result<Vec<u8>, IoError> {
        let mut bytes = Vec::new();
        let mut done = 0;
        while done < sectors {
            let from = sector.checked_add(done.into()).ok_or(IoError::Unsupported)?;
            done += self.read_some(unit, from, sectors - done, &mut bytes).await?;
        }
        Ok(bytes)
    }
}
