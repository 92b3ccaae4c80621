//! Every number of a snapshot, once: what it belongs to, what it counts, in which unit. `oxidom stats` and the exporter show these. Pure. Host.

mod families;

use std::rc::Rc;

use crate::model::{Counts, DiskCounts, DriverDomain, PortCounts, Router, Snapshot};
pub(crate) use families::{ALL, Family, Kind};

/// Bytes of a sector of a request (`io/blkif.h`), and of a page.
pub(crate) const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// What a number belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Thing {
    /// The driver domain's number.
    pub(crate) domid: u32,
    /// Its name.
    pub(crate) domain: String,
    /// What of it, for people.
    pub(crate) shown: String,
    /// The same for programs, the domain not included.
    pub(crate) labels: Vec<(&'static str, String)>,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// Whole.
    Whole(u64),
    /// Of seconds.
    Real(f64),
}

/// One number of a thing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// What it is.
    pub(crate) family: &'static Family,
    /// What it belongs to.
    pub(crate) thing: Rc<Thing>,
    /// Which one, where the family has several.
    pub(crate) aspect: Option<String>,
    /// The number.
    pub(crate) value: Value,
}

/// All numbers of a snapshot, thing by thing. What is a driver domain by its own word alone is left out.
pub(crate) fn samples(snapshot: &Snapshot) -> Vec<Sample> {
    let mut samples = Vec::new();
    for domain in snapshot.domains.iter().filter(|domain| domain.is_vouched) {
        of_domain(domain, &mut samples);
        of_network(domain, &mut samples);
        of_disks(domain, &mut samples);
    }
    samples
}

/// Numbers of one thing, as they are found.
struct Numbers<'a> {
    thing: Rc<Thing>,
    samples: &'a mut Vec<Sample>,
}

impl<'a> Numbers<'a> {
    fn of(
        domain: &DriverDomain,
        shown: String,
        labels: Vec<(&'static str, String)>,
        samples: &'a mut Vec<Sample>,
    ) -> Self {
        let thing = Thing { domid: domain.id, domain: domain.name.clone(), shown, labels };
        Self { thing: Rc::new(thing), samples }
    }

    fn push(&mut self, family: &'static Family, aspect: Option<&str>, value: Value) {
        let (thing, aspect) = (Rc::clone(&self.thing), aspect.map(str::to_owned));
        self.samples.push(Sample { family, thing, aspect, value });
    }

    fn one(&mut self, family: &'static Family, value: u64) {
        self.push(family, None, Value::Whole(value));
    }

    fn optional(&mut self, family: &'static Family, value: Option<u64>) {
        value.into_iter().for_each(|value| self.one(family, value));
    }

    fn seconds(&mut self, family: &'static Family, value: Option<f64>) {
        value.into_iter().for_each(|value| self.push(family, None, Value::Real(value)));
    }

    fn each(&mut self, family: &'static Family, counts: &Counts) {
        counts.iter().for_each(|(name, count)| self.push(family, Some(name), Value::Whole(*count)));
    }

    fn port(&mut self, [packets, bytes, dropped]: [&'static Family; 3], [from, to]: [&str; 2], counts: &PortCounts) {
        for (direction, traffic) in [(from, counts.from), (to, counts.to)] {
            self.push(packets, Some(direction), Value::Whole(traffic.packets));
            self.push(bytes, Some(direction), Value::Whole(traffic.bytes));
        }
        self.each(dropped, &counts.drops);
    }

    fn disk(&mut self, [requests, bytes, failed]: [&'static Family; 3], counts: &DiskCounts) {
        let DiskCounts { reads, sectors_read, writes, sectors_written, flushes, discards, sectors_discarded, failures } =
            counts;
        for (kind, count) in [("read", reads), ("write", writes), ("flush", flushes), ("discard", discards)] {
            self.push(requests, Some(kind), Value::Whole(*count));
        }
        for (kind, sectors) in [("read", sectors_read), ("write", sectors_written), ("discard", sectors_discarded)] {
            self.push(bytes, Some(kind), Value::Whole(sectors.saturating_mul(SECTOR)));
        }
        self.each(failed, failures);
    }
}

/// The words for the two directions of a port, as its owner sees them.
const OF_NIC: [&str; 2] = ["receive", "transmit"];
const OF_GUEST: [&str; 2] = ["from_guest", "to_guest"];

fn of_domain(domain: &DriverDomain, samples: &mut Vec<Sample>) {
    let mut numbers = Numbers::of(domain, "domain".into(), Vec::new(), samples);
    if domain.image.is_some() {
        numbers.one(&families::DOMAIN_READY, domain.ready.is_some().into());
        numbers.one(&families::DOMAIN_ERROR, domain.error.is_some().into());
        numbers.one(&families::DOMAIN_REFUSALS, domain.refusals.len() as u64);
    }
    numbers.optional(&families::DOMAIN_RESTARTS, domain.lives);
    numbers.optional(&families::DOMAIN_LOST, domain.lost_packets);
    numbers.seconds(&families::DOMAIN_START, domain.start);
    numbers.seconds(&families::DOMAIN_CPU, domain.cpu);
    let free = domain.resources.get("free-pages").map(|pages| pages.saturating_mul(PAGE));
    numbers.optional(&families::DOMAIN_FREE, free);
}

fn of_network(domain: &DriverDomain, samples: &mut Vec<Sample>) {
    for nic in &domain.nics {
        let (pci, bridge) = (nic.pci.clone().unwrap_or_default(), nic.bridge.clone().unwrap_or_default());
        let labels = vec![("nic", nic.name.clone()), ("pci", pci), ("bridge", bridge)];
        let mut numbers = Numbers::of(domain, format!("nic {}", nic.name), labels, samples);
        numbers.optional(&families::NIC_LINK, nic.link.map(u64::from));
        let families = [&families::NIC_PACKETS, &families::NIC_BYTES, &families::NIC_DROPPED];
        numbers.port(families, OF_NIC, &nic.port);
        numbers.each(&families::NIC_DEVICE, &nic.device);
    }
    for bond in &domain.bonds {
        let labels = vec![("bond", bond.name.clone())];
        let mut numbers = Numbers::of(domain, format!("bond {}", bond.name), labels, samples);
        numbers.optional(&families::BOND_LINKED, bond.linked);
    }
    if let Some(router) = &domain.router {
        of_router(domain, router, samples);
    }
    for vif in &domain.vifs {
        let (guest, id, device) = (vif.guest.label(), vif.guest.id.to_string(), vif.device.to_string());
        let bridge = vif.bridge.clone().unwrap_or_default();
        let shown = format!("vif {device} of {}", vif.guest.shown());
        let labels = vec![("guest", guest), ("guest_domid", id), ("device", device), ("bridge", bridge)];
        let mut numbers = Numbers::of(domain, shown, labels, samples);
        numbers.one(&families::VIF_CONNECTED, vif.is_connected().into());
        if let Some(port) = &vif.port {
            let families = [&families::VIF_PACKETS, &families::VIF_BYTES, &families::VIF_DROPPED];
            numbers.port(families, OF_GUEST, port);
        }
    }
}

fn of_router(domain: &DriverDomain, router: &Router, samples: &mut Vec<Sample>) {
    let mut numbers = Numbers::of(domain, "router".into(), Vec::new(), samples);
    numbers.one(&families::ROUTER_FORWARDED, router.forwarded);
    numbers.one(&families::ROUTER_TRANSLATED, router.translated);
    numbers.each(&families::ROUTER_DROPPED, &router.drops);
    numbers.optional(&families::ROUTER_SESSIONS, router.sessions);
    for (bridge, leases) in &router.leases {
        let labels = vec![("bridge", bridge.clone())];
        Numbers::of(domain, format!("bridge {bridge}"), labels, samples).one(&families::BRIDGE_LEASES, *leases);
    }
}

fn of_disks(domain: &DriverDomain, samples: &mut Vec<Sample>) {
    for unit in &domain.units {
        let labels = vec![("unit", unit.name.clone())];
        let mut numbers = Numbers::of(domain, format!("unit {}", unit.name), labels, samples);
        numbers.disk([&families::UNIT_REQUESTS, &families::UNIT_BYTES, &families::UNIT_FAILED], &unit.disk);
    }
    for vbd in &domain.vbds {
        let (guest, id, device) = (vbd.guest.label(), vbd.guest.id.to_string(), vbd.device.to_string());
        let target = vbd.target.clone().unwrap_or_default();
        let shown = format!("{} {} of {}", vbd.kind, vbd.shown(), vbd.guest.shown());
        let labels = vec![
            ("guest", guest),
            ("guest_domid", id),
            ("type", vbd.kind.clone()),
            ("device", device),
            ("name", vbd.shown()),
            ("target", target),
        ];
        let mut numbers = Numbers::of(domain, shown, labels, samples);
        numbers.one(&families::VBD_CONNECTED, vbd.is_connected().into());
        if let Some(disk) = &vbd.disk {
            numbers.disk([&families::VBD_REQUESTS, &families::VBD_BYTES, &families::VBD_FAILED], disk);
        }
    }
}
