//! e1000e: Intel's 82571 to 82574, 82583, I217 to I219; the 82574L is what QEMU emulates. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `models` | the family: ids, and in what its kinds differ |
//! | `registers` | registers, typed and cited |
//! | `descriptors` | what its descriptors say |
//! | `start` | stop, reset, set up |
//! | `interrupts` | enabled, handled |
//! | `pch` | what the I217 to I219 want beside |
//! | `phy` | what the PHY negotiated |
//! | `serdes` | the link of an 82571 without a PHY, and what was negotiated over it |
//! | `flow` | flow control |
//!
//! One queue each way. No VLAN filter, no RSS, no wake-up: a bridge port needs none of them. The PHY is left as its strapping
//! and the firmware set it; pause frames are obeyed and sent as it negotiated (see [`super::pause`]), or as the MAC did over fibre
//! and a backplane, which begin anew with each reset. A device that is pulled out reads as all ones: nothing here waits for it.
//!
//! # What is not done for the I217 to I219
//! - Their PHY is not reset, and its workarounds are left to the firmware: K1 (the sleep of the bus between MAC and PHY, off and on
//!   with the speed of the link), ULP (the sleep without a cable, which the firmware ends), EEE, and the tuning for each speed.
//! - Before a reset of an I219 Linux sends a descriptor of its own where register 0xE4 of the PCI configuration space says that
//!   old ones are stuck. Here the ring of an earlier owner must not be touched, and a device that does not stop is given up.
//! - LTR and OBFF, which tell the platform how long it may sleep.
//!
//! # What QEMU does that hardware does not
//! - Before 8.0, `CTRL.RST` resets nothing, and segmentation comes out as *IP fragments* of one TCP segment, for IPv6 as
//!   pieces that no receiver understands. The first is how the second is told: see [`Segmentation`].
//! - It sends within the write to the tail register: what was flushed can be reclaimed at once.
//! - It writes completed checksums into the pages of the packet: pages that others hold too are not handed to it.
//! - It starts a throttling timer with each interrupt and delays the next by 128 us at least; so interrupts are asked for
//!   sparingly, and for sent packets only where somebody waits. Once it has delayed one, 7.2 sends a second message 128 us
//!   after each (its `eitr_intr_pending` stays set): they find nothing and cost a wake-up.
//! - `ICR.OTHER` stands for every cause without a vector, enabled or not.

pub mod descriptors;
pub(super) mod flow;
mod interrupts;
pub mod models;
mod pch;
mod phy;
pub mod registers;
mod serdes;
mod start;

use super::driver::Driver;
use super::family::{ABSENT, Direction, Family, Setup, counter};
use super::ledger::Ledger;
use super::pause::Pause;
use super::ring::left::{Place, Places};
use super::{Capabilities, Delay, Error, Interrupts, Link, NicStatistics, Options, Segmentation};
use crate::packet::Pool;
use core::cell::Cell;
use descriptors::Extended;
use models::Model;
use registers::{self as reg, Registers};
use split_driver::memory::{DmaAllocator, Mmio};
use split_driver::time::Instant;

/// A started device.
pub type E1000e<M, A> = Driver<M, A, Hardware>;

/// A device of the family.
pub struct Hardware {
    model: &'static Model,
    /// Says whether the bus to the PHY is held, where that outlives a reset.
    ledger: Ledger,
    /// Its reset is none.
    hollow: Cell<bool>,
    /// The other end of a SerDes link did not negotiate when it was looked at last.
    alone: Cell<bool>,
}

impl Hardware {
    pub(super) fn new(model: &'static Model, ledger: &Ledger) -> Self {
        Self { model, ledger: ledger.clone(), hollow: Cell::new(false), alone: Cell::new(false) }
    }
}

impl<M: Mmio, A: DmaAllocator> E1000e<M, A> {
    /// Starts the device behind `mmio`, see [`Driver::start`]. `delay` waits 20 ms where it is an I217 to I219.
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
    type Format = Extended;
    const NAME: &'static str = "e1000e";
    const REGISTERS: usize = reg::SPACE;

    fn name(&self) -> &'static str {
        self.model.name
    }

    fn max_frame(&self) -> usize {
        self.model.max_frame()
    }

    fn queues(&self) -> usize {
        1
    }

    fn capabilities(&self, setup: &Setup) -> Capabilities {
        let segments = self.model.segments() && setup.segmentation != Segmentation::Off;
        Capabilities {
            checksum_v4: true,
            checksum_v6: true,
            tso_v4: segments,
            tso_v6: segments && (!self.hollow.get() || setup.segmentation == Segmentation::On),
            vlan_stripping: true,
            vlan_insertion: setup.strip_tags,
            max_frame: setup.max_frame,
        }
    }

    fn link<M: Mmio>(&self, mmio: &M) -> Link {
        let status = Registers(mmio).read(reg::STATUS);
        if u32::from(status) == ABSENT || !status.link_up() {
            return Link::Down;
        }
        if self.model.serdes && !serdes::is_up(&Registers(mmio)) {
            return Link::Down;
        }
        Link::Up(match status.speed() {
            0 if !self.model.serdes => 10,
            1 if !self.model.serdes => 100,
            _ => 1000,
        })
    }

    fn watch<M: Mmio>(&self, mmio: &M, _now: Instant, _delay: Delay<'_>) {
        if self.model.serdes {
            self.alone.set(serdes::watch(&Registers(mmio), self.alone.get()));
        }
    }

    fn settle_pause<M: Mmio>(&self, mmio: &M, setup: &Setup) -> Option<Pause> {
        flow::settle(&Registers(mmio), self.model, &self.ledger, setup.max_frame)
    }

    fn pauses<M: Mmio>(&self, mmio: &M) -> u64 {
        counter(Registers(mmio).read(reg::XOFFRXC))
    }

    fn count<M: Mmio>(&self, mmio: &M, _queues: usize, counted: &mut NicStatistics) {
        let registers = Registers(mmio);
        if u32::from(registers.read(reg::STATUS)) == ABSENT {
            return;
        }
        let read =
            |list: &[reg::Reg<u32>]| -> u64 { list.iter().map(|register| u64::from(registers.read(*register))).sum() };
        let received = [reg::CRCERRS, reg::ALGNERRC, reg::RXERRC, reg::CEXTERR, reg::RLEC];
        counted.receive_errors += read(&received);
        counted.receive_missed += read(&[reg::MPC]);
        counted.receive_oversize += read(&[reg::ROC]);
        counted.transmit_errors += read(&[reg::ECOL, reg::LATECOL]);
    }

    fn places<M: Mmio>(&self, mmio: &M, _queue: usize) -> Places {
        let read = |register| Registers(mmio).read(register);
        Places {
            transmit: Place { bytes: read(reg::TDLEN), head: read(reg::TDH) },
            receive: Place { bytes: read(reg::RDLEN), head: read(reg::RDH) },
        }
    }

    fn take_back<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) {
        phy::take_back(&Registers(mmio), self.model, &self.ledger, delay);
    }

    /// While the firmware of a PCH uses the register bus a write may be lost, so it is waited out; it holds the bus for microseconds.
    fn write_tail<M: Mmio>(&self, mmio: &M, _queue: usize, direction: Direction, index: u16) {
        let registers = Registers(mmio);
        if self.model.is_pch() {
            for _ in 0..200 {
                if !registers.read(reg::FWSM).arbiter_busy() {
                    break;
                }
            }
        }
        let tail = match direction {
            Direction::Transmit => reg::TDT,
            Direction::Receive => reg::RDT,
        };
        registers.write(tail, u32::from(index));
    }
}
