//! The lines that driver domains write below `data/`, read back. Pure. Host.
//!
//! An image may be older or newer than this tool: what is not known is passed over, or kept by its name where it is a counter. A domain that lies
//! gets its own counters wrong.

use super::text::is_name;
use super::{Bond, Counts, DiskCounts, Learnt, Nic, PortCounts, Router, Traffic, Volume};

/// Counters of a line, at most.
const COUNTERS: usize = 64;

/// The counters of a NIC as a device (`netdom`'s `NicStatistics`); the others of its line are drops.
const OF_DEVICE: [&str; 8] = [
    "receive-errors",
    "receive-missed",
    "receive-malformed",
    "receive-oversize",
    "receive-reset",
    "transmit-errors",
    "transmit-reset",
    "pauses",
];

/// `name 5`, where the name may have several words.
fn counter(field: &str) -> Option<(&str, u64)> {
    let (name, count) = field.rsplit_once(' ')?;
    Some((name, count.parse().ok()?))
}

fn insert(counts: &mut Counts, name: &str, count: u64) {
    if counts.len() < COUNTERS && is_name(name) {
        counts.insert(name.to_owned(), count);
    }
}

/// `name 5, other 7`.
pub(super) fn pairs(text: &str) -> Counts {
    let mut counts = Counts::new();
    text.split(", ").filter_map(counter).for_each(|(name, count)| insert(&mut counts, name, count));
    counts
}

/// `5 packets 300 bytes`.
fn traffic(text: &str) -> Option<Traffic> {
    let mut words = text.split(' ');
    let packets = words.next()?.parse().ok()?;
    words.next().filter(|word| *word == "packets")?;
    Some(Traffic { packets, bytes: words.next()?.parse().ok()? })
}

/// Takes a field of a port's line; whether it is one.
fn take_port(port: &mut PortCounts, field: &str) -> bool {
    if let Some(from) = field.strip_prefix("from: ").and_then(traffic) {
        port.from = from;
    } else if let Some(to) = field.strip_prefix("to: ").and_then(traffic) {
        port.to = to;
    } else if let Some((name, count)) = counter(field).filter(|(name, _)| is_name(name)) {
        insert(&mut port.drops, name, count);
    } else {
        return false;
    }
    true
}

/// `from: 5 packets 300 bytes, to: 3 packets 200 bytes, queue-full 3`.
pub(super) fn port(text: &str) -> Option<PortCounts> {
    text.starts_with("from: ").then(|| {
        let mut port = PortCounts::default();
        for field in text.split(", ") {
            take_port(&mut port, field);
        }
        port
    })
}

/// A port's line behind `pci 00:03.0 on xenbr0, `, with what its module is, and the device's counters.
pub(super) fn nic(name: &str, text: &str) -> Nic {
    let mut nic = Nic { name: name.to_owned(), ..Nic::default() };
    let mut module: Option<String> = None;
    for field in text.split(", ") {
        if let Some((pci, bridge)) = field.strip_prefix("pci ").and_then(|rest| rest.split_once(" on ")) {
            (nic.pci, nic.bridge) = (Some(pci.to_owned()), Some(bridge.to_owned()));
        } else if let Some(kind) = field.strip_prefix("module ") {
            module = Some(kind.to_owned());
        } else if let Some((known, count)) = counter(field).filter(|(known, _)| OF_DEVICE.contains(known)) {
            insert(&mut nic.device, known, count);
        } else if let Some(link) = field.strip_prefix("link ") {
            nic.link = Some(link != "down");
        } else if let Some(module) = &mut module {
            // Its text has commas of its own.
            module.push_str(", ");
            module.push_str(field);
        } else {
            take_port(&mut nic.port, field);
        }
    }
    nic.module = module;
    nic
}

/// `pci 00:03.0 00:04.0, 2 with a link, active pci 00:03.0`.
pub(super) fn bond(name: &str, text: &str) -> Bond {
    let (nics, state) = text.split_once(", ").unwrap_or((text, ""));
    let nics = nics.strip_prefix("pci ").unwrap_or_default();
    let linked = state.split_once(" with a link").and_then(|(count, _)| count.parse().ok());
    let nics = nics.split(' ').filter(|nic| !nic.is_empty()).map(str::to_owned).collect();
    Bond { name: name.to_owned(), nics, linked, state: state.to_owned() }
}

/// `forwarded 5 packets, translated 3, not-routed 7, sessions 2`.
pub(super) fn router(router: &mut Router, text: &str) {
    for field in text.split(", ") {
        match counter(field.strip_suffix(" packets").unwrap_or(field)) {
            Some(("forwarded", count)) => router.forwarded = count,
            Some(("translated", count)) => router.translated = count,
            Some(("sessions", count)) => router.sessions = Some(count),
            Some((name, count)) => insert(&mut router.drops, name, count),
            None => {}
        }
    }
}

/// `5 reads 40 sectors, 3 writes 24 sectors, 1 flushes, 0 discards 0 sectors, device 2`.
pub(super) fn disk(text: &str) -> Option<DiskCounts> {
    let mut disk = DiskCounts::default();
    let mut known = false;
    for field in text.split(", ") {
        let words: Vec<&str> = field.split(' ').collect();
        let number = |word: &str| word.parse().unwrap_or(0);
        match words.as_slice() {
            [count, "reads", sectors, "sectors"] => {
                (disk.reads, disk.sectors_read, known) = (number(count), number(sectors), true);
            }
            [count, "writes", sectors, "sectors"] => {
                (disk.writes, disk.sectors_written) = (number(count), number(sectors));
            }
            [count, "discards", sectors, "sectors"] => {
                (disk.discards, disk.sectors_discarded) = (number(count), number(sectors));
            }
            [count, "flushes"] => disk.flushes = number(count),
            [name, count] => {
                if let Ok(count) = count.parse() {
                    insert(&mut disk.failures, name, count);
                }
            }
            _ => {}
        }
    }
    known.then_some(disk)
}

/// `lives 2, packets that waited and were lost with them 17`: lives and packets.
pub(super) fn lives(text: &str) -> (Option<u64>, Option<u64>) {
    let mut fields = text.split(", ").filter_map(counter);
    let lives = fields.next().filter(|(name, _)| *name == "lives").map(|(_, count)| count);
    (lives, fields.next().map(|(_, count)| count))
}

/// `52:54:00:12:34:56 0 nic/0, 00:16:3e:01:02:03 5 vif/3/0`.
pub(super) fn addresses(text: &str) -> Vec<Learnt> {
    let learnt = |field: &str| {
        let mut words = field.split(' ');
        let address = words.next().filter(|address| is_name(address))?.to_owned();
        let vlan = words.next()?.parse().ok()?;
        let port = words.next().filter(|port| port.split('/').all(is_name))?.to_owned();
        Some(Learnt { address, vlan, port })
    };
    text.split(", ").filter_map(learnt).collect()
}

/// Lines of sectors and names with tabs between them, the bytes of one node.
pub(super) fn volumes(bytes: &[u8]) -> Vec<Volume> {
    let volume = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b'\t').map(super::clean);
        let sectors = fields.next()?.parse().ok()?;
        let names: Vec<String> = fields.filter(|name| !name.is_empty()).collect();
        (!names.is_empty()).then_some(Volume { names, sectors })
    };
    bytes.split(|byte| *byte == b'\n').filter_map(volume).collect()
}

#[cfg(test)]
mod tests;
