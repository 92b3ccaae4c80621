//! What the next life of the domain has to know of a port beyond what its frontend's nodes say. Pure. Floor 3.

use super::ports::PortKind;
use super::{BondId, DataPath, NicId, VifId};
use crate::bond::lacp::{self, INFO};
use crate::ethernet::MacAddress;
use crate::netback::control::Hashing;
use crate::netback::request::Membership;
use crate::netback::toeplitz::KEY_BYTES;
use crate::statistics::{PortStatistics, Traffic};
use crate::switch::PortId;
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use split_driver::hypervisor::Hypervisor;

/// A port, in CBOR (RFC 8949). A field that a later version adds has a number of its own and may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct KeptPort {
    /// Packets and bytes from the port and to it, then losses by their causes.
    #[n(0)]
    counters: Vec<u64>,
    /// Addresses learnt on it, the last heard first, each with its VLAN.
    #[n(1)]
    learnt: Vec<(u16, ByteArray<6>)>,
    /// Groups that the guest listed.
    #[n(2)]
    groups: Vec<ByteArray<6>>,
    /// The hash that the guest asked for.
    #[n(3)]
    hashing: Option<KeptHashing>,
    /// The bridge that a NIC or a bond was on.
    #[n(4)]
    bridge: Option<String>,
    /// The sessions of a guest behind NAT.
    #[n(5)]
    sessions: Option<ByteVec>,
}

/// The leases on a bridge without a NIC.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeptLeases {
    #[n(0)]
    bridge: String,
    #[n(1)]
    leases: ByteVec,
}

/// A bond, by the addresses of its NICs in the host: the command line may name them in another order now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct KeptBond {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// What was learnt behind it.
    #[n(1)]
    port: KeptPort,
    /// The NIC that all was sent on.
    #[n(2)]
    active: Option<String>,
    /// This end's system of LACP.
    #[n(3)]
    system: Option<ByteArray<6>>,
    /// Its links that have another end.
    #[n(4)]
    links: Option<Vec<KeptLink>>,
}

/// A link, as LACP has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct KeptLink {
    #[n(0)]
    nic: String,
    /// Its other end.
    #[n(1)]
    partner: ByteArray<INFO>,
    #[n(2)]
    distributing: bool,
}

/// A [`Hashing`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct KeptHashing {
    #[n(0)]
    toeplitz: bool,
    #[n(1)]
    types: u32,
    #[n(2)]
    key: ByteArray<KEY_BYTES>,
    #[n(3)]
    mapping: ByteVec,
}

impl KeptPort {
    /// The bridge that a NIC was on.
    pub fn bridge(&self) -> Option<&str> {
        self.bridge.as_deref()
    }

    fn set_counters(&mut self, statistics: &PortStatistics) {
        let PortStatistics { from_port: from, to_port: to, drops } = statistics;
        self.counters = [from.packets, from.bytes, to.packets, to.bytes].into_iter().chain(*drops).collect();
    }

    fn counters(&self) -> PortStatistics {
        let mut counters = self.counters.iter().copied();
        let mut next = || counters.next().unwrap_or(0);
        let from_port = Traffic { packets: next(), bytes: next() };
        let to_port = Traffic { packets: next(), bytes: next() };
        PortStatistics { from_port, to_port, drops: core::array::from_fn(|_| next()) }
    }
}

impl<H: Hypervisor> DataPath<H> {
    /// What the next life has to know of a vif.
    pub fn keep_vif(&self, id: VifId) -> Option<KeptPort> {
        let guest = self.ports.named(id)?;
        let mut kept = self.keep(id.port, &guest.statistics);
        kept.groups = guest.vif.groups().iter().map(|group| group.0.into()).collect();
        kept.hashing = guest.control.as_ref().map(|control| {
            let (toeplitz, types, key, mapping) = control.ring.hashing.parts();
            KeptHashing { toeplitz, types, key: key.into(), mapping: mapping.to_vec().into() }
        });
        if let (Some(port), Some(router)) = (self.router_of(id.port), &self.forwarder.router) {
            kept.sessions = Some(ByteVec::from(router.keep_sessions(port))).filter(|sessions| !sessions.is_empty());
        }
        Some(kept)
    }

    /// What the next life has to know of leases.
    pub fn keep_leases(&self) -> Vec<KeptLeases> {
        let Some(router) = &self.forwarder.router else {
            return Vec::new();
        };
        let of = |port: PortId| {
            let leases = router.keep_leases(port, self.now).filter(|leases| !leases.is_empty())?;
            Some(KeptLeases { bridge: self.forwarder.switch.bridge(port)?.into(), leases: leases.into() })
        };
        (0..self.ports.places()).map(PortId).filter_map(of).collect()
    }

    /// Goes on with the leases of the last life, on bridges that are still there.
    pub fn restore_leases(&mut self, kept: &[KeptLeases]) {
        for port in (0..self.ports.places()).map(PortId).filter(|port| self.ports.is_router(*port)) {
            let bridge = self.forwarder.switch.bridge(port);
            let leases = kept.iter().find(|kept| Some(kept.bridge.as_str()) == bridge);
            if let (Some(leases), Some(router)) = (leases, &mut self.forwarder.router) {
                router.restore_leases(port, &leases.leases, self.now);
            }
        }
        self.pin_uplink();
    }

    /// What the next life has to know of a NIC.
    pub fn keep_nic(&self, id: NicId) -> Option<KeptPort> {
        let port = self.ports.nic_port(id.number())?;
        let mut kept = self.keep(port, &self.nic_statistics(id)?);
        kept.bridge = match self.ports.get(port)? {
            PortKind::Nic(nic) => Some(nic.bridge.clone()),
            _ => None,
        };
        Some(kept)
    }

    /// What the next life has to know of a bond with this name, whose NICs have these addresses in the host.
    pub fn keep_bond(&self, id: BondId, name: &str, nics: &[String]) -> Option<KeptBond> {
        let bond = self.ports.bond(id.port())?;
        let bridge = self.forwarder.switch.bridge(id.port()).map(String::from);
        let port = KeptPort { bridge, ..self.keep(id.port(), &PortStatistics::default()) };
        let active = bond.state().active().and_then(|place| nics.get(place).cloned());
        let lacp = bond.state().lacp();
        let link = |(place, nic): (usize, &String)| {
            let lacp::KeptPort { partner, distributing } = lacp?.keep(place)?;
            Some(KeptLink { nic: nic.clone(), partner: partner.into(), distributing })
        };
        let links = lacp.map(|_| nics.iter().enumerate().filter_map(link).collect());
        Some(KeptBond { name: name.into(), port, active, system: lacp.map(|lacp| lacp.system().0.into()), links })
    }

    fn keep(&self, port: PortId, statistics: &PortStatistics) -> KeptPort {
        let learnt = self.forwarder.switch.addresses(port).map(|(vlan, address)| (vlan, address.0.into())).collect();
        let mut kept = KeptPort { learnt, ..KeptPort::default() };
        kept.set_counters(statistics);
        kept
    }

    /// Goes on with a vif as the last life had it.
    pub fn restore_vif(&mut self, id: VifId, kept: &KeptPort) {
        let Some(guest) = self.ports.named_mut(id) else {
            return;
        };
        guest.statistics += kept.counters();
        for group in &kept.groups {
            guest.vif.change_groups(Membership::Join(MacAddress((*group).into())));
        }
        let queues = guest.queue_count();
        if let Some(control) = &mut guest.control
            && let Some(KeptHashing { toeplitz, types, key, mapping }) = &kept.hashing
            && let Some(hashing) = Hashing::from_parts(*toeplitz, *types, (*key).into(), mapping, queues)
        {
            control.ring.hashing = hashing;
        }
        if let (Some(port), Some(sessions)) = (self.router_of(id.port), &kept.sessions)
            && let Some(router) = &mut self.forwarder.router
        {
            router.restore_sessions(port, sessions, self.now);
        }
        self.restore(id.port, kept);
    }

    /// Goes on with a NIC as the last life had it.
    pub fn restore_nic(&mut self, id: NicId, kept: &KeptPort) {
        let Some(port) = self.ports.nic_port(id.number()) else {
            return;
        };
        if let Some(nic) = self.ports.nic_mut(port) {
            nic.statistics += kept.counters();
        }
        self.restore(port, kept);
    }

    /// Goes on with a bond as the last life had it, before any of its NICs is there: with what was learnt, where it is on the same bridge, and with the
    /// active NIC, if that comes back until [`Self::settle_bonds`]. Its NICs have these addresses in the host.
    pub fn restore_bond(&mut self, id: BondId, kept: &KeptBond, nics: &[String]) {
        let place = |nic: &String| nics.iter().position(|known| known == nic);
        let Some(bond) = self.ports.bond_mut(id.port()).map(|bond| bond.state_mut()) else {
            return;
        };
        bond.begin_with(kept.active.as_ref().and_then(place));
        if let Some(lacp) = bond.lacp_mut() {
            let system = kept.system.map(|system| MacAddress(system.into()));
            if let Some(system) = system.filter(|system| system.is_station()) {
                lacp.set_system(system);
            }
            for KeptLink { nic, partner, distributing } in kept.links.iter().flatten() {
                if let Some(place) = place(nic) {
                    let (partner, distributing) = ((*partner).into(), *distributing);
                    lacp.restore(place, lacp::KeptPort { partner, distributing });
                }
            }
        }
        if kept.port.bridge.as_deref() == self.forwarder.switch.bridge(id.port()) {
            self.restore(id.port(), &kept.port);
        }
    }

    fn restore(&mut self, port: PortId, kept: &KeptPort) {
        // The oldest first, so that they age in their order.
        for (vlan, address) in kept.learnt.iter().rev() {
            self.forwarder.switch.recall(port, *vlan, MacAddress((*address).into()), self.now);
        }
    }
}
