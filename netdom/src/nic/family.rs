//! What is of one family of devices alone: the registers, and the order in which they are written. Floor 3.

use super::ledger::Ledger;
use super::pause::Pause;
use super::ring::left::Places;
use super::ring::{Format, Ring};
use super::wiring::Wiring;
use super::{Capabilities, Causes, Delay, Error, Link, NicStatistics};
use crate::ethernet::MacAddress;
use alloc::string::String;
use core::time::Duration;
use split_driver::memory::{DmaMemory, Mmio, Quiesced};
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

/// The device's own address, as RAL(0) and RAH(0) have it in all families.
///
/// # Errors
/// [`Error::Address`] where it is not valid, or not one of a station.
pub(super) fn address(low: u32, high: u16, valid: bool) -> Result<MacAddress, Error> {
    let ([a, b, c, d], [e, f]) = (low.to_le_bytes(), high.to_le_bytes());
    let address = MacAddress([a, b, c, d, e, f]);
    if valid && address.is_station() { Ok(address) } else { Err(Error::Address { address }) }
}

/// A counter that reading clears; nothing where the device is gone.
pub(super) fn counter(value: u32) -> u64 {
    if value == ABSENT { 0 } else { value.into() }
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
    /// Whether 802.1Q tags are taken out of frames received.
    pub strip_tags: bool,
    /// Keys the hash by which flows are spread over queues.
    pub seed: u64,
    /// Where there is a link, it is left as it is.
    pub keep_link: bool,
}

/// Which interrupts of a queue are to be enabled.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    /// The queue.
    pub queue: usize,
    /// A cause of frames that were taken already may be set.
    pub stale: bool,
    /// Packets sent are to interrupt.
    pub transmit: bool,
    /// Packets sent are to interrupt no longer, by any queue's wish.
    pub transmit_over: bool,
}

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Frames in.
    Receive,
    /// Packets out.
    Transmit,
}

/// How a family is stopped, reset and started: a start is `reset`, `prepare`, for each queue `start_transmit` and `start_receive`, and `enable`.
pub trait Start {
    /// Stops both directions and all interrupts, and waits until no request to memory is under way. `None` where the device does not say
    /// so.
    fn stop<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Option<Quiesced>;
    /// Resets the device, from whatever state it was left in; gives its address.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Reset`], [`Error::Address`].
    fn reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error>;
    /// Begins a reset of all but the PHY and the link. No register may be touched for the time that this gives; then come
    /// [`Self::release_phy`] and [`Self::end_reset`].
    fn begin_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Duration;
    /// Gives firmware the PHY back, which it must not use while a reset begins.
    fn release_phy<M: Mmio>(&self, _mmio: &M, _delay: Delay<'_>) {}
    /// Waits for the end of a reset; gives the device's address.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Reset`], [`Error::Address`].
    fn end_reset<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) -> Result<MacAddress, Error>;
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
    /// Sets up a receive ring, empty, for buffers of `buffer_bytes` bytes each: [`super::ring::receive::buffer_bytes`].
    ///
    /// # Errors
    /// [`Error::Stuck`].
    fn start_receive<M: Mmio, D: DmaMemory>(
        &self,
        mmio: &M,
        queue: usize,
        ring: &Ring<D>,
        buffer_bytes: u16,
        delay: Delay<'_>,
    ) -> Result<(), Error>;
    /// Lets frames in, as a bridge port must: every frame, whoever it is for; and begins with the link, where nobody has.
    fn enable<M: Mmio>(&self, mmio: &M, setup: &Setup, delay: Delay<'_>);
    /// Takes 802.1Q tags out of frames received by the first `queues` queues, or no longer.
    fn strip_tags<M: Mmio>(&self, mmio: &M, queues: usize, on: bool);
}

/// How a family interrupts.
pub trait Interrupting {
    /// See `Nic::handle_interrupt`. `None` where the device is gone.
    fn handle_interrupt<M: Mmio>(&self, mmio: &M, wiring: Wiring, vector: usize) -> Option<Causes>;
    /// See `NicQueue::arm`.
    fn arm<M: Mmio>(&self, mmio: &M, wiring: Wiring, arm: Arm);
    /// Sets the least time between two interrupts of a queue's packets.
    fn moderate<M: Mmio>(&self, mmio: &M, wiring: Wiring, queue: usize, interval: Duration);
}

/// A family of devices: the registers, and the order in which they are written.
pub trait Family: Start + Interrupting {
    /// How its descriptors say a thing.
    type Format: Format;
    /// The driver's name.
    const NAME: &'static str;
    /// Bytes of registers needed.
    const REGISTERS: usize;
    /// Whether it inserts tags also while it takes none out.
    const INSERTS_ALWAYS: bool = false;

    /// The device's name.
    fn name(&self) -> &'static str;
    /// Bytes of the largest frame, frame check sequence not included.
    fn max_frame(&self) -> usize;
    /// The most queues.
    fn queues(&self) -> usize;
    /// What it does for packets: all, unless the family says otherwise.
    fn capabilities(&self, setup: &Setup) -> Capabilities {
        let segments = setup.segmentation != super::Segmentation::Off;
        Capabilities {
            checksum_v4: true,
            checksum_v6: true,
            tso_v4: segments,
            tso_v6: segments,
            vlan_stripping: true,
            vlan_insertion: Self::INSERTS_ALWAYS || setup.strip_tags,
            max_frame: setup.max_frame,
        }
    }
    /// The link now.
    fn link<M: Mmio>(&self, mmio: &M) -> Link;
    /// Does what the device wants done about once a second.
    fn watch<M: Mmio>(&self, _mmio: &M, _now: Instant, _delay: Delay<'_>) {}
    /// See `Nic::next_look`.
    fn next_look(&self) -> Option<Instant> {
        None
    }
    /// See `Nic::module`.
    fn module(&self) -> Option<String> {
        None
    }
    /// Has the device obey and send pause frames as was negotiated: the link came up. `None` where that cannot be told now, as firmware has the
    /// PHY.
    fn settle_pause<M: Mmio>(&self, mmio: &M, setup: &Setup) -> Option<Pause>;
    /// Pause frames received since this was asked last that told the transmitter to stop.
    fn pauses<M: Mmio>(&self, mmio: &M) -> u64;
    /// Adds what the device counted since it was asked last.
    fn count<M: Mmio>(&self, mmio: &M, queues: usize, counted: &mut NicStatistics);
    /// Where the device is in the rings of a queue.
    fn places<M: Mmio>(&self, mmio: &M, queue: usize) -> Places;
    /// Gives back the semaphores that an earlier life of the domain held when it ended, by its ledger: the device's others wait for them for ever.
    fn take_back<M: Mmio>(&self, _mmio: &M, _delay: Delay<'_>) {}
    /// Tells the device how far a ring is filled. All that was written to memory before is there already.
    fn write_tail<M: Mmio>(&self, mmio: &M, queue: usize, direction: Direction, index: u16);
}

/// Counts what is lost with a reset that comes next: what lies in the rings, and what the device counted and nobody read. Nothing of a device that
/// the ledger does not know to have rings.
pub(super) fn settle<F: Family, M: Mmio>(family: &F, mmio: &M, ledger: &Ledger) {
    if ledger.queues() == 0 {
        return;
    }
    ledger.settle_rings(|queue| family.places(mmio, queue));
    let mut counted = ledger.counted();
    family.count(mmio, ledger.queues(), &mut counted);
    counted.pauses += family.pauses(mmio);
    ledger.set_counted(counted);
}
