//! Words of an 82599's non-volatile memory, and the start-up sequences of SFP+ modules in it (82599 datasheet 6). Pure. Floor 3.

use super::registers::{self as reg, Eerd};
use crate::nic::Delay;
use crate::nic::family::wait;
use alloc::vec::Vec;
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
const WORDS: usize = 256;
/// How often all words of a sequence are looked for, and how far apart: a word takes some 40 us.
const LOOKS: u32 = 4000;
/// How often they are in one step.
const BURST: u32 = 150;
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

/// Begins to read a word.
fn ask<M: Mmio>(mmio: &M, address: u16) {
    reg::EERD.write(mmio, 0, Eerd::new().with_start(true).with_address(address & 0x3FFF));
}

/// Whether the card may see a link where its cage is empty (Linux: `ixgbe_need_crosstalk_fix`).
pub(super) fn has_crosstalk<M: Mmio>(mmio: &M, delay: Delay<'_>) -> bool {
    ask(mmio, CAPABILITIES);
    wait(delay, PAUSE, LOOKS, || reg::EERD.read(mmio, 0).done());
    let seen = reg::EERD.read(mmio, 0);
    seen.done() && u32::from(seen) != u32::MAX && seen.data() & NO_CROSSTALK == 0
}

/// What the word that is read next is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The pointer to the list.
    List,
    /// A module's name in the list, after so many others.
    Name(u16),
    /// The pointer to its sequence.
    Pointer,
    /// A word of the sequence.
    Word,
}

/// A start-up sequence that is read, in steps of less than a millisecond or so.
#[derive(Debug)]
pub(super) struct Sequence {
    name: u16,
    place: Place,
    address: u16,
    words: Vec<u16>,
    /// Looks that are left.
    looks: u32,
}

impl Sequence {
    /// Begins to read the sequence of that name.
    pub(super) fn new<M: Mmio>(mmio: &M, name: u16) -> Self {
        ask(mmio, SEQUENCES);
        Self { name, place: Place::List, address: SEQUENCES, words: Vec::new(), looks: LOOKS }
    }

    /// Reads on. `None` where more is to be read by a later call.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn read<M: Mmio>(&mut self, mmio: &M, delay: Delay<'_>) -> Option<Result<(), Error>> {
        for _ in 0..BURST {
            let seen = reg::EERD.read(mmio, 0);
            self.looks = self.looks.saturating_sub(1);
            if self.looks == 0 || u32::from(seen) == u32::MAX {
                return Some(Err(Error::Unread(self.address)));
            }
            if !seen.done() {
                delay(PAUSE);
                continue;
            }
            match self.take(seen.data()) {
                Ok(Some(next)) => {
                    self.address = next;
                    ask(mmio, next);
                }
                Ok(None) => return Some(Ok(())),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Takes a word; gives the address of the next one, `None` at the end. A sequence's first word is a checksum.
    fn take(&mut self, word: u16) -> Result<Option<u16>, Error> {
        let (place, next) = match (self.place, word) {
            (Place::List | Place::Pointer, 0 | END) | (Place::Name(_), END) => return Err(Error::None),
            (Place::List, list) => (Place::Name(0), list.wrapping_add(1)),
            (Place::Name(_), name) if name == self.name => (Place::Pointer, self.address.wrapping_add(1)),
            (Place::Name(NAMES..), _) => return Err(Error::Endless),
            (Place::Name(others), _) => (Place::Name(others + 1), self.address.wrapping_add(2)),
            (Place::Pointer, sequence) => (Place::Word, sequence.wrapping_add(1)),
            (Place::Word, END) => return Ok(None),
            (Place::Word, _) if self.words.len() == WORDS => return Err(Error::Endless),
            (Place::Word, command) => {
                self.words.push(command);
                (Place::Word, self.address.wrapping_add(1))
            }
        };
        self.place = place;
        Ok(Some(next))
    }

    /// Plays it to the analogue part (Linux: `ixgbe_setup_sfp_modules_82599`), which is the caller's.
    pub(super) fn play<M: Mmio>(&self, mmio: &M) {
        for word in &self.words {
            reg::CORECTL.write(mmio, 0, u32::from(*word));
        }
    }
}
