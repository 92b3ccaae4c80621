//! Interrupts by MSI-X, MSI or INTx, one shot at a time. Pure. Floor 3.
//!
//! With MSI-X a message clears its causes (EIAC) and disables them (EIAM by way of `GPIE.EIAME`), so a receive or transmit interrupt costs no
//! register access at all. With one vector for everything, MSI or INTx, reading EICR acknowledges and disables (EIAM).

use super::Hardware;
use super::models::{Kind, Model};
use super::registers::{self as reg, Causes, Eitr, Gpie};
use crate::nic;
use crate::nic::Fault;
use crate::nic::family::{ABSENT, Arm, Interrupting};
use crate::nic::moderation;
use crate::nic::wiring::Wiring;
use core::time::Duration;
use split_driver::memory::Mmio;

/// What EITR counts in at 1 and 10 Gbit/s (82599 datasheet 8.2.3.5.12).
const INTERVAL_UNIT: Duration = Duration::from_micros(2);
/// Where the causes of all transmit queues arrive without MSI-X; those of receive queues are at 0.
const SENT: u8 = 1;

/// The bit of frames that a queue received.
fn received(wiring: Wiring, queue: usize) -> u16 {
    1 << if wiring.is_by_message() { wiring.receive(queue) } else { 0 }
}

/// The bit of packets that were sent.
fn sent(wiring: Wiring) -> u16 {
    1 << if wiring.is_by_message() { wiring.transmit() } else { SENT }
}

/// Causes that are not of a queue.
const fn other(model: &Model) -> Causes {
    let module = matches!(model.kind, Kind::I82599Fibre);
    Causes::new().with_link(true).with_thermal(true).with_memory(true).with_descriptor(true).with_module(module)
}

/// Tells the device, all interrupts disabled.
pub(super) fn set_up<M: Mmio>(wiring: Wiring, mmio: &M, model: &Model, queues: usize) {
    let by_message = wiring.is_by_message();
    let gpie = Gpie::new().with_msix(by_message).with_keep_on_read(by_message).with_auto_mask(by_message);
    reg::GPIE.write(mmio, 0, gpie.with_pending_bits(by_message).with_module(other(model).module()));
    for (pair, ivar) in reg::IVAR.into_iter().enumerate() {
        let entry = |queue: usize, bits: u16| match queue < queues {
            // One bit of sixteen.
            true => bits.trailing_zeros() as u8 | reg::IVAR_VALID,
            false => 0,
        };
        let entries =
            [2 * pair, 2 * pair + 1].map(|queue| [entry(queue, received(wiring, queue)), entry(queue, sent(wiring))]);
        ivar.write(mmio, 0, u32::from_le_bytes([entries[0][0], entries[0][1], entries[1][0], entries[1][1]]));
    }
    reg::IVAR_MISC.write(mmio, 0, u32::from(wiring.other() | reg::IVAR_VALID) << 8);
    let queues = Causes::new().with_queues(u16::MAX);
    reg::EIAC.write(mmio, 0, if by_message { queues } else { Causes::new() });
    reg::EIAM.write(mmio, 0, other(model).with_queues(u16::MAX));
    if by_message {
        space_out(mmio, wiring.other(), moderation::OTHER);
    }
}

/// Sets the least time between two interrupts of a vector.
fn space_out<M: Mmio>(mmio: &M, vector: u8, interval: Duration) {
    let interval = u16::try_from(interval.as_micros() / INTERVAL_UNIT.as_micros()).unwrap_or(u16::MAX).min(0x1FF);
    if let Some(eitr) = reg::EITR.get(usize::from(vector)) {
        eitr.write(mmio, 0, Eitr::new().with_interval(interval).with_keep_counter(true));
    }
}

impl Interrupting for Hardware {
    /// Sets the least time between two interrupts of a queue's packets.
    fn moderate<M: Mmio>(&self, mmio: &M, wiring: Wiring, queue: usize, interval: Duration) {
        for vector in [wiring.receive(queue), wiring.transmit()] {
            space_out(mmio, vector, interval);
        }
    }

    /// What an interrupt was about; the cage is told of a module. `None` where the device is gone.
    fn handle_interrupt<M: Mmio>(&self, mmio: &M, wiring: Wiring, vector: usize) -> Option<nic::Causes> {
        let mut causes = nic::Causes {
            receive: vector < wiring.queues(),
            transmit: vector == usize::from(wiring.transmit()),
            ..nic::Causes::default()
        };
        if vector != usize::from(wiring.other()) {
            return Some(causes);
        }
        let seen = reg::EICR.read(mmio, 0);
        if u32::from(seen) == ABSENT {
            return None;
        }
        if wiring.is_by_message() {
            // Acknowledged here are the causes behind this vector alone; those of the queues were by their messages.
            reg::EICR.write(mmio, 0, seen.with_queues(0));
        }
        causes.link = seen.link();
        if seen.module() {
            self.cage.look_again();
        }
        causes.receive |= seen.queues() != 0;
        causes.transmit |= seen.queues() != 0;
        // ECC: a memory of the device; DHER: its handler of descriptors (82599 datasheet 8.2.3.5.1).
        causes.fault = match (seen.memory(), seen.descriptor()) {
            (true, _) => Some(Fault::Memory),
            (false, true) => Some(Fault::Descriptor),
            (false, false) => None,
        };
        if seen.thermal() {
            log::error!("ixgbe: the device is too hot: its PHY ends the link until it has cooled down");
            causes.link = true;
        }
        Some(causes)
    }

    /// Enables; before that forgets what the poll that ends has dealt with, frames where they are stale. What came in between is for the
    /// caller to look for.
    fn arm<M: Mmio>(&self, mmio: &M, wiring: Wiring, arm: Arm) {
        let (received, sent) = (received(wiring, arm.queue), sent(wiring));
        let shared = received == sent;
        if arm.transmit_over && !shared {
            reg::EIMC.write(mmio, 0, Causes::new().with_queues(sent));
        }
        let reported = if arm.transmit { sent } else { 0 };
        let dealt_with = if arm.stale { received } else { 0 } | reported;
        if dealt_with != 0 {
            reg::EICR.write(mmio, 0, Causes::new().with_queues(dealt_with));
        }
        reg::EIMS.write(mmio, 0, other(self.model).with_queues(received | reported));
    }
}
