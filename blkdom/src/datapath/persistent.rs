//! Grants of one ring that are mapped for the device: of a frontend that keeps them (`feature-persistent`, `io/blkif.h`), or, of another
//! one, those of the requests at work. Pure. Floor 3.
//!
//! Bounded: where all are in use, a request's data are copied instead. The longest unused goes first; those unused for a minute go
//! anyway. A grant that a command in flight uses stays.
//!
//! A table takes memory by steps, from a [room](super::room) that all share, and gives it back when it is empty or has to
//! [shed](Persistent::shed) a step.

use super::room::Loan;
use alloc::vec::Vec;
use split_driver::hypervisor::DevicePage;
use split_driver::memory::DeviceAddress;
use split_driver::time::{Duration, Instant};
use xen_pv_sys::GrantRef;

/// Grants kept of a ring: what a ring of a page can use at once (32 requests of 11 segments, thrice), as many as Linux keeps.
pub const PERSISTENT_GRANTS: usize = 1056;
/// Grants that a table grows by.
pub(crate) const STEP: usize = PERSISTENT_GRANTS / 8;
/// Bytes of heap that a step takes.
pub(crate) const STEP_BYTES: usize = STEP * (size_of::<Entry>() + size_of::<(GrantRef, u16)>() + size_of::<u16>());
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
    /// Places that may be used: whole steps.
    limit: usize,
    /// Entries at places beyond, which go as soon as they are not in use.
    beyond: usize,
    /// Steps of those places.
    shedding: usize,
    /// Steps without memory, not given back yet.
    returned: usize,
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
            limit: 0,
            beyond: 0,
            shedding: 0,
            returned: 0,
        }
    }

    /// Whether a request with `count` grants has room here, once others gave way; grows where it may.
    pub(crate) fn holds(&mut self, count: usize, loan: &mut Loan<'_>) -> bool {
        while self.limit < count && self.grow(loan) {}
        self.limit >= count
    }

    /// Takes a step more.
    fn grow(&mut self, loan: &mut Loan<'_>) -> bool {
        if self.shedding > 0 || self.limit >= PERSISTENT_GRANTS || !loan.take() {
            return false;
        }
        let limit = self.limit + STEP;
        let more = |length: usize| limit.saturating_sub(length);
        let had = self.entries.try_reserve_exact(more(self.entries.len())).is_ok()
            && self.places.try_reserve_exact(more(self.places.len())).is_ok()
            && self.free.try_reserve_exact(more(self.free.len())).is_ok();
        match had {
            true => self.limit = limit,
            false => loan.give(1),
        }
        had
    }

    /// Gives up a step, as soon as no command in flight uses what is there.
    pub(crate) fn shed(&mut self, unmap: &mut Vec<DevicePage>) {
        if self.limit == 0 {
            return;
        }
        self.limit = self.limit.saturating_sub(STEP);
        self.shedding += 1;
        self.free.retain(|place| usize::from(*place) < self.limit);
        self.beyond = self.places.iter().filter(|(_, place)| usize::from(*place) >= self.limit).count();
        for place in self.limit..self.entries.len() {
            if self.entries.get(place).is_some_and(|entry| entry.uses == 0 && entry.page.is_some()) {
                self.remove(place as u16, unmap);
            }
        }
        self.shrink();
    }

    /// Lets go of the memory of steps that were given up.
    fn shrink(&mut self) {
        if self.shedding > 0 && self.beyond == 0 {
            self.entries.truncate(self.limit);
            self.entries.shrink_to(self.limit);
            self.places.shrink_to(self.limit);
            self.free.shrink_to(self.limit);
            self.returned += core::mem::take(&mut self.shedding);
        }
    }

    /// Places that it may use.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether it gives up steps that are in use still.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding > 0
    }

    /// Steps that it has done without since this was called last.
    pub(crate) fn take_returned(&mut self) -> usize {
        core::mem::take(&mut self.returned)
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
        loan: &mut Loan<'_>,
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
        let (place, position) = match self.vacate(loan, unmap) {
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
    fn vacate(&mut self, loan: &mut Loan<'_>, unmap: &mut Vec<DevicePage>) -> Option<(u16, Option<GrantRef>)> {
        if let Some(place) = self.free.pop() {
            return Some((place, None));
        }
        if self.entries.len() < self.limit || self.grow(loan) {
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
            // Else it could not be mapped, or is in a step that was given up.
            let stays = self.keeps && entry.page.is_some() && usize::from(place) < self.limit;
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
            if self.places.is_empty() {
                self.clear(unmap);
            }
        }
    }

    /// Unmaps all; nothing may be in use.
    pub(crate) fn clear(&mut self, unmap: &mut Vec<DevicePage>) {
        for entry in self.entries.drain(..) {
            debug_assert_eq!(entry.uses, 0, "unmapped in use");
            unmap.extend(entry.page);
        }
        let returned = self.returned + self.shedding + self.limit / STEP;
        *self = Self { returned, failures: self.failures, ..Self::new(self.keeps) };
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
            if usize::from(place) < self.limit {
                self.free.push(place);
            } else {
                self.beyond = self.beyond.saturating_sub(1);
                self.shrink();
            }
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
    use super::super::room::Room;
    use super::*;

    fn page(number: u32) -> DevicePage {
        DevicePage::new(number, u64::from(number) << 12, false)
    }

    /// With room for all that it may take.
    fn acquire(
        table: &mut Persistent,
        grant: GrantRef,
        written: bool,
        now: Instant,
        unmap: &mut Vec<DevicePage>,
    ) -> Found {
        table.acquire(grant, written, now, &mut Loan { room: &mut Room::new(64), held: &mut 0 }, unmap)
    }

    /// A table with these grants mapped and unused, used at one second each.
    fn table(grants: impl Iterator<Item = u32>) -> (Persistent, Vec<DevicePage>) {
        let (mut table, mut unmap) = (Persistent::new(true), Vec::new());
        for (second, grant) in grants.enumerate() {
            let now = Instant(second as u64 * 1_000_000_000);
            let Found::New(place) = acquire(&mut table, GrantRef(grant), false, now, &mut unmap) else {
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
        let Found::Known(_) = acquire(&mut table, GrantRef(number(0)), false, now, &mut unmap) else { panic!() };
        let Found::Known(again) = acquire(&mut table, GrantRef(number(1)), false, now, &mut unmap) else { panic!() };
        table.release(again, &mut unmap);
        for fresh in [0, 5000, 6000] {
            assert!(matches!(acquire(&mut table, GrantRef(fresh), false, now, &mut unmap), Found::New(_)));
        }
        let unmapped: Vec<_> = unmap.iter().map(|page| page.handle).collect();
        assert_eq!(unmapped, [number(2), number(3), number(4)]);
        assert_eq!(table.mapped(), PERSISTENT_GRANTS);
        for index in 5..1056 {
            assert!(
                matches!(acquire(&mut table, GrantRef(number(index)), false, now, &mut unmap), Found::Known(_)),
                "{index}"
            );
        }
        assert!(matches!(acquire(&mut table, GrantRef(number(1)), false, now, &mut unmap), Found::Known(_)));
        assert_eq!(acquire(&mut table, GrantRef(9999), false, now, &mut unmap), Found::Full);
        assert_eq!(unmap.len(), 3);
    }

    #[test]
    fn what_is_unused_for_a_minute_goes() {
        let (mut table, mut unmap) = table([30, 20, 10].into_iter());
        let at = |second: u64| Instant(second * 1_000_000_000);
        assert_eq!(table.age(at(59), &mut unmap), Some(at(60)));
        assert_eq!(table.age(at(61), &mut unmap), Some(at(62)));
        assert_eq!(unmap.iter().map(|page| page.handle).collect::<Vec<_>>(), [30, 20]);
        let Found::Known(place) = acquire(&mut table, GrantRef(10), false, at(61), &mut unmap) else { panic!() };
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
            let Found::New(place) = acquire(&mut table, GrantRef(9), false, Instant(0), &mut unmap) else { panic!() };
            assert_eq!(acquire(&mut table, GrantRef(9), false, Instant(0), &mut unmap), Found::Known(place));
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
        let Found::New(place) = acquire(&mut table, GrantRef(9), false, Instant(0), &mut unmap) else { panic!() };
        assert_eq!(table.grant(place), Some((GrantRef(9), false)));
        table.handle_mapped(place, Some(page(9)));
        assert_eq!(acquire(&mut table, GrantRef(9), true, Instant(0), &mut unmap), Found::Full);
        assert_eq!(acquire(&mut table, GrantRef(9), false, Instant(0), &mut unmap), Found::Known(place));
        table.release(place, &mut unmap);
        assert_eq!(unmap.len(), 0);
        table.release(place, &mut unmap);
        assert_eq!((unmap.len(), table.mapped()), (1, 0));
        let Found::New(place) = acquire(&mut table, GrantRef(9), true, Instant(0), &mut unmap) else { panic!() };
        assert_eq!(table.grant(place), Some((GrantRef(9), true)));
        table.release(place, &mut unmap);
    }

    /// A table that gives up a step keeps what is in use there, and only then has the memory gone; with no room, all is copied.
    #[test]
    fn a_table_grows_by_steps_and_gives_them_back() {
        let (mut room, mut held) = (Room::new(3), 0);
        let (mut table, mut unmap) = (Persistent::new(true), Vec::new());
        let now = Instant(0);
        let map =
            |table: &mut Persistent, room: &mut Room, held: &mut usize, grant: u32, unmap: &mut Vec<DevicePage>| {
                let found = table.acquire(GrantRef(grant), false, now, &mut Loan { room, held }, unmap);
                if let Found::New(place) = found {
                    table.handle_mapped(place, Some(page(grant)));
                }
                found
            };
        assert!(!table.holds(4 * STEP, &mut Loan { room: &mut room, held: &mut held }), "there are three steps");
        assert_eq!((held, table.limit()), (3, 3 * STEP));
        for grant in 0..3 * STEP as u32 {
            assert_eq!(map(&mut table, &mut room, &mut held, grant, &mut unmap), Found::New(grant as u16));
            if grant != 300 {
                table.release(grant as u16, &mut unmap);
            }
        }
        table.shed(&mut unmap);
        assert_eq!((unmap.len(), table.mapped()), (STEP - 1, 2 * STEP + 1));
        assert!(table.is_shedding() && table.take_returned() == 0, "one is in use");
        let mut plenty = Loan { room: &mut Room::new(8), held: &mut 0 };
        assert!(!table.holds(3 * STEP, &mut plenty), "it would have one place for two grants");
        assert_eq!(map(&mut table, &mut room, &mut held, 300, &mut unmap), Found::Known(300));
        table.release(300, &mut unmap);
        table.release(300, &mut unmap);
        assert_eq!((table.is_shedding(), table.take_returned(), table.mapped()), (false, 1, 2 * STEP));
        Loan { room: &mut room, held: &mut held }.give(1);
        // Its places are used again, and no others.
        for grant in 5000..5000 + 4 * STEP as u32 {
            let room_before = room.lent();
            assert!(matches!(map(&mut table, &mut room, &mut held, grant, &mut unmap), Found::New(_)));
            let place = table.places.iter().find(|(known, _)| *known == GrantRef(grant)).map(|(_, place)| *place);
            table.release(place.unwrap(), &mut unmap);
            assert!(room.lent() >= room_before && table.mapped() <= 3 * STEP);
        }
        assert_eq!(table.age(Instant(0) + UNUSED, &mut unmap), None);
        assert_eq!((table.mapped(), table.take_returned(), table.limit()), (0, 3, 0));
        assert_eq!(unmap.len(), 7 * STEP, "each was unmapped once");
        Loan { room: &mut room, held: &mut held }.give(3);
        assert_eq!((held, room.lent()), (0, 0));
        let mut none = Room::new(0);
        let nothing = &mut Loan { room: &mut none, held: &mut held };
        assert_eq!(table.acquire(GrantRef(1), false, now, nothing, &mut unmap), Found::Full);
    }
}
