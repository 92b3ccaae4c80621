//! The words that `init-xenstore-domain` puts on the command line, `--event PORT` and what `--param` says, but those that every image knows.
//! Pure. Floor 3.

use alloc::format;
use alloc::string::String;

use xen_pv_sys::Port;

/// What they ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// The privileged domain's end of its event channel.
    pub event: Option<Port>,
    /// `faults`, in an image that is built with that feature: the privileged domain may have the store fail.
    #[cfg(any(test, feature = "faults"))]
    pub faults: bool,
    /// `faults=give-up` and `faults=panic`, likewise: what a new image does in place of taking over.
    #[cfg(any(test, feature = "faults"))]
    pub fails: Option<Fails>,
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

impl Words {
    /// Takes a word; false where it is none of these.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match (name, value) {
            ("--event" | "-e", port) => match port.parse() {
                Ok(port @ 1..) => self.event = Some(Port(port)),
                _ => return Err(format!("\"{}\" is no port", port.escape_debug())),
            },
            #[cfg(any(test, feature = "faults"))]
            ("faults", "") => self.faults = true,
            #[cfg(any(test, feature = "faults"))]
            ("faults", "give-up") => self.fails = Some(Fails::GivesUp),
            #[cfg(any(test, feature = "faults"))]
            ("faults", "panic") => self.fails = Some(Fails::Panics),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let mut words = Words::default();
        for (name, value, taken) in [
            ("--event", "17", Ok(true)),
            ("-e", "0", Err(())),
            ("--event", "", Err(())),
            ("--event", "x", Err(())),
            ("--internal-db", "", Ok(false)),
            ("faults", "", Ok(true)),
            ("faults", "panic", Ok(true)),
            ("faults", "now", Ok(false)),
        ] {
            assert_eq!(words.set(name, value).map_err(drop), taken, "{name} {value}");
        }
        assert_eq!(words, Words { event: Some(Port(17)), faults: true, fails: Some(Fails::Panics) });
    }
}
