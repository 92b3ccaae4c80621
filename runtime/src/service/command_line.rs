//! The words of the command line (`extra=` of a domain's config) that every image knows. Pure. Floor 2.

use crate::pci::InterruptKind;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use log::LevelFilter;

/// What the command line asks of every image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `log=LEVEL`: what is logged.
    pub level: LevelFilter,
    /// `interrupts=KIND`: how devices interrupt at best (`msix`, `msi` or `intx`), for hosts and devices where a better kind does not
    /// work. Where a device has none of that kind, it is the next one.
    pub interrupts: InterruptKind,
    /// `profile=on|off`: whether `data/counts` says once a second what was asked of Xen and of devices, and how long register accesses took.
    pub profile: bool,
    /// `faults=WAY:COUNT:LIVES`: see [`super::Faults`].
    #[cfg(feature = "faults")]
    pub faults: Option<super::Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            level: LevelFilter::Info,
            interrupts: InterruptKind::MsiX,
            profile: false,
            #[cfg(feature = "faults")]
            faults: None,
        }
    }
}

/// What is wrong with a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Going on without these words would do something else than was meant.
    pub(super) fatal: Vec<String>,
    /// Words that nobody knows.
    pub(super) unknown: Vec<String>,
}

impl Wrong {
    /// All that is wrong; `None` where nothing is.
    pub(super) fn text(&self) -> Option<String> {
        let all: Vec<&str> = self.fatal.iter().chain(&self.unknown).map(String::as_str).collect();
        (!all.is_empty()).then(|| format!("command line: {}", all.join("; ")))
    }
}

/// Takes a value once; the same one again does no harm.
fn set<T: PartialEq>(place: &mut Option<T>, word: &str, value: T) -> Result<bool, String> {
    if place.as_ref().is_some_and(|known| *known != value) {
        return Err(format!("\"{}\" contradicts an earlier word", word.escape_debug()));
    }
    *place = Some(value);
    Ok(true)
}

/// Reads a command line; `other` is asked of each word `name=value` that is not every domain's, and says whether it is its own. A domain's
/// builder writes `--name value`, which is the same.
pub(super) fn parse(line: &str, mut other: impl FnMut(&str, &str) -> Result<bool, String>) -> (Options, Wrong) {
    let (mut level, mut interrupts, mut profile) = (None, None, None);
    #[cfg(feature = "faults")]
    let mut faults = None;
    let mut wrong = Wrong::default();
    let mut words = line.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let result = match word.split_once('=') {
            Some(("log", value)) => log_level(value).and_then(|value| set(&mut level, word, value)),
            Some(("interrupts", value)) => interrupt_kind(value).and_then(|value| set(&mut interrupts, word, value)),
            Some(("profile", value)) => switch(word, value).and_then(|value| set(&mut profile, word, value)),
            #[cfg(feature = "faults")]
            Some(("faults", value)) if let Some(parsed) = super::Faults::parse(value) => {
                faults = Some(parsed);
                Ok(true)
            }
            Some((name, value)) => other(name, value),
            None if word.starts_with('-') => {
                let value = words.clone().next().unwrap_or_default();
                let known = other(word, value);
                if known != Ok(false) {
                    words.next();
                }
                known
            }
            #[cfg(feature = "faults")]
            None if word == "faults" => other(word, ""),
            None => Ok(false),
        };
        match result {
            Ok(true) => {}
            Ok(false) => wrong.unknown.push(format!("unknown word \"{}\"", word.escape_debug())),
            Err(error) => wrong.fatal.push(error),
        }
    }
    let defaults = Options::default();
    let options = Options {
        level: level.unwrap_or(defaults.level),
        interrupts: interrupts.unwrap_or(defaults.interrupts),
        profile: profile.unwrap_or(defaults.profile),
        #[cfg(feature = "faults")]
        faults,
    };
    (options, wrong)
}

fn log_level(value: &str) -> Result<LevelFilter, String> {
    let wrong = |_| format!("\"log={}\": the level is off, error, warn, info, debug or trace", value.escape_debug());
    value.parse().map_err(wrong)
}

fn interrupt_kind(value: &str) -> Result<InterruptKind, String> {
    match value {
        "msix" => Ok(InterruptKind::MsiX),
        "msi" => Ok(InterruptKind::Msi),
        "intx" => Ok(InterruptKind::IntX),
        _ => Err(format!("\"interrupts={}\": the kind is msix, msi or intx", value.escape_debug())),
    }
}

fn switch(word: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("\"{}\": it is on or off", word.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken, how many words nobody knows, and how many are wrong.
    #[test]
    fn lines() {
        let options = |level, interrupts| Options { level, interrupts, ..Options::default() };
        let profile = |profile| Options { profile, ..Options::default() };
        let (info, msix) = (LevelFilter::Info, InterruptKind::MsiX);
        let table = [
            ("", options(info, msix), 0, 0),
            (" \t log=DEBUG", options(LevelFilter::Debug, msix), 0, 0),
            ("log=warn log=warn", options(LevelFilter::Warn, msix), 0, 0),
            ("log=warn log=error", options(LevelFilter::Warn, msix), 0, 1),
            ("log=loud interrupts=MSI", options(info, msix), 0, 2),
            ("interrupts=intx bridge=lan quiet", options(info, InterruptKind::IntX), 1, 0),
            ("interrupts=msi interrupts= interrupts", options(info, InterruptKind::Msi), 1, 1),
            ("profile=on", profile(true), 0, 0),
            ("profile=off profile=off", profile(false), 0, 0),
            ("profile=on profile=off", profile(true), 0, 1),
            ("profile=yes profile= profile", profile(false), 1, 2),
            ("bridge=no root=/dev/xvda", options(info, msix), 1, 1),
            // As a domain's builder writes them.
            ("--event 17 log=warn", options(LevelFilter::Warn, msix), 0, 0),
            ("--event 0 --internal-db log=warn", options(LevelFilter::Warn, msix), 1, 1),
        ];
        for (line, expected, unknown, fatal) in table {
            let bridge = |name: &str, value: &str| match (name, value) {
                ("bridge", "no") => Err("no".into()),
                ("bridge", _) | ("--event", "17") => Ok(true),
                ("--event", _) => Err("no port".into()),
                _ => Ok(false),
            };
            let (options, wrong) = parse(line, bridge);
            assert_eq!((options, wrong.unknown.len(), wrong.fatal.len()), (expected, unknown, fatal), "{line:?}");
        }
    }

    #[test]
    fn a_contradiction_is_named() {
        let (_, wrong) = parse("log=warn log=error", |_, _| Ok(false));
        assert_eq!(wrong.fatal, ["\"log=error\" contradicts an earlier word"]);
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let text = |line| parse(line, |_, _| Ok(false)).1.text();
        assert_eq!(text("log=warn"), None);
        let expected =
            "command line: \"interrupts=2\": the kind is msix, msi or intx; unknown word \"a\"; unknown word \"b=c\"";
        assert_eq!(text("a b=c interrupts=2").as_deref(), Some(expected));
    }

    #[test]
    fn a_message_never_carries_control_characters() {
        let (_, wrong) = parse("\u{1b}[2J log=\u{7}", |_, _| Ok(false));
        for text in wrong.fatal.iter().chain(&wrong.unknown) {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}
