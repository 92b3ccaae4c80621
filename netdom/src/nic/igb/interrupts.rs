//! Interrupts by MSI-X, MSI or INTx, one shot at a time. Pure. Floor 3.
//!
//! With MSI-X a message clears its vector (EIAC) and disables it (EIAM by way of `GPIE.EIAME`), so a receive or transmit interrupt costs no
//! register access at all. With one vector for everything, MSI or INTx, reading ICR acknowledges and disables (IAM, `CTRL_EXT.IAME`).
//! QEMU's device does not disable a vector by its message: more interrupts come there than were asked for, and find nothing.

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

/// Causes that are not of a queue.
const fn other() -> Causes {
    Causes::new().with_link(true).with_fatal(true).with_reset(true)
}

/// Where the vectors of a queue lie: the word of IVAR, and the byte of the receive queue in it. The transmit queue's is the next.
const fn vector_place(model: &Model, queue: usize) -> (usize, usize) {
    match model.kind {
        Kind::I82576 => (queue % 8, queue / 8 * 2),
        Kind::I82580 | Kind::I350 | Kind::I210 | Kind::I211 => (queue / 2, queue % 2 * 2),
    }
}

/// Tells the device, all interrupts disabled.
pub(super) fn set_up<M: Mmio>(wiring: Wiring, mmio: &M, model: &Model, queues: usize) {
    let by_message = wiring.is_by_message();
    // What follows counts in the mode that this chooses.
    let gpie = Gpie::new().with_clear_on_read(true).with_msix(by_message).with_auto_mask(by_message);
    reg::GPIE.write(mmio, 0, gpie.with_pending_bits(by_message));
    let mut words = [[0; 4]; reg::IVAR_WORDS];
    for queue in 0..queues {
        let (word, byte) = vector_place(model, queue);
        let vectors = [wiring.receive(queue), wiring.transmit()].map(|vector| vector | reg::IVAR_VALID);
        for (place, vector) in (byte..).zip(vectors) {
            if let Some(entry) = words.get_mut(word).and_then(|word| word.get_mut(place)) {
                *entry = vector;
            }
        }
    }
    // Two queues a word; the words behind those of the device's queues are reserved.
    for (word, bytes) in words.into_iter().enumerate().take(model.queues() / 2) {
        mmio.write32(reg::IVAR + 4 * word, if by_message { u32::from_le_bytes(bytes) } else { 0 });
    }
    if by_message {
        reg::IVAR_MISC.write(mmio, 0, u32::from(wiring.other() | reg::IVAR_VALID) << 8);
        reg::EIAC.write(mmio, 0, 0xFFFF);
        reg::EIAM.write(mmio, 0, 0xFFFF);
        reg::IAM.write(mmio, 0, Causes::new());
        reg::IMS.write(mmio, 0, other());
        space_out(mmio, wiring.other(), moderation::OTHER);
    } else {
        reg::IAM.write(mmio, 0, Causes::from(u32::MAX));
    }
    reg::CTRL_EXT
        .update(mmio, 0, |control: reg::CtrlExt| control.with_read_auto_mask(!by_message).with_driver_loaded(true));
}

/// Sets the least time between two interrupts of a vector.
fn space_out<M: Mmio>(mmio: &M, vector: u8, interval: Duration) {
    let interval = u16::try_from(interval.as_micros()).unwrap_or(u16::MAX).min(0x1FFF);
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

    /// What an interrupt was about. `None` where the device is gone.
    fn handle_interrupt<M: Mmio>(&self, mmio: &M, wiring: Wiring, vector: usize) -> Option<nic::Causes> {
        let mut causes = nic::Causes {
            receive: vector < wiring.queues(),
            transmit: vector == usize::from(wiring.transmit()),
            ..nic::Causes::default()
        };
        if vector != usize::from(wiring.other()) {
            return Some(causes);
        }
        let seen = reg::ICR.read(mmio, 0);
        if u32::from(seen) == ABSENT {
            return None;
        }
        causes.link = seen.link();
        causes.receive |= seen.received();
        causes.transmit |= seen.sent();
        // FER: an error of PCI Express or of a memory; DRSTA: CTRL.DEV_RST, of any port (82576 datasheet 8.8.9, I350 datasheet 8.8.11).
        causes.fault = match (seen.fatal(), seen.reset()) {
            (true, _) => Some(Fault::Memory),
            (false, true) => Some(Fault::Reset),
            (false, false) => None,
        };
        Some(causes)
    }

    /// Enables; before that forgets what the poll that ends has dealt with, frames where they are stale. What came in between is for the
    /// caller to look for.
    fn arm<M: Mmio>(&self, mmio: &M, wiring: Wiring, arm: Arm) {
        if !wiring.is_by_message() {
            if arm.transmit_over {
                reg::IMC.write(mmio, 0, Causes::new().with_sent(true));
            }
            if arm.stale || arm.transmit {
                reg::ICR.write(mmio, 0, Causes::new().with_received(arm.stale).with_sent(arm.transmit));
            }
            reg::IMS.write(mmio, 0, other().with_received(true).with_sent(arm.transmit));
            return;
        }
        let (received, sent) = (1 << wiring.receive(arm.queue), 1 << wiring.transmit());
        if arm.transmit_over && received != sent {
            reg::EIMC.write(mmio, 0, sent);
        }
        let reported = if arm.transmit { sent } else { 0 };
        let dealt_with = if arm.stale { received } else { 0 } | reported;
        if dealt_with != 0 {
            reg::EICR.write(mmio, 0, dealt_with);
        }
        reg::EIMS.write(mmio, 0, received | reported | 1 << wiring.other());
    }
}
