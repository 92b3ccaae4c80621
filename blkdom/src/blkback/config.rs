//! What a vbd's nodes in the store say (`io/blkif.h`; libxl's `libxl_disk.c`), checked, and what is written into them. Pure. Floor 3.

use super::journal::Whereabouts;
use super::nodes::NODES;
use super::request::{Abi, MAX_INDIRECT_SEGMENTS};
use crate::disk::Geometry;
use crate::volume::{Access, Volume};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use split_driver::xenbus::queues::{self, BadQueueCount};
use split_driver::xenbus::toolstack::{Refusal, refuse};
use split_driver::xenbus::{BadNode, DeviceId, Directory, Excerpt};
use xen_pv_sys::io::blkif::{VDISK_CDROM, VDISK_READONLY, VDISK_REMOVABLE};
use xen_pv_sys::{DomainId, GrantRef, Port};

/// Queues of a vbd, at most (`multi-queue-max-queues`).
pub const MAX_QUEUES: u32 = 4;
/// A ring has two to the power of this pages, at most (`max-ring-page-order`): 512 requests.
pub const MAX_RING_PAGE_ORDER: u32 = 4;

/// Nodes of the frontend directory that are read. [`further_nodes`] has those that depend on these.
pub const FRONTEND_NODES: &[&str] = &[
    "protocol",
    "feature-persistent",
    queues::NUM_QUEUES,
    "ring-page-order",
    "ring-ref",
    "ring-ref0",
    "event-channel",
];

/// Why a vbd's nodes make no vbd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A node is missing, or not what it must be.
    Node(BadNode),
    /// A node that is not obeyed here.
    Refused(Refusal),
    /// `params` is empty: a drive without a medium.
    Empty,
    /// `protocol` is none that there is.
    Protocol(String),
    /// No queue, or more than were offered.
    Queues(BadQueueCount),
    /// A ring of more pages than were offered.
    RingOrder(u32),
}

impl From<Refusal> for ConfigError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<BadQueueCount> for ConfigError {
    fn from(error: BadQueueCount) -> Self {
        Self::Queues(error)
    }
}

impl From<BadNode> for ConfigError {
    fn from(error: BadNode) -> Self {
        Self::Node(error)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(error) => error.fmt(formatter),
            Self::Refused(refusal) => refusal.fmt(formatter),
            Self::Empty => write!(formatter, "target= is empty: drives without a medium are not served"),
            Self::Protocol(name) => write!(formatter, "unknown protocol \"{}\"", Excerpt(name)),
            Self::Queues(error) => error.fmt(formatter),
            Self::RingOrder(order) => {
                write!(formatter, "ring-page-order is {order}, of {MAX_RING_PAGE_ORDER} offered")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// What the toolstack says of a vbd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `params`: what `target=` says.
    pub target: String,
    /// `mode`.
    pub mode: String,
    /// `device-type` is `cdrom`.
    pub cdrom: bool,
    /// The medium may be taken out.
    pub removable: bool,
    /// Discarding is offered where the volume can.
    pub discard: bool,
    /// `dev`: what the guest shall call it.
    pub name: String,
}

impl Identity {
    /// Who it is, for those who ask who has a volume.
    pub fn holder(&self, id: DeviceId) -> String {
        format!("domain {}'s {}", id.frontend.0, self.name)
    }

    /// What is asked for; `shared` where the target said so.
    pub fn access(&self, shared: bool) -> Access {
        Access::from_mode(&self.mode, shared)
    }
}

/// Reads the backend's own nodes.
///
/// # Errors
/// What is wrong with them.
pub fn identity(id: DeviceId, nodes: &Directory) -> Result<Identity, ConfigError> {
    refuse(NODES, nodes)?;
    let target = text(nodes, "params")?.ok_or_else(|| BadNode::Missing("params".into()))?;
    if target.trim().is_empty() {
        return Err(ConfigError::Empty);
    }
    let name = text(nodes, "dev").ok().flatten().filter(|name| !name.is_empty());
    Ok(Identity {
        target,
        mode: text(nodes, "mode")?.ok_or_else(|| BadNode::Missing("mode".into()))?,
        cdrom: nodes.get("device-type") == Some(b"cdrom"),
        removable: nodes.flag("removable")?,
        discard: nodes.optional::<u32>("discard-enable")? != Some(0),
        name: name.unwrap_or_else(|| format!("vbd {}", id.handle)),
    })
}

/// A node's text.
fn text(nodes: &Directory, name: &str) -> Result<Option<String>, BadNode> {
    let Some(value) = nodes.get(name) else {
        return Ok(None);
    };
    let text = core::str::from_utf8(value).map_err(|_| BadNode::Malformed(name.into()))?;
    Ok(Some(text.into()))
}

/// One of a vbd's queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The ring's pages, in their order.
    pub ring: Vec<GrantRef>,
    /// The frontend's port.
    pub port: Port,
}

/// A vbd that is to be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VbdConfig {
    /// Whose.
    pub domain: DomainId,
    /// The toolstack's number for it.
    pub handle: u32,
    /// How its slots are laid out.
    pub abi: Abi,
    /// It uses the same grants again and again: they may stay mapped.
    pub persistent: bool,
    /// Its queues: 1 to [`MAX_QUEUES`].
    pub queues: Vec<QueueConfig>,
    /// What it reads and writes.
    pub volume: Volume,
    /// Where that lies: what a new life asks whether it is the same.
    pub whereabouts: Whereabouts,
    /// What the volume's units can do; what was not offered, not.
    pub geometry: Geometry,
    /// Nothing may be written, nor discarded.
    pub read_only: bool,
}

/// What the frontend says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// `protocol`.
    pub abi: Abi,
    /// `feature-persistent`.
    pub persistent: bool,
    /// Its rings and channels.
    pub queues: Vec<QueueConfig>,
}

/// `ring-page-order`, if the frontend says so.
fn ring_page_order(nodes: &Directory) -> Result<Option<u32>, ConfigError> {
    match nodes.optional("ring-page-order")? {
        Some(order) if order > MAX_RING_PAGE_ORDER => Err(ConfigError::RingOrder(order)),
        order => Ok(order),
    }
}

/// The nodes that a frontend's other nodes ([`FRONTEND_NODES`]) lead to; none where they make no sense.
pub fn further_nodes(nodes: &Directory) -> Vec<String> {
    let (Ok(queues), Ok(order)) = (queues::count::<ConfigError>(nodes, MAX_QUEUES), ring_page_order(nodes)) else {
        return Vec::new();
    };
    let single = order.unwrap_or(0) == 0;
    let references = order.map_or(0..0, |order| 0..1_u32 << order).map(|page| format!("ring-ref{page}"));
    let others = single.then(|| String::from("ring-ref")).into_iter().chain([String::from("event-channel")]);
    queues::further_nodes(queues, &references.chain(others).collect::<Vec<_>>(), FRONTEND_NODES)
}

/// Reads the frontend's nodes.
///
/// # Errors
/// What is wrong with them.
pub fn frontend(nodes: &Directory) -> Result<Frontend, ConfigError> {
    let abi = match nodes.get("protocol") {
        // The header's default, `XEN_IO_PROTO_ABI_NATIVE` (`io/protocols.h`).
        None | Some(b"x86_64-abi") => Abi::X86_64,
        Some(b"x86_32-abi") => Abi::X86_32,
        Some(other) => return Err(ConfigError::Protocol(String::from_utf8_lossy(other).into())),
    };
    let order = ring_page_order(nodes)?;
    let queues = queues::count::<ConfigError>(nodes, MAX_QUEUES)?;
    let queues = queues::directories(queues).map(|directory| queue(nodes, &directory, order));
    Ok(Frontend { abi, persistent: nodes.flag("feature-persistent")?, queues: queues.collect::<Result<_, _>>()? })
}

fn queue(nodes: &Directory, directory: &str, order: Option<u32>) -> Result<QueueConfig, ConfigError> {
    let reference = |name: String| nodes.required(&format!("{directory}{name}")).map(GrantRef);
    let has = |name: &str| nodes.get(&format!("{directory}{name}")).is_some();
    let ring = match order {
        Some(order @ 1..) => (0..1_u32 << order).map(|page| reference(format!("ring-ref{page}"))).collect(),
        // One page is `ring-ref` (note 6 of `io/blkif.h`); Linux' backend wants `ring-ref0` of those that name an order of 0.
        Some(0) if has("ring-ref0") && !has("ring-ref") => {
            reference("ring-ref0".into()).map(|reference| alloc::vec![reference])
        }
        _ => reference("ring-ref".into()).map(|reference| alloc::vec![reference]),
    };
    Ok(QueueConfig { ring: ring?, port: Port(nodes.required(&format!("{directory}event-channel"))?) })
}

/// What every vbd is offered before it connects, as Linux offers it.
pub fn offers() -> Vec<(String, String)> {
    [
        ("feature-max-indirect-segments", MAX_INDIRECT_SEGMENTS as u32),
        (queues::MAX_QUEUES, MAX_QUEUES),
        ("max-ring-page-order", MAX_RING_PAGE_ORDER),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .into()
}

/// The nodes that describe the disk to its frontend when it is connected. A value that is the header's default is left out, as a store
/// limits a domain's nodes. `geometry` has no discard where none is offered.
pub fn properties(identity: &Identity, geometry: &Geometry, read_only: bool) -> Vec<(&'static str, u64)> {
    let mut info = 0;
    for (flag, set) in
        [(VDISK_CDROM, identity.cdrom), (VDISK_REMOVABLE, identity.removable), (VDISK_READONLY, read_only)]
    {
        info |= if set { flag } else { 0 };
    }
    let mut nodes = alloc::vec![
        ("feature-persistent", 1),
        ("sectors", geometry.sectors),
        ("info", info.into()),
        ("sector-size", geometry.logical_block.into()),
    ];
    if geometry.volatile_cache {
        nodes.extend([("feature-flush-cache", 1), ("feature-barrier", 1)]);
    }
    if geometry.physical_block != geometry.logical_block {
        nodes.push(("physical-sector-size", geometry.physical_block.into()));
    }
    if let Some(discard) = geometry.discard {
        nodes.extend([("feature-discard", 1), ("discard-granularity", discard.granularity.into())]);
        let others = [("discard-alignment", discard.alignment.into()), ("discard-secure", discard.secure.into())];
        nodes.extend(others.into_iter().filter(|(_, value)| *value != 0));
    }
    nodes
}

#[cfg(test)]
mod tests;
