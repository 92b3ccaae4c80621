//! Packets in local memory: buffers of one page each, and what is known of a packet beside its bytes. Pure. Floor 3.

use crate::ethernet::Tag;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::{Deref, DerefMut};
use split_driver::memory::{DeviceAddress, PageArray};
use xen_pv_sys::{Mfn, PAGE_SIZE};

/// The most pages a packet may lie in: 64 KiB of frames of 1,460 bytes of TCP, each in a page of its own, and more slots than a frontend may
/// use (`XEN_NETIF_NR_SLOTS_MIN`, `io/netif.h`).
pub const MAX_FRAGMENTS: usize = 48;

struct Pages {
    memory: Box<dyn PageArray>,
    /// Where each page begins.
    places: Vec<DeviceAddress>,
    /// Of each page: the buffers that are the first half or the whole of it, and those that are the second half.
    references: Vec<[Cell<u16>; HALVES]>,
    free: RefCell<Vec<u32>>,
    /// Lists of fragments that packets no longer use.
    lists: RefCell<Vec<Vec<Fragment>>>,
}

/// Lists of fragments that are kept for later packets at most.
const SPARE_LISTS: usize = 256;
/// Buffers that a page can be split into.
const HALVES: usize = 2;
/// Bytes of half a page.
pub const HALF_PAGE: u16 = (PAGE_SIZE / HALVES) as u16;

impl Pages {
    /// How many buffers are the same bytes as that of this number.
    fn count(&self, index: u32) -> Option<&Cell<u16>> {
        self.references.get(index as usize / HALVES)?.get(index as usize % HALVES)
    }

    /// Keeps an empty list for a later packet.
    fn keep(&self, list: Vec<Fragment>) {
        let mut lists = self.lists.borrow_mut();
        if lists.len() < SPARE_LISTS {
            lists.push(list);
        }
    }
}

/// A fixed number of page-sized buffers. Taking and giving back allocate nothing; what runs out is the packet, not the domain.
#[derive(Clone)]
pub struct Pool(Rc<Pages>);

impl Pool {
    /// A pool over all pages of `memory` (at most 2^31; those without a frame are left out).
    pub fn new(memory: Box<dyn PageArray>) -> Self {
        let places: Vec<_> = (0..memory.len().min(1 << 31)).map_while(|index| memory.device_address(index)).collect();
        let references = places.iter().map(|_| Default::default()).collect();
        let free = (0..places.len()).rev().filter_map(|index| u32::try_from(index).ok()).collect();
        Self(Rc::new(Pages { memory, places, references, free: RefCell::new(free), lists: RefCell::default() }))
    }

    /// One buffer, its contents left from its last use. `None` where all are in use.
    #[inline]
    pub fn take(&self) -> Option<Buffer> {
        let page = self.0.free.borrow_mut().pop()?;
        let index = page * HALVES as u32;
        self.0.count(index)?.set(1);
        Some(Buffer { pages: Rc::clone(&self.0), index })
    }

    /// The two halves of a page, for frames that need no more: the second one begins at [`HALF_PAGE`]. The page is free when both are. `None`
    /// where all pages are in use.
    pub fn take_halves(&self) -> Option<[Buffer; HALVES]> {
        let first = self.take()?;
        let index = first.index + 1;
        self.0.count(index)?.set(1);
        Some([first, Buffer { pages: Rc::clone(&self.0), index }])
    }

    /// Buffers that can be taken now.
    pub fn available(&self) -> usize {
        self.0.free.borrow().len()
    }

    /// Buffers in all.
    pub fn capacity(&self) -> usize {
        self.0.places.len()
    }
}

/// One page of a [`Pool`], or half of one. A clone is the same bytes once more; the last one dropped gives them back.
pub struct Buffer {
    pages: Rc<Pages>,
    /// Twice the page's number, and one more for its second half.
    index: u32,
}

impl Buffer {
    const fn page(&self) -> usize {
        self.index as usize / HALVES
    }

    /// Where it begins in its page.
    pub const fn start(&self) -> u16 {
        if (self.index as usize).is_multiple_of(HALVES) { 0 } else { HALF_PAGE }
    }

    /// The machine frame: the local end of a grant copy, and the device address divided by 4096.
    pub fn frame(&self) -> Mfn {
        // An index is only ever made by `Pool::take`, from the list of places itself.
        self.pages.places.get(self.page()).map_or(Mfn(0), |place| place.frame())
    }

    /// Where a device finds the byte at `offset` of the page.
    pub fn device_address(&self, offset: u16) -> Option<DeviceAddress> {
        Some(self.pages.places.get(self.page())?.in_page(offset.into()))
    }

    /// Whether it has no clone, so that a change of its bytes changes no other packet. The other half of its page does not count.
    pub fn is_unique(&self) -> bool {
        self.pages.count(self.index).is_some_and(|count| count.get() == 1)
    }

    /// Copies bytes out at `offset` of the page. False, and nothing read, beyond the page's end.
    pub fn read(&self, offset: usize, destination: &mut [u8]) -> bool {
        self.pages.memory.read(self.page(), offset, destination)
    }

    /// Copies bytes in at `offset` of the page. False, and nothing written, beyond the page's end.
    pub fn write(&self, offset: usize, source: &[u8]) -> bool {
        self.pages.memory.write(self.page(), offset, source)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        if let Some(count) = self.pages.count(self.index) {
            // At most one reference a port and queue: far below u16::MAX, and saturating only ever leaks.
            count.set(count.get().saturating_add(1));
        }
        Self { pages: Rc::clone(&self.pages), index: self.index }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(counts) = self.pages.references.get(self.page()) else {
            return;
        };
        if let Some(count) = counts.get(self.index as usize % HALVES) {
            if count.get() == u16::MAX {
                return;
            }
            count.set(count.get().saturating_sub(1));
        }
        if counts.iter().all(|count| count.get() == 0) {
            // As many pages as fit in a u32 (`Pool::new`).
            self.pages.free.borrow_mut().push(self.index / HALVES as u32);
        }
    }
}

/// Consecutive bytes of a packet within one page.
#[derive(Clone)]
pub struct Fragment {
    /// The page.
    pub buffer: Buffer,
    /// Bytes into the page, also where the buffer is its second half.
    pub offset: u16,
    /// Bytes; never beyond the page's end.
    pub length: u16,
}

/// The fragments of a packet, in order; [`MAX_FRAGMENTS`] at most. A packet is moved from hand to hand, so that this is small: one fragment lies
/// in it, more are in a list that later packets use again.
#[derive(Default)]
pub struct Fragments(Places);

#[derive(Default)]
enum Places {
    #[default]
    None,
    One(Fragment),
    /// Two and more.
    Many(List),
}

/// A list with a capacity of [`MAX_FRAGMENTS`], which goes back to the pool.
struct List(Vec<Fragment>);

impl Drop for List {
    fn drop(&mut self) {
        if let Some(pages) = self.0.first().map(|fragment| Rc::clone(&fragment.buffer.pages)) {
            self.0.clear();
            pages.keep(core::mem::take(&mut self.0));
        }
    }
}

impl Fragments {
    /// None.
    pub const fn new() -> Self {
        Self(Places::None)
    }

    /// Adds one behind the others.
    ///
    /// # Errors
    /// The fragment, where there are [`MAX_FRAGMENTS`].
    #[inline]
    pub fn push(&mut self, fragment: Fragment) -> Result<(), Fragment> {
        if let Places::None = self.0 {
            // Nothing is there to be dropped, which the compiler does not see by itself.
            core::mem::forget(core::mem::replace(&mut self.0, Places::One(fragment)));
            return Ok(());
        }
        self.push_further(fragment)
    }

    #[inline(never)]
    fn push_further(&mut self, fragment: Fragment) -> Result<(), Fragment> {
        match &mut self.0 {
            Places::None => self.0 = Places::One(fragment),
            Places::One(_) => {
                let spare = fragment.buffer.pages.lists.borrow_mut().pop();
                let mut list = spare.unwrap_or_else(|| Vec::with_capacity(MAX_FRAGMENTS));
                if let Places::One(first) = core::mem::take(&mut self.0) {
                    list.push(first);
                }
                list.push(fragment);
                self.0 = Places::Many(List(list));
            }
            Places::Many(List(list)) if list.len() < MAX_FRAGMENTS => list.push(fragment),
            Places::Many(_) => return Err(fragment),
        }
        Ok(())
    }

    /// The one that there is; `None` where there are none, or more.
    #[inline]
    pub fn only(&self) -> Option<&Fragment> {
        match &self.0 {
            Places::One(fragment) => Some(fragment),
            Places::None | Places::Many(_) => None,
        }
    }

    /// The same, taken; all others are dropped.
    #[inline]
    pub fn into_only(self) -> Option<Fragment> {
        match self.0 {
            Places::One(fragment) => Some(fragment),
            Places::None | Places::Many(_) => None,
        }
    }

    /// Whether no other fits in.
    pub fn is_full(&self) -> bool {
        self.len() >= MAX_FRAGMENTS
    }

    /// Hands all out, in order.
    #[inline]
    pub fn for_each_taken(mut self, mut take: impl FnMut(Fragment)) {
        match self.0 {
            Places::None => {}
            Places::One(fragment) => take(fragment),
            Places::Many(List(ref mut list)) => {
                let pages = list.first().map(|fragment| Rc::clone(&fragment.buffer.pages));
                list.drain(..).for_each(take);
                if let Some(pages) = pages {
                    pages.keep(core::mem::take(list));
                }
            }
        }
    }
}

impl Deref for Fragments {
    type Target = [Fragment];

    fn deref(&self) -> &[Fragment] {
        match &self.0 {
            Places::None => &[],
            Places::One(fragment) => core::slice::from_ref(fragment),
            Places::Many(List(list)) => list,
        }
    }
}

impl DerefMut for Fragments {
    fn deref_mut(&mut self) -> &mut [Fragment] {
        match &mut self.0 {
            Places::None => &mut [],
            Places::One(fragment) => core::slice::from_mut(fragment),
            Places::Many(List(list)) => list,
        }
    }
}

impl<'a> IntoIterator for &'a Fragments {
    type Item = &'a Fragment;
    type IntoIter = core::slice::Iter<'a, Fragment>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Clone for Fragments {
    fn clone(&self) -> Self {
        let mut all = Self::new();
        for fragment in self.iter() {
            // As many as there are fit in.
            let _ = all.push(fragment.clone());
        }
        all
    }
}

/// What is known of a packet's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The field is complete, and was not verified.
    #[default]
    Unverified,
    /// The field is complete or need not be looked at: the data are known to be good (`NETTXF_data_validated`).
    Verified,
    /// The field holds the pseudo-header's sum only; it is completed before the packet goes on a wire (`NETTXF_csum_blank`).
    Blank,
}

/// The kind of a super-frame (`XEN_NETIF_GSO_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
}

/// A TCP packet larger than the wire allows, to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What to cut.
    pub kind: GsoKind,
    /// TCP payload bytes of a segment (the MSS), never zero.
    pub size: u16,
}

/// What is left to do to a packet before it can go on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Whether, and how, it must be segmented.
    pub gso: Option<Gso>,
}

/// A packet in local memory, from its destination address on, without a frame check sequence.
#[derive(Clone, Default)]
pub struct Packet {
    /// The bytes, in order. The first fragment holds all headers.
    pub fragments: Fragments,
    /// What is left to do.
    pub offload: Offload,
    /// The 802.1Q tag that is not among the bytes: a NIC took it out, or is to insert it.
    pub tag: Option<Tag>,
}

impl Packet {
    /// Bytes in all, but for those of `tag`.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.fragments.0 {
            Places::None => 0,
            Places::One(fragment) => fragment.length.into(),
            Places::Many(List(list)) => list.iter().map(|fragment| usize::from(fragment.length)).sum(),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use split_driver::fakes::{FakePages, FakeXen};

    #[test]
    fn a_page_is_free_when_both_halves_are() {
        let pool = Pool::new(Box::new(FakePages::new(&FakeXen::new(), 2)));
        for first_goes_first in [true, false] {
            let [first, second] = pool.take_halves().unwrap();
            assert_eq!((first.start(), second.start()), (0, HALF_PAGE));
            assert_eq!(first.frame(), second.frame());
            assert!(first.is_unique() && second.is_unique());
            let again = second.clone();
            assert!(first.is_unique() && !second.is_unique());
            assert!(second.write(usize::from(second.start()), b"second") && first.write(0, b"first"));
            let mut bytes = [0; 6];
            assert!(again.read(usize::from(HALF_PAGE), &mut bytes));
            assert_eq!(&bytes, b"second");
            drop(again);
            let (one, other) = if first_goes_first { (first, second) } else { (second, first) };
            drop(one);
            assert_eq!(pool.available(), 1);
            assert!(other.is_unique());
            drop(other);
            assert_eq!(pool.available(), 2);
        }
        let whole = [pool.take().unwrap(), pool.take().unwrap()];
        assert!(pool.take_halves().is_none());
        drop(whole);
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn fragments_keep_their_order_and_their_lists() {
        let pool = Pool::new(Box::new(FakePages::new(&FakeXen::new(), 64)));
        let fragment = |length| Fragment { buffer: pool.take().unwrap(), offset: 0, length };
        for round in 0..3 {
            let mut packet = Packet::default();
            assert!(packet.fragments.is_empty() && packet.is_empty());
            for length in 1..=MAX_FRAGMENTS as u16 {
                assert!(!packet.fragments.is_full());
                assert!(packet.fragments.push(fragment(length)).is_ok());
                assert_eq!(packet.fragments.len(), usize::from(length));
                // What has one fragment only wants no list.
                assert_eq!(pool.0.lists.borrow().len(), usize::from(round > 0 && length == 1));
            }
            assert!(packet.fragments.is_full());
            assert_eq!(packet.fragments.push(fragment(1)).unwrap_err().length, 1);
            let whole = packet.clone();
            assert_eq!(whole.len(), MAX_FRAGMENTS * (MAX_FRAGMENTS + 1) / 2);
            let mut lengths = Vec::new();
            match round {
                0 => drop(packet),
                _ => packet.fragments.for_each_taken(|fragment| lengths.push(fragment.length)),
            }
            assert!(
                lengths.iter().copied().eq(whole.fragments.iter().map(|fragment| fragment.length).take(lengths.len()))
            );
            drop(whole);
            assert_eq!(pool.available(), 64);
            // The two lists are there for the next packets; the clone's is taken again, too.
            pool.0.lists.borrow_mut().truncate(1);
        }
        let mut one = Fragments::new();
        assert!(one.push(fragment(7)).is_ok());
        one.for_each_taken(|fragment| assert_eq!(fragment.length, 7));
        assert!(core::mem::size_of::<Packet>() <= 40, "{}", core::mem::size_of::<Packet>());
    }
}
