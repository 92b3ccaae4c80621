//! Words of an 82599's non-volatile memory, and the start-up sequences of SFP+ modules in it (82599 datasheet 6). Pure. Floor 3.

use super::registers::{self as reg, Eerd};
use crate::nic::Delay;
use crate::nic::family::wait;
use core::time::Duration;
use split_driver::memory::Mmio;

/// The word with what the card can (Linux: `IXGBE_DEVICE_CAPS`), and the bit in it that no link is seen where there is none.
const CAPABILITIES: u16 = 0x2C;
const NO_CROSSTALK: u16 = 1 << 7;
/// The word that points to the list of start-up sequences (Linux: `IXGBE_PHY_INIT_OFFSET_NL`).
const SEQUENCES: u16 = 0x2B;
/// What ends the list, and each sequence.
const END: u16 = 0xFFFF;
/// Modules that the list may name, and words that a sequence may have.
const NAMES: u16 = 64;
const WORDS: u16 = 256;
/// How often all words of a sequence are looked for, and how far apart: a word takes some 40 us.
const LOOKS: u32 = 2000;
const PAUSE: Duration = Duration::from_micros(5);

/// Why a start-up sequence was not played to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The memory has none for this module.
    None,
    /// A word could not be read.
    Unread(u16),
    /// The list, or the sequence, does not end.
    Endless,
}

impl core::fmt::Display for Error {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::None => formatter.write_str("the card's memory has none"),
            Self::Unread(address) => write!(formatter, "word {address:#x} of the card's memory cannot be read"),
            Self::Endless => formatter.write_str("it does not end"),
        }
    }
}

/// A word; `looks` are those that are left.
fn word<M: Mmio>(mmio: &M, address: u16, looks: &mut u32, delay: Delay<'_>) -> Result<u16, Error> {
    reg::EERD.write(mmio, 0, Eerd::new().with_start(true).with_address(address & 0x3FFF));
    let mut seen = Eerd::new();
    wait(delay, PAUSE, LOOKS, || {
        *looks = looks.saturating_sub(1);
        seen = reg::EERD.read(mmio, 0);
        seen.done() || *looks == 0
    });
    if seen.done() && u32::from(seen) != u32::MAX { Ok(seen.data()) } else { Err(Error::Unread(address)) }
}

/// Whether the card may see a link where its cage is empty (Linux: `ixgbe_need_crosstalk_fix`).
pub(super) fn has_crosstalk<M: Mmio>(mmio: &M, delay: Delay<'_>) -> bool {
    word(mmio, CAPABILITIES, &mut { LOOKS }, delay).is_ok_and(|word| word & NO_CROSSTALK == 0)
}

/// Where the start-up sequence of that name begins.
fn find<M: Mmio>(mmio: &M, name: u16, looks: &mut u32, delay: Delay<'_>) -> Result<u16, Error> {
    let is_pointer = |word: u16| word != 0 && word != END;
    let list = word(mmio, SEQUENCES, looks, delay)?;
    if !is_pointer(list) {
        return Err(Error::None);
    }
    for entry in 0..NAMES {
        let at = list.wrapping_add(1 + 2 * entry);
        match word(mmio, at, looks, delay)? {
            END => return Err(Error::None),
            found if found == name => {
                let sequence = word(mmio, at.wrapping_add(1), looks, delay)?;
                return if is_pointer(sequence) { Ok(sequence) } else { Err(Error::None) };
            }
            _ => {}
        }
    }
    Err(Error::Endless)
}

/// Plays the start-up sequence of that name to the analogue part (Linux: `ixgbe_setup_sfp_modules_82599`), which is the caller's. Its first
/// word is a checksum.
///
/// # Errors
/// [`Error`]; what came before it was played.
pub(super) fn play<M: Mmio>(mmio: &M, name: u16, delay: Delay<'_>) -> Result<(), Error> {
    let looks = &mut { LOOKS };
    let sequence = find(mmio, name, looks, delay)?;
    for place in 1..=WORDS {
        match word(mmio, sequence.wrapping_add(place), looks, delay)? {
            END => return Ok(()),
            command => reg::CORECTL.write(mmio, 0, command.into()),
        }
    }
    Err(Error::Endless)
}
