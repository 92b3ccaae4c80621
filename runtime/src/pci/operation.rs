//! Operations on pciback, by way of the one page shared with it (`struct xen_pci_sharedinfo`, `io/pciif.h`). Safe code. Floor 2.

use super::config::Width;
use super::error::PciError;
use crate::events::Channel;
use crate::grants::Grant;
use crate::time::{self, Duration, Elapsed, Instant};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Poll, Waker};
use pci_types::PciAddress;
use split_driver::memory::SharedMemory;
use xen_pv_sys::io::pciif::{
    PciFlags, SH_INFO_MAX_VEC, XEN_PCI_ERR_DEV_NOT_FOUND, XEN_PCI_OP_CONF_READ, XEN_PCI_OP_CONF_WRITE,
    XEN_PCI_OP_ENABLE_MSIX,
};

/// Set by us, cleared by pciback when it is done.
const ACTIVE: PciFlags = PciFlags::FRONTEND_ACTIVE;

/// The words of the shared page: all fields but `msix_entries` are 32 bits wide, and an entry is one word, its pirq the low half.
mod word {
    use core::mem::offset_of;
    use xen_pv_sys::io::pciif::{PciOp, PciSharedInfo};

    const OP: usize = offset_of!(PciSharedInfo, op);
    pub(super) const FLAGS: usize = offset_of!(PciSharedInfo, flags) / 4;
    pub(super) const COMMAND: usize = (OP + offset_of!(PciOp, cmd)) / 4;
    pub(super) const ERROR: usize = (OP + offset_of!(PciOp, err)) / 4;
    pub(super) const DOMAIN: usize = (OP + offset_of!(PciOp, domain)) / 4;
    pub(super) const BUS: usize = (OP + offset_of!(PciOp, bus)) / 4;
    pub(super) const DEVFN: usize = (OP + offset_of!(PciOp, devfn)) / 4;
    pub(super) const OFFSET: usize = (OP + offset_of!(PciOp, offset)) / 4;
    pub(super) const SIZE: usize = (OP + offset_of!(PciOp, size)) / 4;
    pub(super) const VALUE: usize = (OP + offset_of!(PciOp, value)) / 4;
    pub(super) const INFO: usize = (OP + offset_of!(PciOp, info)) / 4;
    pub(super) const ENTRIES: usize = (OP + offset_of!(PciOp, msix_entries)) / 4;
}

/// How long pciback may take. It answers within a millisecond where dom0 runs at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What to ask.
pub(super) struct Operation {
    command: u32,
    address: PciAddress,
    offset: u16,
    size: u32,
    value: u32,
}

impl Operation {
    pub(super) fn read(address: PciAddress, offset: u16, width: Width) -> Self {
        Self { offset, size: width.bytes(), ..Self::of(address, XEN_PCI_OP_CONF_READ, 0) }
    }

    pub(super) fn write(address: PciAddress, offset: u16, width: Width, value: u32) -> Self {
        Self { offset, size: width.bytes(), ..Self::of(address, XEN_PCI_OP_CONF_WRITE, value) }
    }

    /// One that is about the device as a whole.
    pub(super) fn of(address: PciAddress, command: u32, value: u32) -> Self {
        Self { command, address, offset: 0, size: 0, value }
    }
}

/// How pciback is told of an operation, and its event awaited.
pub(super) trait Doorbell {
    fn now(&self) -> Instant;
    fn notify(&self);
    /// Waits for an event, until `deadline`.
    async fn wait_until(&self, deadline: Instant) -> Result<(), Elapsed>;
}

impl Doorbell for Channel {
    fn now(&self) -> Instant {
        time::now()
    }

    fn notify(&self) {
        Self::notify(self);
    }

    async fn wait_until(&self, deadline: Instant) -> Result<(), Elapsed> {
        time::timeout_at(deadline, self.wait()).await
    }
}

/// The connection to pciback: one operation at a time.
pub(super) struct Bus<M = Grant, D = Channel> {
    page: M,
    doorbell: D,
    busy: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// The right to use the page; the next in line is woken when it is dropped.
struct Turn<'a, M, D>(&'a Bus<M, D>);

impl<M, D> Drop for Turn<'_, M, D> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }
}

impl Bus {
    /// The page's reference and the channel's port, for the store.
    pub(super) fn published(&self) -> (u32, u32) {
        (self.page.reference().0, self.doorbell.port().0)
    }
}

impl<M: SharedMemory, D: Doorbell> Bus<M, D> {
    /// Over a zeroed page, granted to the backend, and a channel for it to bind to.
    pub(super) fn new(page: M, doorbell: D) -> Self {
        Self { page, doorbell, busy: Cell::new(false), waiting: RefCell::default() }
    }

    /// Waits until no operation is under way.
    pub(super) async fn rest(&self) {
        drop(self.turn().await);
    }

    async fn turn(&self) -> Turn<'_, M, D> {
        poll_fn(|context| {
            if self.busy.replace(true) {
                self.waiting.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        Turn(self)
    }

    fn put(&self, index: usize, value: u32) {
        if let Some(word) = self.page.words().get(index) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The word, to be loaded now, once: pciback may write to the page between any two looks.
    fn look(&self, index: usize) -> Option<&AtomicU32> {
        self.page.look(index..index + 1).first()
    }

    fn get(&self, index: usize) -> u32 {
        self.look(index).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn active(&self) -> bool {
        self.look(word::FLAGS).is_some_and(|flags| flags.load(Ordering::Acquire) & ACTIVE.bits() != 0)
    }

    /// Waits until pciback is done with what it was asked.
    async fn idle(&self, deadline: Instant) -> Result<(), Elapsed> {
        while self.active() {
            let waited = self.doorbell.wait_until(deadline).await;
            if waited.is_err() && self.active() {
                return Err(Elapsed);
            }
        }
        Ok(())
    }

    /// Puts the operation and `entries` into the page and waits for the answer, which stays in the page as long as `turn` is held.
    async fn perform(&self, _turn: &Turn<'_, M, D>, operation: &Operation, entries: &[u16]) -> Result<u32, PciError> {
        let deadline = self.doorbell.now() + TIMEOUT;
        let timeout = |Elapsed| PciError::Timeout { command: operation.command };
        // An operation that was given up may still be under way: writing over it would mix two answers.
        self.idle(deadline).await.map_err(timeout)?;
        let address = operation.address;
        self.put(word::COMMAND, operation.command);
        self.put(word::ERROR, 0);
        self.put(word::DOMAIN, u32::from(address.segment()));
        self.put(word::BUS, u32::from(address.bus()));
        self.put(word::DEVFN, u32::from(address.device()) << 3 | u32::from(address.function()));
        self.put(word::OFFSET, u32::from(operation.offset));
        self.put(word::SIZE, operation.size);
        self.put(word::VALUE, operation.value);
        self.put(word::INFO, 0);
        for (index, entry) in entries.iter().take(SH_INFO_MAX_VEC).enumerate() {
            self.put(word::ENTRIES + index, u32::from(*entry) << 16 | 0xffff);
        }
        if let Some(flags) = self.look(word::FLAGS) {
            flags.fetch_or(ACTIVE.bits(), Ordering::Release);
        }
        self.doorbell.notify();
        self.idle(deadline).await.map_err(timeout)?;
        match self.get(word::ERROR).cast_signed() {
            0 => Ok(self.get(word::VALUE)),
            XEN_PCI_ERR_DEV_NOT_FOUND => Err(PciError::NotFound),
            error => Err(PciError::Refused { command: operation.command, error }),
        }
    }

    /// Asks, and returns the answer's `value`.
    pub(super) async fn call(&self, operation: &Operation) -> Result<u32, PciError> {
        let turn = self.turn().await;
        self.perform(&turn, operation, &[]).await
    }

    /// Turns on MSI-X for table entries 0 up to `vectors`, and returns the pirq of each.
    pub(super) async fn enable_msix(&self, address: PciAddress, vectors: u16) -> Result<Vec<u32>, PciError> {
        let entries: Vec<u16> = (0..vectors).collect();
        let operation = Operation::of(address, XEN_PCI_OP_ENABLE_MSIX, u32::from(vectors));
        let turn = self.turn().await;
        // A value above zero says how many vectors there are, where that is too few.
        match self.perform(&turn, &operation, &entries).await? {
            0 => Ok((0..entries.len().min(SH_INFO_MAX_VEC))
                .map(|index| self.get(word::ENTRIES + index) & 0xffff)
                .collect()),
            available => Err(PciError::Refused { command: XEN_PCI_OP_ENABLE_MSIX, error: available.cast_signed() }),
        }
    }
}

#[cfg(test)]
mod tests;
