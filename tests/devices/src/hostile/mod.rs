//! A driver whose device answers nonsense: one life of it, as an input of bytes says. For properties and for the fuzzer. Host.
//!
//! | file | holds |
//! |---|---|
//! | here | a life, and what must hold in it |
//! | `loans` | pages that the driver was given for its requests |
//! | `disk` | the user of a disk's driver |
//! | `nvme`, `ahci` | what their devices do |
//! | `nic` | the user of a NIC's driver, and what NICs do |
//!
//! The device is a model that works. Between any two acts of it, anything may be written to its registers and to the driver's memory, or
//! another part of it fails. What must hold whatever it does:
//!
//! - nothing panics, and no call goes on for ever: none accesses more registers than [`Subject::ACCESSES`], or waits longer than
//!   [`Subject::TIME`];
//! - the driver's memory is bounded by [`Subject::REGIONS`], and all of it is back when the device is gone;
//! - a request is answered once, or refused; at the latest when the device is gone, all are answered and all pages are back;
//! - the device reaches no memory that its driver did not name, unless it writes the addresses itself ([`Bed::stray`]), and none of a request
//!   that has ended, unless it lied about that ([`Bed::lie`]).

mod ahci;
mod disk;
mod loans;
mod nic;
mod nvme;

use std::time::Duration;

use split_driver::fakes::device::{Script, scribbler};
use split_driver::fakes::{FakeXen, closed};
use split_driver::memory::{DmaAllocator, Quiesced};
use split_driver::time::Instant;

use crate::bus::Model;
use crate::fake::Device;
pub use disk::{Adversary, Disks};
pub use nic::{Card, Nics};

/// Acts of an input, at most.
const MOST_ACTS: usize = 256;

/// A driver under test, with the user of the driver.
pub trait Subject: Sized {
    /// Its device.
    type Model: Model + 'static;

    /// Acts of the device and of the driver's user that there are.
    const ACTS: u8;
    /// Register accesses that one call of the driver may take.
    const ACCESSES: usize;
    /// The same of a call in which the driver starts its device anew, or stops it for good.
    const LONG_ACCESSES: usize;
    /// Time that one call may take: guests wait meanwhile.
    const TIME: Duration;
    /// The same of a call in which the driver starts its device anew, or stops it for good.
    const LONG_TIME: Duration;
    /// Runs of DMA memory that the driver may hold.
    const REGIONS: usize;

    /// The device, just powered on, of a kind that the input's first byte says.
    fn power_on(choice: u8) -> Self::Model;

    /// Starts a driver. `None` where the device kept it from that, which it may.
    fn start(bed: &mut Bed<Self::Model>, script: &mut Script<'_>) -> Option<Self>;

    /// One of [`Self::ACTS`].
    fn act(&mut self, act: u8, bed: &mut Bed<Self::Model>, script: &mut Script<'_>);

    /// One step of the driver's work.
    fn work(&mut self, bed: &mut Bed<Self::Model>);

    /// The driver mends what it can, as long as its user would let it.
    fn recover(&mut self, bed: &mut Bed<Self::Model>);

    /// Stops the device.
    fn stop(&mut self, bed: &mut Bed<Self::Model>);

    /// The device no longer reaches memory.
    fn remove(&mut self, bed: &mut Bed<Self::Model>, proof: Quiesced);

    /// Requests that were taken and not answered, and pages that were not given back.
    fn owed(&self) -> usize;

    /// The life is over: what the driver says of it, and what must hold of a driver that has ended.
    fn tell(&mut self, bed: &mut Bed<Self::Model>);
}

/// What a driver and its device are in.
pub struct Bed<M> {
    /// Whose memory it is.
    pub xen: FakeXen,
    /// The device.
    pub device: Device<M>,
    /// The time that the driver is told.
    pub now: Instant,
    /// What was to be seen from outside, as numbers of any meaning.
    pub seen: Vec<u64>,
    /// Register accesses of a call, and of a long one, at most.
    accesses: [usize; 2],
    /// Time of a call, and of a long one, at most.
    times: [Duration; 2],
    /// The device may have said that it is done with memory, and not be.
    lies: bool,
    /// The device may reach for memory that its driver did not name.
    strays: bool,
}

impl<M: Model + 'static> Bed<M> {
    /// A call of the driver.
    pub fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        self.long_call(call, |_| false)
    }

    /// A call of the driver which started the device anew, or stopped it, where its result says so.
    pub fn long_call<T>(&self, call: impl FnOnce() -> T, is_long: impl FnOnce(&T) -> bool) -> T {
        let ([most, longest], [time, long_time]) = (self.accesses, self.times);
        self.bounded(call, |result| if is_long(result) { (longest, long_time) } else { (most, time) })
    }

    /// A call of the driver that looks at its device, with more accesses than others.
    pub fn look<T>(&self, most: usize, call: impl FnOnce() -> T) -> T {
        let [time, _] = self.times;
        self.bounded(call, |_| (most, time))
    }

    fn bounded<T>(&self, call: impl FnOnce() -> T, bounds: impl FnOnce(&T) -> (usize, Duration)) -> T {
        self.device.accesses();
        let before = self.device.now();
        let result = call();
        let (accesses, took) = (self.device.accesses(), self.device.now() - before);
        let (most, time) = bounds(&result);
        assert!(accesses <= most, "{accesses} accesses of registers in one call");
        assert!(took <= time, "one call took {took:?}");
        result
    }

    /// Something was to be seen.
    pub fn see(&mut self, what: u64) {
        self.seen.push(what);
    }

    /// Numbers, by their magnitude, each with its neighbour's.
    pub fn see_counts(&mut self, counts: impl IntoIterator<Item = u64>) {
        let mut before = 0;
        for (place, count) in (0u64..).zip(counts) {
            let magnitude = u64::from(u64::BITS - count.leading_zeros());
            self.see(1 << 48 | place << 32 | magnitude << 8 | before);
            before = magnitude;
        }
    }

    /// The device writes between any two looks of its driver, too: answers, among them.
    pub fn scribble(&mut self, seed: u32) {
        self.lie();
        self.xen.set_peer(Some(scribbler(seed)));
    }

    /// The device may say that it is done with memory, and not be: against that there is nothing.
    pub const fn lie(&mut self) {
        self.lies = true;
    }

    /// The device may reach for memory that its driver did not name: against that there is nothing but an IOMMU.
    pub const fn stray(&mut self) {
        self.lie();
        self.strays = true;
    }

    /// Whether the device is done with memory where it says so.
    pub const fn is_frank(&self) -> bool {
        !self.lies
    }
}

/// One life of a driver with a device that does what `input` says. What was to be seen goes into `seen`.
///
/// # Panics
/// Where something does not hold.
pub fn run<S: Subject>(input: &[u8], seen: &mut Vec<u64>) {
    let xen = FakeXen::new();
    let device = Device::new(&xen, S::power_on(input.first().copied().unwrap_or(0)));
    let (now, seen_before) = (Instant(0), std::mem::take(seen));
    let mut bed = Bed {
        xen,
        device,
        now,
        seen: seen_before,
        accesses: [S::ACCESSES, S::LONG_ACCESSES],
        times: [S::TIME, S::LONG_TIME],
        lies: false,
        strays: false,
    };
    live::<S>(&mut bed, input);
    *seen = bed.seen;
}

fn live<S: Subject>(bed: &mut Bed<S::Model>, input: &[u8]) {
    let mut script = Script::new(input);
    let Some(mut subject) = S::start(bed, &mut script) else {
        return;
    };
    for _ in 0..MOST_ACTS {
        if script.is_over() {
            break;
        }
        subject.act(script.byte() % S::ACTS, bed, &mut script);
        let regions = bed.xen.live().local_regions;
        assert!(regions <= S::REGIONS, "{regions} runs of memory are held");
    }
    // The last byte says how it ends, whatever else it says.
    let end = input.last().copied().unwrap_or(0);
    if end & 2 != 0 {
        subject.recover(bed);
    }
    let stopped = end & 1 != 0;
    if stopped {
        subject.stop(bed);
        subject.work(bed);
    }
    let removed = !stopped || subject.owed() > 0;
    if removed {
        bed.device.pull_out();
        subject.remove(bed, closed(bed.device.dma().reach()));
        subject.work(bed);
    }
    assert_eq!(subject.owed(), 0, "requests were not answered, or pages are lost");
    subject.tell(bed);
    drop(subject);
    // It goes on with what it has.
    bed.device.run();
    let violations = bed.xen.take_violations();
    assert!(bed.strays || violations.is_empty(), "memory of others was touched: {violations:?}");
    // What the device does not say that it has let go of is lost until it is taken away.
    assert!(!removed || bed.xen.live().local_regions == 0, "memory is lost");
}
