//! Interrupts by MSI-X, MSI or INTx: which cause goes where, one shot at a time. Pure. Floor 3.
//!
//! With MSI-X a message clears its causes (EIAC) and disables them (EIAC again on QEMU; IAM by way of `CTRL_EXT.EIAME` on
//! hardware), so a receive or transmit interrupt costs no register access at all. With one vector for everything, MSI or
//! INTx, reading ICR acknowledges and disables (IAM by way of `CTRL_EXT.IAME`): QEMU clears ICR on reading in no other way.

use super::models::Model;
use super::moderation::Load;
use super::registers::{self as reg, Causes, CtrlExt, Ivar, Registers};
use super::start::ABSENT;
use crate::nic;
use split_driver::memory::Mmio;

/// How the device's interrupts reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// MSI-X with so many vectors. One: all causes. Two: packets, link. Three and more: receive, transmit, link.
    MsiX(usize),
    /// MSI or INTx.
    Single,
}

/// Where each cause arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wiring {
    message: bool,
    receive: u8,
    transmit: u8,
    other: u8,
}

impl Wiring {
    pub(super) const fn new(interrupts: Interrupts) -> Self {
        let (message, receive, transmit, other) = match interrupts {
            Interrupts::Single => (false, 0, 0, 0),
            Interrupts::MsiX(0 | 1) => (true, 0, 0, 0),
            Interrupts::MsiX(2) => (true, 0, 0, 1),
            Interrupts::MsiX(_) => (true, 0, 1, 2),
        };
        Self { message, receive, transmit, other }
    }

    /// The bits that say that frames were received.
    const fn received(self) -> Causes {
        if self.message { Causes::new().with_receive_queue0(true) } else { Causes::new().with_received(true) }
    }

    /// The bits that say that packets were sent.
    const fn sent(self) -> Causes {
        if self.message { Causes::new().with_transmit_queue0(true) } else { Causes::new().with_transmitted(true) }
    }

    /// The bits for the link.
    const fn link(self) -> Causes {
        Causes::new().with_link(true).with_other(self.message)
    }

    /// Tells the device, all interrupts disabled.
    pub(super) fn set_up<M: Mmio>(self, registers: &Registers<M>, model: &Model) {
        let queues = Causes::new().with_receive_queue0(true).with_transmit_queue0(true).with_other(true);
        if model.vectors() > 0 {
            let ivar = if self.message {
                Ivar::new()
                    .with_receive0(self.receive)
                    .with_receive0_valid(true)
                    .with_transmit0(self.transmit)
                    .with_transmit0_valid(true)
                    .with_other(self.other)
                    .with_other_valid(true)
            } else {
                Ivar::new()
            };
            registers.write(reg::IVAR, ivar);
            let clear = if self.message { queues } else { Causes::new() };
            registers.write(reg::EIAC, clear);
        }
        let masked = if self.message { queues } else { Causes::from(u32::MAX) };
        registers.write(reg::IAM, masked);
        registers.update(reg::CTRL_EXT, |ctrl: CtrlExt| {
            ctrl.with_message_auto_mask(self.message)
                .with_read_auto_mask(!self.message)
                .with_timers_clear(false)
                .with_pending_clear(false)
                .with_driver_loaded(true)
        });
        self.moderate(registers, Load::default().interval());
    }

    /// Sets the least time between two interrupts of packets.
    pub(super) fn moderate<M: Mmio>(self, registers: &Registers<M>, interval: u32) {
        if !self.message {
            registers.write(reg::ITR, interval);
            return;
        }
        for (vector, eitr) in (0u8..).zip(reg::EITR) {
            if vector == self.receive || vector == self.transmit {
                registers.write(eitr, interval);
            }
        }
    }

    /// What an interrupt was about. `None` where the device is gone.
    pub(super) fn handle<M: Mmio>(self, registers: &Registers<M>, vector: usize) -> Option<nic::Causes> {
        let mut causes = nic::Causes {
            receive: vector == usize::from(self.receive),
            transmit: vector == usize::from(self.transmit),
            link: false,
        };
        if vector != usize::from(self.other) {
            return Some(causes);
        }
        let seen = registers.read(reg::ICR);
        if u32::from(seen) == ABSENT {
            return None;
        }
        if self.message {
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

    /// Enables; before that forgets what the poll that ends has dealt with, frames where `stale`. What came in between is
    /// for the caller to look for.
    pub(super) fn enable<M: Mmio>(self, registers: &Registers<M>, stale: bool, transmit: bool) {
        let received = if stale { self.received().into() } else { 0 };
        let sent = if transmit { self.sent().into() } else { 0 };
        if received | sent != 0u32 {
            registers.write(reg::ICR, Causes::from(received | sent));
        }
        let mut wanted = u32::from(self.received()) | u32::from(self.link());
        if transmit {
            wanted |= u32::from(self.sent());
        }
        registers.write(reg::IMS, Causes::from(wanted));
    }

    /// Disables the transmit interrupt.
    pub(super) fn disable_transmit<M: Mmio>(self, registers: &Registers<M>) {
        registers.write(reg::IMC, self.sent());
    }
}
