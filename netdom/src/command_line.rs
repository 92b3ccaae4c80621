//! The words of the command line (`extra=` of the domain's config) that netdom alone knows. Pure. Floor 3.

use crate::netback::bridges::{BRIDGE_BYTES, Bridges, DEFAULT_BRIDGE};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What the command line asks of netdom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    bridge: Option<String>,
    internal: Vec<String>,
    bpdu: Option<bool>,
}

impl Options {
    /// The bridge that the NIC is a port of (`bridge=`).
    pub fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }

    /// Whether BPDUs go to the wire and come from it (`bpdu=forward`).
    pub fn bpdus_on_wire(&self) -> bool {
        self.bpdu == Some(true)
    }

    /// All bridges that a vif may name.
    ///
    /// # Errors
    /// The NIC's bridge was declared to be one without a NIC.
    pub fn bridges(&self) -> Result<Bridges, String> {
        let nic = self.bridge();
        if self.internal.iter().any(|name| name == nic) {
            return Err(format!(
                "\"internal={nic}\": the NIC is a port of this bridge, unless \"bridge=\" names another"
            ));
        }
        Ok(Bridges::new(nic, &self.internal))
    }

    /// Obeys a word `name=value`; false where it is none of netdom's.
    ///
    /// # Errors
    /// What is wrong with the value. Going on without it could put the NIC on the wrong bridge, and join what is to be kept apart.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "bridge" => {
                check_bridge(name, value)?;
                set(&mut self.bridge, name, value, value.into())
            }
            "internal" => {
                check_bridge(name, value)?;
                if self.internal.iter().all(|known| known != value) {
                    self.internal.push(value.into());
                }
                Ok(true)
            }
            "bpdu" => {
                let forward = match value {
                    "forward" => true,
                    "drop" => false,
                    _ => return Err(format!("\"bpdu={}\": it is forward or drop", value.escape_debug())),
                };
                set(&mut self.bpdu, name, value, forward)
            }
            _ => Ok(false),
        }
    }
}

fn check_bridge(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() || value.len() > BRIDGE_BYTES || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        let value = value.escape_debug();
        return Err(format!("\"{name}={value}\": a bridge's name is 1 to {BRIDGE_BYTES} printable characters"));
    }
    Ok(())
}

/// Takes a value once; the same one again does no harm.
fn set<T: PartialEq>(place: &mut Option<T>, name: &str, text: &str, value: T) -> Result<bool, String> {
    if place.as_ref().is_some_and(|known| *known != value) {
        return Err(format!("\"{name}={}\" contradicts an earlier word", text.escape_debug()));
    }
    *place = Some(value);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges() {
        let mut options = Options::default();
        assert_eq!(options.bridge(), "xenbr0");
        assert_eq!(options.set("colour", "green"), Ok(false));
        assert_eq!(options.set("bridge", "a=b"), Ok(true));
        assert_eq!(options.set("bridge", "a=b"), Ok(true));
        assert_eq!(options.bridge(), "a=b");
        let long = "x".repeat(65);
        for wrong in ["", "lan", "é", "a\u{1b}b", &long] {
            let error = options.set("bridge", wrong).unwrap_err();
            assert!(error.chars().all(|c| !c.is_control()), "{error:?}");
        }
        assert_eq!(options.bridge(), "a=b");
    }

    #[test]
    fn internal_bridges() {
        let mut options = Options::default();
        for name in ["lab", "dmz", "lab"] {
            assert_eq!(options.set("internal", name), Ok(true));
        }
        assert!(options.set("internal", "").is_err());
        let bridges = options.bridges().unwrap();
        for (name, known) in [("xenbr0", true), ("lab", true), ("dmz", true), ("lan", false), ("", false)] {
            assert_eq!(bridges.has(name), known, "{name}");
        }
        // The NIC's bridge is not without a NIC, whichever word came first.
        assert_eq!(options.set("internal", "xenbr0"), Ok(true));
        assert!(options.bridges().unwrap_err().contains("internal=xenbr0"));
        assert_eq!(options.set("bridge", "lan"), Ok(true));
        assert!(options.bridges().unwrap().has("xenbr0"));
        assert_eq!(options.set("internal", "lan"), Ok(true));
        assert!(options.bridges().is_err());
    }

    #[test]
    fn bpdus() {
        let mut options = Options::default();
        assert!(!options.bpdus_on_wire());
        assert!(options.set("bpdu", "yes").is_err());
        assert_eq!(options.set("bpdu", "forward"), Ok(true));
        assert!(options.bpdus_on_wire());
        assert!(options.set("bpdu", "drop").is_err());
    }
}
