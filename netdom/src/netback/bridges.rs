//! The bridges that a vif may name. Pure. Floor 3.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The bridge that `xl` writes for a vif where its config names none (`libxl_nic.c`).
pub const DEFAULT_BRIDGE: &str = "xenbr0";
/// Bytes of a bridge's name at most.
pub const BRIDGE_BYTES: usize = 64;

/// The bridges that NICs are on, and those that were declared to be without a NIC. A vif on any other is refused: its name is a mistake,
/// and the guest would be alone there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridges {
    wired: Vec<String>,
    internal: Vec<String>,
}

impl Bridges {
    /// The bridges of NICs, each once, and those without one.
    pub fn new<'a>(wired: impl IntoIterator<Item = &'a str>, internal: &[String]) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in wired {
            if names.iter().all(|known| known != name) {
                names.push(name.into());
            }
        }
        Self { wired: names, internal: internal.into() }
    }

    /// Whether there is a bridge of this name.
    pub fn has(&self, name: &str) -> bool {
        self.wired.iter().chain(&self.internal).any(|known| known == name)
    }
}

impl fmt::Display for Bridges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.wired.iter().chain(&self.internal).enumerate() {
            let separator = if place > 0 { ", " } else { "" };
            let kind = if place < self.wired.len() { "" } else { " (internal)" };
            write!(formatter, "{separator}{name}{kind}")?;
        }
        Ok(())
    }
}
