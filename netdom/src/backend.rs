//! netback as xenbus sees it: what a vif offers, and its way to and from the data path. Floor 3.

use crate::blame::Blame;
use crate::datapath::kept::KeptPort;
use crate::datapath::{DataPath, LinkChange, NicId, VifId};
use crate::netback::bridges::Bridges;
use crate::netback::config::{
    ConfigError, FRONTEND_NODES, Identity, MAX_QUEUES, WATCHED_FRONTEND_NODES, config, further_nodes, headroom,
    identity, rate,
};
use crate::netback::nodes::{self, Script};
use crate::netback::violation::AttachError;
use crate::nic::Link;
use crate::policy::AntiSpoof;
use crate::switch::{PortId, Vlans};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use split_driver::hypervisor::Hypervisor;
use split_driver::xenbus::toolstack::remarks;
use split_driver::xenbus::{
    Backend, DeviceHandle, DeviceId, DeviceMemory, Directory, Nodes, Promise, TooLittleMemory, XenbusState, queues,
};

/// What every vif is offered (`io/netif.h`), as far as it is not the header's default: a store has room for so many nodes of a domain.
/// Flipped pages are not.
const OFFERS: [(&str, &str); 10] = [
    ("feature-sg", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-gso-tcpv6", "1"),
    ("feature-ipv6-csum-offload", "1"),
    ("feature-rx-copy", "1"),
    ("feature-multicast-control", "1"),
    ("feature-dynamic-multicast-control", "1"),
    ("feature-split-event-channels", "1"),
    ("feature-ctrl-ring", "1"),
    ("feature-xdp-headroom", "1"),
];

/// Devices that are remembered as those that the log was told about.
const REMARKED: usize = 256;

/// Why a vif is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VifError {
    /// What the toolstack says of it makes no vif.
    Identity(ConfigError),
    /// What its frontend says makes no vif.
    Frontend(ConfigError),
    /// Its rings or channels could not be had.
    Attach(AttachError),
    /// There is no memory for it.
    Memory(TooLittleMemory),
    /// netdom failed so many times while it served this vif.
    Failures(u32),
}

/// Bytes of heap that a connected vif of one queue takes at most, beside its share of the lists of packets held, which the pool bounds.
pub(crate) const VIF_BYTES: usize = 8 << 10;
/// The same of each further queue.
pub(crate) const QUEUE_BYTES: usize = 2 << 10;

impl From<AttachError> for VifError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl From<TooLittleMemory> for VifError {
    fn from(error: TooLittleMemory) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for VifError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) | Self::Frontend(error) => error.fmt(formatter),
            Self::Attach(error) => error.fmt(formatter),
            Self::Memory(error) => error.fmt(formatter),
            Self::Failures(count) => write!(formatter, "netdom failed {count} times while it served this vif"),
        }
    }
}

impl core::error::Error for VifError {}

/// The control plane's half of a connected vif.
struct Connected {
    handle: DeviceHandle,
    bridge: String,
    vlans: Vlans,
    queues: usize,
    is_routed: bool,
    _memory: Promise,
}

/// The vifs of one data path. Hand a clone to `xenbus::Bus::new`, keep one to [`report`](Self::report) after each round.
pub struct Netback<H: Hypervisor> {
    path: Rc<RefCell<DataPath<H>>>,
    connected: Rc<RefCell<BTreeMap<VifId, Connected>>>,
    /// The bridges that have a NIC, or had one before it was taken away, with the NICs that have a link there.
    links: Rc<RefCell<BTreeMap<String, BTreeSet<NicId>>>>,
    /// Those of the last life of the domain, with whether they had a carrier: it counts until a NIC of this life is heard of.
    carriers: Rc<RefCell<Vec<(String, bool)>>>,
    bridges: Rc<Bridges>,
    /// The bridge that is the way out of guests behind the router.
    uplink: Option<Rc<str>>,
    /// Queues that each vif is offered.
    queues: u8,
    /// What is checked of the frames of each.
    antispoof: AntiSpoof,
    /// The last devices whose nodes the log was told about.
    remarked: Rc<RefCell<VecDeque<DeviceId>>>,
    memory: DeviceMemory,
    /// What the last life of the domain knew of vifs, until each is there again.
    inherited: Rc<RefCell<Vec<(DeviceId, KeptPort)>>>,
    /// What earlier lives ended with.
    blame: Rc<RefCell<Blame>>,
    /// Called where the data path has something new to do.
    wake: Rc<dyn Fn()>,
}

impl<H: Hypervisor> Clone for Netback<H> {
    fn clone(&self) -> Self {
        Self {
            path: Rc::clone(&self.path),
            connected: Rc::clone(&self.connected),
            links: Rc::clone(&self.links),
            carriers: Rc::clone(&self.carriers),
            bridges: Rc::clone(&self.bridges),
            uplink: self.uplink.clone(),
            queues: self.queues,
            antispoof: self.antispoof,
            remarked: Rc::clone(&self.remarked),
            memory: self.memory.clone(),
            inherited: Rc::clone(&self.inherited),
            blame: Rc::clone(&self.blame),
            wake: Rc::clone(&self.wake),
        }
    }
}

impl<H: Hypervisor> Netback<H> {
    /// The vifs of `path`, each on one of `bridges`; `wake` has the path polled soon.
    pub fn new(path: Rc<RefCell<DataPath<H>>>, bridges: Bridges, wake: Rc<dyn Fn()>) -> Self {
        let (connected, links, carriers, remarked) = Default::default();
        let (inherited, blame) = Default::default();
        let (bridges, memory) = (Rc::new(bridges), DeviceMemory::unbounded());
        let (queues, antispoof, uplink) = (1, AntiSpoof::Off, None);
        Self {
            path,
            connected,
            links,
            carriers,
            bridges,
            uplink,
            queues,
            antispoof,
            remarked,
            memory,
            inherited,
            blame,
            wake,
        }
    }

    /// The same, with so many queues offered to each vif, 1 to [`MAX_QUEUES`].
    pub fn with_queues(self, queues: u8) -> Self {
        Self { queues: queues.clamp(1, MAX_QUEUES), ..self }
    }

    /// The same, with this bridge as the way out of guests behind the router.
    pub fn with_uplink(self, uplink: Option<&str>) -> Self {
        Self { uplink: uplink.map(Rc::from), ..self }
    }

    /// The same, with so much checked of the frames of each vif that has no `ip`.
    pub fn with_antispoof(self, antispoof: AntiSpoof) -> Self {
        Self { antispoof, ..self }
    }

    /// The same, in a domain that lived before: vifs that are taken over go on as the last life knew them, with the carriers of its
    /// [`carriers`](Self::carriers).
    pub fn with_inherited(self, vifs: Vec<(DeviceId, KeptPort)>, carriers: Vec<(String, bool)>, blame: Blame) -> Self {
        *self.inherited.borrow_mut() = vifs;
        *self.carriers.borrow_mut() = carriers;
        *self.blame.borrow_mut() = blame;
        self
    }

    /// What lives ended with, for the next one.
    pub fn blame(&self) -> Blame {
        self.blame.borrow().clone()
    }

    /// The bridges that have a NIC, or had one in this life or an earlier one, and whether they have a carrier: for the next life.
    pub fn carriers(&self) -> Vec<(String, bool)> {
        let links = self.links.borrow();
        let own = links.iter().map(|(bridge, up)| (bridge.clone(), !up.is_empty()));
        let carriers = self.carriers.borrow();
        own.chain(carriers.iter().filter(|(bridge, _)| !links.contains_key(bridge)).cloned()).collect()
    }

    /// The vif behind a port, also where a life ends in the midst of a change: nothing is known of it then.
    pub fn vif_at(&self, port: PortId) -> Option<DeviceId> {
        let connected = self.connected.try_borrow().ok()?;
        connected.iter().find(|(id, _)| id.port() == port).map(|(_, vif)| vif.handle.id())
    }

    /// All vifs and NICs of the last life were taken over: what connects from now on begins anew, and a bridge whose NIC did not come back has
    /// no link, unless NICs are no longer to be on it.
    pub fn forget_inherited(&self) {
        self.inherited.borrow_mut().clear();
        self.path.borrow_mut().forget_left();
        let carriers = self.carriers.borrow().clone();
        for (bridge, before) in carriers.into_iter().filter(|(bridge, _)| self.path.borrow().mtu(bridge).is_none()) {
            if !self.bridges.is_wired(&bridge) {
                self.leave_bridge(&bridge);
                continue;
            }
            self.links.borrow_mut().entry(bridge.clone()).or_default();
            if before && !self.has_carrier(&bridge) {
                log::info!("link of {bridge}: gone with the last life");
                self.tell_carrier(&bridge, false);
            }
        }
    }

    /// The NICs of the last life on a bridge are on others now: it is one of guests among themselves, unless it has others.
    pub fn leave_bridge(&self, bridge: &str) {
        let before = self.has_carrier(bridge);
        self.carriers.borrow_mut().retain(|(known, _)| known != bridge);
        if !before && self.has_carrier(bridge) {
            log::info!("{bridge}: without a NIC now");
            self.tell_carrier(bridge, true);
        }
    }

    /// The same, with bounded memory for its vifs.
    pub fn with_memory(self, memory: DeviceMemory) -> Self {
        Self { memory, ..self }
    }

    /// Tells the bus what the last rounds brought: vifs that broke the protocol, and links of NICs. Costs next to nothing where there
    /// is nothing to tell.
    pub fn report(&self) {
        loop {
            // The borrow must not outlive this line: `fail` wakes the bus.
            let failure = self.path.borrow_mut().poll_failed();
            let Some((id, violation)) = failure else {
                break;
            };
            if let Some(vif) = self.connected.borrow().get(&id) {
                // The bus says why, in the log and in the device's nodes.
                vif.handle.fail(violation);
            }
        }
        loop {
            let change = self.path.borrow_mut().poll_link();
            let Some(change) = change else {
                break;
            };
            self.tell_link(change);
        }
    }

    /// Tells the log of a NIC's link, and the vifs of its bridge, where that has a link now or has none any longer.
    fn tell_link(&self, change: LinkChange) {
        let LinkChange { nic, bridge, link } = change;
        let before = self.has_carrier(&bridge);
        let mut links = self.links.borrow_mut();
        let up = links.entry(bridge.clone()).or_default();
        if link == Link::Down {
            up.remove(&nic);
        } else {
            up.insert(nic);
        }
        drop(links);
        let after = self.has_carrier(&bridge);
        match link {
            Link::Down if after => log::info!("link of {bridge}: down; there is another"),
            Link::Down => log::info!("link of {bridge}: down"),
            Link::Up(speed) => log::info!("link of {bridge}: up, {speed} Mbit/s"),
        }
        if before != after {
            self.tell_carrier(&bridge, after);
        }
    }

    /// Tells the vifs of a bridge.
    fn tell_carrier(&self, bridge: &str, up: bool) {
        for vif in self.connected.borrow().values().filter(|vif| vif.bridge == bridge) {
            vif.handle.write_node("carrier", u8::from(up));
        }
    }

    /// The connected vifs, with their names on the data path.
    pub fn vifs(&self) -> Vec<(DeviceId, VifId)> {
        self.connected.borrow().iter().map(|(id, vif)| (vif.handle.id(), *id)).collect()
    }

    /// What the next life has to know of the vifs: of those that are connected, and of those of the last life that are not yet.
    pub fn keep(&self) -> Vec<(DeviceId, KeptPort)> {
        let path = self.path.borrow();
        let vifs = self.vifs().into_iter();
        let mut kept: Vec<_> = vifs.filter_map(|(device, id)| Some((device, path.keep_vif(id)?))).collect();
        let connected = kept.len();
        for (device, inherited) in &*self.inherited.borrow() {
            let (connected, _) = kept.split_at_checked(connected).unwrap_or_default();
            if !connected.iter().any(|(known, _)| known == device) {
                kept.push((*device, inherited.clone()));
            }
        }
        kept
    }

    /// Vifs that are connected.
    pub fn connected(&self) -> usize {
        self.connected.borrow().len()
    }

    /// The vif as the toolstack describes it, on a bridge that there is, or behind the router.
    fn identity(&self, id: DeviceId, backend: &Directory) -> Result<Identity, VifError> {
        let admit = |identity: Identity| match identity.script {
            Script::Bridge => identity.admit(&self.bridges),
            Script::Nat | Script::Route => identity.route(self.uplink.as_deref()),
        };
        identity(id, backend).and_then(admit).map_err(VifError::Identity)
    }

    /// Tells the log once of nodes that have no meaning here: a frontend that comes again is no reason to say it again.
    fn remark(&self, id: DeviceId, bridge: &str, directory: &Directory) {
        let mut known = self.remarked.borrow_mut();
        let mut remarks = remarks(nodes::NODES, directory);
        remarks.extend(self.path.borrow().mtu(bridge).and_then(|carried| nodes::mtu_remark(directory, carried)));
        if remarks.is_empty() || known.contains(&id) {
            return;
        }
        if known.len() >= REMARKED {
            known.pop_front();
        }
        known.push_back(id);
        for remark in remarks {
            log::warn!("vif {id}: {remark}");
        }
    }

    /// Takes a vif's rings up, anew or where the last life left them.
    fn take_up(&self, handle: &DeviceHandle, nodes: &Nodes, inherits: bool) -> Result<VifId, VifError> {
        let identity = self.identity(handle.id(), &nodes.backend)?;
        if let Some(count) = self.blame.borrow().verdict(handle.id()) {
            return Err(VifError::Failures(count));
        }
        let config =
            config(handle.id(), identity, &nodes.frontend, self.queues, self.antispoof).map_err(VifError::Frontend)?;
        let (bridge, vlans, is_routed) = (config.bridge.clone(), config.vlans.clone(), config.routed.is_some());
        // The link may have changed between probe and now.
        handle.write_node("carrier", u8::from(self.has_carrier(&bridge)));
        let further = config.queues.len().saturating_sub(1);
        let bytes = VIF_BYTES + further * QUEUE_BYTES;
        let memory = if inherits { self.memory.promise_again(bytes) } else { self.memory.promise(bytes)? };
        let mut path = self.path.borrow_mut();
        let id = path.attach(config)?;
        if inherits {
            path.place_left(id);
        }
        let kept = self.inherited.borrow();
        if let Some((_, kept)) = kept.iter().find(|(device, _)| inherits && *device == handle.id()) {
            path.restore_vif(id, kept);
        }
        drop(path);
        let vif = Connected { handle: handle.clone(), bridge, vlans, queues: further + 1, is_routed, _memory: memory };
        self.connected.borrow_mut().insert(id, vif);
        (self.wake)();
        Ok(id)
    }

    /// `carrier` of a vif on this bridge: up, unless none of its NICs has a link. A bridge that never had a NIC, in no life, is there for guests
    /// among themselves.
    fn has_carrier(&self, bridge: &str) -> bool {
        match self.links.borrow().get(bridge) {
            Some(up) => !up.is_empty(),
            None => self.carriers.borrow().iter().find(|(known, _)| known == bridge).is_none_or(|(_, up)| *up),
        }
    }
}

impl<H: Hypervisor> Backend for Netback<H> {
    type Device = VifId;
    type Error = VifError;

    fn kind(&self) -> &'static str {
        "vif"
    }

    fn backend_nodes(&self) -> &[&str] {
        nodes::READ
    }

    fn frontend_nodes(&self) -> &[&str] {
        FRONTEND_NODES
    }

    fn further_frontend_nodes(&self, frontend: &Directory) -> Vec<String> {
        further_nodes(frontend, self.queues)
    }

    fn watched_frontend_nodes(&self) -> &[&str] {
        WATCHED_FRONTEND_NODES
    }

    fn connects(&self, frontend: XenbusState) -> bool {
        frontend == XenbusState::Connected
    }

    fn is_violation(&self, error: &VifError) -> bool {
        match error {
            VifError::Frontend(_) | VifError::Failures(_) => true,
            VifError::Attach(AttachError::Map(_, error) | AttachError::Bind(error)) => !error.is_shortage(),
            VifError::Attach(AttachError::Ring(..)) => true,
            VifError::Attach(AttachError::NoPort | AttachError::AddressTaken)
            | VifError::Identity(_)
            | VifError::Memory(_) => false,
        }
    }

    fn probe(&self, id: DeviceId, nodes: &Nodes) -> Result<Vec<(String, String)>, VifError> {
        let identity = self.identity(id, &nodes.backend)?;
        self.blame.borrow_mut().forgive(id);
        self.remark(id, &identity.bridge, &nodes.backend);
        let carrier = u8::from(self.has_carrier(&identity.bridge)).to_string();
        Ok(OFFERS
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .chain([(String::from("carrier"), carrier)])
            // One is the default.
            .chain((self.queues > 1).then(|| (queues::MAX_QUEUES.into(), self.queues.to_string())))
            .collect())
    }

    fn connect(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<VifId, VifError> {
        self.take_up(handle, nodes, false)
    }

    fn adopt(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<VifId, VifError> {
        self.take_up(handle, nodes, true)
    }

    fn describe(&self, device: &VifId) -> String {
        let connected = self.connected.borrow();
        let Some(vif) = connected.get(device) else {
            return String::new();
        };
        let by = if vif.is_routed { " by the router" } else { "" };
        let mut text = format!("to {}{by}", vif.bridge);
        if vif.vlans != Vlans::TRUNK {
            text += &format!(", {}", vif.vlans);
        }
        if vif.queues != 1 {
            text += &format!(", {} queues", vif.queues);
        }
        text
    }

    fn changed(&self, device: &mut VifId, nodes: &Nodes) -> Result<(), VifError> {
        let wanted = nodes.frontend.flag("request-multicast-control");
        let wanted = wanted.map_err(|error| VifError::Frontend(error.into()))?;
        let headroom = headroom(&nodes.frontend).map_err(VifError::Frontend)?;
        let rate = rate(&nodes.backend).map_err(VifError::Identity)?;
        let mut path = self.path.borrow_mut();
        path.set_multicast_control(*device, wanted);
        path.set_headroom(*device, headroom);
        path.set_rate(*device, rate);
        Ok(())
    }

    fn disconnect(&self, device: VifId) {
        self.connected.borrow_mut().remove(&device);
        self.path.borrow_mut().detach(device);
    }
}

#[cfg(test)]
mod tests;
