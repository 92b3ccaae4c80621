//! netdom's ixgbe driver against the models of the 82599 and the X540. Host.

mod bench;

use bench::cases::Card;
use devices::ixgbe::{Ixgbe, Kind, cause};

impl Card for Ixgbe {
    type Kind = Kind;
    const SPEED: u32 = 10_000;

    fn power_on(kind: Kind, address: [u8; 6]) -> Self {
        Self::new(kind, address)
    }

    fn device(kind: Kind) -> u16 {
        kind.identity().device
    }

    fn lose_memory(&mut self) {
        self.raise(cause::ECC);
    }
}

bench::cases::cases!(Ixgbe, kx4: Kind::Kx4, sfp: Kind::Sfp, t3: Kind::T3, x540: Kind::X540);
