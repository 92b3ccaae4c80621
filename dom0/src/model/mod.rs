//! What the driver domains of a host do: a typed picture of what they and the toolstack wrote into the store. Everything else here renders
//! it. Pure. Host.
//!
//! All texts in it are clean ([`text::clean`]): guests and driver domains write most of them, and they go to terminals.

mod bridges;
mod line;
mod read;
mod text;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

pub(crate) use bridges::Bridge;
pub(crate) use read::read;
pub(crate) use text::clean;

/// Counters by their names.
pub(crate) type Counts = BTreeMap<String, u64>;

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Snapshot {
    /// The domain that serves the store; none where a daemon of dom0 does.
    pub(crate) store: Option<StoreDomain>,
    /// Domains that serve others, by number.
    pub(crate) domains: Vec<DriverDomain>,
    /// There was more than is looked at.
    pub(crate) truncated: bool,
}

/// The store's domain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StoreDomain {
    /// Its number.
    pub(crate) id: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its image, where that is one of oxidom's.
    pub(crate) image: Option<Image>,
    /// Lives before this one, where it is.
    pub(crate) lives: Option<u64>,
}

/// An image, by its package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
}

/// A domain that serves others.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct DriverDomain {
    /// Its number.
    pub(crate) id: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its image; none for a driver domain of another make.
    pub(crate) image: Option<Image>,
    /// Dom0 made it a driver domain, or gave it a PCI device, or gave others devices of it. Of another one, nothing but its own word says that
    /// it is one, and any guest can say so.
    pub(crate) is_vouched: bool,
    /// What it said when it was ready.
    pub(crate) ready: Option<String>,
    /// When it was created, in seconds since 1970.
    pub(crate) start: Option<f64>,
    /// Lives before this one.
    pub(crate) lives: Option<u64>,
    /// Packets that were lost with them.
    pub(crate) lost_packets: Option<u64>,
    /// What is wrong with it as a whole.
    pub(crate) error: Option<String>,
    /// Why devices were refused, the oldest first.
    pub(crate) refusals: Vec<String>,
    /// What it has on loan.
    pub(crate) resources: Counts,
    /// What it asked of Xen, with `profile=on`.
    pub(crate) counts: Counts,
    /// CPU time that Xen charged it with, in seconds, where it was asked for.
    pub(crate) cpu: Option<f64>,
    /// Its NICs.
    pub(crate) nics: Vec<Nic>,
    /// Its bonds.
    pub(crate) bonds: Vec<Bond>,
    /// Its router.
    pub(crate) router: Option<Router>,
    /// Addresses that it learnt, by bridge.
    pub(crate) addresses: BTreeMap<String, Vec<Learnt>>,
    /// Vifs that it serves.
    pub(crate) vifs: Vec<Vif>,
    /// Its disks.
    pub(crate) units: Vec<Unit>,
    /// What a `target=` may name, where it says so.
    pub(crate) volumes: Vec<Volume>,
    /// How many more there are.
    pub(crate) more_volumes: u64,
    /// Disks of guests that it serves.
    pub(crate) vbds: Vec<Vbd>,
}

/// A guest, as a device knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Guest {
    /// Its number.
    pub(crate) id: u32,
    /// Its name, while it is there.
    pub(crate) name: Option<String>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Traffic {
    /// Packets; a super-frame is one.
    pub(crate) packets: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// A port of a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PortCounts {
    /// From the guest or the wire into the switch.
    pub(crate) from: Traffic,
    /// To the guest or the wire.
    pub(crate) to: Traffic,
    /// Packets lost, by cause.
    pub(crate) drops: Counts,
}

/// A NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Nic {
    /// Its number there.
    pub(crate) name: String,
    /// Its address in the domain.
    pub(crate) pci: Option<String>,
    /// Its bridge.
    pub(crate) bridge: Option<String>,
    /// Whether it has a link, where the image says so.
    pub(crate) link: Option<bool>,
    /// What is in its cage.
    pub(crate) module: Option<String>,
    /// Its port's counters.
    pub(crate) port: PortCounts,
    /// Those of the device itself.
    pub(crate) device: Counts,
}

/// NICs that are one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Bond {
    /// Its name.
    pub(crate) name: String,
    /// The addresses of its NICs.
    pub(crate) nics: Vec<String>,
    /// Those with a link.
    pub(crate) linked: Option<u64>,
    /// What carries packets, in the image's words.
    pub(crate) state: String,
}

/// The router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Router {
    /// Packets that went on.
    pub(crate) forwarded: u64,
    /// Of these, with another address.
    pub(crate) translated: u64,
    /// Packets lost, by cause.
    pub(crate) drops: Counts,
    /// Sessions in use.
    pub(crate) sessions: Option<u64>,
    /// The way out, in the image's words.
    pub(crate) uplink: Option<String>,
    /// Leases, by bridge.
    pub(crate) leases: Counts,
}

/// An address that a switch learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Learnt {
    /// The address.
    pub(crate) address: String,
    /// Its VLAN; 0 for none.
    pub(crate) vlan: u64,
    /// The port: `nic/0`, `vif/3/0`.
    pub(crate) port: String,
}

/// A vif.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Vif {
    /// Whose it is.
    pub(crate) guest: Guest,
    /// Its number there.
    pub(crate) device: u32,
    /// Its bridge, with its VLANs.
    pub(crate) bridge: Option<String>,
    /// Its address.
    pub(crate) mac: Option<String>,
    /// The backend's state.
    pub(crate) state: State,
    /// The frontend's.
    pub(crate) frontend: State,
    /// Whether its bridge has a link to the wire, where it has NICs.
    pub(crate) carrier: Option<bool>,
    /// Why it is refused.
    pub(crate) error: Option<String>,
    /// What it counted since it connected.
    pub(crate) port: Option<PortCounts>,
}

/// Requests of a guest's disk, or commands of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DiskCounts {
    /// Reads.
    pub(crate) reads: u64,
    /// Sectors of 512 bytes.
    pub(crate) sectors_read: u64,
    /// Writes.
    pub(crate) writes: u64,
    /// Sectors of 512 bytes.
    pub(crate) sectors_written: u64,
    /// Flushes.
    pub(crate) flushes: u64,
    /// Discards.
    pub(crate) discards: u64,
    /// Sectors of 512 bytes.
    pub(crate) sectors_discarded: u64,
    /// What failed, by cause.
    pub(crate) failures: Counts,
}

/// A disk of blkdom's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unit {
    /// Its name.
    pub(crate) name: String,
    /// Its counters.
    pub(crate) disk: DiskCounts,
}

/// What a `target=` may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Volume {
    /// The name that it is known by first.
    pub(crate) names: Vec<String>,
    /// Its sectors of 512 bytes.
    pub(crate) sectors: u64,
}

/// A guest's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Vbd {
    /// Whose it is.
    pub(crate) guest: Guest,
    /// Its number there.
    pub(crate) device: u32,
    /// `vbd`, or `qdisk` for one that no driver domain of ours serves.
    pub(crate) kind: String,
    /// Its name in the guest's config.
    pub(crate) name: Option<String>,
    /// The volume.
    pub(crate) target: Option<String>,
    /// `w` or `r`.
    pub(crate) mode: Option<String>,
    /// The backend's state.
    pub(crate) state: State,
    /// The frontend's.
    pub(crate) frontend: State,
    /// Why it is refused.
    pub(crate) error: Option<String>,
    /// What it counted since it connected.
    pub(crate) disk: Option<DiskCounts>,
}

/// `XenbusState` (`io/xenbus.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u8);

impl State {
    /// `XenbusStateConnected`.
    pub(crate) const CONNECTED: Self = Self(4);

    /// Of a node; anything that is no state is [`State::default`], unknown.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.trim().parse().unwrap_or(0))
    }

    /// In a word.
    pub(crate) const fn name(self) -> &'static str {
        match self.0 {
            1 => "initialising",
            2 => "waiting",
            3 => "initialised",
            4 => "connected",
            5 => "closing",
            6 => "closed",
            7 => "reconfiguring",
            8 => "reconfigured",
            _ => "unknown",
        }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Guest {
    /// Its name and number.
    pub(crate) fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.id),
            None => format!("domain {}, gone", self.id),
        }
    }

    /// Its name, or its number where it has none.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }
}

impl Vif {
    /// Both ends are connected.
    pub(crate) fn is_connected(&self) -> bool {
        [self.state, self.frontend] == [State::CONNECTED; 2]
    }
}

impl Vbd {
    /// Both ends are connected.
    pub(crate) fn is_connected(&self) -> bool {
        [self.state, self.frontend] == [State::CONNECTED; 2]
    }

    /// Its name in the guest, or its number.
    pub(crate) fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.device.to_string())
    }
}

impl DriverDomain {
    /// Nothing is wrong with it now. Refusals of the past do not count, nor what a guest says that is no driver domain.
    pub(crate) fn is_well(&self) -> bool {
        if !self.is_vouched {
            return true;
        }
        let errors = self.vifs.iter().map(|vif| &vif.error).chain(self.vbds.iter().map(|vbd| &vbd.error));
        let ready = self.ready.is_some() || self.image.is_none();
        ready && self.error.is_none() && errors.into_iter().all(Option::is_none)
    }
}

impl Snapshot {
    /// What concerns one domain: a driver domain with all that it serves, or a guest with all that it is served.
    /// `false` where that is nothing.
    pub(crate) fn retain(&mut self, id: u32) -> bool {
        self.store.take_if(|store| store.id != id);
        if self.domains.iter().any(|domain| domain.id == id) {
            self.domains.retain(|domain| domain.id == id);
            return true;
        }
        for domain in &mut self.domains {
            domain.vifs.retain(|vif| vif.guest.id == id);
            domain.vbds.retain(|vbd| vbd.guest.id == id);
        }
        self.domains.retain(|domain| !domain.vifs.is_empty() || !domain.vbds.is_empty());
        !self.domains.is_empty() || self.store.is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests;
