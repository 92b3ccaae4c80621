//! The driver that all families share: queues, interrupts that are enabled and handled, faults, and the end. Floor 3.
//!
//! In what the families differ is their [`Family`]: registers, and the order in which they want them written.

use super::family::{Family, Setup, settle};
use super::ledger::Ledger;
use super::pause::Pause;
use super::queue::{Queue, Shared};
use super::ring::Ring;
use super::wiring::Wiring;
use super::{
    Capabilities, Causes, Delay, Error, Fault, Interrupts, Link, Nic, NicQueue, NicStatistics, Options, STANDARD_FRAME,
};
use crate::ethernet::MacAddress;
use crate::packet::Pool;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;
use split_driver::memory::{DmaAllocator, Mmio, Quiesced};
use split_driver::time::Instant;

/// How long packets are left in the rings without a link: one that flickers costs none.
const STRANDED: Duration = Duration::from_secs(2);

/// A started device of a family. `M` are its registers (BAR 0), `A` gives the memory of its rings.
pub struct Driver<M: Mmio, A: DmaAllocator, F: Family> {
    shared: Rc<Shared<M, F>>,
    queues: Vec<Queue<M, A::Memory, F>>,
    setup: Setup,
    dma: A,
    pool: Pool,
    address: MacAddress,
    capabilities: Capabilities,
    ledger: Ledger,
    /// The link as it was told last.
    known: Link,
    /// What is done about pause frames, once it is known.
    pause: Option<Pause>,
    /// Packets are left in its rings without a link, since then.
    stranded: Option<Instant>,
    /// Pauses that had been counted when the transmitters were looked at.
    pauses_seen: u64,
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
            strip_tags: false,
            seed: options.seed,
            keep_link: options.taken_over,
        };
        let address = if options.taken_over {
            family.end_reset(&mmio, delay)?
        } else {
            // An earlier life may have had it, and not written down that it had.
            settle(&family, &mmio, &options.ledger);
            family.take_back(&mmio, delay);
            family.reset(&mmio, delay)?
        };
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
        let shared = Rc::new(Shared {
            mmio,
            family,
            wiring,
            pool: pool.clone(),
            halted: Cell::new(false),
            waiting: Cell::new(0),
        });
        let queues = rings.into_iter().enumerate();
        let queues =
            queues.map(|(index, (transmit, receive))| Queue::new(&shared, index, transmit, receive, &capabilities));
        let mut driver = Self {
            queues: queues.collect(),
            shared,
            setup,
            dma,
            pool: pool.clone(),
            address,
            capabilities,
            ledger: options.ledger,
            known: Link::Down,
            pause: None,
            stranded: None,
            pauses_seen: 0,
            quiesced: None,
        };
        driver.pauses_seen = driver.ledger.counted().pauses;
        driver.ledger.set_rings(driver.queues.iter().map(Queue::rings).collect());
        driver.run(delay)?;
        // Later resets are of a device that has a fault.
        driver.setup.keep_link = false;
        Ok(driver)
    }

    /// From a reset to a device that sends and receives.
    fn run(&mut self, delay: Delay<'_>) -> Result<(), Error> {
        let Shared { mmio, family, .. } = &*self.shared;
        family.prepare(mmio, &self.setup);
        for queue in &mut self.queues {
            queue.start(delay)?;
        }
        family.strip_tags(mmio, self.queues.len(), self.setup.strip_tags);
        // Reading clears: earlier owners left behind what this one does not count.
        family.count(mmio, self.queues.len(), &mut NicStatistics::default());
        family.pauses(mmio);
        (self.known, self.pause) = (Link::Down, None);
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
        let Shared { mmio, family, halted, .. } = &*self.shared;
        let link = family.link(mmio);
        if link != Link::Down && link != self.known && !halted.get() {
            self.pause = family.settle_pause(mmio, &self.setup);
        }
        self.known = link;
        link
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

    fn module(&self) -> Option<String> {
        self.shared.family.module()
    }

    fn next_look(&self) -> Option<Instant> {
        self.shared.family.next_look().filter(|_| !self.shared.halted.get())
    }

    fn watch(&mut self, now: Instant, delay: Delay<'_>) -> Option<Fault> {
        if self.shared.halted.get() {
            return None;
        }
        self.shared.family.watch(&self.shared.mmio, now, delay);
        let up = self.link() != Link::Down;
        if up && self.pause.is_none() {
            // Firmware had the PHY when the link came up.
            self.pause = self.shared.family.settle_pause(&self.shared.mmio, &self.setup);
        }
        let mut counted = self.ledger.counted();
        counted.pauses += self.shared.family.pauses(&self.shared.mmio);
        self.queues.iter_mut().for_each(|queue| queue.count(&mut counted));
        self.ledger.set_counted(counted);
        let paused = self.pause.is_some_and(|pause| pause.obey) && counted.pauses != self.pauses_seen;
        self.pauses_seen = counted.pauses;
        let mut hang = None;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if queue.hangs(up && !paused, now) {
                hang = Some(Fault::TransmitHang(index));
            }
        }
        // Packets of now are not to be sent when the link returns, nor pages to be held until then (Linux: `e1000_watchdog_task`).
        if up || self.queues.iter().all(Queue::is_idle) {
            self.stranded = None;
        } else if now >= *self.stranded.get_or_insert(now) + STRANDED {
            self.stranded = None;
            return Some(Fault::NoLink);
        }
        hang
    }

    fn restart(&mut self, delay: Delay<'_>) -> Result<(), Error> {
        let Shared { mmio, family, halted, .. } = &*self.shared;
        let mut proof = family.stop(mmio, delay);
        halted.set(true);
        settle(family, mmio, &self.ledger);
        if proof.is_none() {
            // Without a link a device may not end what it has begun. A reset ends it.
            family.reset(mmio, delay)?;
            proof = family.stop(mmio, delay);
        }
        let proof = proof.ok_or(Error::Running)?;
        for queue in &mut self.queues {
            queue.clear(&proof);
        }
        self.shared.family.reset(&self.shared.mmio, delay)?;
        self.shared.halted.set(false);
        self.run(delay)
    }

    fn set_vlan_stripping(&mut self, on: bool) {
        if on == self.setup.strip_tags {
            return;
        }
        self.setup.strip_tags = on;
        let Shared { mmio, family, halted, .. } = &*self.shared;
        self.capabilities = family.capabilities(&self.setup);
        if !halted.get() {
            family.strip_tags(mmio, self.queues.len(), on);
            // The write is done when a read is.
            let _link = family.link(mmio);
        }
        for queue in &mut self.queues {
            queue.set_tags(on, self.capabilities.vlan_insertion);
        }
    }

    fn statistics(&mut self) -> NicStatistics {
        let Shared { mmio, family, .. } = &*self.shared;
        let mut counted = self.ledger.counted();
        family.count(mmio, self.queues.len(), &mut counted);
        counted.pauses += family.pauses(mmio);
        self.queues.iter_mut().for_each(|queue| queue.count(&mut counted));
        self.ledger.set_counted(counted);
        counted
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
