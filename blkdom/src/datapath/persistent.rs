//! Grants of one ring that are mapped for the device: of a frontend that keeps them (`feature-persistent`, `io/blkif.h`), or, of another
//! one, those of the requests at work. Pure. Floor 3.
//!
//! Bounded: where all are in use, a request's data are copied instead. The longest unused goes first; those unused for a minute go
//! anyway. A grant that a command in flight uses stays.

use alloc::vec::Vec;
use split_driver::hypervisor::DevicePage;
use split_driver::memory::DeviceAddress;
use split_driver::time::{Duration, Instant};
use xen_pv_sys::GrantRef;

/// Grants kept of a ring: what a ring of a page can use at once (32 requests of 11 segments, thrice), as many as Linux keeps.
pub const PERSISTENT_GRANTS: usize = 1056;
/// How long an unused grant is kept, as by Linux.
pub const UNUSED: Duration = Duration::from_secs(60);
/// Grants that cannot be mapped before a ring's requests are copied for good: each try is a hypercall for nothing.
const FAILURES: u32 = 16;
/// No place.
const NONE: u16 = u16::MAX;

struct Entry {
    grant: GrantRef,
    /// Missing until it is mapped.
    page: Option<DevicePage>,
    /// The device may write it.
    writable: bool,
    /// Segments at work that use it.
    uses: u16,
    last_use: Instant,
    /// In the order of their last use.
    older: u16,
    newer: u16,
}

/// What a look at the table gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is mapped, or will be in this round.
    Known(u16),
    /// It must be mapped.
    New(u16),
    /// All places are in use; or this one, for reading only.
    Full,
}

/// The table of one ring.
pub(crate) struct Persistent {
    entries: Vec<Entry>,
    /// Places of entries, by their grants. Sorted: guests choose the numbers, and no choice of theirs makes a look-up slow.
    places: Vec<(GrantRef, u16)>,
    free: Vec<u16>,
    oldest: u16,
    newest: u16,
    failures: u32,
    /// What is not in use stays.
    keeps: bool,
}

impl Persistent {
    /// An empty table; `keeps` where the frontend keeps its grants, so that they stay mapped.
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            entries: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            failures: 0,
            keeps,
        }
    }

    /// Whether it is of any use to map this frontend's grants.
    pub(crate) fn is_useful(&self) -> bool {
        self.failures < FAILURES
    }

    /// Takes a grant into use, to be written by the device or not. What must leave for it goes to `unmap`.
    ///
    /// A frontend that keeps its grants uses them for both, and grants them so.
    pub(crate) fn acquire(
        &mut self,
        grant: GrantRef,
        written: bool,
        now: Instant,
        unmap: &mut Vec<DevicePage>,
    ) -> Found {
        let writable = written || self.keeps;
        let position = match self.places.binary_search_by_key(&grant, |(grant, _)| *grant) {
            Ok(position) => {
                let place = self.places.get(position).map_or(NONE, |(_, place)| *place);
                let Some(entry) = self.entries.get_mut(usize::from(place)).filter(|entry| entry.uses < u16::MAX) else {
                    return Found::Full;
                };
                if writable && !entry.writable {
                    return Found::Full;
                }
                entry.uses += 1;
                entry.last_use = now;
                self.unlink(place);
                self.link(place);
                return Found::Known(place);
            }
            Err(position) => position,
        };
        let entry = Entry { grant, page: None, writable, uses: 1, last_use: now, older: NONE, newer: NONE };
        let (place, position) = match self.vacate(unmap) {
            Some((place, former)) => (place, position - usize::from(former.is_some_and(|former| former < grant))),
            None => return Found::Full,
        };
        match self.entries.get_mut(usize::from(place)) {
            Some(vacant) => *vacant = entry,
            None => self.entries.push(entry),
        }
        self.places.insert(position, (grant, place));
        self.link(place);
        Found::New(place)
    }

    /// A place for a new entry, and whose it was.
    fn vacate(&mut self, unmap: &mut Vec<DevicePage>) -> Option<(u16, Option<GrantRef>)> {
        if let Some(place) = self.free.pop() {
            return Some((place, None));
        }
        if self.entries.len() < PERSISTENT_GRANTS {
            return Some((self.entries.len() as u16, None));
        }
        let place = self.oldest_unused()?;
        let grant = self.entries.get(usize::from(place))?.grant;
        self.remove(place, unmap);
        self.free.pop().map(|place| (place, Some(grant)))
    }

    fn oldest_unused(&self) -> Option<u16> {
        let mut place = self.oldest;
        while let Some(entry) = self.entries.get(usize::from(place)) {
            if entry.uses == 0 {
                return Some(place);
            }
            place = entry.newer;
        }
        None
    }

    /// A segment does not use it any more.
    pub(crate) fn release(&mut self, place: u16, unmap: &mut Vec<DevicePage>) {
        if let Some(entry) = self.entries.get_mut(usize::from(place)) {
            debug_assert!(entry.uses > 0, "released more often than acquired");
            entry.uses = entry.uses.saturating_sub(1);
            // Else it could not be mapped.
            let stays = self.keeps && entry.page.is_some();
            if entry.uses == 0 && !stays {
                self.remove(place, unmap);
            }
        }
    }

    /// The grant at a place, to be mapped, and whether the device writes it.
    pub(crate) fn grant(&self, place: u16) -> Option<(GrantRef, bool)> {
        self.entries.get(usize::from(place)).map(|entry| (entry.grant, entry.writable))
    }

    /// It was mapped, or could not be.
    pub(crate) fn handle_mapped(&mut self, place: u16, page: Option<DevicePage>) {
        match (self.entries.get_mut(usize::from(place)), page) {
            (Some(entry), Some(page)) => entry.page = Some(page),
            (_, None) => self.failures = self.failures.saturating_add(1),
            (None, Some(_)) => debug_assert!(false, "mapped for no entry"),
        }
    }

    /// Where the device finds the page.
    pub(crate) fn address(&self, place: u16) -> Option<DeviceAddress> {
        Some(self.entries.get(usize::from(place))?.page.as_ref()?.address)
    }

    /// Unmaps what was not used for long; gives when to look again.
    pub(crate) fn age(&mut self, now: Instant, unmap: &mut Vec<DevicePage>) -> Option<Instant> {
        loop {
            let place = self.oldest_unused()?;
            let due = self.entries.get(usize::from(place))?.last_use + UNUSED;
            if due > now {
                return Some(due);
            }
            self.remove(place, unmap);
        }
    }

    /// Unmaps all; nothing may be in use.
    pub(crate) fn clear(&mut self, unmap: &mut Vec<DevicePage>) {
        for entry in self.entries.drain(..) {
            debug_assert_eq!(entry.uses, 0, "unmapped in use");
            unmap.extend(entry.page);
        }
        *self = Self::new(self.keeps);
    }

    /// How many are mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.places.len()
    }

    fn remove(&mut self, place: u16, unmap: &mut Vec<DevicePage>) {
        self.unlink(place);
        if let Some(entry) = self.entries.get_mut(usize::from(place)) {
            unmap.extend(entry.page.take());
            if let Ok(position) = self.places.binary_search_by_key(&entry.grant, |(grant, _)| *grant) {
                self.places.remove(position);
            }
            self.free.push(place);
        }
    }

    fn unlink(&mut self, place: u16) {
        let Some(entry) = self.entries.get_mut(usize::from(place)) else {
            return;
        };
        let (older, newer) = (entry.older, entry.newer);
        (entry.older, entry.newer) = (NONE, NONE);
        match self.entries.get_mut(usize::from(older)) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(usize::from(newer)) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    /// Makes it the newest.
    fn link(&mut self, place: u16) {
        let former = core::mem::replace(&mut self.newest, place);
        match self.entries.get_mut(usize::from(former)) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        if let Some(entry) = self.entries.get_mut(usize::from(place)) {
            (entry.older, entry.newer) = (former, NONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> DevicePage {
        DevicePage::new(number, u64::from(number) << 12, false)
    }

    /// A table with these grants mapped and unused, used at one second each.
    fn table(grants: impl Iterator<Item = u32>) -> (Persistent, Vec<DevicePage>) {
        let (mut table, mut unmap) = (Persistent::new(true), Vec::new());
        for (second, grant) in grants.enumerate() {
            let now = Instant(second as u64 * 1_000_000_000);
            let Found::New(place) = table.acquire(GrantRef(grant), false, now, &mut unmap) else {
                panic!("{grant} is known")
            };
            table.handle_mapped(place, Some(page(grant)));
            table.release(place, &mut unmap);
        }
        (table, unmap)
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_in_use_stays() {
        // Not in the order of their numbers.
        let number = |index: u32| index * 7 % 1056 + 8;
        let (mut table, mut unmap) = table((0..1056).map(number));
        assert_eq!((table.mapped(), unmap.len()), (PERSISTENT_GRANTS, 0));
        let now = Instant(2_000_000_000_000);
        // The oldest is in use, the next one was used again since.
        let Found::Known(_) = table.acquire(GrantRef(number(0)), false, now, &mut unmap) else { panic!() };
        let Found::Known(again) = table.acquire(GrantRef(number(1)), false, now, &mut unmap) else { panic!() };
        table.release(again, &mut unmap);
        for fresh in [0, 5000, 6000] {
            assert!(matches!(table.acquire(GrantRef(fresh), false, now, &mut unmap), Found::New(_)));
        }
        let unmapped: Vec<_> = unmap.iter().map(|page| page.handle).collect();
        assert_eq!(unmapped, [number(2), number(3), number(4)]);
        assert_eq!(table.mapped(), PERSISTENT_GRANTS);
        for index in 5..1056 {
            assert!(
                matches!(table.acquire(GrantRef(number(index)), false, now, &mut unmap), Found::Known(_)),
                "{index}"
            );
        }
        assert!(matches!(table.acquire(GrantRef(number(1)), false, now, &mut unmap), Found::Known(_)));
        assert_eq!(table.acquire(GrantRef(9999), false, now, &mut unmap), Found::Full);
        assert_eq!(unmap.len(), 3);
    }

    #[test]
    fn what_is_unused_for_a_minute_goes() {
        let (mut table, mut unmap) = table([30, 20, 10].into_iter());
        let at = |second: u64| Instant(second * 1_000_000_000);
        assert_eq!(table.age(at(59), &mut unmap), Some(at(60)));
        assert_eq!(table.age(at(61), &mut unmap), Some(at(62)));
        assert_eq!(unmap.iter().map(|page| page.handle).collect::<Vec<_>>(), [30, 20]);
        let Found::Known(place) = table.acquire(GrantRef(10), false, at(61), &mut unmap) else { panic!() };
        assert_eq!(table.age(at(200), &mut unmap), None, "in use");
        assert_eq!(table.address(place), Some(DeviceAddress::made_up(10 << 12)));
        table.release(place, &mut unmap);
        table.clear(&mut unmap);
        assert_eq!((unmap.len(), table.mapped()), (3, 0));
    }

    #[test]
    fn what_cannot_be_mapped_is_forgotten_and_given_up_after_some_tries() {
        let (mut table, mut unmap) = (Persistent::new(true), Vec::new());
        for try_number in 0..FAILURES {
            assert!(table.is_useful(), "{try_number}");
            let Found::New(place) = table.acquire(GrantRef(9), false, Instant(0), &mut unmap) else { panic!() };
            assert_eq!(table.acquire(GrantRef(9), false, Instant(0), &mut unmap), Found::Known(place));
            table.handle_mapped(place, None);
            assert_eq!(table.address(place), None);
            table.release(place, &mut unmap);
            table.release(place, &mut unmap);
            assert_eq!(table.mapped(), 0);
        }
        assert!(!table.is_useful());
    }

    /// Of a frontend that does not keep its grants, nothing stays; and what is mapped for reading is not written.
    #[test]
    fn what_is_mapped_for_a_request_goes_with_it() {
        let (mut table, mut unmap) = (Persistent::new(false), Vec::new());
        let Found::New(place) = table.acquire(GrantRef(9), false, Instant(0), &mut unmap) else { panic!() };
        assert_eq!(table.grant(place), Some((GrantRef(9), false)));
        table.handle_mapped(place, Some(page(9)));
        assert_eq!(table.acquire(GrantRef(9), true, Instant(0), &mut unmap), Found::Full);
        assert_eq!(table.acquire(GrantRef(9), false, Instant(0), &mut unmap), Found::Known(place));
        table.release(place, &mut unmap);
        assert_eq!(unmap.len(), 0);
        table.release(place, &mut unmap);
        assert_eq!((unmap.len(), table.mapped()), (1, 0));
        let Found::New(place) = table.acquire(GrantRef(9), true, Instant(0), &mut unmap) else { panic!() };
        assert_eq!(table.grant(place), Some((GrantRef(9), true)));
        table.release(place, &mut unmap);
    }
}
