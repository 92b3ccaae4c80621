//! The command line that `init-xenstore-domain` makes: `--event PORT`, then what `--param` says. Pure. Floor 3.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use xen_pv_sys::Port;

/// What it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The privileged domain's end of its event channel.
    pub event: Option<Port>,
    /// `faults`, in an image that is built with that feature: the privileged domain may have the store fail.
    #[cfg(any(test, feature = "faults"))]
    pub faults: bool,
    /// `faults=give-up` and `faults=panic`, likewise: what a new image does in place of taking over.
    #[cfg(any(test, feature = "faults"))]
    pub fails: Option<Fails>,
    /// What was not understood, each with the reason: the store starts all the same.
    pub complaints: Vec<String>,
}

/// How a new image fails before it has taken over, for tests.
#[cfg(any(test, feature = "faults"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// It says that it cannot go on.
    GivesUp,
    /// It panics.
    Panics,
}

/// Reads it. `log=LEVEL` is the runtime's.
pub fn parse(line: &str) -> Options {
    let mut options = Options::default();
    let mut words = line.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let value = match word {
            "--event" | "-e" => words.next(),
            _ => word.strip_prefix("--event="),
        };
        match value.map(|value| (value, value.parse())) {
            Some((_, Ok(port @ 1..))) => options.event = Some(Port(port)),
            Some((value, _)) => {
                options.complaints.push(format!("\"{}\" is no port", value.escape_debug()));
            }
            None if word.starts_with("log=") => {}
            #[cfg(any(test, feature = "faults"))]
            None if word == "faults" => options.faults = true,
            #[cfg(any(test, feature = "faults"))]
            None if word == "faults=give-up" => options.fails = Some(Fails::GivesUp),
            #[cfg(any(test, feature = "faults"))]
            None if word == "faults=panic" => options.fails = Some(Fails::Panics),
            None => options.complaints.push(format!("unknown word \"{}\"", word.escape_debug())),
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table = [
            ("--event 17", Some(17), 0),
            ("--event=17 log=debug", Some(17), 0),
            ("-e 3 --internal-db", Some(3), 1),
            ("--event 0", None, 1),
            ("--event", None, 1),
            ("--event x", None, 1),
            ("", None, 0),
            ("--event 2 faults", Some(2), 0),
            ("faults faults=panic faults=now", None, 1),
        ];
        for (line, event, complaints) in table {
            let options = parse(line);
            assert_eq!(options.faults, line.contains("faults"));
            assert_eq!((options.event, options.complaints.len()), (event.map(Port), complaints), "{line:?}");
        }
    }
}
