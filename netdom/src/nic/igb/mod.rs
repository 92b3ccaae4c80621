//! igb: Intel's 82576, 82580, I350, I210 and I211; the 82576 is what QEMU emulates. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `models` | the family: ids, and in what its kinds differ |
//! | `registers` | registers, typed and cited |
//! | `start` | stop, reset, set up |
//! | `interrupts` | enabled, handled |
//! | `phy` | the copper PHY: the link, flow control |
//!
//! Descriptors are those of [`super::advanced`]. No virtual functions, no VLAN filter, no wake-up: a bridge port needs none of them.
//!
//! The PHY is left as its strapping and the firmware set it, but for one that has no link, or does not advertise pause frames: it is turned
//! on, and negotiates anew. What is done about pause frames says [`super::pause`]; without a PHY that tells, they are not obeyed.

mod interrupts;
pub mod models;
mod phy;
pub mod registers;
mod start;

use super::advanced::queues::places;
use super::driver::Driver;
use super::family::{ABSENT, Direction, Family, Setup, counter};
use super::ledger::Ledger;
use super::pause::Pause;
use super::ring::left::Places;
use super::semaphores::Semaphores;
use super::{Delay, Error, Interrupts, Link, NicStatistics, Options, advanced};
use crate::packet::Pool;
use core::cell::Cell;
use models::Model;
use registers as reg;
use split_driver::memory::{DmaAllocator, Mmio};
use split_driver::time::Instant;

/// A started device.
pub type Igb<M, A> = Driver<M, A, Hardware>;

/// A device of the family.
pub struct Hardware {
    model: &'static Model,
    semaphores: Semaphores,
    /// Firmware had the PHY when it was to be begun with.
    pending: Cell<bool>,
}

impl Hardware {
    pub(super) fn new(model: &'static Model, ledger: &Ledger) -> Self {
        Self { model, semaphores: phy::semaphores(ledger), pending: Cell::new(false) }
    }
}

impl<M: Mmio, A: DmaAllocator> Igb<M, A> {
    /// Starts the device behind `mmio`, see [`Driver::start`]. `delay` waits 1 ms, 10 ms for its
    /// memory to be read and 5 ms for a link, where they take so long.
    ///
    /// # Errors
    /// [`Error`], with the device stopped.
    pub fn new(
        mmio: M,
        dma: A,
        model: &'static Model,
        interrupts: Interrupts,
        pool: &Pool,
        options: Options,
        delay: Delay<'_>,
    ) -> Result<Self, Error> {
        let hardware = Hardware::new(model, &options.ledger);
        Self::start(mmio, dma, hardware, interrupts, pool, options, delay)
    }
}

impl Family for Hardware {
    type Format = advanced::Igb;
    const NAME: &'static str = "igb";
    const REGISTERS: usize = reg::SPACE;

    fn name(&self) -> &'static str {
        self.model.name
    }

    fn max_frame(&self) -> usize {
        self.model.max_frame()
    }

    fn queues(&self) -> usize {
        self.model.queues()
    }

    fn link<M: Mmio>(&self, mmio: &M) -> Link {
        let status = reg::STATUS.read(mmio, 0);
        if u32::from(status) == ABSENT || !status.link_up() {
            return Link::Down;
        }
        Link::Up(match status.speed() {
            0 => 10,
            1 => 100,
            _ => 1000,
        })
    }

    fn watch<M: Mmio>(&self, mmio: &M, _now: Instant, delay: Delay<'_>) {
        self.semaphores.give_back(mmio);
        if self.pending.get() {
            self.pending.set(!phy::begin(mmio, &self.semaphores, delay));
        }
    }

    fn settle_pause<M: Mmio>(&self, mmio: &M, setup: &Setup) -> Option<Pause> {
        phy::settle_pause(mmio, self.model, &self.semaphores, setup.max_frame)
    }

    fn pauses<M: Mmio>(&self, mmio: &M) -> u64 {
        counter(reg::XOFFRXC.read(mmio, 0))
    }

    fn count<M: Mmio>(&self, mmio: &M, queues: usize, counted: &mut NicStatistics) {
        if u32::from(reg::STATUS.read(mmio, 0)) == ABSENT {
            return;
        }
        let read =
            |list: &[reg::Reg<u32>]| -> u64 { list.iter().map(|register| u64::from(register.read(mmio, 0))).sum() };
        counted.receive_errors += read(&[reg::CRCERRS, reg::ALGNERRC, reg::RXERRC, reg::RLEC]);
        counted.receive_missed += read(&[reg::MPC]);
        counted.receive_oversize += read(&[reg::ROC]);
        counted.transmit_errors += read(&[reg::ECOL, reg::LATECOL]);
        for queue in 0..queues {
            let missed = reg::RQDPC.read(mmio, reg::receive(queue));
            counted.receive_missed += u64::from(missed);
            if missed != 0 && !self.model.clears_missed() {
                reg::RQDPC.write(mmio, reg::receive(queue), 0);
            }
        }
    }

    fn places<M: Mmio>(&self, mmio: &M, queue: usize) -> Places {
        places(mmio, reg::transmit(queue), reg::receive(queue))
    }

    fn take_back<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) {
        self.semaphores.take_back(mmio, delay);
    }

    fn write_tail<M: Mmio>(&self, mmio: &M, queue: usize, direction: Direction, index: u16) {
        match direction {
            Direction::Transmit => reg::TDT.write(mmio, reg::transmit(queue), u32::from(index)),
            Direction::Receive => reg::RDT.write(mmio, reg::receive(queue), u32::from(index)),
        }
    }
}
