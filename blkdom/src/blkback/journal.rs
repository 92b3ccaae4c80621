//! What a ring's frontend was not yet answered: the requests themselves, in pages that outlive a life. Pure over [`KeptPage`]. Floor 3.
//!
//! A life may end behind any instruction, and the next one must issue each request again that was taken and not answered, and no other.
//! An entry has a copy of its request, and is worth something from the moment its first word is stored; so is each step after that:
//!
//! ```text
//! take      entry: the request; state Taken          it is taken: no word says how far the ring was consumed, the entries are counted
//! answer    entry: the response's index; Answered    the response is placed, and the frontend sees none of it
//! intend    INTENDED = how far it will see           ...
//!           rsp_prod of the ring                     it sees them
//! complete  PUBLISHED = the same; entries free
//! ```
//!
//! Between `intend` and `complete` the ring alone says whether the frontend saw the responses: its `rsp_prod` is believed as far as it lies
//! between the two words here. A frontend that writes it itself, which it must not, has answers lost or given twice; nobody else has.
//!
//! What an earlier life left is checked like a peer's data: each entry has a check of its content, and indices must fit together. A journal
//! in which something does not costs its vbd alone.

use super::request::{Abi, SLOT_WORDS, used_words};
use alloc::vec::Vec;
use core::fmt;
use split_driver::kept::{KEPT_WORDS, Keep, KeptPage};
use split_driver::memory::OutOfMemory;
use xen_pv_sys::DomainId;

/// The first word of each page, and the layout of what follows.
const MAGIC: u32 = 0x6f78_4a6c;
const LAYOUT: u32 = 1;
/// Words before the first entry of a page. The first five tell whose it is; those behind, in the first page only:
const HEADER: usize = 64;
const KEY: usize = 5;
/// How far the frontend sees the responses; and how far it may see them.
const PUBLISHED: usize = 8;
const INTENDED: usize = 9;
/// [`Mark`]s.
const MARKS: usize = 10;
/// Which of the two places behind it holds where the volume lies; each has sectors and digest, their low halves first, and a check.
const PLACE: usize = 11;
const PLACES: [usize; 2] = [12, 17];

/// Words of an entry: its state and check, the response's index, its place in the order, the request.
const ENTRY: usize = 3 + SLOT_WORDS;
const INDEX: usize = 1;
const ORDER: usize = 2;
/// Entries of a page: as many as a page of a ring has slots.
const ENTRIES: usize = (KEPT_WORDS - HEADER) / ENTRY;
const _: () = assert!(ENTRIES == super::request::SLOTS_PER_PAGE);

/// The two low bits of an entry's first word; 0 where it is free.
const TAKEN: u32 = 1;
const ANSWERED: u32 = 2;
const STATE: u32 = 3;

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The frontend's domain.
    pub domain: DomainId,
    /// The toolstack's number for the vbd.
    pub handle: u32,
    /// Which of its rings.
    pub queue: u16,
    /// How the slots of the ring are laid out.
    pub abi: Abi,
    /// Requests that it has room for: as many as [`journal_room`] says.
    pub room: u32,
}

/// Where the volume of a vbd lies, in words that other places have not, from life to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// So many of its first sectors.
    pub sectors: u64,
    /// What tells where they are; [`NOWHERE`] is no place.
    pub digest: u64,
}

/// In the place of [`Whereabouts::digest`]: on no disk.
pub const NOWHERE: u64 = u64::MAX;

impl Whose {
    fn pages(&self) -> usize {
        (self.room as usize).div_ceil(ENTRIES)
    }

    /// The first words of a page.
    fn key(&self, page: usize) -> [u32; KEY] {
        let numbers = u32::from(self.domain.0) | u32::from(self.queue) << 16;
        let abi = u32::from(self.abi == Abi::X86_32);
        [MAGIC, LAYOUT << 16 | page as u32, numbers, self.handle, self.room << 1 | abi]
    }
}

/// What the next life must know of a vbd beside its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// A flush failed for good: nothing is written from then on.
    Undurable = 1,
    /// Its disk is gone, and what comes back under its name may have lost what a cache held.
    Gone = 2,
}

/// Why there is no journal to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The last life left none.
    Missing,
    /// Something wrote over it.
    Damaged,
    /// No memory for its lists.
    Memory,
}

impl fmt::Display for JournalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "the last life left none",
            Self::Damaged => "it was written over",
            Self::Memory => "no memory",
        })
    }
}

impl core::error::Error for JournalError {}

/// The entries of requests without an answer, each with its place in the order that they were taken in.
pub type Unanswered = Vec<(u32, u16)>;

/// What an earlier life left of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// How far the frontend sees the responses.
    pub published: u32,
    /// What it had taken and not answered.
    pub unanswered: Unanswered,
}

/// The journal of one ring.
#[derive(Debug)]
pub struct Journal<P> {
    pages: Vec<P>,
    /// A power of two.
    room: u32,
    published: u32,
    free: Vec<u16>,
    /// The entry that each response is of, by its index.
    answered: Vec<u16>,
}

/// A check of an entry's order and request, or of other words.
#[inline]
fn check(words: &[u32]) -> u32 {
    let mix = |sum: u32, word: &u32| (sum ^ word).wrapping_mul(0x9e37_79b1).rotate_left(15);
    words.iter().fold(MAGIC, mix) & !STATE
}

/// Requests of a vbd without an answer, at most, and the same of one of several queues.
const MOST: u32 = 256;
const MOST_OF_SEVERAL: u32 = 128;

/// Requests of a ring of so many slots (a power of two) that are taken and not answered at once: more wait in the ring, as a vbd has no more at
/// work.
pub fn journal_room(slots: u32, queues: usize) -> u32 {
    slots.min(if queues > 1 { MOST_OF_SEVERAL } else { MOST })
}

/// Bytes that a journal with room for so many requests takes.
pub const fn journal_bytes(room: u32) -> usize {
    (room as usize).div_ceil(ENTRIES) * KEPT_WORDS * size_of::<u32>() + room as usize * 2 * size_of::<u16>()
}

/// Sorts requests that were at work together by their place in the order, which wraps.
pub fn sort_by_order<T>(requests: &mut [T], order: impl Fn(&T) -> u32) {
    let Some(some) = requests.first().map(&order) else {
        return;
    };
    requests.sort_unstable_by_key(|request| order(request).wrapping_sub(some).wrapping_add(u32::MAX / 2));
}

impl<P: KeptPage> Journal<P> {
    fn with(pages: Vec<P>, room: u32) -> Result<Self, OutOfMemory> {
        let (mut free, mut answered) = (Vec::new(), Vec::new());
        free.try_reserve_exact(room as usize).map_err(|_| OutOfMemory)?;
        answered.try_reserve_exact(room as usize).map_err(|_| OutOfMemory)?;
        answered.resize(room as usize, 0);
        Ok(Self { pages, room, published: 0, free, answered })
    }

    /// An empty journal of a ring whose responses end at `published`. What an earlier life may have left of the same vbd is forgotten.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn begin(
        keep: &impl Keep<Page = P>,
        whose: &Whose,
        whereabouts: Whereabouts,
        published: u32,
    ) -> Result<Self, OutOfMemory> {
        let mut pages = Vec::new();
        pages.try_reserve_exact(whose.pages()).map_err(|_| OutOfMemory)?;
        for number in 0..whose.pages() {
            while keep.inherit_page(&whose.key(number)).is_some() {}
            pages.push(keep.keep_page()?);
        }
        let mut journal = Self::with(pages, whose.room)?;
        journal.published = published;
        journal.free.extend((0..whose.room as u16).rev());
        journal.set_whereabouts(whereabouts);
        if let Some(first) = journal.pages.first() {
            first.store(PUBLISHED, published);
            first.store(INTENDED, published);
        }
        for (number, page) in journal.pages.iter().enumerate() {
            let [magic, rest @ ..] = whose.key(number);
            page.store_all(1, &rest);
            page.store(0, magic);
        }
        Ok(journal)
    }

    /// Goes on with the journal of an earlier life, where the ring says that the frontend sees its responses as far as `visible`.
    ///
    /// # Errors
    /// [`JournalError`]; the pages are given back.
    pub fn recover(keep: &impl Keep<Page = P>, whose: &Whose, visible: u32) -> Result<(Self, Left), JournalError> {
        let mut pages = Vec::new();
        pages.try_reserve_exact(whose.pages()).map_err(|_| JournalError::Memory)?;
        for number in 0..whose.pages() {
            pages.push(keep.inherit_page(&whose.key(number)).ok_or(JournalError::Missing)?);
        }
        let mut journal = Self::with(pages, whose.room).map_err(|_| JournalError::Memory)?;
        let header = |word| journal.pages.first().map_or(0, |page| page.load(word));
        journal.whereabouts().ok_or(JournalError::Damaged)?;
        let (before, intended) = (header(PUBLISHED), header(INTENDED));
        let on_the_way = intended.wrapping_sub(before);
        if on_the_way > whose.room {
            return Err(JournalError::Damaged);
        }
        let published = match visible.wrapping_sub(before) {
            shown if shown <= on_the_way => visible,
            _ => before,
        };
        let unanswered = journal.look_through(before, published)?;
        journal.settle(published, &unanswered);
        Ok((journal, Left { published, unanswered }))
    }

    /// The entries of requests without an answer, where the responses ended at `before`, and the frontend sees them as far as `published`.
    fn look_through(&self, before: u32, published: u32) -> Result<Unanswered, JournalError> {
        let mut unanswered = Vec::new();
        unanswered.try_reserve_exact(self.room as usize).map_err(|_| JournalError::Memory)?;
        let shown = published.wrapping_sub(before);
        let mut seen = 0;
        for entry in 0..self.room as u16 {
            let (page, at) = self.place(entry).ok_or(JournalError::Damaged)?;
            let word = page.load(at);
            if word == 0 {
                continue;
            }
            let [order, content @ ..] = self.read(entry);
            let used = 1 + used_words(content[0]);
            if word & !STATE != check(self.read(entry).get(..used).unwrap_or_default()) {
                return Err(JournalError::Damaged);
            }
            let index = page.load(at + INDEX);
            let (ahead, behind) = (index.wrapping_sub(before), before.wrapping_sub(index));
            match word & STATE {
                TAKEN => unanswered.push((order, entry)),
                ANSWERED if ahead < shown => seen += 1,
                ANSWERED if ahead < self.room => unanswered.push((order, entry)),
                // Its page was about to say that it is free.
                ANSWERED if behind <= self.room => {}
                _ => return Err(JournalError::Damaged),
            }
        }
        // Each response is of one request.
        let fit = seen == shown && unanswered.len() <= self.room as usize;
        fit.then_some(unanswered).ok_or(JournalError::Damaged)
    }

    /// Has the pages say what was found, so that the next life finds the same, wherever this one ends.
    fn settle(&mut self, published: u32, unanswered: &[(u32, u16)]) {
        self.published = published;
        if let Some(first) = self.pages.first() {
            first.store(PUBLISHED, published);
            first.store(INTENDED, published);
        }
        for entry in (0..self.room as u16).rev() {
            let Some((page, at)) = self.place(entry) else {
                continue;
            };
            let word = page.load(at);
            if unanswered.iter().any(|(_, other)| *other == entry) {
                page.store(at, word & !STATE | TAKEN);
            } else {
                page.store(at, 0);
                self.free.push(entry);
            }
        }
    }

    #[inline]
    fn place(&self, entry: u16) -> Option<(&P, usize)> {
        let (page, at) = (usize::from(entry) / ENTRIES, usize::from(entry) % ENTRIES);
        Some((self.pages.get(page)?, HEADER + at * ENTRY))
    }

    /// Whether no request can be noted before responses are published.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Notes a request that is taken: its place in the order, and then the words of its slot, as many as it uses. Gives its entry; `None` where
    /// there is no room.
    #[inline]
    pub fn take(&mut self, content: &[u32]) -> Option<u16> {
        let entry = self.free.pop()?;
        let (page, at) = self.place(entry)?;
        page.store_all(at + ORDER, content);
        page.store(at, check(content) | TAKEN);
        Some(entry)
    }

    /// A request's place in the order, and the words of its slot, those that it does not use 0.
    fn read(&self, entry: u16) -> [u32; 1 + SLOT_WORDS] {
        let mut content = [0; 1 + SLOT_WORDS];
        if let Some((page, at)) = self.place(entry) {
            let word = |number: usize| page.load(at + ORDER + number);
            for (number, place) in content.iter_mut().enumerate().take(1 + used_words(word(1))) {
                *place = word(number);
            }
        }
        content
    }

    /// The words of the slot of a request that an earlier life took.
    pub fn content(&self, entry: u16) -> [u32; SLOT_WORDS] {
        let [_order, content @ ..] = self.read(entry);
        content
    }

    /// The response to a request is placed, as the one of this index.
    #[inline]
    pub fn answer(&mut self, entry: u16, index: u32) {
        if let Some(place) = self.answered.get_mut((index & (self.room - 1)) as usize) {
            *place = entry;
        }
        if let Some((page, at)) = self.place(entry) {
            page.store(at + INDEX, index);
            page.store(at, page.load(at) & !STATE | ANSWERED);
        }
    }

    /// The frontend is about to see the responses as far as this.
    #[inline]
    pub fn intend(&self, produced: u32) {
        if let Some(first) = self.pages.first() {
            first.store(INTENDED, produced);
        }
    }

    /// The frontend sees them.
    #[inline]
    pub fn complete(&mut self, produced: u32) {
        let before = core::mem::replace(&mut self.published, produced);
        if let Some(first) = self.pages.first() {
            first.store(PUBLISHED, produced);
        }
        for index in 0..produced.wrapping_sub(before).min(self.room) {
            let index = before.wrapping_add(index) & (self.room - 1);
            let Some(&entry) = self.answered.get(index as usize) else {
                continue;
            };
            if let Some((page, at)) = self.place(entry) {
                page.store(at, 0);
                self.free.push(entry);
            }
        }
    }

    /// Where the volume lies; `None` where what says so was written over.
    pub fn whereabouts(&self) -> Option<Whereabouts> {
        let first = self.pages.first()?;
        let at = *PLACES.get(first.load(PLACE) as usize)?;
        let words = [0, 1, 2, 3].map(|word| first.load(at + word));
        let [sectors, digest] = [0, 2].map(|word| {
            let half = |word: usize| words.get(word).map_or(0, |word| u64::from(*word));
            half(word) | half(word + 1) << 32
        });
        (first.load(at + 4) == check(&words)).then_some(Whereabouts { sectors, digest })
    }

    /// Notes where the volume lies. What was noted before holds until all of it is there.
    pub fn set_whereabouts(&self, whereabouts: Whereabouts) {
        let Whereabouts { sectors, digest } = whereabouts;
        let words = [sectors as u32, (sectors >> 32) as u32, digest as u32, (digest >> 32) as u32];
        if let Some(first) = self.pages.first() {
            let other = (first.load(PLACE) ^ 1) & 1;
            if let Some(at) = PLACES.get(other as usize) {
                first.store_all(*at, &words);
                first.store(at + words.len(), check(&words));
                first.store(PLACE, other);
            }
        }
    }

    /// Notes something of the vbd, for good.
    pub fn mark(&self, mark: Mark) {
        if let Some(first) = self.pages.first() {
            first.store(MARKS, first.load(MARKS) | mark as u32);
        }
    }

    /// Whether it was noted, in this life or an earlier one.
    pub fn has(&self, mark: Mark) -> bool {
        self.pages.first().is_some_and(|first| first.load(MARKS) & mark as u32 != 0)
    }
}

#[cfg(test)]
mod tests;
