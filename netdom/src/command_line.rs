//! The domain's command line (`extra=` of its config). Pure. Floor 3.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use log::LevelFilter;

/// The bridge that `xl` writes for a vif where its config names none (`libxl_nic.c`).
pub const DEFAULT_BRIDGE: &str = "xenbr0";
/// Bytes of a bridge's name at most.
const BRIDGE_BYTES: usize = 64;

/// The best kind of interrupt that the NIC may be given; where the device has none of that kind, it is the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BestInterrupt {
    /// `msix`: MSI-X, MSI, INTx.
    #[default]
    MsiX,
    /// `msi`: MSI, INTx.
    Msi,
    /// `intx`: INTx alone.
    IntX,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `bridge=NAME`: the bridge that the NIC is a port of.
    pub bridge: String,
    /// `log=LEVEL`: what is logged.
    pub level: LevelFilter,
    /// `interrupts=KIND`: how the NIC interrupts at best, for hosts and devices where a better kind does not work.
    pub interrupts: BestInterrupt,
}

impl Default for Options {
    fn default() -> Self {
        Self { bridge: DEFAULT_BRIDGE.into(), level: LevelFilter::Info, interrupts: BestInterrupt::default() }
    }
}

/// A word that cannot be obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWord<'a> {
    /// Not a word of ours.
    Unknown(&'a str),
    /// `bridge=` without a name, or with one of more than 64 bytes or of bytes that are not printable ASCII.
    Bridge(&'a str),
    /// `log=` with something else than off, error, warn, info, debug or trace.
    Level(&'a str),
    /// `interrupts=` with something else than msix, msi or intx.
    Interrupts(&'a str),
    /// The option was there before, with another value.
    Repeated(&'a str),
}

impl BadWord<'_> {
    /// Whether going on without the word would do something else than was meant.
    pub const fn is_fatal(self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(formatter, "unknown word \"{}\"", word.escape_debug()),
            Self::Bridge(word) => write!(
                formatter,
                "\"{}\": a bridge's name is 1 to {BRIDGE_BYTES} printable characters",
                word.escape_debug()
            ),
            Self::Level(word) => {
                write!(formatter, "\"{}\": the level is off, error, warn, info, debug or trace", word.escape_debug())
            }
            Self::Interrupts(word) => {
                write!(formatter, "\"{}\": interrupts are msix, msi or intx", word.escape_debug())
            }
            Self::Repeated(word) => write!(formatter, "\"{}\" contradicts an earlier word", word.escape_debug()),
        }
    }
}

/// Reads a command line: what it asks for, with the defaults in place of what it does not say or says wrongly, and every word that
/// is wrong.
pub fn parse(line: &str) -> (Options, Vec<BadWord<'_>>) {
    let mut bridge = None;
    let mut level = None;
    let mut interrupts = None;
    let mut bad = Vec::new();
    for word in line.split_ascii_whitespace() {
        let result = match word.split_once('=') {
            Some(("bridge", name)) => bridge_name(word, name).and_then(|n| set(word, &mut bridge, n)),
            Some(("log", name)) => name
                .parse::<LevelFilter>()
                .map_err(|_| BadWord::Level(word))
                .and_then(|parsed| set(word, &mut level, parsed)),
            Some(("interrupts", name)) => best_interrupt(word, name).and_then(|best| set(word, &mut interrupts, best)),
            _ => Err(BadWord::Unknown(word)),
        };
        bad.extend(result.err());
    }
    let defaults = Options::default();
    let options = Options {
        bridge: bridge.map_or(defaults.bridge, String::from),
        level: level.unwrap_or(defaults.level),
        interrupts: interrupts.unwrap_or(defaults.interrupts),
    };
    (options, bad)
}

fn bridge_name<'a>(word: &'a str, name: &'a str) -> Result<&'a str, BadWord<'a>> {
    if name.is_empty() || name.len() > BRIDGE_BYTES || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(BadWord::Bridge(word));
    }
    Ok(name)
}

fn best_interrupt<'a>(word: &'a str, name: &str) -> Result<BestInterrupt, BadWord<'a>> {
    match name {
        "msix" => Ok(BestInterrupt::MsiX),
        "msi" => Ok(BestInterrupt::Msi),
        "intx" => Ok(BestInterrupt::IntX),
        _ => Err(BadWord::Interrupts(word)),
    }
}

/// Takes a value once; the same one again does no harm.
fn set<'a, T: PartialEq>(word: &'a str, place: &mut Option<T>, value: T) -> Result<(), BadWord<'a>> {
    if place.as_ref().is_some_and(|known| *known != value) {
        return Err(BadWord::Repeated(word));
    }
    *place = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn lines() {
        let options = |bridge: &str, level| Options { bridge: bridge.to_string(), level, ..Options::default() };
        let info = LevelFilter::Info;
        let long = "x".repeat(65);
        let too_long = alloc::format!("bridge={long}");
        let table = [
            ("", options("xenbr0", info), vec![]),
            ("  \t ", options("xenbr0", info), vec![]),
            ("bridge=lan log=DEBUG", options("lan", LevelFilter::Debug), vec![]),
            ("bridge=a=b", options("a=b", info), vec![]),
            ("bridge=lan bridge=lan", options("lan", info), vec![]),
            ("bridge=lan bridge=dmz", options("lan", info), vec![BadWord::Repeated("bridge=dmz")]),
            (
                "bridge= log=loud quiet root=/dev/xvda",
                options("xenbr0", info),
                vec![
                    BadWord::Bridge("bridge="),
                    BadWord::Level("log=loud"),
                    BadWord::Unknown("quiet"),
                    BadWord::Unknown("root=/dev/xvda"),
                ],
            ),
            ("bridge=é", options("xenbr0", info), vec![BadWord::Bridge("bridge=é")]),
            (&too_long, options("xenbr0", info), vec![BadWord::Bridge(&too_long)]),
        ];
        for (line, expected, bad) in table {
            assert_eq!(parse(line), (expected, bad), "{line:?}");
        }
    }

    #[test]
    fn kinds_of_interrupts() {
        let table = [
            ("", BestInterrupt::MsiX, vec![]),
            ("interrupts=msix", BestInterrupt::MsiX, vec![]),
            ("interrupts=msi interrupts=msi", BestInterrupt::Msi, vec![]),
            ("interrupts=intx log=info", BestInterrupt::IntX, vec![]),
            ("interrupts=intx interrupts=msi", BestInterrupt::IntX, vec![BadWord::Repeated("interrupts=msi")]),
            ("interrupts=", BestInterrupt::MsiX, vec![BadWord::Interrupts("interrupts=")]),
            ("interrupts=MSI", BestInterrupt::MsiX, vec![BadWord::Interrupts("interrupts=MSI")]),
            ("interrupts", BestInterrupt::MsiX, vec![BadWord::Unknown("interrupts")]),
        ];
        for (line, interrupts, bad) in table {
            assert_eq!(parse(line), (Options { interrupts, ..Options::default() }, bad), "{line:?}");
        }
    }

    #[test]
    fn only_an_unknown_word_is_passed_over() {
        assert!(!BadWord::Unknown("x").is_fatal());
        for bad in [BadWord::Bridge("x"), BadWord::Level("x"), BadWord::Interrupts("x"), BadWord::Repeated("x")] {
            assert!(bad.is_fatal());
        }
    }

    #[test]
    fn a_message_never_carries_control_characters() {
        let (_, bad) = parse("log=\u{1b}[31m");
        let text = bad[0].to_string();
        assert!(text.contains("\\u{1b}"), "{text}");
    }
}
