//! Numbers that guests do not know. Floor 2.
//!
//! Unsafe because the CPU's generator has to be asked for before it is used.

use crate::time_stamp::time_stamp;
use core::arch::x86_64::{__cpuid, _rdrand64_step};

/// CPUID.01H:ECX: the CPU has RDRAND (Intel SDM, CPUID).
const RDRAND: u32 = 1 << 30;
/// How often the generator is asked before it counts as broken (Intel SDM, 7.3.17.1).
const TRIES: u32 = 10;

/// A number for the key of a hash: of the CPU's generator, and where it has none of the time stamp counter alone, which no guest knows to the cycle.
pub fn secret() -> u64 {
    // The counter's low bits are spread over all.
    let stamp = time_stamp().wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    stamp ^ generated().unwrap_or_default()
}

fn generated() -> Option<u64> {
    if __cpuid(1).ecx & RDRAND == 0 {
        return None;
    }
    // SAFETY: the CPU has the instruction.
    unsafe { draw() }
}

#[target_feature(enable = "rdrand")]
fn draw() -> Option<u64> {
    let mut number = 0;
    (0..TRIES).any(|_| _rdrand64_step(&mut number) == 1).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn numbers_differ() {
        assert_ne!(secret(), secret());
    }
}
