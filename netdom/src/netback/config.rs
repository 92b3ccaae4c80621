//! What a vif's nodes in the store say (`io/netif.h`; libxl's `libxl_nic.c`), checked. Pure. Floor 3.

use super::bridges::{BRIDGE_BYTES, Bridges, DEFAULT_BRIDGE, Place};
use super::nodes::{NODES, Script, script};
use super::vlan_node::{self, VlanError};
use crate::credit::{Rate, RateError};
use crate::ethernet::MacAddress;
use crate::policy::{Addresses, AntiSpoof, Guard};
use crate::router::Routed;
use crate::switch::Vlans;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use split_driver::xenbus::queues::{self, BadQueueCount};
use split_driver::xenbus::toolstack::{Refusal, refuse};
use split_driver::xenbus::{BadNode, DeviceId, Directory};
use xen_pv_sys::{DomainId, GrantRef, PAGE_SIZE, Port};

/// What a frontend negotiated (its xenstore nodes of the same names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `feature-sg`: takes packets of more than one slot.
    pub scatter_gather: bool,
    /// `feature-gso-tcpv4`.
    pub gso_tcpv4: bool,
    /// `feature-gso-tcpv6`.
    pub gso_tcpv6: bool,
    /// Not `feature-no-csum-offload`: takes IPv4 packets with a blank checksum.
    pub checksum_v4: bool,
    /// `feature-ipv6-csum-offload`: the same for IPv6.
    pub checksum_v6: bool,
    /// `feature-rx-notify`: says when it has posted receive slots.
    pub receive_notify: bool,
    /// `request-multicast-control`: wants the groups it lists and no others.
    pub multicast_control: bool,
}

/// The remote ends of a frontend's event channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemotePorts {
    /// `event-channel`.
    Single(Port),
    /// `event-channel-tx` and `event-channel-rx`.
    Split {
        /// For packets from the guest.
        transmit: Port,
        /// For packets to the guest.
        receive: Port,
    },
}

/// One of a vif's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// `tx-ring-ref`.
    pub transmit_ring: GrantRef,
    /// `rx-ring-ref`.
    pub receive_ring: GrantRef,
    /// Its event channels.
    pub ports: RemotePorts,
}

/// A control ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// `ctrl-ring-ref`.
    pub ring: GrantRef,
    /// `event-channel-ctrl`.
    pub port: Port,
}

/// What a vif is made from, read from the store and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VifConfig {
    /// The guest.
    pub domain: DomainId,
    /// Which of its interfaces.
    pub handle: u32,
    /// The guest's own address.
    pub mac: MacAddress,
    /// The bridge it is on.
    pub bridge: String,
    /// The VLANs of that bridge that it is on.
    pub vlans: Vlans,
    /// What its frontend can do.
    pub features: Features,
    /// Its queues, at least one.
    pub queues: Vec<QueueConfig>,
    /// Its control ring, where it has one.
    pub control: Option<ControlConfig>,
    /// `xdp-headroom`: bytes before a packet in its first receive slot; less than a page.
    pub headroom: u16,
    /// How much it may send, with all queues together.
    pub rate: Option<Rate>,
    /// Which frames it may send.
    pub guard: Guard,
    /// Where it is behind the router, and not on its bridge: what the router knows of it.
    pub routed: Option<Routed>,
}

/// Queues of a vif, at most: as many as Linux' netback offers by itself. More are of no use to one vCPU.
pub const MAX_QUEUES: u8 = 8;

/// Nodes of a queue.
const QUEUE_NODES: [&str; 5] = ["tx-ring-ref", "rx-ring-ref", "event-channel", "event-channel-tx", "event-channel-rx"];

/// Nodes of the frontend directory that are read. [`further_nodes`] has those of several queues.
pub const FRONTEND_NODES: &[&str] = &[
    "request-rx-copy",
    queues::NUM_QUEUES,
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "event-channel-tx",
    "event-channel-rx",
    "ctrl-ring-ref",
    "event-channel-ctrl",
    "xdp-headroom",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "feature-rx-notify",
    "request-multicast-control",
];
/// Those that may change while the vif is connected.
pub const WATCHED_FRONTEND_NODES: &[&str] = &["request-multicast-control"];

/// Why a vif's nodes make no vif.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A node is missing, or not what it must be.
    Node(BadNode),
    /// `mac` is no unicast address.
    Mac,
    /// `bridge` is no name.
    Bridge,
    /// `rate` is not "bytes,microseconds".
    Rate(RateError),
    /// `ip` is no list of IP addresses.
    Addresses,
    /// A script that routes, and netdom has no address of its own.
    NoUplink,
    /// A script that routes, without an address of the guest's own.
    NoAddress,
    /// A node that would filter or route packets elsewhere, and is not obeyed here.
    Refused(Refusal),
    /// There is no such bridge.
    NoBridge {
        /// The name.
        name: String,
        /// Those that there are.
        known: Bridges,
    },
    /// `bridge` names a VLAN that there is not.
    Vlan {
        /// The bridge.
        bridge: String,
        /// What was named behind it.
        vlan: String,
    },
    /// `vlan` is not what toolstacks write.
    VlanNode(VlanError),
    /// `vlan` and `bridge` name different VLANs.
    Contradiction {
        /// Those of `vlan`.
        vlan: Vlans,
        /// Those of `bridge`.
        bridge: Vlans,
    },
    /// `handle` is not the one of the directory.
    Handle(u32),
    /// The frontend wants its pages flipped (`request-rx-copy` is not 1): no frontend still does that.
    NoCopy,
    /// No queue, or more than were offered.
    Queues(BadQueueCount),
    /// `xdp-headroom` leaves no room for a packet in its page.
    Headroom(u16),
}

impl From<BadQueueCount> for ConfigError {
    fn from(error: BadQueueCount) -> Self {
        Self::Queues(error)
    }
}

impl From<Refusal> for ConfigError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
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
            Self::Mac => write!(formatter, "mac is no unicast address"),
            Self::Bridge => write!(formatter, "bridge is no name"),
            Self::Rate(error) => write!(formatter, "rate: {error}"),
            Self::Addresses => write!(formatter, "ip is no list of IP addresses, as \"10.0.0.5 10.0.1.0/24 fd00::5\""),
            Self::NoUplink => formatter.write_str(
                "script=vif-nat or vif-route: netdom has no address of its own to route from; address=10.0.0.5/24 in its extra= gives it one",
            ),
            Self::NoAddress => formatter
                .write_str("script=vif-nat or vif-route: ip= must name the guest's address: of IPv4, as ip=192.168.7.2, or with vif-route of IPv6, as ip=2001:db8::7"),
            Self::Refused(refusal) => refusal.fmt(formatter),
            Self::NoBridge { name, known } => write!(
                formatter,
                "no bridge \"{name}\"; there are: {known}. One without a NIC is declared by internal={name} in netdom's extra="
            ),
            Self::Vlan { bridge, vlan } => {
                write!(
                    formatter,
                    "no VLAN \"{vlan}\" on bridge \"{bridge}\": VLANs are 1 to 4094; {bridge}.5 is an access port, {bridge}:6:7 takes tagged frames, \
                     {bridge}.5:6:7 both"
                )
            }
            Self::VlanNode(error) => write!(formatter, "vlan: {error}"),
            Self::Contradiction { vlan, bridge } => {
                write!(formatter, "vlan says {vlan}, bridge says {bridge}: name the VLANs in one of them")
            }
            Self::Handle(handle) => write!(formatter, "handle is {handle}, not the directory's"),
            Self::NoCopy => write!(formatter, "request-rx-copy is not 1"),
            Self::Queues(error) => error.fmt(formatter),
            Self::Headroom(bytes) => {
                write!(
                    formatter,
                    "xdp-headroom is {bytes}, and leaves no room for a packet in a page of {PAGE_SIZE} bytes"
                )
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// What the toolstack says of a vif.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The guest's address.
    pub mac: MacAddress,
    /// Its bridge.
    pub bridge: String,
    /// The VLANs of that bridge that it is on, by `vlan`, and by the bridge's name once [`Self::admit`] told them from it.
    pub vlans: Vlans,
    /// How much it may send.
    pub rate: Option<Rate>,
    /// The IP addresses that it may use (`ip`).
    pub addresses: Option<Addresses>,
    /// What is to be done to its packets (`script`).
    pub script: Script,
}

/// Reads the backend's own nodes.
///
/// # Errors
/// What is wrong with them.
pub fn identity(id: DeviceId, nodes: &Directory) -> Result<Identity, ConfigError> {
    if let Some(handle) = nodes.optional::<u32>("handle")?
        && handle != id.handle
    {
        return Err(ConfigError::Handle(handle));
    }
    refuse(NODES, nodes)?;
    let mac = nodes.get("mac").ok_or_else(|| BadNode::Missing("mac".into()))?;
    Ok(Identity {
        mac: parse_mac(mac).ok_or(ConfigError::Mac)?,
        bridge: bridge(nodes.get("bridge").unwrap_or_default()).ok_or(ConfigError::Bridge)?,
        vlans: vlans(nodes)?,
        rate: rate(nodes)?,
        addresses: addresses(nodes)?,
        script: script(nodes),
    })
}

impl Identity {
    /// Finds the bridge, and the VLANs, that the toolstack means.
    ///
    /// # Errors
    /// There is no such bridge, or its name and `vlan` name no VLANs, or different ones.
    pub fn admit(self, bridges: &Bridges) -> Result<Self, ConfigError> {
        let (bridge, vlans) = match bridges.find(&self.bridge) {
            Place::Port(bridge, vlans) => (bridge.into(), vlans),
            Place::NoVlan(bridge, vlan) => {
                return Err(ConfigError::Vlan { bridge: bridge.into(), vlan: vlan.into() });
            }
            Place::None => return Err(ConfigError::NoBridge { name: self.bridge, known: bridges.clone() }),
        };
        let vlans = match (self.vlans, vlans) {
            (said, named) if said == Vlans::TRUNK || said == named => named,
            (said, named) if named == Vlans::TRUNK => said,
            (vlan, bridge) => return Err(ConfigError::Contradiction { vlan, bridge }),
        };
        Ok(Self { bridge, vlans, ..self })
    }

    /// The same behind the router, whose way out is on this bridge: the vif is on none, and what `bridge` says is the toolstack's default.
    ///
    /// # Errors
    /// There is no way out, or the vif has no address.
    pub fn route(self, uplink: Option<&str>) -> Result<Self, ConfigError> {
        let bridge = uplink.ok_or(ConfigError::NoUplink)?.into();
        routed(self.mac, self.addresses.as_ref(), self.script)?;
        Ok(Self { bridge, vlans: Vlans::TRUNK, ..self })
    }
}

/// What the router is to know of a vif, where it is behind it.
fn routed(mac: MacAddress, addresses: Option<&Addresses>, script: Script) -> Result<Option<Routed>, ConfigError> {
    let translated = match script {
        Script::Bridge => return Ok(None),
        Script::Nat => true,
        Script::Route => false,
    };
    let all = addresses.iter();
    let (v4, v6) = (all.clone().flat_map(|all| all.ipv4()), all.flat_map(|all| all.ipv6()));
    Routed::new(mac, v4, v6, translated).map(Some).ok_or(ConfigError::NoAddress)
}

fn vlans(nodes: &Directory) -> Result<Vlans, ConfigError> {
    match nodes.get("vlan") {
        None | Some(b"") => Ok(Vlans::TRUNK),
        Some(text) => {
            let text = core::str::from_utf8(text).map_err(|_| VlanError::Malformed);
            text.and_then(vlan_node::parse).map_err(ConfigError::VlanNode)
        }
    }
}

fn addresses(nodes: &Directory) -> Result<Option<Addresses>, ConfigError> {
    match nodes.get("ip") {
        None | Some(b"") => Ok(None),
        Some(text) => {
            let addresses = core::str::from_utf8(text).ok().and_then(Addresses::parse);
            addresses.map(Some).ok_or(ConfigError::Addresses)
        }
    }
}

/// Reads `rate`.
///
/// # Errors
/// [`ConfigError::Rate`].
pub fn rate(nodes: &Directory) -> Result<Option<Rate>, ConfigError> {
    match nodes.get("rate") {
        None | Some(b"") => Ok(None),
        Some(rate) => {
            let text = core::str::from_utf8(rate).map_err(|_| RateError::Malformed);
            text.and_then(Rate::parse).map(Some).map_err(ConfigError::Rate)
        }
    }
}

/// The nodes that a frontend's other nodes ([`FRONTEND_NODES`]) lead to: those of its queues, of `offered`. None where it has one only, or
/// says nonsense.
pub fn further_nodes(frontend: &Directory, offered: u8) -> Vec<String> {
    let queues = queues::count::<ConfigError>(frontend, offered.into());
    queues.map(|queues| queues::further_nodes(queues, &QUEUE_NODES, FRONTEND_NODES)).unwrap_or_default()
}

/// Reads the frontend's nodes, too. `offered` is the number of queues that it was offered, and `antispoof` the level of the checks for vifs without
/// `ip`.
///
/// # Errors
/// What is wrong with that.
pub fn config(
    id: DeviceId,
    identity: Identity,
    frontend: &Directory,
    offered: u8,
    antispoof: AntiSpoof,
) -> Result<VifConfig, ConfigError> {
    let Identity { mac, bridge, vlans, rate, addresses, script } = identity;
    let routed = routed(mac, addresses.as_ref(), script)?;
    let guard = Guard::new(antispoof, mac, addresses);
    if !frontend.flag("request-rx-copy")? {
        return Err(ConfigError::NoCopy);
    }
    let queues = queues::directories(queues::count::<ConfigError>(frontend, offered.into())?);
    let queues = queues.map(|directory| queue(frontend, &directory)).collect::<Result<_, _>>()?;
    let control = match frontend.optional("ctrl-ring-ref")? {
        Some(ring) => {
            Some(ControlConfig { ring: GrantRef(ring), port: Port(frontend.required("event-channel-ctrl")?) })
        }
        None => None,
    };
    let (features, headroom) = (features(frontend)?, headroom(frontend)?);
    let (domain, handle) = (id.frontend, id.handle);
    Ok(VifConfig { domain, handle, mac, bridge, vlans, features, queues, control, headroom, rate, guard, routed })
}

fn queue(frontend: &Directory, directory: &str) -> Result<QueueConfig, BadNode> {
    let node = |name: &str| format!("{directory}{name}");
    let transmit = frontend.optional(&node("event-channel-tx"))?;
    let receive = frontend.optional(&node("event-channel-rx"))?;
    let ports = match (transmit, receive) {
        (Some(transmit), Some(receive)) => RemotePorts::Split { transmit: Port(transmit), receive: Port(receive) },
        _ => RemotePorts::Single(Port(frontend.required(&node("event-channel"))?)),
    };
    let reference = |name: &str| frontend.required(&node(name)).map(GrantRef);
    Ok(QueueConfig { transmit_ring: reference("tx-ring-ref")?, receive_ring: reference("rx-ring-ref")?, ports })
}

/// Reads `xdp-headroom`, which may change while the vif is connected.
///
/// # Errors
/// It is no number, or leaves no byte of a page.
pub fn headroom(frontend: &Directory) -> Result<u16, ConfigError> {
    match frontend.optional::<u16>("xdp-headroom")? {
        Some(bytes) if usize::from(bytes) >= PAGE_SIZE => Err(ConfigError::Headroom(bytes)),
        bytes => Ok(bytes.unwrap_or(0)),
    }
}

fn features(frontend: &Directory) -> Result<Features, BadNode> {
    Ok(Features {
        scatter_gather: frontend.flag("feature-sg")?,
        gso_tcpv4: frontend.flag("feature-gso-tcpv4")?,
        gso_tcpv6: frontend.flag("feature-gso-tcpv6")?,
        checksum_v4: !frontend.flag("feature-no-csum-offload")?,
        checksum_v6: frontend.flag("feature-ipv6-csum-offload")?,
        receive_notify: frontend.flag("feature-rx-notify")?,
        multicast_control: frontend.flag("request-multicast-control")?,
    })
}

/// A group's address is no guest's.
fn parse_mac(text: &[u8]) -> Option<MacAddress> {
    MacAddress::parse(core::str::from_utf8(text).ok()?).filter(|mac| mac.is_station())
}

fn bridge(name: &[u8]) -> Option<String> {
    if name.is_empty() {
        return Some(DEFAULT_BRIDGE.into());
    }
    let printable = name.iter().all(u8::is_ascii_graphic);
    (printable && name.len() <= BRIDGE_BYTES).then(|| String::from_utf8(name.into()).ok()).flatten()
}

#[cfg(test)]
mod tests;
