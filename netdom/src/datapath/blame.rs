//! Who is at fault where copies failed: the ends of those copies are tried, all in one batch. Pure but for the hypervisor. Floor 3.
//!
//! What a hostile guest can cause here is bounded by what it put into the round: two probes for each copy that failed, in one
//! hypercall, and one look at each slot taken and each copy made.

use super::DataPath;
use super::round::{Received, ReceivedKind};
use crate::netback::violation::Violation;
use alloc::vec::Vec;
use core::cmp::Ordering;
use split_driver::hypervisor::Hypervisor;
use xen_pv_sys::DomainId;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};

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

impl<H: Hypervisor> DataPath<H> {
    /// Finds out which end of each failed copy is at fault, and closes that vif.
    pub(super) fn blame(&mut self) {
        let copies = &self.round.copies;
        for received in &mut self.round.received {
            if let ReceivedKind::Data { copies: range, .. } = received.kind {
                received.failed = any_failed(copies, range);
            }
        }
        let mut probes = core::mem::take(&mut self.round.probes);
        self.probe(&mut probes);
        for index in 0..self.round.sent.len() {
            let Some(sent) = self.round.sent.get_mut(index) else {
                break;
            };
            let port = sent.from.port;
            let Some(Some(slot)) = self.vifs.get(usize::from(port)) else {
                continue;
            };
            let DomainId(domain) = slot.vif.config.domain;
            let mut slots = sent.slots(&self.round.slots).iter();
            let violation =
                slots.find_map(|slot| failed(&probes, (GrantCopy::SOURCE_GRANT, domain, u64::from(slot.reference.0))));
            if let Some(violation) = violation {
                sent.failed = true;
                self.fail(port, violation);
            }
        }
        for index in 0..self.round.received.len() {
            let Some(Received { to, kind: ReceivedKind::Data { copies, .. }, failed: true }) =
                self.round.received.get(index)
            else {
                continue;
            };
            let (port, range) = (to.port, copies.0 as usize..copies.1 as usize);
            let mut copies = self.round.copies.get(range).unwrap_or_default().iter();
            let violation = copies.find_map(|copy| {
                let end = copy.destination;
                failed(&probes, (GrantCopy::DESTINATION_GRANT, end.domain.0, end.reference_or_frame))
            });
            if let Some(violation) = violation {
                self.fail(port, violation);
            }
        }
        probes.clear();
        self.round.probes = probes;
    }

    /// Copies one byte from or to each grant of a copy that failed, to see whether it is good; sorted by key. What is written is in a
    /// page that is answered with an error, and tells nothing of other guests.
    fn probe(&mut self, probes: &mut Vec<GrantCopy>) {
        const OUT: u16 = 0;
        const IN: u16 = 1;
        let Some(buffer) = self.pool.take() else {
            return;
        };
        if !buffer.write(usize::from(OUT), &[0]) {
            return;
        }
        let probe =
            |source, destination, flags| GrantCopy { source, destination, length: 1, flags, status: 0, padding: 0 };
        for copy in self.round.copies.iter().filter(|copy| copy.status != 0) {
            if copy.flags & GrantCopy::SOURCE_GRANT != 0 {
                probes.push(probe(copy.source, CopyEnd::local(buffer.frame(), IN), GrantCopy::SOURCE_GRANT));
            }
            if copy.flags & GrantCopy::DESTINATION_GRANT != 0 {
                probes.push(probe(CopyEnd::local(buffer.frame(), OUT), copy.destination, GrantCopy::DESTINATION_GRANT));
            }
        }
        probes.sort_unstable_by_key(key_of);
        probes.dedup_by(|one, other| key_of(one).cmp(&key_of(other)) == Ordering::Equal);
        self.hypervisor.grant_copy(probes);
    }
}

pub(super) fn any_failed(copies: &[GrantCopy], range: (u32, u32)) -> bool {
    copies.get(range.0 as usize..range.1 as usize).unwrap_or_default().iter().any(|copy| copy.status != 0)
}
