//! Guests whose packets make netdom fail: a life that ends notes the vif that it served, and a vif that was noted too often is closed. Pure.
//! Floor 3.
//!
//! The note is no proof. So one or two count for nothing, and a vif is closed for the third within some minutes, which its neighbours would have to
//! bear with it otherwise.

use crate::switch::PortId;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use minicbor::{Decode, Encode};
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::{DeviceId, DomainId};

/// Failures that close a vif.
pub const LIMIT: u32 = 3;
/// How long a failure counts.
const MEMORY: Duration = Duration::from_secs(600);
/// Vifs that are remembered, at most.
const VIFS: usize = 64;

/// The port that is served now, for the end of a life: it can be read whatever is borrowed then.
#[derive(Clone, Debug, Default)]
pub struct Suspect(Rc<Cell<Option<PortId>>>);

impl Suspect {
    /// A port is served, or none.
    #[inline]
    pub(crate) fn set(&self, port: Option<PortId>) {
        self.0.set(port);
    }

    /// The port that is served.
    pub fn get(&self) -> Option<PortId> {
        self.0.get()
    }
}

/// A vif that was served when lives ended, in CBOR (RFC 8949).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct Failures {
    #[n(0)]
    domain: u16,
    #[n(1)]
    handle: u32,
    #[n(2)]
    count: u32,
    /// When the last one was, in nanoseconds since the domain began.
    #[n(3)]
    last: u64,
}

/// What earlier lives ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Blame {
    #[n(0)]
    vifs: Vec<Failures>,
}

impl Blame {
    /// A life ended while this vif was served.
    pub fn note(&mut self, DeviceId { frontend: DomainId(domain), handle }: DeviceId, now: Instant) {
        self.vifs.retain(|known| now.since(Instant(known.last)) < MEMORY);
        let last = now.0;
        match self.vifs.iter_mut().find(|known| (known.domain, known.handle) == (domain, handle)) {
            Some(known) => (known.count, known.last) = (known.count.saturating_add(1), last),
            None => {
                if self.vifs.len() >= VIFS {
                    self.vifs.remove(0);
                }
                self.vifs.push(Failures { domain, handle, count: 1, last });
            }
        }
    }

    /// Whether a vif is closed for the failures that are counted: how many there were.
    pub fn verdict(&self, id: DeviceId) -> Option<u32> {
        let of = |known: &&Failures| (known.domain, known.handle) == (id.frontend.0, id.handle);
        self.vifs.iter().find(of).map(|known| known.count).filter(|count| *count >= LIMIT)
    }

    /// The frontend begins anew: it is served again, and one more failure closes it again.
    pub fn forgive(&mut self, id: DeviceId) {
        let of = |known: &&mut Failures| (known.domain, known.handle) == (id.frontend.0, id.handle);
        if let Some(known) = self.vifs.iter_mut().find(of) {
            known.count = known.count.min(LIMIT - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vif(domain: u16) -> DeviceId {
        DeviceId { frontend: DomainId(domain), handle: 0 }
    }

    #[test]
    fn the_third_failure_closes_and_each_one_after_it() {
        let mut blame = Blame::default();
        let at = |second: u64| Instant(second * 1_000_000_000);
        for (second, closed) in [(1, None), (2, None), (3, Some(3)), (4, Some(3)), (5, Some(3))] {
            blame.note(vif(3), at(second));
            assert_eq!((blame.verdict(vif(3)), blame.verdict(vif(4))), (closed, None), "{second}");
            blame.forgive(vif(3));
            assert_eq!(blame.verdict(vif(3)), None);
        }
        // Those of long ago do not count.
        blame.note(vif(3), at(700));
        assert_eq!(blame.verdict(vif(3)), None);
        let bytes = minicbor::to_vec(&blame).unwrap();
        assert_eq!(minicbor::decode::<Blame>(&bytes).unwrap(), blame);
    }

    #[test]
    fn as_many_are_remembered_as_fit() {
        let mut blame = Blame::default();
        (0..1000).for_each(|domain| blame.note(vif(domain), Instant(1)));
        assert_eq!(blame.vifs.len(), VIFS);
        (0..3).for_each(|_| blame.note(vif(999), Instant(1)));
        assert_eq!(blame.verdict(vif(999)), Some(4));
    }
}
