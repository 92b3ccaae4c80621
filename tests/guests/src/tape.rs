//! The acts of a hostile frontend that a fuzzer made, as lines of text: recorded on a host, played by the image `hostile` under Xen.
//!
//! A tape has lives. A life begins with a line of the words with which the frontend connects; a line follows for each [`Step`]. Numbers are
//! hexadecimal. What depends on the domain, its grants, has names; all else is as the fuzzer's frontend stored it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Memory of the frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// A ring's pages: of a vif 0 is the transmit ring and 1 the receive ring, of a vbd it is the queue's.
    Ring(u8),
    /// Pages of packets or sectors.
    Data,
    /// Pages of indirect segments (`io/blkif.h`).
    Indirect,
}

/// A word of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// As it is.
    Number(u32),
    /// The reference of a grant of a page.
    Grant {
        /// Where the page is.
        area: Area,
        /// Which one.
        page: u8,
        /// Whether the backend may write it.
        writable: bool,
    },
    /// The reference of a grant that comes and goes ([`Step::Revoke`]).
    Fickle,
}

/// What the frontend does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stores words, one after the other.
    Store {
        /// Where.
        area: Area,
        /// The first word's place, in words.
        place: u32,
        /// The words.
        words: Vec<Word>,
    },
    /// Adds to a word as it is then.
    Add {
        /// Where.
        area: Area,
        /// The word's place, in words.
        place: u32,
        /// What is added, modulo 2^32.
        value: u32,
    },
    /// Turns bits of a word over from now on, again and again until the life ends.
    Flicker {
        /// Where.
        area: Area,
        /// The word's place, in words.
        place: u32,
        /// The bits.
        bits: u32,
    },
    /// Sends an event by the channel of a ring.
    Notify(u8),
    /// Ends the grant [`Word::Fickle`], if it can, and makes another one.
    Revoke,
    /// Waits, in milliseconds.
    Wait(u32),
}

/// From one connection to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// The words with which it connects: nodes of a vif as `NODE=VALUE`, of a vbd the words that attacks on one take.
    pub words: Vec<String>,
    /// What it does then.
    pub steps: Vec<Step>,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(number) => write!(f, "r{number}"),
            Self::Data => write!(f, "d"),
            Self::Indirect => write!(f, "i"),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:x}"),
            Self::Grant { area, page, writable } => {
                write!(f, "{}:{area}:{page:x}", if *writable { "w" } else { "r" })
            }
            Self::Fickle => write!(f, "fickle"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { area, place, words } => {
                write!(f, "store {area} {place:x}")?;
                words.iter().try_for_each(|word| write!(f, " {word}"))
            }
            Self::Add { area, place, value } => write!(f, "add {area} {place:x} {value:x}"),
            Self::Flicker { area, place, bits } => write!(f, "flicker {area} {place:x} {bits:x}"),
            Self::Notify(ring) => write!(f, "notify {ring:x}"),
            Self::Revoke => write!(f, "revoke"),
            Self::Wait(milliseconds) => write!(f, "wait {milliseconds:x}"),
        }
    }
}

fn number(word: &str) -> Option<u32> {
    u32::from_str_radix(word, 16).ok()
}

fn byte(word: &str) -> Option<u8> {
    u8::from_str_radix(word, 16).ok()
}

impl Area {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "d" => Some(Self::Data),
            "i" => Some(Self::Indirect),
            _ => Some(Self::Ring(byte(word.strip_prefix('r')?)?)),
        }
    }
}

impl Word {
    fn parse(word: &str) -> Option<Self> {
        if word == "fickle" {
            return Some(Self::Fickle);
        }
        let mut parts = word.split(':');
        let (first, area, page) = (parts.next()?, parts.next(), parts.next());
        match (area, page) {
            (Some(area), Some(page)) if ["r", "w"].contains(&first) => {
                Some(Self::Grant { area: Area::parse(area)?, page: byte(page)?, writable: first == "w" })
            }
            (None, None) => Some(Self::Number(number(first)?)),
            _ => None,
        }
    }
}

impl Step {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut next = || words.next();
        let step = match kind {
            "store" => {
                let (area, place) = (Area::parse(next()?)?, number(next()?)?);
                let words = words.map(Word::parse).collect::<Option<_>>()?;
                return Some(Self::Store { area, place, words });
            }
            "add" => Self::Add { area: Area::parse(next()?)?, place: number(next()?)?, value: number(next()?)? },
            "flicker" => Self::Flicker { area: Area::parse(next()?)?, place: number(next()?)?, bits: number(next()?)? },
            "notify" => Self::Notify(byte(next()?)?),
            "revoke" => Self::Revoke,
            "wait" => Self::Wait(number(next()?)?),
            _ => return None,
        };
        words.next().is_none().then_some(step)
    }
}

/// The tape as text.
pub fn write(lives: &[Life]) -> String {
    let mut text = String::new();
    for life in lives {
        text += "life";
        life.words.iter().for_each(|word| text += &format!(" {word}"));
        text += "\n";
        life.steps.iter().for_each(|step| text += &format!("{step}\n"));
    }
    text
}

/// The lives on a tape.
///
/// # Errors
/// The first line that does not belong to a tape.
pub fn read(text: &str) -> Result<Vec<Life>, String> {
    let mut lives: Vec<Life> = Vec::new();
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("life") {
            let words = words.split_ascii_whitespace().map(ToString::to_string).collect();
            lives.push(Life { words, steps: Vec::new() });
            continue;
        }
        match (lives.last_mut(), Step::parse(line)) {
            (Some(life), Some(step)) => life.steps.push(step),
            _ => return Err(line.to_string()),
        }
    }
    Ok(lives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_tape_is_read_as_it_was_written() {
        let grant = |area, page, writable| Word::Grant { area, page, writable };
        let words = vec![Word::Number(u32::MAX), grant(Area::Data, 23, true), grant(Area::Indirect, 0, false)];
        let steps = vec![
            Step::Store { area: Area::Ring(1), place: 0x3ff, words },
            Step::Store { area: Area::Data, place: 0, words: vec![Word::Fickle] },
            Step::Add { area: Area::Ring(0), place: 3, value: u32::MAX },
            Step::Flicker { area: Area::Indirect, place: 7, bits: 1 },
            Step::Notify(1),
            Step::Revoke,
            Step::Wait(65535),
        ];
        let lives = vec![
            Life { words: vec!["feature-sg=1".into(), "feature-gso-tcpv4=0".into()], steps },
            Life::default(),
            Life { words: vec!["queues=2".into()], steps: vec![Step::Notify(0)] },
        ];
        assert_eq!(read(&write(&lives)), Ok(lives));
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn what_is_no_line_of_a_tape_is_named() {
        for line in
            ["notify", "notify 1 2", "store x 0 1", "store r0 0 q:d:1", "store r0 0 r:d", "add r0 1", "wait g", ""]
        {
            assert_eq!(read(&format!("life\n{line}\n")), Err(line.to_string()));
        }
        assert_eq!(read("wait 1"), Err("wait 1".to_string()), "a step belongs to a life");
    }
}
