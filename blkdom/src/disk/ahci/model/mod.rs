//! A model of an AHCI adapter for tests, fuzzers and measurements: it does what the specification says, and worse where told to.
//! Host only.
//!
//! | file | holds |
//! |---|---|
//! | here | the adapter's registers, and what tests tell it |
//! | `port` | ports: registers, command lists, links |
//! | `drive` | drives: commands and their data |
//! | `hostile` | an adapter that does anything |
//!
//! It reads and writes memory through [`FakeXen`], which notes each access to what is not the driver's.

mod drive;
pub mod hostile;
mod port;

pub use drive::{Drive, Trap};
pub use port::Quirks;

use super::command::Task;
use super::registers::{self as reg, Bohc, Cap, Cap2, Ghc, PortStatus};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use port::Port;
use split_driver::fakes::{FakeDma, FakeXen};
use split_driver::memory::{DmaAllocator, Mmio, Reach};

/// Ports of the model.
pub const PORTS: usize = 6;

/// A command that a port has read.
#[derive(Clone, Debug)]
struct Fetched {
    slot: u8,
    task: Task,
    pieces: Vec<(u64, usize)>,
}

impl Fetched {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| *bytes as u64).sum()
    }
}

/// How often the driver did what costs time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Reads of any register.
    pub reads: usize,
    /// Writes of any register.
    pub writes: usize,
}

/// The device. A clone is the same device: one for the driver, one for the test.
#[derive(Clone)]
pub struct Device(Rc<RefCell<State>>);

struct State {
    xen: FakeXen,
    dma: FakeDma,
    capabilities: Cap,
    control: Ghc,
    status: u32,
    implemented: u32,
    more: Cap2,
    owner: Bohc,
    ports: [Port; PORTS],
    overrides: BTreeMap<usize, u32>,
    misuse: Vec<&'static str>,
    accesses: Accesses,
    messages: usize,
    lazy: bool,
    gone: bool,
    /// Resets that will not come to an end.
    bad_resets: u32,
    bytes: usize,
}

impl Device {
    /// An adapter of six ports with 32 slots each, and no drives.
    pub fn new(xen: &FakeXen) -> Self {
        let capabilities = Cap::new()
            .with_ports(PORTS as u8 - 1)
            .with_slots(31)
            .with_ahci_only(true)
            .with_queuing(true)
            .with_long_addresses(true);
        Self(Rc::new(RefCell::new(State {
            xen: xen.clone(),
            dma: xen.dma(),
            capabilities,
            control: Ghc::new().with_ahci(true),
            status: 0,
            implemented: (1 << PORTS) - 1,
            more: Cap2::new(),
            owner: Bohc::new(),
            ports: Default::default(),
            overrides: BTreeMap::new(),
            misuse: Vec::new(),
            accesses: Accesses::default(),
            messages: 0,
            lazy: false,
            gone: false,
            bad_resets: 0,
            bytes: reg::PORTS + PORTS * reg::PORT_BYTES,
        })))
    }

    /// The allocator of its memory.
    pub fn dma(&self) -> FakeDma {
        self.0.borrow().dma.clone()
    }

    fn with_port<T>(
        &self,
        port: usize,
        act: impl FnOnce(&mut Port, &FakeXen, &mut Vec<&'static str>) -> T,
    ) -> Option<T> {
        let mut state = self.0.borrow_mut();
        let State { ports, xen, misuse, .. } = &mut *state;
        let result = ports.get_mut(port).map(|port| act(port, xen, misuse));
        state.work();
        result
    }

    fn with_drive<T>(&self, port: usize, act: impl FnOnce(&mut Drive) -> T) -> Option<T> {
        self.with_port(port, |port, _, _| port.drive.as_mut().map(act)).flatten()
    }

    /// Sets what CAP reads as.
    pub fn set_capabilities(&self, change: impl FnOnce(Cap) -> Cap) {
        let mut state = self.0.borrow_mut();
        state.capabilities = change(state.capabilities);
    }

    /// Sets which ports there are, one bit each.
    pub fn implement(&self, ports: u32) {
        self.0.borrow_mut().implemented = ports;
    }

    /// The firmware has the adapter, and lets go of it when asked or not.
    pub fn own_by_firmware(&self) {
        let mut state = self.0.borrow_mut();
        state.more = Cap2::new().with_handoff(true);
        state.owner = Bohc::new().with_firmware_owns(true);
    }

    /// BOHC, as it is now.
    pub fn owner(&self) -> Bohc {
        self.0.borrow().owner
    }

    /// Bytes of registers.
    pub fn set_bytes(&self, bytes: usize) {
        self.0.borrow_mut().bytes = bytes;
    }

    /// A drive is plugged in.
    pub fn plug_in(&self, port: usize, drive: Drive) {
        self.with_port(port, |port, _, _| {
            port.drive = Some(drive);
            port.reconnect();
        });
    }

    /// A drive is pulled out.
    pub fn unplug(&self, port: usize) -> Option<Drive> {
        self.with_port(port, |port, _, _| {
            port.disconnect();
            port.drive.take()
        })?
    }

    /// The link goes, or comes back, while the drive stays.
    pub fn cut_link(&self, port: usize, cut: bool) {
        self.with_port(port, |port, _, _| {
            port.unlinked = cut;
            if cut { port.disconnect() } else { port.reconnect() }
        });
    }

    /// The drive shows itself, and does not talk.
    pub fn be_mute(&self, port: usize, mute: bool) {
        self.with_port(port, |port, _, _| port.mute = mute);
    }

    /// An error of the link or of memory.
    pub fn break_down(&self, port: usize, status: PortStatus) {
        self.with_port(port, |port, _, _| port.fail(status));
    }

    /// What a port does worse than it should.
    pub fn set_quirks(&self, port: usize, quirks: Quirks) {
        self.with_port(port, |port, _, _| port.quirks = quirks);
    }

    /// The next `times` commands upon a block fail with this error register.
    pub fn fail(&self, port: usize, block: u64, error: u8, times: u32) {
        self.with_drive(port, |drive| drive.fail(block, error, times));
    }

    /// What becomes of commands upon a block from now on.
    pub fn set_trap(&self, port: usize, block: u64, trap: Trap) {
        self.with_drive(port, |drive| drive.set_trap(block, trap));
    }

    /// No command fails any more.
    pub fn forgive(&self, port: usize) {
        self.with_drive(port, Drive::forgive);
    }

    /// From now on commands are read and not answered, or no longer so: then those that wait are, too.
    pub fn be_deaf(&self, port: usize, deaf: bool) {
        self.with_drive(port, |drive| drive.deaf = deaf);
    }

    /// The drive is busy for so many reads of PxTFD.
    pub fn be_busy(&self, port: usize, reads: u32) {
        self.with_drive(port, |drive| drive.busy = reads);
    }

    /// The drive says something else of itself.
    pub fn set_word(&self, port: usize, at: usize, value: u16) {
        self.with_drive(port, |drive| drive.set_word(at, value));
    }

    /// The drive has another size.
    pub fn resize(&self, port: usize, blocks: u64) {
        self.with_drive(port, |drive| drive.resize(blocks));
    }

    /// What reads give, and what a loss of power leaves.
    pub fn contents(&self, port: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        self.with_drive(port, |drive| (drive.medium.data.clone(), drive.medium.durable.clone()))
    }

    /// Commands of the driver's user that were carried out since this was asked last.
    pub fn executed(&self, port: usize) -> Vec<Task> {
        self.with_drive(port, |drive| core::mem::take(&mut drive.executed)).unwrap_or_default()
    }

    /// From now on commands are read, and carried out when told by [`Self::work_at`].
    pub fn be_lazy(&self, lazy: bool) {
        let mut state = self.0.borrow_mut();
        state.lazy = lazy;
        state.work();
    }

    /// Carries out the command at a place among those read. False where there is none.
    pub fn work_at(&self, port: usize, place: usize) -> bool {
        self.with_port(port, |port, xen, misuse| port.work_at(xen, place, misuse)).unwrap_or(false)
    }

    /// Commands read and not carried out.
    pub fn waiting(&self, port: usize) -> usize {
        self.with_port(port, |port, _, _| port.inbox.len()).unwrap_or(0)
    }

    /// Sets bits of PxCI and PxSACT as if commands were at work.
    pub fn forge(&self, port: usize, issued: u32, active: u32) {
        self.with_port(port, |port, _, _| port.forge(issued, active));
    }

    /// Sets bits of PxIS.
    pub fn raise(&self, port: usize, status: PortStatus) {
        self.with_port(port, |port, _, _| port.raise(status));
    }

    /// Pulls the adapter out: all registers read as ones, writes are lost, nothing is done.
    pub fn pull_out(&self) {
        self.0.borrow_mut().gone = true;
    }

    /// The next resets do not come to an end.
    pub fn fail_resets(&self, count: u32) {
        self.0.borrow_mut().bad_resets = count;
    }

    /// What a register reads as from now on, whatever it is; `None` as before.
    pub fn set_register(&self, offset: usize, value: Option<u32>) {
        let mut state = self.0.borrow_mut();
        match value {
            Some(value) => state.overrides.insert(offset, value),
            None => state.overrides.remove(&offset),
        };
    }

    /// Messages sent since this was asked last.
    pub fn messages(&self) -> usize {
        core::mem::take(&mut self.0.borrow_mut().messages)
    }

    /// What the driver did against the specification.
    pub fn misuse(&self) -> Vec<&'static str> {
        self.0.borrow().misuse.clone()
    }

    /// What the driver did since this was asked last.
    pub fn accesses(&self) -> Accesses {
        core::mem::take(&mut self.0.borrow_mut().accesses)
    }

    /// Whether no port works, and no interrupt is to come.
    pub fn is_quiet(&self) -> bool {
        let state = self.0.borrow();
        !state.control.interrupts() && state.ports.iter().all(Port::is_quiet)
    }
}

impl State {
    /// Does what is to be done, and tells of it.
    fn work(&mut self) {
        for port in &mut self.ports {
            while !self.lazy && port.work_at(&self.xen, 0, &mut self.misuse) {}
        }
        self.tell();
    }

    /// Sends a message where a port has something new to say.
    fn tell(&mut self) {
        let mut now = self.status;
        for (place, port) in self.ports.iter().enumerate() {
            now |= u32::from(port.interrupts()) << place;
        }
        if now & !self.status != 0 && self.control.interrupts() {
            self.messages += 1;
        }
        self.status = now;
    }

    fn set_control(&mut self, control: Ghc) {
        if !control.reset() {
            // No message for what came while they were disabled: some adapters send none.
            self.control = control.with_ahci(true);
            return;
        }
        if let Some(left) = self.bad_resets.checked_sub(1) {
            self.bad_resets = left;
            self.control = self.control.with_reset(true);
            return;
        }
        self.control = Ghc::new();
        self.status = 0;
        for port in &mut self.ports {
            port.reset();
        }
    }

    fn register(&mut self, offset: usize) -> u32 {
        match offset {
            0x00 => self.capabilities.into(),
            0x04 => self.control.into(),
            0x08 => self.status,
            0x0C => self.implemented,
            0x10 => 0x0001_0301,
            0x24 => self.more.into(),
            0x28 => self.owner.into(),
            reg::PORTS.. => {
                let (port, offset) = ((offset - reg::PORTS) / reg::PORT_BYTES, offset % reg::PORT_BYTES);
                self.ports.get_mut(port).map_or(0, |port| port.read(offset))
            }
            _ => 0,
        }
    }

    fn write(&mut self, offset: usize, value: u32) {
        match offset {
            0x04 => self.set_control(Ghc::from(value)),
            0x08 => self.status &= !value,
            0x28 => {
                let asked = Bohc::from(value).system_owns();
                self.owner = self.owner.with_system_owns(asked).with_firmware_owns(!asked);
            }
            reg::PORTS.. => {
                let (port, offset) = ((offset - reg::PORTS) / reg::PORT_BYTES, offset % reg::PORT_BYTES);
                if self.implemented >> port & 1 == 0 || !self.control.ahci() {
                    self.misuse.push("a write to a port that is not there, or without AHCI");
                }
                if let Some(port) = self.ports.get_mut(port) {
                    port.write(&self.xen, offset, value, &mut self.misuse);
                }
            }
            _ => self.misuse.push("a write to a register that cannot be written"),
        }
        self.work();
    }
}

impl Mmio for Device {
    fn reach(&self) -> Reach {
        self.dma().reach().clone()
    }

    fn len(&self) -> usize {
        self.0.borrow().bytes
    }

    fn read32(&self, offset: usize) -> u32 {
        let mut state = self.0.borrow_mut();
        state.accesses.reads += 1;
        if state.gone {
            return u32::MAX;
        }
        match state.overrides.get(&offset) {
            Some(value) => *value,
            None => state.register(offset),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut state = self.0.borrow_mut();
        state.accesses.writes += 1;
        if !state.gone {
            state.write(offset, value);
        }
    }
}
