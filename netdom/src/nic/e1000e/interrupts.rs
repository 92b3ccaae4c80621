//! Interrupts by MSI-X, MSI or INTx: which cause goes where, one shot at a time. Pure. Floor 3.
//!
//! With MSI-X a message clears its causes (EIAC) and disables them (EIAC again on QEMU; IAM by way of `CTRL_EXT.EIAME` on
//! hardware), so a receive or transmit interrupt costs no register access at all. With one vector for everything, MSI or
//! INTx, reading ICR acknowledges and disables (IAM by way of `CTRL_EXT.IAME`): QEMU clears ICR on reading in no other way.

use super::Hardware;
use super::models::Model;
use super::registers::{self as reg, Causes, CtrlExt, Ivar, Registers};
use crate::nic;
use crate::nic::family::{ABSENT, Arm, Interrupting};
use crate::nic::moderation;
use crate::nic::wiring::Wiring;
use core::time::Duration;
use split_driver::memory::Mmio;

/// What ITR and EITR count in (82574 datasheet 10.2.4.2).
const INTERVAL_UNIT: Duration = Duration::from_nanos(256);

/// The bits that say that frames were received.
const fn received(wiring: Wiring) -> Causes {
    if wiring.is_by_message() { Causes::new().with_receive_queue0(true) } else { Causes::new().with_received(true) }
}

/// The bits that say that packets were sent.
const fn sent(wiring: Wiring) -> Causes {
    if wiring.is_by_message() { Causes::new().with_transmit_queue0(true) } else { Causes::new().with_transmitted(true) }
}

/// The bits for the link.
const fn link(wiring: Wiring) -> Causes {
    Causes::new().with_link(true).with_other(wiring.is_by_message())
}

/// Tells the device, all interrupts disabled.
pub(super) fn set_up<M: Mmio>(wiring: Wiring, registers: &Registers<'_, M>, model: &Model) {
    let queues = Causes::new().with_receive_queue0(true).with_transmit_queue0(true).with_other(true);
    if model.vectors() > 0 {
        let ivar = if wiring.is_by_message() {
            Ivar::new()
                .with_receive0(wiring.receive(0))
                .with_receive0_valid(true)
                .with_transmit0(wiring.transmit())
                .with_transmit0_valid(true)
                .with_other(wiring.other())
                .with_other_valid(true)
        } else {
            Ivar::new()
        };
        registers.write(reg::IVAR, ivar);
        let clear = if wiring.is_by_message() { queues } else { Causes::new() };
        registers.write(reg::EIAC, clear);
        if let Some(eitr) = reg::EITR.get(usize::from(wiring.other())).filter(|_| wiring.is_by_message()) {
            registers.write(*eitr, units(moderation::OTHER));
        }
    }
    let masked = if wiring.is_by_message() { queues } else { Causes::from(u32::MAX) };
    registers.write(reg::IAM, masked);
    registers.update(reg::CTRL_EXT, |ctrl: CtrlExt| {
        ctrl.with_message_auto_mask(wiring.is_by_message())
            .with_read_auto_mask(!wiring.is_by_message())
            .with_timers_clear(false)
            .with_pending_clear(false)
            .with_driver_loaded(true)
    });
}

/// A time as ITR and EITR have it.
fn units(interval: Duration) -> u32 {
    u32::try_from(interval.as_nanos() / INTERVAL_UNIT.as_nanos()).unwrap_or(u32::MAX)
}

impl Interrupting for Hardware {
    /// Sets the least time between two interrupts of packets.
    fn moderate<M: Mmio>(&self, mmio: &M, wiring: Wiring, _queue: usize, interval: Duration) {
        let registers = Registers(mmio);
        let interval = units(interval);
        if !wiring.is_by_message() {
            registers.write(reg::ITR, interval);
            return;
        }
        for (vector, eitr) in (0u8..).zip(reg::EITR) {
            if vector == wiring.receive(0) || vector == wiring.transmit() {
                registers.write(eitr, interval);
            }
        }
    }

    /// What an interrupt was about. `None` where the device is gone.
    fn handle_interrupt<M: Mmio>(&self, mmio: &M, wiring: Wiring, vector: usize) -> Option<nic::Causes> {
        let registers = Registers(mmio);
        let mut causes = nic::Causes {
            receive: vector == usize::from(wiring.receive(0)),
            transmit: vector == usize::from(wiring.transmit()),
            ..nic::Causes::default()
        };
        if vector != usize::from(wiring.other()) {
            return Some(causes);
        }
        let seen = registers.read(reg::ICR);
        if u32::from(seen) == ABSENT {
            return None;
        }
        if wiring.is_by_message() {
            // Acknowledged here are the causes behind "other" alone; those of the queues were by their messages.
            let behind = Causes::new()
                .with_link(true)
                .with_overrun(true)
                .with_mdio(true)
                .with_small(true)
                .with_ack(true)
                .with_management(true)
                .with_other(true);
            registers.write(reg::ICR, Causes::from(u32::from(seen) & u32::from(behind)));
        }
        causes.link = seen.link();
        // Hardware may have cleared the queues' causes with this reading: have the rings looked at.
        causes.receive |= seen.receive_queue0() || seen.received() || seen.overrun();
        causes.transmit |= seen.transmit_queue0() || seen.transmitted();
        Some(causes)
    }

    /// Enables; before that forgets what the poll that ends has dealt with, frames where they are stale. What came in between is
    /// for the caller to look for.
    fn arm<M: Mmio>(&self, mmio: &M, wiring: Wiring, arm: Arm) {
        let registers = Registers(mmio);
        if arm.transmit_over {
            registers.write(reg::IMC, sent(wiring));
        }
        let received = if arm.stale { received(wiring).into() } else { 0 };
        let reported = if arm.transmit { sent(wiring).into() } else { 0 };
        if received | reported != 0u32 {
            registers.write(reg::ICR, Causes::from(received | reported));
        }
        let wanted = u32::from(self::received(wiring)) | u32::from(link(wiring)) | reported;
        registers.write(reg::IMS, Causes::from(wanted));
    }
}
