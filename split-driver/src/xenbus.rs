//! xenbus: how the two ends of a split device find each other in the xenstore. Pure over the store's trait. Floor 1.
//!
//! The back end's side is here: [`Bus`] finds the devices of a kind in the domain's own `backend/<kind>/<frontend domain>/<handle>`, and
//! leads each through the states of `io/xenbus.h` with its frontend; a [`Backend`] says what a device of that kind offers and does.

mod backend;
mod beginning;
mod bus;
mod connections;
mod context;
mod departures;
mod device;
mod errors;
mod limits;
mod memory;
pub mod queues;
mod room;
mod states;
pub mod toolstack;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

pub use xen_pv_sys::DomainId;
pub use xen_pv_sys::io::xenbus::XenbusState;

pub use backend::{Backend, DeviceHandle, Timing};
pub use bus::Bus;
pub use connections::{Connection, Connections};
pub use memory::{Available, DeviceMemory, Promise, TooLittleMemory};
pub use room::NodeRoom;

/// A device of one kind: whose, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The domain with the front end.
    pub frontend: DomainId,
    /// The toolstack's number for it (`devid`); for a vif its handle.
    pub handle: u32,
}

impl fmt::Display for DeviceId {
    /// As Linux names its interfaces: `3.0`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.frontend.0, self.handle)
    }
}

/// A number as the toolstack writes it into a path: decimal, and the one way to write it.
fn canonical<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// The domain number in a path; not one of the reserved (`DOMID_FIRST_RESERVED`).
fn domain(text: &str) -> Option<DomainId> {
    canonical(text).map(DomainId).filter(|id| id.0 < DomainId::SELF.0)
}

/// A text that a guest wrote, for the log and for errors: escaped, and cut where it is long.
#[derive(Clone, Copy, Debug)]
pub struct Excerpt<'a>(pub &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARACTERS: usize = 40;
        for character in self.0.chars().take(CHARACTERS) {
            write!(formatter, "{}", character.escape_debug())?;
        }
        if self.0.chars().nth(CHARACTERS).is_some() {
            write!(formatter, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// A node is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadNode {
    /// There is none.
    Missing(String),
    /// Its value cannot be what its name says.
    Malformed(String),
}

impl fmt::Display for BadNode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(formatter, "node {name} is missing"),
            Self::Malformed(name) => write!(formatter, "node {name} is malformed"),
        }
    }
}

impl core::error::Error for BadNode {}

/// Values of nodes in one directory, as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory(BTreeMap<String, Vec<u8>>);

impl<Name: Into<String>, Value: Into<Vec<u8>>> FromIterator<(Name, Value)> for Directory {
    fn from_iter<I: IntoIterator<Item = (Name, Value)>>(nodes: I) -> Self {
        let nodes = nodes.into_iter();
        Self(nodes.map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Directory {
    /// The value of a node, if it is there.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// What a node says, none where it is absent.
    ///
    /// # Errors
    /// [`BadNode::Malformed`] where it says something else.
    pub fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, BadNode> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let value = crate::store::parse(value);
        value.map(Some).ok_or_else(|| BadNode::Malformed(name.into()))
    }

    /// What a node says.
    ///
    /// # Errors
    /// [`BadNode`] where it is absent or says something else.
    pub fn required<T: FromStr>(&self, name: &str) -> Result<T, BadNode> {
        self.optional(name)?.ok_or_else(|| BadNode::Missing(name.into()))
    }

    /// Whether a feature is on: a number other than 0. Absent is off.
    ///
    /// # Errors
    /// [`BadNode::Malformed`] where it is no number.
    pub fn flag(&self, name: &str) -> Result<bool, BadNode> {
        Ok(self.optional::<u32>(name)?.unwrap_or(0) != 0)
    }
}

/// What the two ends of a device say, of the nodes that its [`Backend`] asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// The guest's directory: believe nothing.
    pub frontend: Directory,
    /// The toolstack's and our own.
    pub backend: Directory,
}

#[cfg(all(test, feature = "fakes", not(loom)))]
mod tests;
