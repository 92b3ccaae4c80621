//! Flushes that a device fails: tried again, and where that does not help, the end of all writing. Floor 3.
//!
//! A guest cannot be trusted to hear of a flush that failed. Linux takes `BLKIF_RSP_ERROR` to a flush without data for "cannot be done":
//! it flushes no more, and reports success to its file system (`blkif_interrupt`, `drivers/block/xen-blkfront.c`). So a flush is
//! answered late rather than with an error. If there must be an error, every later write has one, too: those are believed, and a
//! file system stops where its journal still tells the truth.

use super::DataPath;
use super::operation::{Kind, Owner, Stage};
use super::statistics::Failure;
use super::vbd::Vbd;
use crate::blkback::journal::Mark;
use alloc::collections::VecDeque;
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::DeviceId;

/// From a failure to the next try: long enough for a controller to be reset in between, and no load for one that is not well.
const PAUSE: Duration = Duration::from_secs(1);
/// From the first failure on it is tried so long: a drive that finds a spare block, or a link that comes back, takes seconds. Far below the two
/// minutes after which Linux complains about whoever waits (`hung_task_timeout_secs`).
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests that wait until their flush is tried again, the first to be tried first: all wait equally long.
#[derive(Debug, Default)]
pub(crate) struct Retries(VecDeque<(Instant, Owner)>);

impl Retries {
    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    /// The next one that is due.
    fn next(&mut self, now: Instant) -> Option<Owner> {
        self.0.pop_front_if(|(at, _)| *at <= now).map(|(_, owner)| owner)
    }

    /// Forgets a vbd's: it waits for none of them.
    pub(crate) fn forget(&mut self, index: u16) {
        self.0.retain(|(_, owner)| owner.vbd != index);
    }
}

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// Queues the flushes that are due to be tried again.
    pub(super) fn retry_flushes(&mut self) {
        while let Some(owner) = self.retries.next(self.now) {
            if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(owner.vbd))
                && vbd.operations.owner(owner).is_some()
            {
                self.queue(owner.vbd, owner.operation);
            }
        }
    }

    /// A request has no command in flight, and its flush failed. True where that is tried again; else it is to be answered, and its vbd
    /// writes no more.
    pub(super) fn handle_failed_flush(&mut self, index: u16, number: u16) -> bool {
        let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
            return false;
        };
        let owner = vbd.operations.name(index, number, 0);
        let Some(operation) = vbd.operations.get_mut(number).filter(|operation| operation.stage != Stage::Data) else {
            return false;
        };
        let Some(failure) = operation.failure.filter(|_| !vbd.undurable) else {
            return false;
        };
        let last = *operation.patience.get_or_insert(self.now + PATIENCE);
        if matches!(failure, Failure::Device | Failure::TimedOut) && self.now < last {
            operation.failure = None;
            operation.enter(operation.stage);
            self.retries.0.push_back((self.now + PAUSE, owner));
            return true;
        }
        vbd.stop_writing(failure);
        false
    }
}

impl<H: Hypervisor + Keep> Vbd<H> {
    /// What was acknowledged may be lost: all that writes, or vouches for what was written, fails from now on, whatever the disk says.
    fn stop_writing(&mut self, failure: Failure) {
        self.undurable = true;
        self.mark(Mark::Undurable);
        for number in 0..self.operations.limit() {
            if let Some(operation) = self.operations.get_mut(number)
                && operation.kind != Kind::Read
            {
                operation.failure = Some(Failure::Undurable);
            }
        }
        let device = DeviceId { frontend: self.config.domain, handle: self.config.handle };
        log::error!(
            "vbd {device}: what was written could not be made durable ({}): refusing writes until it is attached anew",
            failure.name()
        );
    }
}
