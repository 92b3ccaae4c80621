//! ixgbe: Intel's 82599 (X520), X540 and X550. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `models` | the family: ids, and in what its kinds differ |
//! | `registers` | registers, typed and cited |
//! | `start` | stop, reset, set up |
//! | `interrupts` | enabled, handled |
//! | `flow` | flow control |
//! | `mdio` | a copper PHY, and the semaphores that are shared with firmware |
//! | `cage`, `module` | an 82599's SFP+ module: which one it is, and its set-up |
//! | `i2c`, `nvm` | the wires to it, and the card's memory with what it needs |
//!
//! Descriptors are those of [`super::advanced`]. No LinkSec, no IPsec, no virtual functions, no RSC: a bridge port needs none of them.
//! What is done about pause frames says [`super::pause`].
//!
//! The link comes up as the non-volatile memory and the PHY's firmware set it. An SFP+ module in the cage of an 82599 is set up by its kind.
//!
//! Not done: QSFP+ cages, whose bus the ports share (their ids are not here); the interrupt of SDP1 for optics of both speeds, which are tried in
//! turn instead; LEDs, which stay as the non-volatile memory has them.

mod cage;
mod flow;
mod i2c;
mod interrupts;
mod mdio;
pub mod models;
mod module;
mod nvm;
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
use alloc::string::String;
use cage::Cage;
use core::cell::Cell;
use models::{Kind, Model};
use registers as reg;
use split_driver::memory::{DmaAllocator, Mmio};
use split_driver::time::Instant;

/// Queues that are used at most: as many as the entries of the redirection table name.
pub const QUEUES: usize = 16;

/// A started device.
pub type Ixgbe<M, A> = Driver<M, A, Hardware>;

/// A device of the family.
pub struct Hardware {
    model: &'static Model,
    semaphores: Semaphores,
    cage: Cage,
    /// Firmware had the copper PHY when it was to be begun with.
    pending: Cell<bool>,
}

impl Hardware {
    pub(super) fn new(model: &'static Model, ledger: &Ledger) -> Self {
        Self { model, semaphores: mdio::semaphores(model, ledger), cage: Cage::default(), pending: Cell::new(false) }
    }
}

impl<M: Mmio, A: DmaAllocator> Ixgbe<M, A> {
    /// Starts the device behind `mmio`, see [`Driver::start`]. `delay` waits 10 ms, and longer for a device that is slow.
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
    type Format = advanced::Ixgbe;
    const NAME: &'static str = "ixgbe";
    const REGISTERS: usize = reg::SPACE;
    const INSERTS_ALWAYS: bool = true;

    fn name(&self) -> &'static str {
        self.model.name
    }

    fn max_frame(&self) -> usize {
        self.model.max_frame()
    }

    fn queues(&self) -> usize {
        QUEUES
    }

    fn link<M: Mmio>(&self, mmio: &M) -> Link {
        let links = reg::LINKS.read(mmio, 0);
        if u32::from(links) == ABSENT || !links.up() || self.cage.is_crosstalk(mmio) {
            return Link::Down;
        }
        let other = self.model.kind == Kind::X550 && links.other_speeds();
        Link::Up(match (links.speed(), other) {
            (1, true) => 5000,
            (1, false) => 100,
            (2, _) => 1000,
            (3, true) => 2500,
            (0 | 3.., _) => 10_000,
        })
    }

    fn watch<M: Mmio>(&self, mmio: &M, now: Instant, delay: Delay<'_>) {
        self.semaphores.give_back(mmio);
        if self.pending.get() {
            self.pending.set(!mdio::begin(mmio, self.model, &self.semaphores, delay));
        }
        if self.model.kind == Kind::I82599Fibre {
            self.cage.watch(mmio, &self.semaphores, now, self.link(mmio) != Link::Down, delay);
        }
    }

    fn next_look(&self) -> Option<Instant> {
        self.cage.next_look()
    }

    fn module(&self) -> Option<String> {
        self.cage.module()
    }

    fn settle_pause<M: Mmio>(&self, mmio: &M, setup: &Setup) -> Option<Pause> {
        flow::settle(mmio, self.model, &self.semaphores, setup.max_frame)
    }

    fn pauses<M: Mmio>(&self, mmio: &M) -> u64 {
        counter(reg::LXOFFRXCNT.read(mmio, 0))
    }

    fn count<M: Mmio>(&self, mmio: &M, queues: usize, counted: &mut NicStatistics) {
        if u32::from(reg::STATUS.read(mmio, 0)) == ABSENT {
            return;
        }
        let read =
            |list: &[reg::Reg<u32>]| -> u64 { list.iter().map(|register| u64::from(register.read(mmio, 0))).sum() };
        counted.receive_errors += read(&[reg::CRCERRS, reg::ILLERRC, reg::RLEC]);
        counted.receive_missed += read(&[reg::MPC]);
        counted.receive_oversize += read(&[reg::ROC]);
        for queue in 0..queues {
            counted.receive_missed += u64::from(reg::QPRDC.read(mmio, reg::receive(queue) + reg::QPRDC_BLOCK));
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
