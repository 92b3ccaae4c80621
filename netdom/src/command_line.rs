//! The words of the command line (`extra=` of the domain's config) that netdom alone knows. Pure. Floor 3.

use alloc::format;
use alloc::string::String;

/// The bridge that `xl` writes for a vif where its config names none (`libxl_nic.c`).
pub const DEFAULT_BRIDGE: &str = "xenbr0";
/// Bytes of a bridge's name at most.
const BRIDGE_BYTES: usize = 64;

/// What the command line asks of netdom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    bridge: Option<String>,
}

impl Options {
    /// The bridge that the NIC is a port of.
    pub fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }

    /// Obeys a word `name=value`; false where it is none of netdom's.
    ///
    /// # Errors
    /// What is wrong with the value. Going on without it could put the NIC on the wrong bridge, and join what is to be kept apart.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        if name != "bridge" {
            return Ok(false);
        }
        if value.is_empty() || value.len() > BRIDGE_BYTES || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let value = value.escape_debug();
            return Err(format!("\"bridge={value}\": a bridge's name is 1 to {BRIDGE_BYTES} printable characters"));
        }
        if self.bridge.as_ref().is_some_and(|known| known != value) {
            return Err(format!("\"bridge={}\" contradicts an earlier word", value.escape_debug()));
        }
        self.bridge = Some(value.into());
        Ok(true)
    }
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
}
