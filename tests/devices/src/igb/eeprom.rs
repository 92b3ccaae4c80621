//! The EEPROM: words that a driver reads before it believes in the device. 82576 datasheet 6, I350 datasheet 6. Pure.

use super::Kind;
use crate::ethernet::Address;

/// Words.
pub(super) const WORDS: usize = 0x1000;
/// EEC's size field for that many: a power of two above 64 words.
pub(super) const SIZE_FIELD: u32 = 6;

/// The checksum word of a port's words, and what all words up to it add up to; 6.2.
const CHECKSUM: usize = 0x3F;
const SUM: u16 = 0xBABA;
/// Where the words of each of the I350's ports begin, I350 datasheet 6.1.
const PORTS: [usize; 4] = [0, 0x80, 0xC0, 0x100];

/// The words of a card with the permanent address `address`.
pub(super) fn image(kind: Kind, address: Address) -> Box<[u16]> {
    let mut words = vec![0; WORDS];
    let mut put = |at: usize, values: &[u16]| {
        for (place, value) in words.iter_mut().skip(at).zip(values) {
            *place = *value;
        }
    };
    let [a, b, c, d, e, f] = address;
    put(0, &[u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), u16::from_le_bytes([e, f])]);
    // LEDs by default; image version 1.2; no part number.
    put(0x04, &[0xFFFF, 0x1020]);
    put(0x08, &[0, 0]);
    let identity = kind.identity();
    // Initialisation control 1, subsystem, device, vendor.
    put(0x0A, &[0x4000, identity.subsystem[1], identity.subsystem[0], identity.device, identity.vendor]);
    // No alternate address, no option ROM's version, no thermal sensor outside.
    put(0x37, &[0xFFFF]);
    put(0x3D, &[0xFFFF, 0xFFFF]);
    // ETrack's id.
    put(0x42, &[0x0001, 0x8000]);
    let ports = if kind == Kind::I350 { &PORTS[..] } else { &PORTS[..1] };
    for port in ports {
        let block = words.iter().skip(*port).take(CHECKSUM);
        let sum = block.fold(0u16, |sum, word| sum.wrapping_add(*word));
        if let Some(place) = words.get_mut(port + CHECKSUM) {
            *place = SUM.wrapping_sub(sum);
        }
    }
    words.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_each_port_add_up() {
        for kind in Kind::ALL {
            let words = image(kind, [0, 0x1B, 0x21, 1, 2, 3]);
            for port in PORTS.iter().take(if kind == Kind::I350 { 4 } else { 1 }) {
                let sum = words[*port..=port + CHECKSUM].iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
                assert_eq!(sum, SUM, "{kind:?}, words from {port:#x}");
            }
            assert_eq!(words[..3], [0x1B00, 0x0121, 0x0302]);
        }
        assert_eq!(WORDS, 64 << SIZE_FIELD);
    }
}
