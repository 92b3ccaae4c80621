//! The families of numbers: what each means, and in which unit it counts. Pure. Host.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It grows, until the thing begins anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// Numbers that mean the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// Its name, without the unit.
    pub(crate) name: &'static str,
    /// Its unit, in the plural; empty where it has none.
    pub(crate) unit: &'static str,
    /// The label by which its numbers of one thing differ, where there are several.
    pub(crate) aspect: Option<&'static str>,
    /// What kind of number it is.
    pub(crate) kind: Kind,
    /// What it is.
    pub(crate) help: &'static str,
}

const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> Family {
    Family { name, unit, aspect: None, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Family {
    Family { name, unit, aspect: None, kind: Kind::Gauge, help }
}

const fn by(aspect: &'static str, family: Family) -> Family {
    Family { aspect: Some(aspect), ..family }
}

pub(super) static DOMAIN_READY: Family = gauge("domain_ready", "", "Whether the domain said that it serves guests");
pub(super) static DOMAIN_ERROR: Family =
    gauge("domain_error", "", "Whether the domain says that something is wrong with it as a whole");
pub(super) static DOMAIN_RESTARTS: Family = counter("domain_restarts", "", "Lives of the domain before this one");
pub(super) static DOMAIN_LOST: Family =
    counter("domain_lost", "packets", "Packets that waited when a life ended, and were lost with it");
pub(super) static DOMAIN_START: Family =
    gauge("domain_start_time", "seconds", "When the domain was created, since 1970");
pub(super) static DOMAIN_CPU: Family = counter("domain_cpu", "seconds", "CPU time that Xen charged the domain with");
pub(super) static DOMAIN_FREE: Family = gauge("domain_free_memory", "bytes", "Memory of the domain that is not in use");
pub(super) static DOMAIN_REFUSALS: Family =
    gauge("domain_refusals", "", "Refused devices of which the domain keeps the reason");
pub(super) static NIC_PACKETS: Family =
    by("direction", counter("nic", "packets", "Packets of a NIC; a super-frame is one"));
pub(super) static NIC_BYTES: Family = by("direction", counter("nic", "bytes", "Bytes of a NIC's packets"));
pub(super) static NIC_DROPPED: Family = by("cause", counter("nic_dropped", "packets", "Packets lost at a NIC's port"));
pub(super) static NIC_DEVICE: Family = by("event", counter("nic_device", "events", "What a NIC itself counted"));
pub(super) static NIC_LINK: Family = gauge("nic_link", "", "Whether a NIC has a link");
pub(super) static BOND_LINKED: Family = gauge("bond_linked", "", "NICs of a bond that have a link");
pub(super) static ROUTER_FORWARDED: Family =
    counter("router_forwarded", "packets", "Packets that the router passed on");
pub(super) static ROUTER_TRANSLATED: Family =
    counter("router_translated", "packets", "Packets that the router passed on with another address");
pub(super) static ROUTER_DROPPED: Family =
    by("cause", counter("router_dropped", "packets", "Packets that the router lost"));
pub(super) static ROUTER_SESSIONS: Family = gauge("router_sessions", "", "Sessions of the router that are in use");
pub(super) static BRIDGE_LEASES: Family =
    gauge("bridge_leases", "", "Leases of a bridge's DHCP server that are in use");
pub(super) static VIF_CONNECTED: Family = gauge("vif_connected", "", "Whether a guest's vif is connected");
pub(super) static VIF_PACKETS: Family =
    by("direction", counter("vif", "packets", "Packets of a guest's vif; a super-frame is one"));
pub(super) static VIF_BYTES: Family = by("direction", counter("vif", "bytes", "Bytes of the packets of a guest's vif"));
pub(super) static VIF_DROPPED: Family = by("cause", counter("vif_dropped", "packets", "Packets lost at a vif's port"));
pub(super) static UNIT_REQUESTS: Family =
    by("kind", counter("unit", "requests", "Commands that a disk of the domain served"));
pub(super) static UNIT_BYTES: Family =
    by("kind", counter("unit", "bytes", "Bytes that a disk of the domain read, wrote or discarded"));
pub(super) static UNIT_FAILED: Family =
    by("cause", counter("unit_failed", "requests", "Commands of a disk of the domain that failed"));
pub(super) static VBD_CONNECTED: Family = gauge("vbd_connected", "", "Whether a guest's disk is connected");
pub(super) static VBD_REQUESTS: Family =
    by("kind", counter("vbd", "requests", "Requests of a guest's disk that were served"));
pub(super) static VBD_BYTES: Family =
    by("kind", counter("vbd", "bytes", "Bytes that a guest's disk read, wrote or discarded"));
pub(super) static VBD_FAILED: Family =
    by("cause", counter("vbd_failed", "requests", "Requests of a guest's disk that failed"));

/// All, in the order in which they are exported.
pub(crate) static ALL: [&Family; 30] = [
    &DOMAIN_READY,
    &DOMAIN_ERROR,
    &DOMAIN_RESTARTS,
    &DOMAIN_LOST,
    &DOMAIN_START,
    &DOMAIN_CPU,
    &DOMAIN_FREE,
    &DOMAIN_REFUSALS,
    &NIC_PACKETS,
    &NIC_BYTES,
    &NIC_DROPPED,
    &NIC_DEVICE,
    &NIC_LINK,
    &BOND_LINKED,
    &ROUTER_FORWARDED,
    &ROUTER_TRANSLATED,
    &ROUTER_DROPPED,
    &ROUTER_SESSIONS,
    &BRIDGE_LEASES,
    &VIF_CONNECTED,
    &VIF_PACKETS,
    &VIF_BYTES,
    &VIF_DROPPED,
    &UNIT_REQUESTS,
    &UNIT_BYTES,
    &UNIT_FAILED,
    &VBD_CONNECTED,
    &VBD_REQUESTS,
    &VBD_BYTES,
    &VBD_FAILED,
];
