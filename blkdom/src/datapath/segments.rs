//! The segments of requests at work, in lists over one array a vbd: what a guest can make us remember is bounded, whatever it asks.
//! Pure. Floor 3.

use crate::blkback::request::{GuestSegment, MAX_INDIRECT_SEGMENTS};
use alloc::vec::Vec;

/// Segments of all requests of a vbd that are at work, at most: 8 MiB of its memory. A request has 256 at most.
const SEGMENTS: usize = 2048;
/// Segments for a place in a ring: as many as Linux' requests have.
const FOR_A_SLOT: usize = 32;
/// No segment.
const END: u16 = u16::MAX;

/// What the device reads or writes in place of, or as, a guest's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Nothing yet.
    None,
    /// A bounce page. The pages of a request hold its bytes one after another, so the `n`th belongs to bytes, not to segment `n`.
    Page(u32),
    /// The guest's page itself, by its place in the ring's table of mapped grants.
    Mapped(u16),
}

/// A segment of a request, and a page of its memory. They are two lists over one array: a request has never more pages than segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    pub(crate) guest: GuestSegment,
    next: u16,
    pub(crate) backing: Backing,
}

/// A request's segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    first: u16,
    last: u16,
    pub(crate) count: u16,
}

impl List {
    pub(crate) const EMPTY: Self = Self { first: END, last: END, count: 0 };

    /// Where it begins.
    pub(crate) fn start(&self) -> Position {
        Position(self.first)
    }
}

/// A place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(u16);

/// The array.
pub(crate) struct Segments {
    elements: Vec<Element>,
    free: u16,
    used: usize,
    capacity: usize,
}

impl Segments {
    /// The segments for rings with `slots` slots: while all requests are of the usual size, one of the largest can be taken besides.
    pub(crate) fn capacity(slots: usize) -> usize {
        SEGMENTS.min(slots * FOR_A_SLOT + MAX_INDIRECT_SEGMENTS)
    }

    /// Makes the table for rings with `slots` slots. It does not grow. `None` where there is no memory.
    pub(crate) fn new(slots: usize) -> Option<Self> {
        let capacity = Self::capacity(slots);
        let mut elements = Vec::new();
        elements.try_reserve_exact(capacity).ok()?;
        Some(Self { elements, free: END, used: 0, capacity })
    }

    /// How many may be added.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.used)
    }

    /// Adds a segment to a list. False where there is no room.
    pub(crate) fn push(&mut self, list: &mut List, guest: GuestSegment) -> bool {
        if self.room() == 0 {
            return false;
        }
        let element = Element { guest, next: END, backing: Backing::None };
        let index = self.free;
        let index = match self.elements.get_mut(usize::from(index)) {
            Some(place) => {
                self.free = place.next;
                *place = element;
                index
            }
            None => {
                self.elements.push(element);
                // Below `SEGMENTS`.
                (self.elements.len() - 1) as u16
            }
        };
        match self.elements.get_mut(usize::from(list.last)) {
            Some(last) => last.next = index,
            None => list.first = index,
        }
        list.last = index;
        list.count += 1;
        self.used += 1;
        true
    }

    /// The element at a place; `None` at a list's end.
    pub(crate) fn get(&self, position: Position) -> Option<&Element> {
        self.elements.get(usize::from(position.0))
    }

    /// As [`Self::get`].
    pub(crate) fn get_mut(&mut self, position: Position) -> Option<&mut Element> {
        self.elements.get_mut(usize::from(position.0))
    }

    /// The place after another one.
    pub(crate) fn next(&self, position: Position) -> Position {
        Position(self.get(position).map_or(END, |element| element.next))
    }

    /// A list's elements.
    pub(crate) fn iter(&self, list: &List) -> impl Iterator<Item = &Element> {
        let mut position = list.start();
        core::iter::from_fn(move || {
            let element = self.get(position)?;
            position = Position(element.next);
            Some(element)
        })
    }

    /// Gives a list's elements back, which nothing backs any more.
    pub(crate) fn release(&mut self, list: List) {
        let mut position = list.start();
        while let Some(element) = self.elements.get_mut(usize::from(position.0)) {
            let Position(index) = position;
            debug_assert_eq!(element.backing, Backing::None, "its memory is given back before");
            position = Position(element.next);
            element.next = self.free;
            self.free = index;
            self.used = self.used.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_pv_sys::GrantRef;

    fn segment(number: u32) -> GuestSegment {
        GuestSegment { grant: GrantRef(number), first_sector: 0, sectors: 8 }
    }

    fn grants(segments: &Segments, list: &List) -> Vec<u32> {
        segments.iter(list).map(|element| element.guest.grant.0).collect()
    }

    #[test]
    fn lists_share_what_is_there_and_give_it_back() {
        let mut segments = Segments::new(1 << 10).unwrap();
        assert_eq!(segments.room(), SEGMENTS);
        let (mut a, mut b) = (List::EMPTY, List::EMPTY);
        for number in 0..SEGMENTS as u32 {
            let list = if number % 3 == 0 { &mut a } else { &mut b };
            assert!(segments.push(list, segment(number)));
        }
        assert!(!segments.push(&mut a, segment(9)), "no room");
        assert_eq!(grants(&segments, &a), (0..SEGMENTS as u32).filter(|n| n % 3 == 0).collect::<Vec<_>>());
        segments.release(a);
        assert_eq!(segments.room(), usize::from(a.count));
        let mut c = List::EMPTY;
        while segments.push(&mut c, segment(7)) {}
        assert_eq!(c.count, a.count);
        assert_eq!(grants(&segments, &b).len(), usize::from(b.count));
        assert!(grants(&segments, &b).iter().all(|n| n % 3 != 0));
    }
}
