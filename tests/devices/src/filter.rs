//! Filters of received frames by their addresses and VLANs. 82599 datasheet 7.1.1, 82576 datasheet 7.1.2 and 8.10.15 to 19. Pure.

use crate::ethernet::Address;
use crate::registers::Registers;

/// RAH: address valid.
pub const ADDRESS_VALID: u32 = 1 << 31;

/// Whether RAL at `at`, with RAH behind it, holds `address`.
pub fn holds(registers: &Registers, at: usize, [a, b, c, d, e, f]: Address) -> bool {
    let high = u32::from(u16::from_le_bytes([e, f])) | ADDRESS_VALID;
    registers.get(at) == u32::from_le_bytes([a, b, c, d]) && registers.get(at + 4) & (ADDRESS_VALID | 0xFFFF) == high
}

/// Whether bit `index` of the table at `table` is set: MTA, VFTA.
pub fn has_bit(registers: &Registers, table: usize, index: usize) -> bool {
    registers.get(table + index / 32 * 4) >> (index % 32) & 1 != 0
}

/// The bit of MTA for a group's address: 12 bits of it, by `offset` (MO) from 47, 46, 45 or 43 down.
pub fn multicast_bit(address: Address, offset: u32) -> usize {
    let high = u16::from_le_bytes([address[4], address[5]]);
    let shift = [4, 3, 2, 0].get(offset as usize & 3).copied().unwrap_or(4);
    usize::from(high >> shift & 0xFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_groups_and_addresses() {
        // 82576 datasheet 7.1.2.3 has such an example: bits 47 to 36.
        assert_eq!(multicast_bit([1, 0, 0x5E, 0, 0x34, 0x12], 0), 0x123);
        assert_eq!(multicast_bit([1, 0, 0x5E, 0, 0x34, 0x12], 3), 0x234);
        let mut registers = Registers::new(64);
        registers.set(0, 0x0403_0201);
        registers.set(4, 0x0605);
        assert!(!holds(&registers, 0, [1, 2, 3, 4, 5, 6]), "not valid");
        registers.raise(4, ADDRESS_VALID | 1 << 18);
        assert!(holds(&registers, 0, [1, 2, 3, 4, 5, 6]));
        assert!(!holds(&registers, 0, [1, 2, 3, 4, 5, 7]));
        registers.set(12, 1 << 5);
        assert!(has_bit(&registers, 8, 37) && !has_bit(&registers, 8, 5));
    }
}
