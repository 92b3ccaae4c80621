//! netdom's ixgbe driver against the models of the 82599 and the X540. Host.

mod bench;
mod server;

use bench::cases::Card;
use devices::bus::Model;
use devices::ixgbe::{Ixgbe, Kind, cause, registers};
use netdom::nic::Fault;
use server::{frames_without_a_buffer_are_counted_once, lost_memory_is_told};

impl Card for Ixgbe {
    type Kind = Kind;
    const SPEED: u32 = 10_000;
    const LARGEST: usize = 9724;
    const RESET: &'static str = "CTRL";
    /// CE, LE, PE, OSE and RXE, 82599 datasheet 7.1.6.2.
    const DAMAGED: &'static [u32] = &[1 << 24, 1 << 25, 1 << 27, 1 << 28, 1 << 29];
    const FAR: u16 = 600;

    fn receive_queue(queue: usize) -> usize {
        registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        registers::transmit(queue)
    }

    fn contexts(&self) -> usize {
        self.contexts_seen()
    }

    fn power_on(kind: Kind, address: [u8; 6]) -> Self {
        Self::new(kind, address)
    }

    fn device(kind: Kind) -> u16 {
        kind.identity().device
    }

    fn sends_pauses(&self) -> bool {
        self.peek(registers::FCCFG) & registers::FCCFG_TFCE != 0
    }

    fn set_partner(&mut self, symmetric: bool, asymmetric: bool) -> bool {
        self.set_partner_pause(symmetric, asymmetric);
        self.kind() != Kind::Sfp
    }

    const FAULTS: &'static [(fn(&mut Self), Fault)] =
        &[(|ixgbe| ixgbe.raise(cause::ECC), Fault::Memory), (|ixgbe| ixgbe.raise(cause::DHER), Fault::Descriptor)];
    const INTERVALS: (usize, u32) = (0x0820, 0xFF8);
}

bench::cases::cases!(Ixgbe, [lost_memory_is_told, frames_without_a_buffer_are_counted_once], kx4: Kind::Kx4, sfp: Kind::Sfp, t3: Kind::T3, x540: Kind::X540);
