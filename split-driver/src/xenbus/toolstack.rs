//! What a back end makes of the nodes that a toolstack writes for a device: a table of its own says it of each. Pure. Floor 1.

use super::Directory;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What is made of a node.
#[derive(Clone, Copy)]
pub enum Treatment {
    /// It is obeyed.
    Heeded,
    /// It is xenbus' own, or says nothing about what the device does.
    Harmless,
    /// It has no meaning here: where the test says so, the log says why.
    Named(fn(&str) -> bool, &'static str),
    /// It says what becomes of packets or data, and is not obeyed: where the test says so, the device is refused for this reason.
    Refused(fn(&str) -> bool, &'static str),
}

/// A node of the backend directory.
pub struct Node {
    /// Its name; with a `*` at the end, all names that begin so. Those are never read.
    pub name: &'static str,
    /// What is made of it.
    pub treatment: Treatment,
}

/// An entry of a table.
pub const fn node(name: &'static str, treatment: Treatment) -> Node {
    Node { name, treatment }
}

/// Characters of a node's value in a message.
const SHOWN: usize = 64;

/// A node for which a device is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The node.
    pub name: &'static str,
    /// The beginning of what it says, printable.
    pub value: String,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}: {}", self.name, self.value, self.reason)
    }
}

impl core::error::Error for Refusal {}

/// A node's value as text; what is no text is shown as such.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim().into()
}

fn shown(value: &str) -> String {
    value.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

/// The first node of a table, if any, for which a device is refused.
///
/// # Errors
/// [`Refusal`].
pub fn refuse(table: &[Node], nodes: &Directory) -> Result<(), Refusal> {
    for node in table {
        if let Treatment::Refused(applies, reason) = node.treatment
            && let Some(value) = nodes.get(node.name).map(text)
            && applies(&value)
        {
            return Err(Refusal { name: node.name, value: shown(&value), reason });
        }
    }
    Ok(())
}

/// What the log says of nodes that have no meaning here.
pub fn remarks(table: &[Node], nodes: &Directory) -> Vec<String> {
    let remark = |node: &Node| {
        let Treatment::Named(applies, reason) = node.treatment else {
            return None;
        };
        let value = nodes.get(node.name).map(text).filter(|value| applies(value))?;
        Some(format!("{}={} is not heeded: {reason}", node.name, shown(&value)))
    };
    table.iter().filter_map(remark).collect()
}

/// Any value but none at all.
pub fn is_said(value: &str) -> bool {
    !value.is_empty()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_short_and_printable() {
        let table = [node("ip", Treatment::Refused(is_said, "no"))];
        let nodes: Directory = [("ip", "\u{1b}".repeat(1000))].into_iter().collect();
        let error = refuse(&table, &nodes).unwrap_err();
        assert!(error.value.len() < 8 * SHOWN && error.value.is_ascii() && !error.value.contains('\u{1b}'));
    }
}
