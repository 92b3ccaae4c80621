//! The driver that all families share: queues, interrupts that are enabled and handled, faults, and the end. Floor 3.
//!
//! In what the families differ is their [`Family`]: registers, and the order in which they want them written.

use super::queue::{Queue, Shared};
use super::ring::{Format, Ring};
use super::wiring::Wiring;
use super::{
    Capabilities, Causes, Delay, Error, Fault, Interrupts, Link, Nic, NicQueue, NicStatistics, Options, STANDARD_FRAME,
};
use crate::ethernet::MacAddress;
use crate::packet::Pool;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio, Quiesced};
use split_driver::time::Instant;

/// What a read of a register that is not there gives.
pub(super) const ABSENT: u32 = u32::MAX;

/// Repeats `done` until it is true, at most `times`, `pause` apart.
pub(super) fn wait(delay: Delay<'_>, pause: Duration, times: u32, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..times {
        if done() {
            return true;
        }
        delay(pause);
    }
    done()
}

/// What a device is to be set up for.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Queues.
    pub queues: usize,
    /// Bytes of the largest frame, frame check sequence not included.
    pub max_frame: usize,
    /// Where interrupts arrive.
    pub wiring: Wiring,
    /// Whether segmentation is left to the device.
    pub segmentation: super::Segmentation,
    /// Keys the hash by which flows are spread over queues.
    pub seed: u64,
}

/// Which interrupts of a queue are to be enabled.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    /// The queue.
    pub queue: usize,
    /// A cause of frames that were taken already may be set.
    pub stale: bool,
    /// Packets sent are to interrupt; and whether they were to before.
    pub transmit: bool,
    /// Whether they were to before.
    pub transmit_before: bool,
}

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Frames in.
    Receive,
    /// Packets out.
    Transmit,
}

/// A family of devices: the registers, and the order in which they are written.
///
/// A start is `reset`, `prepare`, for each queue `start_transmit` and `start_receive`, and `enable`.
pub trait Family {
    /// How its descriptors say a thing.
    type Format: Format;
    /// The driver's name.
    const NAME: &'static str;
    /// Bytes of registers needed.
    const REGISTERS: usize;

    /// The device's name.
    fn name(&self) -> &'static str;
    /// Bytes of the largest frame, frame check sequence not included.
    fn max_frame(&self) -> usize;
    /// The most queues.
    fn queues(&self) -> usize;
    /// Stops both directions and all interrupts, and waits until no request to memory is under way. `None` where the device does not say
    /// so.
    fn stop<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Option<Quiesced>;
    /// Resets the device, from whatever state it was left in; gives its address.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Reset`], [`Error::Address`].
    fn reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error>;
    /// Sets up all that is not of one queue, interrupts disabled.
    fn prepare<M: Mmio>(&self, mmio: &M, setup: &Setup);
    /// Sets up a transmit ring, empty.
    ///
    /// # Errors
    /// [`Error::Stuck`].
    fn start_transmit<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        queue: usize,
        ring: &Ring<D>,
        delay: Delay<'_>,
    ) -> Result<(), Error>;
    /// Sets up a receive ring, empty.
    ///
    /// # Errors
    /// [`Error::Stuck`].
    fn start_receive<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        queue: usize,
        ring: &Ring<D>,
        delay: Delay<'_>,
    ) -> Result<(), Error>;
    /// Lets frames in, as a bridge port must: every frame, whoever it is for; and begins with the link, where nobody has.
    fn enable<M: Mmio>(&self, mmio: &M, setup: &Setup, delay: Delay<'_>);
    /// What it does for packets.
    fn capabilities(&self, setup: &Setup) -> Capabilities;
    /// The link now.
    fn link<M: Mmio>(&self, mmio: &M) -> Link;
    /// See [`Nic::handle_interrupt`]. `None` where the device is gone.
    fn handle_interrupt<M: Mmio>(&self, mmio: &M, wiring: Wiring, vector: usize) -> Option<Causes>;
    /// See [`NicQueue::arm`].
    fn arm<M: Mmio>(&self, mmio: &M, wiring: Wiring, arm: Arm);
    /// Sets the least time between two interrupts of a queue's packets.
    fn moderate<M: Mmio>(&self, mmio: &M, wiring: Wiring, queue: usize, interval: Duration);
    /// Adds what the device counted since it was asked last.
    fn count<M: Mmio>(&self, mmio: &M, queues: usize, counted: &mut NicStatistics);
    /// Tells the device how far a ring is filled. All that was written to memory before is there already.
    fn write_tail<M: Mmio>(&self, mmio: &M, queue: usize, direction: Direction, index: u16);
}

/// A started device of a family. `M` are its registers (BAR 0), `A` gives the memory of its rings.
pub struct Driver<M: Mmio, A: DmaAllocator, F: Family> {
    shared: Rc<Shared<M, F>>,
    queues: Vec<Queue<M, A::Memory, F>>,
    setup: Setup,
    dma: A,
    pool: Pool,
    address: MacAddress,
    capabilities: Capabilities,
    counted: NicStatistics,
    /// The device no longer reaches memory, and the buffers went back.
    quiesced: Option<Quiesced>,
}

impl<M: Mmio, A: DmaAllocator, F: Family> Driver<M, A, F> {
    /// Resets the device behind `mmio` and starts it: it receives into pages of `pool` from here on, interrupts disabled.
    /// Memory access by the device (bus mastering) must be enabled. The link may come up later.
    ///
    /// # Errors
    /// [`Error`], with the device stopped.
    pub fn start(
        mmio: M,
        dma: A,
        family: F,
        interrupts: Interrupts,
        pool: &Pool,
        options: Options,
        delay: Delay<'_>,
    ) -> Result<Self, Error> {
        if mmio.len() < F::REGISTERS {
            return Err(Error::Registers { mapped: mmio.len(), needed: F::REGISTERS });
        }
        if options.max_frame > family.max_frame() || options.max_frame < STANDARD_FRAME {
            return Err(Error::MaxFrame { asked: options.max_frame, limit: family.max_frame() });
        }
        let wiring = Wiring::new(interrupts);
        let queues = options.queues.clamp(1, family.queues().min(wiring.queues()));
        let setup = Setup {
            queues,
            max_frame: options.max_frame,
            wiring,
            segmentation: options.segmentation,
            seed: options.seed,
        };
        let address = family.reset(&mmio, delay)?;
        let rings: Result<Vec<_>, Error> = (0..queues)
            .map(|_| {
                let transmit = Ring::allocate(&dma, options.transmit_descriptors)?;
                Ok((transmit, Ring::allocate(&dma, options.receive_descriptors)?))
            })
            .collect();
        let rings = rings?;
        let capabilities = family.capabilities(&setup);
        log::info!(
            "{}: {}, {queues} queues, segmentation of IPv4 {}, of IPv6 {}",
            F::NAME,
            family.name(),
            capabilities.tso_v4,
            capabilities.tso_v6
        );
        let shared = Rc::new(Shared { mmio, family, wiring, pool: pool.clone(), halted: Cell::new(false) });
        let queues = rings.into_iter().enumerate();
        let queues =
            queues.map(|(index, (transmit, receive))| Queue::new(&shared, index, transmit, receive, setup.max_frame));
        let mut driver = Self {
            queues: queues.collect(),
            shared,
            setup,
            dma,
            pool: pool.clone(),
            address,
            capabilities,
            counted: NicStatistics::default(),
            quiesced: None,
        };
        driver.run(delay)?;
        Ok(driver)
    }

    /// From a reset to a device that sends and receives.
    fn run(&mut self, delay: Delay<'_>) -> Result<(), Error> {
        let Shared { mmio, family, .. } = &*self.shared;
        family.prepare(mmio, &self.setup);
        for queue in &mut self.queues {
            queue.start(delay)?;
        }
        // Reading clears: earlier owners left behind what this one does not count.
        family.count(mmio, self.queues.len(), &mut NicStatistics::default());
        for queue in &mut self.queues {
            queue.refill(&self.pool);
        }
        family.enable(mmio, &self.setup, delay);
        Ok(())
    }

    /// The device's family.
    pub fn family(&self) -> &F {
        &self.shared.family
    }
}

impl<M: Mmio, A: DmaAllocator, F: Family> Nic for Driver<M, A, F> {
    fn mac_address(&self) -> MacAddress {
        self.address
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn link(&mut self) -> Link {
        self.shared.family.link(&self.shared.mmio)
    }

    fn queues(&self) -> usize {
        self.queues.len()
    }

    fn queue(&mut self, index: usize) -> Option<&mut dyn NicQueue> {
        self.queues.get_mut(index).map(|queue| queue as &mut dyn NicQueue)
    }

    fn handle_interrupt(&mut self, vector: usize) -> Causes {
        let shared = &*self.shared;
        if shared.halted.get() {
            return Causes::default();
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if shared.wiring.concerns(vector, index) {
                queue.disarmed();
            }
        }
        shared.family.handle_interrupt(&shared.mmio, shared.wiring, vector).unwrap_or_else(|| {
            log::warn!("{}: the device is gone", F::NAME);
            shared.halted.set(true);
            Causes { link: true, ..Causes::default() }
        })
    }

    fn watch(&mut self, now: Instant) -> Option<Fault> {
        if self.shared.halted.get() {
            return None;
        }
        let up = self.link() != Link::Down;
        let mut hang = None;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if queue.hangs(up, now) {
                hang = Some(Fault::TransmitHang(index));
            }
        }
        hang
    }

    fn restart(&mut self, delay: Delay<'_>) -> Result<(), Error> {
        let proof = self.shared.family.stop(&self.shared.mmio, delay);
        self.shared.halted.set(true);
        let proof = proof.ok_or(Error::Running)?;
        for queue in &mut self.queues {
            queue.clear(&proof);
        }
        self.shared.family.reset(&self.shared.mmio, delay)?;
        self.shared.halted.set(false);
        self.run(delay)
    }

    fn statistics(&mut self) -> NicStatistics {
        self.shared.family.count(&self.shared.mmio, self.queues.len(), &mut self.counted);
        let mut sum = self.counted;
        for queue in &self.queues {
            queue.count(&mut sum);
        }
        sum
    }

    fn quiesce(&mut self) {
        // Each read of a register takes a device's time, so no clock is needed to bound the wait.
        let proof = self.shared.family.stop(&self.shared.mmio, &mut |_| ());
        self.shared.halted.set(true);
        if let Some(proof) = proof {
            self.release(proof);
        } else if self.quiesced.is_none() {
            log::warn!(
                "{}: it does not say that it has stopped: its buffers wait until its bus mastering ends",
                F::NAME
            );
        }
    }

    fn release(&mut self, proof: Quiesced) {
        self.shared.halted.set(true);
        if self.dma.release(&proof) {
            for queue in &mut self.queues {
                queue.clear(&proof);
            }
            self.quiesced = Some(proof);
        }
    }
}

impl<M: Mmio, A: DmaAllocator, F: Family> Drop for Driver<M, A, F> {
    /// A running device would go on writing to pages that are no longer its own.
    fn drop(&mut self) {
        if !self.shared.halted.get() {
            self.quiesce();
        }
        if self.quiesced.is_none() {
            let lost: usize = self.queues.iter_mut().map(Queue::abandon).sum();
            log::error!("{}: {lost} buffers are lost: the device may still write to them", F::NAME);
        }
    }
}
