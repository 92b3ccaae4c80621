//! The EEPROM: words that a driver reads before it believes in the device. 82599 datasheet 6. Pure.

use super::Kind;
use crate::ethernet::Address;

/// Words.
pub(super) const WORDS: usize = 0x2000;
/// EEC's size field for that many: a power of two above 64 words.
pub(super) const SIZE_FIELD: u32 = 7;

/// The start-up sequences of passive cables, and of optics and all that are like them: of no meaning but here.
pub(super) const CABLE: &[u16] = &[0x0A01, 0x0A02];
/// See [`CABLE`].
pub(super) const OPTICS: &[u16] = &[0x0501, 0x0502, 0x0503];

/// Pointer to the firmware module, 6.1.
const FIRMWARE: usize = 0x0F;
/// The checksum word, and what all words up to it add up to; 6.3.3.
const CHECKSUM: usize = 0x3F;
const SUM: u16 = 0xBABA;

/// The words of a card with the permanent address `address`.
pub(super) fn image(kind: Kind, address: Address) -> Box<[u16]> {
    let mut words = vec![0; WORDS];
    let mut put = |at: usize, values: &[u16]| {
        for (place, value) in words.iter_mut().skip(at).zip(values) {
            *place = *value;
        }
    };
    put(0x11, &[kind.identity().device]);
    // No addresses for storage.
    put(0x28, &[0xFFFF]);
    // The revision of the image.
    put(0x18, &[0x0100]);
    // Device capabilities: any module is allowed; the workaround for crosstalk is not needed.
    put(0x2C, &[0x0081]);
    // Image version 0x8000_0001 (ETrack).
    put(0x2D, &[0x8000, 0x0001]);
    // Firmware: its patch configuration holds version 6; below that Linux calls a card pre-production.
    put(FIRMWARE, &[0x0200]);
    put(0x0200 + 2, &[0xFFFF]);
    put(0x0200 + 4, &[0x0220]);
    put(0x0220 + 7, &[0x0600]);
    if kind == Kind::Sfp {
        // How modules are started: 3 and 4 are passive cables, 5 and 6 optics, at either port.
        put(0x2B, &[0x0100]);
        put(0x0100, &[0, 3, 0x0110, 4, 0x0110, 5, 0x0120, 6, 0x0120, 0xFFFF]);
        for (place, sequence) in [(0x0110, CABLE), (0x0120, OPTICS)] {
            put(place, &[1]);
            put(place + 1, sequence);
            put(place + 1 + sequence.len(), &[0xFFFF]);
        }
    }
    let [a, b, c, d, e, f] = address;
    // The address of port 0, as the core loads it into RAR0.
    put(0x0300, &[3, u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), u16::from_le_bytes([e, f])]);
    let sum = words.iter().take(CHECKSUM).fold(0u16, |sum, word| sum.wrapping_add(*word));
    if let Some(place) = words.get_mut(CHECKSUM) {
        *place = SUM.wrapping_sub(sum);
    }
    words.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_add_up_and_name_a_firmware() {
        for kind in Kind::ALL {
            let words = image(kind, [0, 0x1B, 0x21, 1, 2, 3]);
            let sum = words[..=CHECKSUM].iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
            assert_eq!(sum, SUM);
            // Modules that the sum covers too (pointers 3 to 14) are not there.
            assert!(words[3..FIRMWARE].iter().all(|pointer| matches!(pointer, 0 | 0xFFFF)));
            let patch = words[usize::from(words[FIRMWARE]) + 4];
            assert!(words[usize::from(patch) + 7] > 5);
        }
        assert_eq!(WORDS, 64 << SIZE_FIELD);
    }
}
