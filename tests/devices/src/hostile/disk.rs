//! The user of a disk's driver: it submits, waits, and lets time pass. Host.

use std::collections::BTreeMap;
use std::time::Duration;

use blkdom::disk::{Command, Completion, Disk, Event, IoError, Operation, Refusal, Segment, Tag, UnitId};
use split_driver::fakes::device::Script;
use split_driver::memory::{DeviceAddress, Quiesced};
use xen_pv_sys::PAGE_SIZE;

use super::loans::Loans;
use super::{Bed, Subject};
use crate::bus::Model;
use crate::fake::Device;

/// Pages of data.
const PAGES: usize = 40;
/// Acts of the driver's user.
const USERS: u8 = 11;
/// Steps that a driver has to mend what it can.
const RECOVERY: usize = 64;

/// A device of disks that can be hostile.
pub trait Adversary: Model + Default + 'static {
    /// The driver of the device.
    type Driver: Disk;

    /// Acts of the device.
    const ACTS: u8;
    /// Register accesses that one call of the driver may take.
    const ACCESSES: usize;
    /// The same of a call in which the driver stops its device for good.
    const LONG_ACCESSES: usize;
    /// Runs of DMA memory that the driver may hold.
    const REGIONS: usize;
    /// Steps of a millisecond in which the driver starts.
    const START: usize;
    /// Times that pass, in milliseconds: what the driver waits for.
    const PAUSES: [u64; 6];

    /// Sets the device up, and gives it to a driver.
    fn start(device: &Device<Self>, flags: u8) -> Option<Self::Driver>;

    /// From now on commands are carried out one at a time, by acts of the device.
    fn linger(&mut self);

    /// One of [`Self::ACTS`].
    fn misbehave(act: u8, bed: &mut Bed<Self>, script: &mut Script<'_>);

    /// Numbers that the driver counted.
    fn counts(driver: &Self::Driver) -> Vec<u64>;
}

/// A disk's driver and its user.
pub struct Disks<M: Adversary> {
    disk: M::Driver,
    loans: Loans,
    next: u64,
    /// Requests in flight, and their pages.
    outstanding: BTreeMap<u64, Vec<usize>>,
}

impl<M: Adversary> Subject for Disks<M> {
    type Model = M;

    const ACTS: u8 = USERS + M::ACTS;
    const ACCESSES: usize = M::ACCESSES;
    const LONG_ACCESSES: usize = M::LONG_ACCESSES;
    const TIME: Duration = Duration::from_millis(2);
    const LONG_TIME: Duration = Duration::from_secs(2);
    // The pages of data are one.
    const REGIONS: usize = M::REGIONS + 1;

    fn power_on(_choice: u8) -> M {
        M::default()
    }

    fn start(bed: &mut Bed<M>, script: &mut Script<'_>) -> Option<Self> {
        let flags = script.byte();
        let disk = M::start(&bed.device, flags)?;
        let loans = Loans::new(&bed.xen, PAGES);
        let mut subject = Self { disk, loans, next: 0, outstanding: BTreeMap::new() };
        // Without this bit the start itself is the device's to spoil.
        if flags & 32 == 0 {
            for _ in 0..M::START {
                bed.now = bed.now + Duration::from_millis(1);
                subject.work(bed);
            }
            bed.seen.clear();
        }
        if flags & 128 != 0 {
            bed.device.with_model(M::linger);
        }
        if flags & 64 != 0 {
            bed.scribble(script.word());
        }
        Some(subject)
    }

    fn act(&mut self, act: u8, bed: &mut Bed<M>, script: &mut Script<'_>) {
        match act {
            0..=3 => self.submit(bed, script),
            4 => bed.call(|| self.disk.ring()),
            5 | 6 => self.work(bed),
            7 => {
                let pause = M::PAUSES[usize::from(script.byte()) % M::PAUSES.len()];
                bed.now = bed.now + Duration::from_millis(pause);
                self.work(bed);
            }
            8 => bed.call(|| self.disk.handle_interrupt(script.byte().into())),
            9 => {
                let again = bed.call(|| self.disk.enable_interrupts());
                bed.see(0x200 | u64::from(again));
            }
            10 => self.pass(bed, usize::from(script.byte() % 32)),
            _ => M::misbehave(act - USERS, bed, script),
        }
    }

    fn work(&mut self, bed: &mut Bed<M>) {
        let mut done = Vec::new();
        let disk = &mut self.disk;
        let poll = || {
            disk.poll(bed.now, &mut done);
            std::iter::from_fn(|| disk.poll_event()).collect::<Vec<_>>()
        };
        let given_up = |events: &Vec<Event>| events.iter().any(|event| matches!(event, Event::Failed(_)));
        let events = bed.long_call(poll, given_up);
        for completion in done {
            self.complete(bed, &completion);
        }
        for event in events {
            bed.see(match event {
                Event::Ready => 10,
                Event::Added(_) => 11,
                Event::Changed(_) => 12,
                Event::Removed(_) => 13,
                Event::Recovering(why) => 0x2_0000 + why.len() as u64,
                Event::Failed(why) => 0x3_0000 + why.len() as u64,
            });
        }
    }

    fn recover(&mut self, bed: &mut Bed<M>) {
        self.pass(bed, RECOVERY);
    }

    fn stop(&mut self, bed: &mut Bed<M>) {
        bed.long_call(|| self.disk.quiesce(), |()| true);
    }

    fn remove(&mut self, bed: &mut Bed<M>, proof: Quiesced) {
        bed.call(|| self.disk.remove(proof));
    }

    fn owed(&self) -> usize {
        self.outstanding.len()
    }

    fn tell(&mut self, bed: &mut Bed<M>) {
        assert_eq!(self.disk.deadline(), None);
        assert_eq!(self.disk.units(), []);
        if bed.is_frank() {
            self.loans.check_all();
        }
        bed.see_counts(M::counts(&self.disk));
    }
}

impl<M: Adversary> Disks<M> {
    /// Time passes as its user lets it pass.
    fn pass(&mut self, bed: &mut Bed<M>, steps: usize) {
        for _ in 0..steps {
            self.work(bed);
            if !bed.call(|| self.disk.enable_interrupts())
                && let Some(deadline) = self.disk.deadline()
            {
                bed.now = bed.now.max(deadline);
            }
        }
    }

    fn complete(&mut self, bed: &mut Bed<M>, completion: &Completion) {
        let pages = self.outstanding.remove(&completion.tag.0);
        let Some(pages) = pages else { panic!("completed twice, or never taken: {completion:?}") };
        self.loans.give_back(&pages);
        bed.see(match completion.result {
            Ok(()) => 1,
            Err(IoError::Device { code }) => 0x1_0000 | u64::from(code >> 8),
            Err(IoError::TimedOut) => 2,
            Err(IoError::Unsupported) => 3,
            Err(IoError::Gone) => 4,
        });
    }

    fn submit(&mut self, bed: &mut Bed<M>, script: &mut Script<'_>) {
        let (choice, sector, length) = (script.byte(), script.byte(), script.byte());
        let operation = match choice & 7 {
            0..=2 => Operation::Read,
            3 | 4 => Operation::Write { force_unit_access: choice & 8 != 0 },
            5 => Operation::Flush,
            6 => Operation::Discard { secure: choice & 8 != 0 },
            _ => Operation::WriteZeroes,
        };
        let sectors = if operation == Operation::Flush { 0 } else { u32::from(length % 64) };
        let moves = matches!(operation, Operation::Read | Operation::Write { .. });
        let (data, pages) = if moves { self.data(sectors, choice & 16 != 0, script) } else { (Vec::new(), Vec::new()) };
        let sector = if choice & 32 != 0 { u64::from(sector & !7) } else { u64::from(sector) << (length >> 6 << 4) };
        let unit = UnitId(u16::from(choice >> 6));
        let command = Command { unit, operation, sector, sectors, data: &data, tag: Tag(self.next) };
        self.loans.lend(&pages, bed.is_frank());
        let taken = bed.call(|| self.disk.submit(&command));
        bed.see(match taken {
            Ok(taken) => {
                assert!(taken <= sectors && (taken > 0) == (sectors > 0), "{taken} of {sectors} sectors taken");
                self.outstanding.insert(self.next, pages);
                self.next += 1;
                0x40 + u64::from(taken == sectors)
            }
            Err(refusal) => {
                self.loans.give_back(&pages);
                match refusal {
                    Refusal::Full => 0x30,
                    Refusal::NoUnit => 0x31,
                    Refusal::Unsupported => 0x32,
                    Refusal::Malformed => 0x33,
                }
            }
        });
    }

    /// Pieces of pages, some of them of an odd shape, and the pages.
    fn data(&self, sectors: u32, odd: bool, script: &mut Script<'_>) -> (Vec<Segment>, Vec<usize>) {
        let (mut data, mut pages) = (Vec::new(), Vec::new());
        let mut left = sectors * 512;
        let mut page = usize::from(script.byte());
        while left > 0 {
            let offset = if odd { u32::from(script.byte() % 8) * 512 } else { 0 };
            let bytes = left.min(PAGE_SIZE as u32 - offset);
            let address = self.loans.address(page % PAGES) + u64::from(offset);
            data.push(Segment { address: DeviceAddress::made_up(address), bytes });
            pages.push(page % PAGES);
            left -= bytes;
            page += 1;
        }
        (data, pages)
    }
}
