//! Third step of a round: all copies. Where some fail, the guest at fault is found out: the ends of those copies are tried, all in one batch. Pure but for the hypervisor. Floor 3.
//!
//! What a hostile guest can cause here is bounded by what it put into the round: two probes for each copy that failed, in one
//! hypercall, and one look at each slot taken and each copy made.

use super::copies::any_failed;
use super::ports::Ports;
use super::round::{Received, ReceivedKind, Round};
use crate::netback::violation::Violation;
use crate::packet::Pool;
use alloc::vec::Vec;
use core::cmp::Ordering;
use split_driver::hypervisor::Hypervisor;
use xen_pv_sys::DomainId;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};

/// Makes all copies of the round, and closes the guests that are at fault where some fail.
pub(super) fn copy<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, hypervisor: &H) {
    if round.copies.is_empty() {
        return;
    }
    hypervisor.grant_copy(&mut round.copies);
    if round.copies.iter().any(|copy| copy.status != 0) {
        blame(ports, round, pool, hypervisor);
    }
}

/// A granted end of a copy: which way, whose, which.
type Key = (u16, u16, u64);

/// What a probe tries.
fn key_of(probe: &GrantCopy) -> Key {
    let end = match probe.flags {
        GrantCopy::SOURCE_GRANT => probe.source,
        _ => probe.destination,
    };
    (probe.flags, end.domain.0, end.reference_or_frame)
}

/// The probe of this key, where it failed.
fn failed(probes: &[GrantCopy], key: Key) -> Option<Violation> {
    let index = probes.binary_search_by(|probe| key_of(probe).cmp(&key)).ok()?;
    let probe = probes.get(index)?;
    let end = if probe.flags == GrantCopy::SOURCE_GRANT { probe.source } else { probe.destination };
    (probe.status != 0).then(|| Violation::bad_grant(end, probe.status))
}

/// Finds out which end of each failed copy is at fault, and closes that vif.
pub(super) fn blame<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, hypervisor: &H) {
    let Round { copies, probes, slots, sent, received, .. } = round;
    for received in &mut *received {
        if let ReceivedKind::Data { copies: range, .. } = received.kind {
            received.failed = any_failed(copies, range);
        }
    }
    probe(copies, probes, pool, hypervisor);
    for sent in sent {
        let port = sent.from.port;
        let Some(guest) = ports.guest(port) else {
            continue;
        };
        let DomainId(domain) = guest.vif.config.domain;
        let mut slots = sent.slots(slots).iter();
        let violation =
            slots.find_map(|slot| failed(probes, (GrantCopy::SOURCE_GRANT, domain, u64::from(slot.reference.0))));
        if let Some(violation) = violation {
            sent.failed = true;
            ports.fail(port, violation);
        }
    }
    for received in received {
        let Received { to, kind: ReceivedKind::Data { copies: range, .. }, failed: true } = received else {
            continue;
        };
        let mut copies = copies.get(range.0 as usize..range.1 as usize).unwrap_or_default().iter();
        let violation = copies.find_map(|copy| {
            let end = copy.destination;
            failed(probes, (GrantCopy::DESTINATION_GRANT, end.domain.0, end.reference_or_frame))
        });
        if let Some(violation) = violation {
            ports.fail(to.port, violation);
        }
    }
    probes.clear();
}

/// Copies one byte from or to each grant of a copy that failed, to see whether it is good; sorted by key. What is written is in a
/// page that is answered with an error, and tells nothing of other guests.
fn probe<H: Hypervisor>(copies: &[GrantCopy], probes: &mut Vec<GrantCopy>, pool: &Pool, hypervisor: &H) {
    const OUT: u16 = 0;
    const IN: u16 = 1;
    let Some(buffer) = pool.take() else {
        return;
    };
    if !buffer.write(usize::from(OUT), &[0]) {
        return;
    }
    let probe = |source, destination, flags| GrantCopy { source, destination, length: 1, flags, status: 0, padding: 0 };
    for copy in copies.iter().filter(|copy| copy.status != 0) {
        if copy.flags & GrantCopy::SOURCE_GRANT != 0 {
            probes.push(probe(copy.source, CopyEnd::local(buffer.frame(), IN), GrantCopy::SOURCE_GRANT));
        }
        if copy.flags & GrantCopy::DESTINATION_GRANT != 0 {
            probes.push(probe(CopyEnd::local(buffer.frame(), OUT), copy.destination, GrantCopy::DESTINATION_GRANT));
        }
    }
    probes.sort_unstable_by_key(key_of);
    probes.dedup_by(|one, other| key_of(one).cmp(&key_of(other)) == Ordering::Equal);
    hypervisor.grant_copy(probes);
}
