//! What the data path asks of a NIC driver. A driver is a folder below; it sees registers and DMA memory through
//! `split_driver::memory` only, so that the same code runs on hardware, on a model and in a fuzzer. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `models` | the drivers, by the PCI ids of their devices |
//! | `family` | what is of one family of devices alone |
//! | `driver`, `queue` | the driver that all families share |
//! | `advanced` | the descriptors and the registers of queues that igb and ixgbe share, and receive-side scaling |
//! | `ring` | rings of descriptors, packets out and frames in |
//! | `plan` | how long the rings are, by the memory for packets |
//! | `wiring`, `moderation` | which cause of an interrupt goes to which vector, and how often |
//! | `pause` | flow control |
//! | `semaphores` | what is shared with firmware and with other ports |
//! | `ledger` | what the next life of the domain has to know of a NIC |
//! | `e1000e`, `igb`, `ixgbe` | the families: their registers, and the order in which they are written |

pub mod advanced;
pub mod driver;
pub mod e1000e;
mod error;
pub mod family;
pub mod igb;
pub mod ixgbe;
pub mod ledger;
pub mod models;
mod moderation;
pub mod pause;
pub mod plan;
mod queue;
pub mod ring;
mod semaphores;
mod wiring;

pub use error::Error;

use crate::ethernet::MacAddress;
use crate::offload::headers::Layout;
use crate::packet::{Packet, Pool};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use ledger::Ledger;
use split_driver::memory::Quiesced;
use split_driver::time::Instant;

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
    /// Takes 802.1Q tags out of frames received, where told to: see [`Nic::set_vlan_stripping`].
    pub vlan_stripping: bool,
    /// Inserts [`Packet::tag`]. e1000e's and igb's devices do so only while they take tags out: one bit is for both.
    pub vlan_insertion: bool,
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
    /// The device no longer works by its own word: see [`Nic::restart`].
    pub fault: Option<Fault>,
}

/// What the NIC counted since it was first started, in an earlier life of the domain or in this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStatistics {
    /// Frames received with a CRC, length or symbol error.
    pub receive_errors: u64,
    /// Frames missed for want of a buffer.
    pub receive_missed: u64,
    /// Frames that a descriptor of the device described wrongly, or with a tag that no frame may have, and that were dropped for it.
    pub receive_malformed: u64,
    /// Frames received that are longer than the wire's MTU allows, and that were dropped for it.
    pub receive_oversize: u64,
    /// Frames that lay in its rings, received and not taken, when it was reset: because a life of the domain ended, or for a fault. One of more
    /// than a buffer, as jumbo frames may be, counts once for each.
    pub receive_reset: u64,
    /// Frames that could not be sent.
    pub transmit_errors: u64,
    /// Packets that lay in its rings, not sent, when it was reset.
    pub transmit_reset: u64,
    /// Pause frames received that told the transmitter to stop.
    pub pauses: u64,
}

/// The link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No carrier.
    Down,
    /// Megabits per second.
    Up(u32),
}

/// Bytes of the largest frame without jumbo frames.
pub const STANDARD_FRAME: usize = 1500 + FRAME_HEADERS;

/// Whether segmentation is left to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// Where the segments are such as any receiver takes.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Wherever the device says that it can.
    On,
}

/// Choices of the caller.
#[derive(Clone, Debug)]
pub struct Options {
    /// Queues, each with a ring each way. A device has as many of them as it and its interrupts allow.
    pub queues: usize,
    /// Descriptors of a transmit ring: a multiple of 8 from 64 to 4,096.
    pub transmit_descriptors: u16,
    /// Descriptors of a receive ring, each with a buffer behind it: a multiple of 8 from 64 to 4,096.
    pub receive_descriptors: u16,
    /// Bytes of the largest frame, frame check sequence not included: [`STANDARD_FRAME`], or more for jumbo frames.
    pub max_frame: usize,
    /// Whether segmentation is left to the device.
    pub segmentation: Segmentation,
    /// A number that guests do not know: it keys the hash by which a device spreads flows over its queues.
    pub seed: u64,
    /// An earlier life of the domain used the device: what it left was seen to by [`models::Model::settle`], it was reset by
    /// [`models::Model::begin_reset`], and a link that is up stays as it is.
    pub taken_over: bool,
    /// Where it is written down what the next life has to know, and what earlier lives have written.
    pub ledger: Ledger,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queues: 1,
            transmit_descriptors: 512,
            receive_descriptors: 256,
            max_frame: STANDARD_FRAME,
            segmentation: Segmentation::Auto,
            seed: 0,
            taken_over: false,
            ledger: Ledger::default(),
        }
    }
}

/// How the device's interrupts reach the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// MSI-X with so many vectors.
    MsiX(usize),
    /// MSI or INTx.
    Single,
}

/// What a device no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It sends nothing although it has a link: its transmit queue of this number stands still.
    TransmitHang(usize),
    /// It could not reach memory, or lost what it had read.
    Memory,
    /// It was reset, by another of its ports or functions.
    Reset,
    /// It could not handle a descriptor.
    Descriptor,
    /// It has no link, and packets are left in its rings. That is no fault of its own.
    NoLink,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TransmitHang(queue) => write!(formatter, "transmit queue {queue} hangs"),
            Self::Memory => formatter.write_str("an error of its access to memory"),
            Self::Reset => formatter.write_str("it was reset from elsewhere"),
            Self::Descriptor => formatter.write_str("it could not handle a descriptor"),
            Self::NoLink => formatter.write_str("it has lost its link, and packets are left in its rings"),
        }
    }
}

/// The caller's busy wait, microseconds to some milliseconds at a time.
pub type Delay<'a> = &'a mut dyn FnMut(Duration);

/// A NIC, started, with one queue at least.
///
/// Interrupts are one-shot: a start leaves all disabled, and one that arrived stays disabled until [`NicQueue::arm`]. A poll is
/// therefore
///
/// ```text
/// causes = nic.handle_interrupt(vector)      where one arrived
/// loop {
///     for each queue {
///         queue.reclaim();
///         while let Some(frame) = queue.receive() { ... another.transmit(...) ... }      or receive_batch
///         queue.flush();
///         queue.refill(&pool);
///     }
///     if nothing else is to do and no queue.arm(waits_for_room) is true { break }   then block
/// }
/// ```
///
/// Sent packets need no interrupt: `reclaim` in each poll finds them. Where somebody waits for descriptors, `arm` is told so. All of
/// this may be called at any time, also without an interrupt (a spurious one does no harm).
pub trait Nic {
    /// Its own address.
    fn mac_address(&self) -> MacAddress;
    /// What it does in hardware.
    fn capabilities(&self) -> Capabilities;
    /// The link now. Where it came up since this was asked last, flow control is settled.
    fn link(&mut self) -> Link;
    /// Its queues. Frames of one flow are received by one of them; what is given to one of them is sent in order.
    fn queues(&self) -> usize;
    /// One of them.
    fn queue(&mut self, index: usize) -> Option<&mut dyn NicQueue>;
    /// Says what the interrupt of `vector` (0 where there is only one) was about, acknowledges it and keeps that
    /// interrupt disabled until [`NicQueue::arm`].
    fn handle_interrupt(&mut self, vector: usize) -> Causes;
    /// What is plugged into it, in words: an SFP+ module, "none", or "unreadable". `None` where it has no cage for one.
    fn module(&self) -> Option<String> {
        None
    }
    /// Looks about once a second what the device wants done, such as the set-up of an SFP+ module that was put in, and what it no longer does;
    /// [`Self::restart`] is the remedy for that. A transmitter that is told to pause does not hang. What takes long is done in steps of a
    /// millisecond or two, see [`Self::next_look`].
    fn watch(&mut self, now: Instant, delay: Delay<'_>) -> Option<Fault>;
    /// When [`Self::watch`] is to be called again, where that is before the second is over: it has begun with more than one step's work.
    fn next_look(&self) -> Option<Instant> {
        None
    }
    /// Resets the device and starts it anew. Frames in its rings are lost, and their buffers go back. The PHY is left alone.
    ///
    /// # Errors
    /// [`Error`], with the device stopped.
    fn restart(&mut self, delay: Delay<'_>) -> Result<(), Error>;
    /// Whether 802.1Q tags are taken out of frames received and reported as [`Packet::tag`]. Off at first; kept by [`Self::restart`].
    /// Where it changes, [`Self::capabilities`] may, and frames that were received and not yet taken are lost: nothing tells by which rule
    /// the device handled them. Where it ends, a device that inserts tags only meanwhile sends without it the packets that are in its rings.
    fn set_vlan_stripping(&mut self, on: bool);
    /// What the device counted. Reads registers: not for the hot path.
    fn statistics(&mut self) -> NicStatistics;
    /// Stops DMA and interrupts. Gives all buffers back where the device says that it has stopped; otherwise they wait for
    /// [`Nic::release`].
    fn quiesce(&mut self);
    /// Gives all buffers back: the device no longer reaches memory.
    fn release(&mut self, proof: Quiesced);
}

/// A queue of a NIC: a ring each way. Batches: any number of `transmit`, then one `flush`; `receive` until `None`, then one `refill`.
pub trait NicQueue {
    /// Queues a packet for sending. `layout` says where its headers lie, `None` where nothing is left to the NIC to do.
    /// A packet that no NIC can send (shorter than its addresses, longer than the wire allows, its tag included) is dropped and counted.
    ///
    /// # Errors
    /// The packet, where the ring is full or the packet needs more than the NIC can do.
    fn transmit(&mut self, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet>;
    /// Descriptors that can be queued now.
    fn room(&self) -> usize;
    /// Tells the device of what was queued: one write to the tail register.
    fn flush(&mut self);
    /// Gives the buffers of sent packets back to their pool. Returns how many packets were sent.
    fn reclaim(&mut self) -> usize;
    /// The next received frame, its checksum verified where the device did so, its tag apart from its bytes where the device took it out.
    fn receive(&mut self) -> Option<Packet>;
    /// Adds the next received frames to a list, `most` at most, and says how many.
    fn receive_batch(&mut self, most: usize, frames: &mut Vec<Packet>) -> usize {
        let before = frames.len();
        while frames.len() - before < most
            && let Some(frame) = self.receive()
        {
            frames.push(frame);
        }
        frames.len() - before
    }
    /// Puts buffers of `pool` into the places of received frames and tells the device: one write to the tail register.
    /// What the pool cannot give now is made up for in a later call.
    fn refill(&mut self, pool: &Pool);
    /// Whether it has no buffers for frames, so that it will not interrupt: it is to be refilled soon.
    fn starves(&self) -> bool;
    /// Enables its interrupts: link and receive always, transmit where asked. True where frames, or sent packets where asked
    /// for, are there already: poll once more instead of blocking, no interrupt may come for them.
    fn arm(&mut self, transmit: bool) -> bool;
}

/// The first queue, of which there is one always.
#[cfg(any(test, feature = "fakes"))]
pub fn queue(nic: &mut dyn Nic) -> &mut dyn NicQueue {
    nic.queue(0).expect("one queue at least")
}
