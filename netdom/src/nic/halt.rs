//! A NIC that an earlier life used forgets its rings: by a reset, before it reaches memory again. Pure. Floor 3.
//!
//! Its rings lie in memory that is others' by now, and a frame that comes would be written there. The register and its bit are the same in all
//! families: CTRL (82574 datasheet 10.2.2.1, 82576 datasheet 8.2.1, 82599 datasheet 8.2.3.1.1). The reset leaves the PHY alone.

use super::Delay;
use core::time::Duration;
use split_driver::memory::Mmio;

/// CTRL, and the bit in it that resets the device and reads as 0 when that is over.
const CTRL: usize = 0;
const RST: u32 = 1 << 26;
/// How long a reset may take, in looks, and the pause before each: no register may be read sooner (82599 datasheet 4.2.1.6.1 has the longest).
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Resets a NIC. False where the reset is not seen to be over, or there is no device behind the registers.
#[must_use]
pub fn halt(registers: &impl Mmio, delay: Delay<'_>) -> bool {
    let control = registers.read32(CTRL);
    if control == u32::MAX {
        return false;
    }
    registers.write32(CTRL, control | RST);
    (0..LOOKS).any(|_| {
        delay(PAUSE);
        let control = registers.read32(CTRL);
        control != u32::MAX && control & RST == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use split_driver::memory::Reach;

    /// CTRL, and how often it is read until a reset is over.
    struct Fake {
        control: Cell<u32>,
        left: Cell<u32>,
    }

    impl Mmio for Fake {
        fn reach(&self) -> Reach {
            Reach::default()
        }

        fn len(&self) -> usize {
            4
        }

        fn read32(&self, offset: usize) -> u32 {
            assert_eq!(offset, CTRL);
            if self.control.get() & RST != 0 && self.control.get() != u32::MAX {
                self.left.set(self.left.get() - 1);
                if self.left.get() == 0 {
                    self.control.set(self.control.get() & !RST);
                }
            }
            self.control.get()
        }

        fn write32(&self, offset: usize, value: u32) {
            assert_eq!((offset, value & RST), (CTRL, RST));
            self.control.set(value);
        }
    }

    #[test]
    fn a_reset_is_waited_for_and_not_for_ever() {
        for (control, reads, over) in [(0x41, 1, true), (0, 20, true), (0, 21, false), (u32::MAX, 1, false)] {
            let fake = Fake { control: Cell::new(control), left: Cell::new(reads) };
            let mut waited = Duration::ZERO;
            assert_eq!(halt(&fake, &mut |pause| waited += pause), over, "{reads}");
            assert_eq!(fake.control.get() == control, over || control == u32::MAX, "the other bits stay");
            assert!(waited <= PAUSE * LOOKS);
        }
    }
}
