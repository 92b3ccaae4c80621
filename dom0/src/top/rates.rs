//! What happened between two snapshots, by the second. Pure. Host.

use std::time::Duration;

use serde::Serialize;

use crate::counters::SECTOR;
use crate::model::{Counts, DiskCounts, DriverDomain, Guest, PortCounts, Snapshot};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Seconds between the two.
    pub(super) seconds: f64,
    /// Driver domains.
    pub(super) domains: Vec<DomainRate>,
    /// NICs, then vifs.
    pub(super) ports: Vec<PortRate>,
    /// Disks of guests.
    pub(super) disks: Vec<DiskRate>,
}

/// A driver domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct DomainRate {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) is_well: bool,
    pub(super) lives: Option<u64>,
    /// Of one CPU.
    pub(super) cpu_percent: Option<f64>,
}

/// A port of a switch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct PortRate {
    pub(super) domain: String,
    /// `nic 0`, `vif 4.0`.
    pub(super) name: String,
    /// The guest's name, where it is a guest's.
    pub(super) guest: Option<String>,
    pub(super) bridge: String,
    /// None where it is not connected, or was not.
    pub(super) rate: Option<Traffics>,
}

/// Of a port: from the guest or the wire, and to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Traffics {
    pub(super) from_packets: f64,
    pub(super) from_bytes: f64,
    pub(super) to_packets: f64,
    pub(super) to_bytes: f64,
    /// Packets lost, by cause: those causes by which some were.
    pub(super) drops: Vec<(String, f64)>,
}

/// A guest's disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct DiskRate {
    pub(super) domain: String,
    pub(super) guest: String,
    pub(super) name: String,
    pub(super) target: String,
    /// None where it is not connected, or was not.
    pub(super) rate: Option<Operations>,
}

/// Of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Operations {
    pub(super) reads: f64,
    pub(super) read_bytes: f64,
    pub(super) writes: f64,
    pub(super) written_bytes: f64,
    pub(super) flushes: f64,
    pub(super) discards: f64,
    /// Failures, by cause: those by which some were.
    pub(super) failures: Vec<(String, f64)>,
}

/// How a counter grew. Where it is less than it was, what it belongs to began anew meanwhile, at nothing.
#[derive(Clone, Copy)]
struct Growth(f64);

impl Growth {
    fn of(self, before: u64, now: u64) -> f64 {
        now.checked_sub(before).unwrap_or(now) as f64 / self.0
    }

    fn each(self, before: &Counts, now: &Counts) -> Vec<(String, f64)> {
        let grown = now.iter().map(|(name, count)| (name, self.of(before.get(name).copied().unwrap_or(0), *count)));
        grown.filter(|(_, rate)| *rate > 0.0).map(|(name, rate)| (name.clone(), rate)).collect()
    }

    fn port(self, before: &PortCounts, now: &PortCounts) -> Traffics {
        Traffics {
            from_packets: self.of(before.from.packets, now.from.packets),
            from_bytes: self.of(before.from.bytes, now.from.bytes),
            to_packets: self.of(before.to.packets, now.to.packets),
            to_bytes: self.of(before.to.bytes, now.to.bytes),
            drops: self.each(&before.drops, &now.drops),
        }
    }

    fn disk(self, before: &DiskCounts, now: &DiskCounts) -> Operations {
        Operations {
            reads: self.of(before.reads, now.reads),
            read_bytes: self.of(before.sectors_read, now.sectors_read) * SECTOR as f64,
            writes: self.of(before.writes, now.writes),
            written_bytes: self.of(before.sectors_written, now.sectors_written) * SECTOR as f64,
            flushes: self.of(before.flushes, now.flushes),
            discards: self.of(before.discards, now.discards),
            failures: self.each(&before.failures, &now.failures),
        }
    }
}

/// From `before` to `now`, with so much time between them.
pub(super) fn rates(before: &Snapshot, now: &Snapshot, between: Duration) -> Rates {
    let seconds = between.as_secs_f64().max(1e-3);
    let growth = Growth(seconds);
    let mut rates = Rates { seconds, ..Rates::default() };
    for domain in now.domains.iter().filter(|domain| domain.is_vouched) {
        // A domain that was created anew has another number.
        let nothing = DriverDomain::default();
        let before = before.domains.iter().find(|known| known.id == domain.id).unwrap_or(&nothing);
        rates.domains.push(of_domain(before, domain, seconds));
        of_ports(before, domain, growth, &mut rates.ports);
        of_disks(before, domain, growth, &mut rates.disks);
    }
    rates
}

fn of_domain(before: &DriverDomain, now: &DriverDomain, seconds: f64) -> DomainRate {
    let ran = before.cpu.zip(now.cpu).map(|(before, now)| (now - before).max(0.0));
    DomainRate {
        id: now.id,
        name: now.name.clone(),
        image: now.image.as_ref().map(|image| format!("{} {}", image.name, image.version)).unwrap_or_default(),
        is_well: now.is_well(),
        lives: now.lives,
        cpu_percent: ran.map(|ran| 100.0 * ran / seconds),
    }
}

fn of_ports(before: &DriverDomain, now: &DriverDomain, growth: Growth, ports: &mut Vec<PortRate>) {
    for nic in &now.nics {
        let known = before.nics.iter().find(|known| known.name == nic.name && known.pci == nic.pci);
        ports.push(PortRate {
            domain: now.name.clone(),
            name: format!("nic {}", nic.name),
            guest: None,
            bridge: nic.bridge.clone().unwrap_or_default(),
            rate: known.map(|known| growth.port(&known.port, &nic.port)),
        });
    }
    for vif in &now.vifs {
        let known = before.vifs.iter().find(|known| (known.guest.id, known.device) == (vif.guest.id, vif.device));
        let both = known.and_then(|known| known.port.as_ref()).zip(vif.port.as_ref());
        ports.push(PortRate {
            domain: now.name.clone(),
            name: format!("vif {}.{}", vif.guest.id, vif.device),
            guest: Some(Guest::label(&vif.guest)),
            bridge: vif.bridge.clone().unwrap_or_default(),
            rate: both.map(|(before, now)| growth.port(before, now)),
        });
    }
}

fn of_disks(before: &DriverDomain, now: &DriverDomain, growth: Growth, disks: &mut Vec<DiskRate>) {
    for vbd in now.vbds.iter().filter(|vbd| vbd.kind == "vbd") {
        let known = before
            .vbds
            .iter()
            .find(|known| known.kind == vbd.kind && (known.guest.id, known.device) == (vbd.guest.id, vbd.device));
        let both = known.and_then(|known| known.disk.as_ref()).zip(vbd.disk.as_ref());
        disks.push(DiskRate {
            domain: now.name.clone(),
            guest: vbd.guest.label(),
            name: vbd.shown(),
            target: vbd.target.clone().unwrap_or_default(),
            rate: both.map(|(before, now)| growth.disk(before, now)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::snapshot;

    #[test]
    fn what_grew_is_told_by_the_second() {
        let (before, mut now) = (snapshot(), snapshot());
        let netdom = &mut now.domains[0];
        netdom.cpu = Some(3.0);
        let port = netdom.vifs[0].port.as_mut().unwrap();
        port.from.packets += 100;
        port.from.bytes += 5000;
        *port.drops.get_mut("spoofed").unwrap() += 4;
        port.drops.insert("storm".into(), 2);
        // A life without counters began.
        netdom.nics[0].port.to.packets = 10;
        let disk = now.domains[1].vbds[0].disk.as_mut().unwrap();
        disk.reads += 30;
        disk.sectors_read += 240;
        disk.failures.insert("gone".into(), 6);
        let rates = rates(&before, &now, Duration::from_secs(2));
        let found = |name: &str| rates.ports.iter().find(|port| port.name == name).unwrap().rate.clone();
        let vif = found("vif 4.0").unwrap();
        assert_eq!((vif.from_packets, vif.from_bytes, vif.to_packets), (50.0, 2500.0, 0.0));
        assert_eq!(vif.drops, [("spoofed".to_owned(), 2.0), ("storm".to_owned(), 1.0)]);
        assert_eq!((found("nic 0").unwrap().to_packets, found("vif 5.1")), (5.0, None));
        let disk = rates.disks[0].rate.as_ref().unwrap();
        assert_eq!((disk.reads, disk.read_bytes, disk.writes), (15.0, 240.0 * 256.0, 0.0));
        assert_eq!(disk.failures, [("gone".to_owned(), 3.0)]);
        assert_eq!(rates.domains[0].cpu_percent, None, "it was not known before");
    }

    #[test]
    fn a_domain_that_was_not_there_has_no_rate() {
        let mut now = snapshot();
        now.domains[0].cpu = Some(4.0);
        let fresh = rates(&Snapshot::default(), &now, Duration::ZERO);
        assert!(fresh.ports.iter().all(|port| port.rate.is_none()) && fresh.domains[0].cpu_percent.is_none());
        let mut later = now.clone();
        later.domains[0].cpu = Some(4.5);
        let rates = rates(&now, &later, Duration::from_secs(2));
        assert_eq!(rates.domains[0].cpu_percent, Some(25.0));
    }
}
