//! A model as the registers of a driver under test, in one thread, over the memory of a fake hypervisor. Host.
//!
//! ```
//! use devices::fake::Device;
//! use devices::ixgbe::{Ixgbe, Kind};
//! use split_driver::fakes::FakeXen;
//! use split_driver::memory::Mmio;
//!
//! let xen = FakeXen::new();
//! let device = Device::new(&xen, Ixgbe::new(Kind::Sfp, [0x52, 0x54, 0, 0x12, 0x34, 0x56]));
//! assert_ne!(device.read32(devices::ixgbe::registers::STATUS), u32::MAX);
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use split_driver::fakes::{FakeDma, FakeXen};
use split_driver::memory::{DmaAllocator, Mmio, Reach};

use crate::advanced::BYTES;
use crate::bus::{Interrupt, Model, Transfer};
use crate::ring::offset;

/// How long an access of a register takes. Time moves by accesses and by [`Device::wait`], by nothing else.
const ACCESS: Duration = Duration::from_micros(1);
/// Batches done in a row: more than a driver can have queued.
const BATCHES: usize = 1 << 16;

/// A device. A clone is the same device: one for the driver, one for the test.
pub struct Device<M>(Rc<State<M>>);

impl<M> Clone for Device<M> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct State<M> {
    model: RefCell<M>,
    xen: FakeXen,
    dma: FakeDma,
    /// The base address register with the registers, and the bytes of it that are mapped.
    bar: usize,
    length: Cell<usize>,
    now: Cell<Duration>,
    lazy: Cell<bool>,
    discard: Cell<bool>,
    accesses: Cell<usize>,
    sent: RefCell<VecDeque<Vec<u8>>>,
    messages: RefCell<Vec<u16>>,
    line: Cell<bool>,
}

impl<M: Model> Device<M> {
    /// The device behind a bus that lets it reach the memory of `xen`; MSI-X is on, as after a bus driver.
    pub fn new(xen: &FakeXen, mut model: M) -> Self {
        let bar = model.configuration().identity().bars.registers();
        let length = model.configuration().identity().registers;
        // COMMAND: memory space and bus master; then MSI-X.
        model.write_configuration(4, &[6, 0]);
        model.write_configuration(0x73, &[0x80]);
        Self(Rc::new(State {
            model: RefCell::new(model),
            xen: xen.clone(),
            dma: xen.dma(),
            bar,
            length: Cell::new(usize::try_from(length).unwrap_or(0)),
            now: Cell::default(),
            lazy: Cell::default(),
            discard: Cell::default(),
            accesses: Cell::default(),
            sent: RefCell::default(),
            messages: RefCell::default(),
            line: Cell::default(),
        }))
    }

    /// The allocator of its memory.
    pub fn dma(&self) -> FakeDma {
        self.0.dma.clone()
    }

    /// Maps so many bytes of its registers, and no more.
    pub fn map(&self, bytes: usize) {
        self.0.length.set(bytes);
    }

    /// It interrupts by MSI-X (as at first), by MSI, or by its line.
    pub fn interrupt_by(&self, interrupt: Interrupt) {
        self.with_model(|model| {
            model.write_configuration(0x52, &[u8::from(interrupt == Interrupt::Msi)]);
            model.write_configuration(0x73, &[if matches!(interrupt, Interrupt::MsiX(_)) { 0x80 } else { 0 }]);
        });
    }

    /// Bus mastering on or off.
    pub fn set_bus_master(&self, on: bool) {
        self.with_model(|model| model.write_configuration(4, &[if on { 6 } else { 2 }, 0]));
    }

    /// From now on it reaches memory when told by [`Self::run`], not at each access.
    pub fn be_lazy(&self) {
        self.0.lazy.set(true);
    }

    /// From now on frames are not kept for [`Self::sent`].
    pub fn discard_sent(&self) {
        self.0.discard.set(true);
    }

    /// Time passes: what a driver's `delay` is to do.
    pub fn wait(&self, time: Duration) {
        self.0.now.set(self.0.now.get() + time);
        self.0.model.borrow_mut().handle_time(self.0.now.get());
        self.settle();
    }

    /// The time that has passed for the device.
    pub fn now(&self) -> Duration {
        self.0.now.get()
    }

    /// Does all that the device has to do.
    pub fn run(&self) {
        let mut model = self.0.model.borrow_mut();
        for _ in 0..BATCHES {
            let mut batch = model.poll_dma();
            if batch.is_empty() {
                break;
            }
            for transfer in &mut batch {
                self.transfer(transfer);
            }
            model.handle_dma(batch);
        }
        while let Some(frame) = model.poll_frame() {
            if !self.0.discard.get() {
                self.0.sent.borrow_mut().push_back(frame);
            }
        }
        self.collect(&mut *model);
    }

    /// The bus: no transfer crosses a page of the fake hypervisor's as one piece.
    fn transfer(&self, transfer: &mut Transfer) {
        let xen = &self.0.xen;
        let mut at = transfer.address;
        let mut done = true;
        let mut rest = transfer.data.as_mut_slice();
        while !rest.is_empty() && done {
            let room = xen_pv_sys::PAGE_SIZE - at as usize % xen_pv_sys::PAGE_SIZE;
            let length = room.min(rest.len());
            let (piece, later) = std::mem::take(&mut rest).split_at_mut(length);
            done = if transfer.write { xen.device_write(at, piece) } else { xen.device_read(at, piece) };
            at = at.wrapping_add(piece.len() as u64);
            rest = later;
        }
        transfer.done = done;
    }

    fn collect(&self, model: &mut M) {
        while let Some(interrupt) = model.poll_interrupt() {
            match interrupt {
                Interrupt::MsiX(vector) => self.0.messages.borrow_mut().push(vector),
                Interrupt::Msi => self.0.messages.borrow_mut().push(0),
                Interrupt::Line(up) => {
                    if up && !self.0.line.get() {
                        self.0.messages.borrow_mut().push(0);
                    }
                    self.0.line.set(up);
                }
            }
        }
    }

    fn settle(&self) {
        if self.0.lazy.get() {
            self.collect(&mut *self.0.model.borrow_mut());
        } else {
            self.run();
        }
    }

    /// A frame from the wire, without its frame check sequence. True where the device took it into its packet memory; it is in the
    /// driver's memory then, unless there is no descriptor or the device is lazy.
    pub fn inject(&self, frame: &[u8]) -> bool {
        let taken = self.0.model.borrow_mut().handle_frame(frame);
        self.settle();
        taken
    }

    /// The next frame that went to the wire.
    pub fn sent(&self) -> Option<Vec<u8>> {
        self.0.sent.borrow_mut().pop_front()
    }

    /// Vectors of the messages since the last call; 0 for MSI, and for the line where it was asserted.
    pub fn messages(&self) -> Vec<u16> {
        self.0.messages.take()
    }

    /// Whether the INTx line is asserted.
    pub fn line(&self) -> bool {
        self.0.line.get()
    }

    /// The driver's offences against the datasheet.
    pub fn misuse(&self) -> Vec<String> {
        self.0.model.borrow().misuse().to_vec()
    }

    /// Register accesses since the last call.
    pub fn accesses(&self) -> usize {
        self.0.accesses.take()
    }

    /// What a register holds, without the effects of reading it.
    pub fn peek(&self, offset: usize) -> u32 {
        self.0.model.borrow().peek(offset)
    }

    /// Sets what a register holds, without the effects of writing it.
    pub fn set(&self, offset: usize, value: u32) {
        self.0.model.borrow_mut().poke(offset, value);
    }

    /// Writes a descriptor, its status word last.
    pub fn write_descriptor(&self, address: u64, [low, high, status, length]: [u32; 4]) {
        self.0.xen.device_write_words(address, [(0, low), (1, high), (3, length), (2, status)]);
    }

    /// Where descriptor `index` of the ring lies whose first register is at `first_register`.
    pub fn descriptor(&self, first_register: usize, index: u32) -> u64 {
        let low = self.peek(first_register + offset::BASE);
        let high = self.peek(first_register + offset::BASE + 4);
        (u64::from(low) | u64::from(high) << 32).wrapping_add(u64::from(index) * BYTES as u64)
    }

    /// Does something with the model, and then what follows from it.
    pub fn with_model<T>(&self, act: impl FnOnce(&mut M) -> T) -> T {
        let result = act(&mut self.0.model.borrow_mut());
        self.settle();
        result
    }

    /// The cable is plugged in, or pulled.
    pub fn set_link(&self, up: bool) {
        self.with_model(|model| model.set_link(up));
    }

    /// Pulls it out: all registers read as ones, writes are lost.
    pub fn pull_out(&self) {
        self.with_model(|model| model.faults().pulled_out = true);
    }

    /// From now on a reset does not end.
    pub fn get_stuck(&self) {
        self.with_model(|model| model.faults().reset_stuck = true);
    }

    /// From now on it never says that its requests to memory have ended.
    pub fn stay_busy(&self) {
        self.with_model(|model| model.faults().master_stuck = true);
    }

    /// From now on a transmit queue fetches nothing.
    pub fn hang(&self, queue: u32) {
        self.with_model(|model| model.faults().hung_transmit |= 1u128.checked_shl(queue).unwrap_or(0));
    }

    fn touch(&self) {
        self.0.accesses.set(self.0.accesses.get() + 1);
        self.0.now.set(self.0.now.get() + ACCESS);
        self.0.model.borrow_mut().handle_time(self.0.now.get());
    }
}

impl<M: Model> Mmio for Device<M> {
    fn reach(&self) -> Reach {
        self.0.dma.reach().clone()
    }

    fn len(&self) -> usize {
        self.0.length.get()
    }

    // A function of its own, which profiles know.
    #[inline(never)]
    fn read32(&self, offset: usize) -> u32 {
        self.touch();
        if !offset.is_multiple_of(4) || offset >= self.0.length.get() {
            return u32::MAX;
        }
        let mut bytes = [0; 4];
        self.0.model.borrow_mut().read(self.0.bar, offset as u64, &mut bytes);
        self.settle();
        u32::from_le_bytes(bytes)
    }

    #[inline(never)]
    fn write32(&self, offset: usize, value: u32) {
        self.touch();
        if !offset.is_multiple_of(4) || offset >= self.0.length.get() {
            return;
        }
        self.0.model.borrow_mut().write(self.0.bar, offset as u64, &value.to_le_bytes());
        self.settle();
    }
}
