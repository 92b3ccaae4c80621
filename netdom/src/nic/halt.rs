//! A NIC that an earlier life used forgets its rings: by a reset, before it reaches memory again. Pure. Floor 3.
//!
//! Its rings lie in memory that is others' by now, and a frame that comes would be written there. The register and its bit are the same in all
//! families: CTRL (82574 datasheet 10.2.2.1, 82576 datasheet 8.2.1, 82599 datasheet 8.2.3.1.1). The reset leaves the PHY alone.

use core::time::Duration;
use split_driver::memory::Mmio;

/// CTRL, and the bit in it that resets the device and reads as 0 when that is over.
const CTRL: usize = 0;
const RST: u32 = 1 << 26;
/// How long a reset may take.
pub const PATIENCE: Duration = Duration::from_millis(20);
/// How long to wait before each look: no register may be read sooner (82599 datasheet 4.2.1.6.1 has the longest).
pub const PAUSE: Duration = Duration::from_millis(1);

/// Begins a NIC's reset.
pub fn begin(registers: &impl Mmio) {
    registers.write32(CTRL, registers.read32(CTRL) | RST);
}

/// Whether it is over. Never where there is no device behind the registers.
pub fn is_over(registers: &impl Mmio) -> bool {
    let control = registers.read32(CTRL);
    control != u32::MAX && control & RST == 0
}
