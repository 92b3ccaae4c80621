//! e1000e: Intel's 82571 to 82574, 82583, I217 to I219; the 82574L is what QEMU emulates. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `models` | the family: ids, and in what its kinds differ |
//! | `registers` | registers, typed and cited |
//! | `descriptors` | descriptors and rings |
//! | `start` | stop, reset, set up |
//! | `interrupts`, `moderation` | which cause goes where, and how often |
//! | `transmit`, `offload` | packets out: checksums and segmentation by the device |
//! | `receive` | frames in |
//!
//! One queue each way. No flow control, no VLAN filter, no RSS, no wake-up: a bridge port needs none of them. The PHY is left
//! as its strapping and the firmware set it. A device that is pulled out reads as all ones: nothing here waits for it.
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
mod interrupts;
pub mod models;
mod moderation;
mod offload;
mod receive;
pub mod registers;
mod start;
mod transmit;

#[cfg(any(test, feature = "fakes"))]
pub mod model;
#[cfg(test)]
mod nonsense;
#[cfg(test)]
mod tests;

use crate::ethernet::MacAddress;
use crate::nic::{Capabilities, Causes, FRAME_HEADERS, Link, Nic, NicStatistics};
use crate::offload::headers::Layout;
use crate::packet::{Packet, Pool};
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use descriptors::{DESCRIPTOR_BYTES, Ring};
pub use interrupts::Interrupts;
use interrupts::Wiring;
use models::{Kind, Model};
use moderation::Moderation;
use receive::Receive;
use registers::{self as reg, Registers};
use split_driver::memory::{DmaAllocator, Mmio, Quiesced};
use start::ABSENT;
use transmit::Transmit;

/// Bytes of the largest frame without jumbo frames.
pub const STANDARD_FRAME: usize = 1500 + FRAME_HEADERS;

/// Whether segmentation is left to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// Where what comes out is something that any receiver takes. With QEMU before 8.0 that is IPv4.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Wherever the device says that it can.
    On,
}

/// Choices of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Transmit descriptors: a multiple of 8 from 64 to 4,096.
    pub transmit_descriptors: u16,
    /// Receive descriptors, each with a page behind it: a multiple of 8 from 64 to 4,096.
    pub receive_descriptors: u16,
    /// Bytes of the largest frame, frame check sequence not included: [`STANDARD_FRAME`], or more for jumbo frames.
    pub max_frame: usize,
    /// Whether segmentation is left to the device.
    pub segmentation: Segmentation,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            transmit_descriptors: 512,
            receive_descriptors: 256,
            max_frame: STANDARD_FRAME,
            segmentation: Segmentation::Auto,
        }
    }
}

/// Why a device could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The registers are fewer than the family has.
    Registers {
        /// Bytes mapped.
        mapped: usize,
    },
    /// There is no device behind the registers.
    Absent {
        /// What STATUS reads as.
        status: u32,
    },
    /// The device did not come out of its reset within 10 ms.
    Reset {
        /// What EEC reads as.
        eec: u32,
    },
    /// The device has no usable address.
    Address {
        /// What it gives as its address.
        address: MacAddress,
    },
    /// A ring cannot have that many descriptors.
    Ring {
        /// Descriptors asked for.
        descriptors: u16,
    },
    /// The device cannot carry frames of that size, or a frame could not be smaller.
    MaxFrame {
        /// Bytes asked for.
        asked: usize,
        /// The most it can.
        limit: usize,
    },
    /// No memory for a ring.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Registers { mapped } => {
                write!(formatter, "{mapped} bytes of registers are mapped, {} are needed", reg::SPACE)
            }
            Self::Absent { status } => write!(formatter, "no device answers: STATUS reads as {status:#x}"),
            Self::Reset { eec } => write!(formatter, "the reset did not end within 10 ms: EEC reads as {eec:#x}"),
            Self::Address { address } => write!(formatter, "{address} is no address of a station"),
            Self::Ring { descriptors } => write!(formatter, "a ring cannot have {descriptors} descriptors"),
            Self::MaxFrame { asked, limit } => {
                write!(formatter, "frames of {asked} bytes are not possible, the limit is {limit}")
            }
            Self::Memory { bytes } => write!(formatter, "no memory for a ring of {bytes} bytes"),
        }
    }
}

impl core::error::Error for Error {}

/// A started device. `M` are its registers (BAR 0), `A` gives the memory of its rings.
pub struct E1000e<M: Mmio, A: DmaAllocator> {
    registers: Registers<M>,
    model: &'static Model,
    wiring: Wiring,
    transmit: Transmit<A::Memory>,
    receive: Receive<A::Memory>,
    dma: A,
    moderation: Moderation,
    pool: Pool,
    address: MacAddress,
    capabilities: Capabilities,
    counted: NicStatistics,
    /// What TDT was last told.
    told: u16,
    /// Interrupts were enabled, for sent packets too where so, and none was handled since.
    armed: bool,
    transmit_armed: bool,
    /// Stopped, or pulled out.
    halted: bool,
    /// The device no longer reaches memory, and the buffers went back.
    quiesced: Option<Quiesced>,
}

impl<M: Mmio, A: DmaAllocator> E1000e<M, A> {
    /// Resets the device behind `mmio` and starts it: it receives into pages of `pool` from here on, interrupts disabled.
    /// Memory access by the device (bus mastering) must be enabled. `delay` waits, microseconds at a time, 20 ms where the
    /// device is an I217 to I219. The link may come up later.
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
        delay: &mut dyn FnMut(Duration),
    ) -> Result<Self, Error> {
        if mmio.len() < reg::SPACE {
            return Err(Error::Registers { mapped: mmio.len() });
        }
        if options.max_frame > model.max_frame() || options.max_frame < STANDARD_FRAME {
            return Err(Error::MaxFrame { asked: options.max_frame, limit: model.max_frame() });
        }
        let registers = Registers(mmio);
        let reset = start::reset(&registers, model, delay)?;
        let address = start::address(&registers)?;
        let transmit = ring(&dma, options.transmit_descriptors)?;
        let receive = ring(&dma, options.receive_descriptors)?;
        start::prepare(&registers, model, options.max_frame);
        start::transmit(&registers, &transmit);
        start::receive(&registers, &receive, model, options.max_frame);
        let wiring = Wiring::new(interrupts);
        wiring.set_up(&registers, model);
        let segments = model.segments() && options.segmentation != Segmentation::Off;
        let tso_v6 = segments && (!reset.hollow || options.segmentation == Segmentation::On);
        log::info!("e1000e: {}, segmentation of IPv4 {segments}, of IPv6 {tso_v6}", model.name);
        let mut nic = Self {
            transmit: Transmit::new(transmit, options.max_frame),
            receive: Receive::new(receive, options.max_frame),
            moderation: Moderation::default(),
            pool: pool.clone(),
            capabilities: Capabilities {
                checksum_v4: true,
                checksum_v6: true,
                tso_v4: segments,
                tso_v6,
                max_frame: options.max_frame,
            },
            counted: NicStatistics::default(),
            told: 0,
            armed: false,
            transmit_armed: false,
            halted: false,
            dma,
            quiesced: None,
            registers,
            model,
            wiring,
            address,
        };
        // Reading clears: what earlier owners left behind is not ours.
        let _earlier = nic.statistics();
        nic.counted = NicStatistics::default();
        nic.refill(pool);
        Ok(nic)
    }

    /// Which device it is.
    pub const fn model(&self) -> &'static Model {
        self.model
    }

    /// Writes a tail register, after everything written to memory before. While the firmware of a hub uses the register
    /// bus such a write may be lost, so it is waited out; it holds the bus for microseconds.
    fn write_tail(&self, register: reg::Reg<u32>, index: u16) {
        fence(Ordering::SeqCst);
        if self.model.kind == Kind::Hub {
            for _ in 0..200 {
                if !self.registers.read(reg::FWSM).arbiter_busy() {
                    break;
                }
            }
        }
        self.registers.write(register, u32::from(index));
    }
}

fn ring<A: DmaAllocator>(dma: &A, descriptors: u16) -> Result<Ring<A::Memory>, Error> {
    if !(64..=4096).contains(&descriptors) || !descriptors.is_multiple_of(8) {
        return Err(Error::Ring { descriptors });
    }
    let bytes = usize::from(descriptors) * DESCRIPTOR_BYTES;
    dma.allocate(bytes).ok().and_then(|memory| Ring::new(memory, descriptors)).ok_or(Error::Memory { bytes })
}

impl<M: Mmio, A: DmaAllocator> Nic for E1000e<M, A> {
    fn mac_address(&self) -> MacAddress {
        self.address
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn link(&mut self) -> Link {
        let status = self.registers.read(reg::STATUS);
        if u32::from(status) == ABSENT || !status.link_up() {
            return Link::Down;
        }
        Link::Up(match status.speed() {
            0 => 10,
            1 => 100,
            _ => 1000,
        })
    }

    fn handle_interrupt(&mut self, vector: usize) -> Causes {
        if self.halted {
            return Causes::default();
        }
        self.armed = false;
        self.wiring.handle(&self.registers, vector).unwrap_or_else(|| {
            log::warn!("e1000e: the device is gone");
            self.halted = true;
            Causes { link: true, ..Causes::default() }
        })
    }

    fn enable_interrupts(&mut self, transmit: bool) -> bool {
        if self.halted {
            return false;
        }
        // Before a wait that may be long, pages go home.
        let sent = self.reclaim();
        // What is enabled costs no register access: a poll for the guests' sake alone must not touch the device.
        if !self.armed || transmit != self.transmit_armed {
            // The message of the first frame took its cause away; a later one set it again, for nothing once taken.
            let stale = self.moderation.packets() > 1;
            if let Some(interval) = self.moderation.poll_ended() {
                self.wiring.moderate(&self.registers, interval);
            }
            if self.transmit_armed && !transmit {
                self.wiring.disable_transmit(&self.registers);
            }
            self.wiring.enable(&self.registers, stale, transmit);
            self.armed = true;
            self.transmit_armed = transmit;
        }
        self.receive.ready() || (transmit && sent + self.reclaim() > 0)
    }

    fn transmit(&mut self, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet> {
        if self.halted {
            return Err(packet);
        }
        self.transmit.queue(packet, layout, &self.pool)
    }

    fn transmit_room(&self) -> usize {
        if self.halted { 0 } else { self.transmit.room() }
    }

    fn flush(&mut self) {
        if self.halted {
            return;
        }
        if let Some(tail) = self.transmit.flush(self.told) {
            self.told = tail;
            self.write_tail(reg::TDT, tail);
        }
    }

    fn reclaim(&mut self) -> usize {
        self.transmit.reclaim()
    }

    fn receive(&mut self) -> Option<Packet> {
        let packet = self.receive.take()?;
        self.moderation.count();
        Some(packet)
    }

    fn refill(&mut self, pool: &Pool) {
        if self.halted {
            return;
        }
        if let Some(tail) = self.receive.refill(pool) {
            self.write_tail(reg::RDT, tail);
        }
    }

    fn statistics(&mut self) -> NicStatistics {
        let absent = u32::from(self.registers.read(reg::STATUS)) == ABSENT;
        if !absent {
            let read = |registers: &[reg::Reg<u32>]| -> u64 {
                registers.iter().map(|register| u64::from(self.registers.read(*register))).sum()
            };
            let received = [reg::CRCERRS, reg::ALGNERRC, reg::RXERRC, reg::CEXTERR, reg::RLEC];
            self.counted.receive_errors += read(&received);
            self.counted.receive_missed += read(&[reg::MPC]);
            self.counted.receive_oversize += read(&[reg::ROC]);
            self.counted.transmit_errors += read(&[reg::ECOL, reg::LATECOL]);
        }
        NicStatistics {
            receive_errors: self.counted.receive_errors + self.receive.errors(),
            receive_malformed: self.receive.malformed(),
            receive_oversize: self.counted.receive_oversize + self.receive.oversize(),
            transmit_errors: self.counted.transmit_errors + self.transmit.errors(),
            ..self.counted
        }
    }

    fn quiesce(&mut self) {
        // Each read of STATUS takes a device's time, so no clock is needed to bound the wait.
        let proof = start::stop(&self.registers, &mut |_| ());
        self.halted = true;
        if let Some(proof) = proof {
            self.release(proof);
        } else if self.quiesced.is_none() {
            log::warn!("e1000e: it does not say that it has stopped: its buffers wait until its bus mastering ends");
        }
    }

    fn release(&mut self, proof: Quiesced) {
        self.halted = true;
        if self.dma.release(&proof) {
            self.transmit.clear(&proof);
            self.receive.clear(&proof);
            self.quiesced = Some(proof);
        }
    }
}

impl<M: Mmio, A: DmaAllocator> Drop for E1000e<M, A> {
    /// A running device would go on writing to pages that are no longer its own.
    fn drop(&mut self) {
        if !self.halted {
            self.quiesce();
        }
        if self.quiesced.is_none() {
            let lost = self.transmit.abandon() + self.receive.abandon();
            log::error!("e1000e: {lost} buffers are lost: the device may still write to them");
        }
    }
}
