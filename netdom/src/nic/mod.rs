//! What the data path asks of a NIC driver. A driver is a file below; it sees registers and DMA memory through
//! `split_driver::memory` only, so that the same code runs on hardware, on a model and in a fuzzer. Floor 3.

pub mod e1000e;

use crate::ethernet::MacAddress;
use crate::offload::headers::Layout;
use crate::packet::{Packet, Pool};
use split_driver::memory::Quiesced;

/// Bytes of a frame's headers: addresses and type, and an 802.1Q tag.
pub const FRAME_HEADERS: usize = 18;

/// What a NIC does for a packet that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Completes TCP and UDP checksums over IPv4.
    pub checksum_v4: bool,
    /// Completes TCP and UDP checksums over IPv6.
    pub checksum_v6: bool,
    /// Cuts TCP/IPv4 super-frames.
    pub tso_v4: bool,
    /// Cuts TCP/IPv6 super-frames.
    pub tso_v6: bool,
    /// Bytes of the largest frame on the wire, headers included, frame check sequence not.
    pub max_frame: usize,
}

/// What an interrupt was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// Frames were received, or the ring ran out of buffers.
    pub receive: bool,
    /// Frames were sent.
    pub transmit: bool,
    /// The link went up or down.
    pub link: bool,
}

/// What the NIC counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStatistics {
    /// Frames received with a CRC, length or symbol error.
    pub receive_errors: u64,
    /// Frames missed for want of a buffer.
    pub receive_missed: u64,
    /// Frames that a descriptor of the device described wrongly, and that were dropped for it.
    pub receive_malformed: u64,
    /// Frames received that are longer than the wire's MTU allows, and that were dropped for it.
    pub receive_oversize: u64,
    /// Frames that could not be sent.
    pub transmit_errors: u64,
}

/// The link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No carrier.
    Down,
    /// Megabits per second.
    Up(u32),
}

/// A NIC, started. Batches: any number of `transmit`, then one `flush`; `receive` until `None`, then one `refill`.
///
/// Interrupts are one-shot: `new` leaves all disabled, and one that arrived stays disabled until [`Nic::enable_interrupts`].
/// A poll is therefore
///
/// ```text
/// causes = nic.handle_interrupt(vector)      where one arrived
/// loop {
///     nic.reclaim();
///     while let Some(frame) = nic.receive() { ... nic.transmit(...) ... }
///     nic.flush();
///     nic.refill(&pool);
///     if nothing else is to do and !nic.enable_interrupts(waits_for_room) { break }   then block
/// }
/// ```
///
/// Sent packets need no interrupt: `reclaim` in each poll finds them. Who waits for descriptors or buffers says so to
/// `enable_interrupts`. All of this may be called at any time, also without an interrupt (a spurious one does no harm).
pub trait Nic {
    /// Its own address.
    fn mac_address(&self) -> MacAddress;
    /// What it does in hardware.
    fn capabilities(&self) -> Capabilities;
    /// The link now.
    fn link(&mut self) -> Link;
    /// Says what the interrupt of `vector` (0 where there is only one) was about, acknowledges it and keeps that
    /// interrupt disabled until [`Nic::enable_interrupts`].
    fn handle_interrupt(&mut self, vector: usize) -> Causes;
    /// Enables interrupts: link and receive always, transmit where asked. True where frames, or sent packets where asked
    /// for, are there already: poll once more instead of blocking, no interrupt may come for them.
    fn enable_interrupts(&mut self, transmit: bool) -> bool;
    /// Queues a packet for sending. `layout` says where its headers lie, `None` where nothing is left to the NIC to do.
    /// Gives the packet back where the ring is full or the packet needs more than the NIC can do; a packet that no NIC
    /// can send (shorter than its addresses, longer than the wire allows) is dropped and counted.
    fn transmit(&mut self, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet>;
    /// Descriptors that can be queued now.
    fn transmit_room(&self) -> usize;
    /// Tells the device of what was queued: one write to the tail register.
    fn flush(&mut self);
    /// Gives the buffers of sent packets back to their pool. Returns how many packets were sent.
    fn reclaim(&mut self) -> usize;
    /// The next received frame, its checksum verified where the device did so.
    fn receive(&mut self) -> Option<Packet>;
    /// Puts buffers of `pool` into the places of received frames and tells the device: one write to the tail register.
    /// What the pool cannot give now is made up for in a later call.
    fn refill(&mut self, pool: &Pool);
    /// What the device counted. Reads registers: not for the hot path.
    fn statistics(&mut self) -> NicStatistics;
    /// Stops DMA and interrupts. Gives all buffers back where the device says that it has stopped; otherwise they wait for
    /// [`Nic::release`].
    fn quiesce(&mut self);
    /// Gives all buffers back: the device no longer reaches memory.
    fn release(&mut self, proof: Quiesced);
}
