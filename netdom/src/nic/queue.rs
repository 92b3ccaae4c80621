//! A queue of a NIC: its rings, its interrupts and their rate, and whether it stands still. Floor 3.

use super::family::{Arm, Direction, Family};
use super::ledger::Rings;
use super::moderation::Moderation;
use super::ring::Ring;
use super::ring::receive::Receive;
use super::ring::transmit::Transmit;
use super::wiring::Wiring;
use super::{Capabilities, Delay, Error, NicQueue, NicStatistics};
use crate::offload::headers::Layout;
use crate::packet::{Packet, Pool};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use split_driver::memory::{DmaMemory, Mmio, Quiesced};
use split_driver::time::Instant;

/// A queue that has sent nothing for so long although it was told to, hangs (Linux: `watchdog_timeo`).
const HANG: Duration = Duration::from_secs(5);

/// What the queues of a device share.
pub(super) struct Shared<M, F> {
    pub(super) mmio: M,
    pub(super) family: F,
    pub(super) wiring: Wiring,
    /// For the headers of packets that have to be copied.
    pub(super) pool: Pool,
    /// Stopped, or pulled out.
    pub(super) halted: Cell<bool>,
    /// Queues whose sent packets are to interrupt.
    pub(super) waiting: Cell<usize>,
}

/// A queue. `D` is the memory of its rings.
pub(super) struct Queue<M, D, F: Family> {
    shared: Rc<Shared<M, F>>,
    index: usize,
    transmit: Transmit<D, F::Format>,
    receive: Receive<D, F::Format>,
    moderation: Moderation,
    /// What the transmit tail was last told.
    told: u16,
    /// Interrupts were enabled, for sent packets too where so, and none was handled since.
    armed: bool,
    transmit_armed: bool,
    /// What `transmit` had reclaimed in all when it was looked at, and since when.
    seen: Option<(u64, Instant)>,
}

impl<M: Mmio, D: DmaMemory, F: Family> Queue<M, D, F> {
    pub(super) fn new(
        shared: &Rc<Shared<M, F>>,
        index: usize,
        transmit: Ring<D>,
        receive: Ring<D>,
        capabilities: &Capabilities,
    ) -> Self {
        Self {
            shared: Rc::clone(shared),
            index,
            transmit: Transmit::new(transmit, capabilities.max_frame, capabilities.vlan_insertion),
            receive: Receive::new(receive, capabilities.max_frame),
            moderation: Moderation::default(),
            told: 0,
            armed: false,
            transmit_armed: false,
            seen: None,
        }
    }

    /// Tells the device of the rings.
    pub(super) fn start(&mut self, delay: Delay<'_>) -> Result<(), Error> {
        let Shared { mmio, family, wiring, .. } = &*self.shared;
        family.start_transmit(mmio, self.index, self.transmit.ring(), delay)?;
        family.start_receive(mmio, self.index, self.receive.ring(), self.receive.buffer_bytes(), delay)?;
        family.moderate(mmio, *wiring, self.index, Moderation::default().interval());
        Ok(())
    }

    /// Tags are taken out from now on, or no longer; and the device inserts them, or does not.
    pub(super) fn set_tags(&mut self, strips: bool, inserts: bool) {
        self.receive.set_stripping(strips);
        self.transmit.set_insertion(inserts);
    }

    /// An interrupt came: those of this queue are disabled.
    pub(super) const fn disarmed(&mut self) {
        self.armed = false;
    }

    /// Whether nothing was sent for long although the device was told of packets. `free`: it has a link, and was not told to pause.
    pub(super) fn hangs(&mut self, free: bool, now: Instant) -> bool {
        self.transmit.reclaim();
        if !free || self.transmit.is_empty() {
            self.seen = None;
            return false;
        }
        let reclaimed = self.transmit.reclaimed();
        match self.seen {
            Some((before, since)) if before == reclaimed => now >= since + HANG,
            _ => {
                self.seen = Some((reclaimed, now));
                false
            }
        }
    }

    /// Whether the device has sent all that it was given.
    pub(super) fn is_idle(&self) -> bool {
        self.transmit.is_empty()
    }

    /// What lies in its rings, for the next life.
    pub(super) fn rings(&self) -> Rings {
        (Rc::clone(self.transmit.unsent()), Rc::clone(self.receive.untaken()))
    }

    /// Adds what the rings counted since this was asked last.
    pub(super) const fn count(&mut self, sum: &mut NicStatistics) {
        sum.receive_errors += self.receive.take_errors();
        sum.receive_malformed += self.receive.take_malformed();
        sum.receive_oversize += self.receive.take_oversize();
        sum.transmit_errors += self.transmit.take_errors();
    }

    /// The next frame, which is not noted as taken yet.
    #[inline]
    fn next_frame(&mut self) -> Option<Packet> {
        let packet = self.receive.take()?;
        self.moderation.count();
        Some(packet)
    }

    /// Gives all buffers back, and begins anew.
    pub(super) fn clear(&mut self, proof: &Quiesced) {
        self.transmit.clear(proof);
        self.receive.clear(proof);
        let waiting = self.shared.waiting.get();
        self.shared.waiting.set(waiting - usize::from(self.transmit_armed));
        (self.told, self.armed, self.transmit_armed, self.seen) = (0, false, false, None);
        self.moderation = Moderation::default();
    }

    /// Loses all buffers for good, because the device may still use them. Gives how many.
    pub(super) fn abandon(&mut self) -> usize {
        self.transmit.abandon() + self.receive.abandon()
    }

    /// Writes a tail register, after everything written to memory before.
    fn write_tail(&self, direction: Direction, index: u16) {
        fence(Ordering::SeqCst);
        self.shared.family.write_tail(&self.shared.mmio, self.index, direction, index);
    }
}

impl<M: Mmio, D: DmaMemory, F: Family> NicQueue for Queue<M, D, F> {
    fn transmit(&mut self, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet> {
        if self.shared.halted.get() {
            return Err(packet);
        }
        self.transmit.queue(packet, layout, &self.shared.pool)
    }

    fn room(&self) -> usize {
        if self.shared.halted.get() { 0 } else { self.transmit.room() }
    }

    fn flush(&mut self) {
        if self.shared.halted.get() {
            return;
        }
        if let Some(tail) = self.transmit.flush(self.told) {
            self.told = tail;
            self.write_tail(Direction::Transmit, tail);
        }
    }

    fn reclaim(&mut self) -> usize {
        self.transmit.reclaim()
    }

    fn receive(&mut self) -> Option<Packet> {
        let packet = self.next_frame();
        self.receive.note_taken();
        packet
    }

    fn receive_batch(&mut self, most: usize, frames: &mut Vec<Packet>) -> usize {
        let before = frames.len();
        while frames.len() - before < most
            && let Some(frame) = self.next_frame()
        {
            frames.push(frame);
        }
        self.receive.note_taken();
        frames.len() - before
    }

    fn refill(&mut self, pool: &Pool) {
        if self.shared.halted.get() {
            return;
        }
        if let Some(tail) = self.receive.refill(pool) {
            self.write_tail(Direction::Receive, tail);
        }
    }

    fn starves(&self) -> bool {
        !self.shared.halted.get() && self.receive.is_empty()
    }

    fn arm(&mut self, transmit: bool) -> bool {
        let Shared { mmio, family, wiring, halted, .. } = &*self.shared;
        if halted.get() {
            return false;
        }
        // Before a wait that may be long, pages go home.
        let sent = self.transmit.reclaim();
        // What is enabled costs no register access: a poll for the guests' sake alone must not touch the device.
        if !self.armed || transmit != self.transmit_armed {
            // The message of the first frame took its cause away; a later one set it again, for nothing once taken.
            let stale = self.moderation.packets() > 1;
            if let Some(interval) = self.moderation.poll_ended() {
                family.moderate(mmio, *wiring, self.index, interval);
            }
            // All queues' sent packets are one interrupt: it is enabled while one of them waits.
            let waited = self.shared.waiting.get();
            let waiting = waited - usize::from(self.transmit_armed) + usize::from(transmit);
            self.shared.waiting.set(waiting);
            let arm = Arm { queue: self.index, stale, transmit, transmit_over: waited > 0 && waiting == 0 };
            family.arm(mmio, *wiring, arm);
            self.armed = true;
            self.transmit_armed = transmit;
        }
        self.receive.ready() || (transmit && sent + self.transmit.reclaim() > 0)
    }
}
