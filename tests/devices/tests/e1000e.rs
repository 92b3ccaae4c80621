//! netdom's e1000e driver against the model of the 82574. Host.

mod bench;

use bench::cases::Card;
use devices::e1000e::{E1000e, IDENTITY, registers};

impl Card for E1000e {
    type Kind = ();
    const SPEED: u32 = 1000;
    const LARGEST: usize = 9230;
    const RESET: &'static str = "EEC";
    /// CE, SE, SEQ, CXE and RXE, 82574 datasheet 7.1.4.
    const DAMAGED: &'static [u32] = &[1 << 24, 1 << 25, 1 << 26, 1 << 28, 1 << 31];

    fn receive_queue(queue: usize) -> usize {
        registers::receive(queue)
    }

    fn power_on((): (), address: [u8; 6]) -> Self {
        Self::new(address)
    }

    fn device((): ()) -> u16 {
        IDENTITY.device
    }
}

bench::cases::cases!(E1000e, [], i82574: ());
