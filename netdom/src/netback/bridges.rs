//! The bridges that a vif may name. Pure. Floor 3.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The bridge that `xl` writes for a vif where its config names none (`libxl_nic.c`).
pub const DEFAULT_BRIDGE: &str = "xenbr0";
/// Bytes of a bridge's name at most.
pub const BRIDGE_BYTES: usize = 64;

/// The NIC's bridge, and those that were declared to be without a NIC. A vif on any other is refused: its name is a mistake, and the guest
/// would be alone there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridges {
    nic: String,
    internal: Vec<String>,
}

impl Bridges {
    /// The bridge of the NIC, and those without one.
    pub fn new(nic: &str, internal: &[String]) -> Self {
        Self { nic: nic.into(), internal: internal.into() }
    }

    /// Whether there is a bridge of this name.
    pub fn has(&self, name: &str) -> bool {
        self.nic == name || self.internal.iter().any(|known| known == name)
    }
}

impl fmt::Display for Bridges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (the NIC's)", self.nic)?;
        for name in &self.internal {
            write!(formatter, ", {name}")?;
        }
        Ok(())
    }
}
