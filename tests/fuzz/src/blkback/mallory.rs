//! The hostile frontend: rings, pages and grants that last, and what it may do with them. Host.

use crate::flicker::{self, Flicker};
use crate::recorder::Recorder;
use arbitrary::Arbitrary;
use blkdom::blkback::config::{QueueConfig, VbdConfig};
use blkdom::blkback::request::Abi;
use blkdom::fakes::frontend::HERE;
use blkdom::fakes::geometry;
use blkdom::volume::Volume;
use guests::tape::{Area, Step, Word};
use split_driver::fakes::peer::{Fetches, Peer};
use split_driver::fakes::{FakeDomain, FakeXen, GuestMemory};
use split_driver::memory::SharedMemory;
use std::sync::atomic::Ordering;
use xen_pv_sys::{DomainId, GrantRef, Port};

const DOMAIN: DomainId = DomainId(66);
/// Pages of data, each granted for writing and for reading.
const PAGES: u8 = 24;
/// Pages for indirect segments.
const INDIRECT_PAGES: u8 = 4;
const QUEUES: usize = 2;
const RING_PAGES: usize = 2;

/// What it negotiated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    pub(super) abi: Abi,
    pub(super) persistent: bool,
    pub(super) queues: usize,
    pub(super) ring_pages: usize,
    pub(super) read_only: bool,
    /// It is detached with its work in flight.
    pub(super) detach_early: bool,
    /// Its pages are mapped for each request, if it does not keep them mapped.
    pub(super) maps: bool,
    /// For some rounds it fills its rings anew, with what lies in them.
    pub(super) refills: bool,
}

impl Features {
    /// The words with which the frontend under Xen connects so.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec![format!("queues={}", self.queues), format!("pages={}", self.ring_pages)];
        let said = [("narrow", self.abi == Abi::X86_32), ("persistent", self.persistent)];
        words.extend(said.into_iter().filter(|(_, is)| *is).map(|(word, _)| word.into()));
        words
    }
}

/// A part of a page.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Piece {
    page: u8,
    bounds: u8,
}

/// Where on the disk: mostly on it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Where {
    Low(u8),
    Low1(u8),
    Low2(u8),
    End(u8),
    Any(u64),
}

/// What is done: by the hostile guest mostly, by others where it says so.
#[derive(Arbitrary, Clone, Debug)]
pub(super) enum Action {
    /// A request with its segments in the slot, and perhaps another number of them.
    Direct { queue: bool, operation: u8, place: Where, pieces: [Piece; 3], count: u8 },
    /// A request with segments in a page.
    Indirect { queue: bool, operation: u8, place: Where, pieces: [Piece; 4], count: u16, page: u8 },
    /// A discard.
    Discard { queue: bool, flag: u8, place: Where, sectors: Where },
    /// Any slot.
    Slot { queue: bool, words: [u32; 8] },
    /// A word of a ring page, anywhere.
    Word { queue: bool, place: u16, value: u32 },
    /// An index of a ring, by some steps.
    Index { queue: bool, which: u8, steps: i16 },
    /// Requests as they lie in the ring, so many more of them.
    Publish { queue: bool, count: u8 },
    /// Events.
    Notify { queue: bool },
    /// A page of indirect segments changes.
    Scribble { page: u8, value: u32 },
    /// A grant ends, if it can.
    Revoke,
    /// A round of the data path.
    Poll,
    /// Time, in milliseconds.
    Wait(u16),
    /// An honest request.
    Honest { which: bool, part: u8, operation: u8, place: u8, sectors: u8 },
    /// The disk does nothing for now.
    Hold(bool),
    /// So much is taken by the disk at once.
    Depth(u8),
    /// The disk is being reset.
    Recover(u8),
    /// A sector of the hostile guest's fails.
    Fault { place: u8, kind: u8 },
    /// From now on a word of a ring, or of its segments' pages, is another one each time that it is looked at or copied.
    Flicker { what: u8, place: u16, value: u32 },
}

pub(super) struct Mallory {
    domain: FakeDomain,
    rings: [GuestMemory; QUEUES],
    ring_grants: [[GrantRef; RING_PAGES]; QUEUES],
    ports: [Port; QUEUES],
    pages: GuestMemory,
    indirect: GuestMemory,
    /// First of the grants of `pages` for writing; as many follow for reading, then those of `indirect`.
    first_grant: u32,
    /// A grant that comes and goes.
    fickle: GrantRef,
    producers: [u32; QUEUES],
    features: Features,
    next_id: u64,
    /// What is fetched from its rings.
    pub(super) fetches: [Fetches; QUEUES],
    flicker: Option<Flicker>,
    pub(super) recorder: Recorder,
}

impl Mallory {
    pub(super) fn new(xen: &FakeXen) -> Self {
        let domain = xen.domain(DOMAIN);
        let rings = [domain.pages(RING_PAGES), domain.pages(RING_PAGES)];
        let ended = domain.grant(&rings[0], 0, true);
        domain.end_grant(ended);
        let ring_grants = [0, 1].map(|queue: usize| [0, 1].map(|page| domain.grant(&rings[queue], page, true)));
        let pages = domain.pages(usize::from(PAGES));
        let indirect = domain.pages(usize::from(INDIRECT_PAGES));
        let mut grants = Vec::new();
        for writable in [true, false] {
            grants.extend((0..PAGES).map(|page| domain.grant(&pages, page.into(), writable)));
        }
        grants.extend((0..INDIRECT_PAGES).map(|page| domain.grant(&indirect, page.into(), false)));
        let fickle = domain.grant(&pages, 0, true);
        let ports = [domain.allocate_port(), domain.allocate_port()];
        let features = Features {
            abi: Abi::X86_64,
            persistent: false,
            queues: 1,
            ring_pages: 1,
            read_only: false,
            detach_early: false,
            maps: false,
            refills: false,
        };
        Self {
            fetches: [0, 1].map(|queue: usize| Fetches::new(&rings[queue])),
            flicker: None,
            recorder: Recorder::default(),
            first_grant: grants[0].0,
            domain,
            rings,
            ring_grants,
            ports,
            pages,
            indirect,
            fickle,
            producers: [0; QUEUES],
            features,
            next_id: 0,
        }
    }

    /// A new life.
    pub(super) fn reset(&mut self, features: &Features, volume: Volume) -> VbdConfig {
        for ring in &self.rings {
            for (word, value) in ring.words().iter().zip([0, 1, 0, 1]) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.producers = [0; QUEUES];
        self.features = *features;
        self.flicker = None;
        self.config(features, volume)
    }

    /// What the backend reads of it.
    pub(super) fn config(&self, features: &Features, volume: Volume) -> VbdConfig {
        let queue = |queue: usize| QueueConfig {
            ring: self.ring_grants[queue][..features.ring_pages].to_vec(),
            port: self.ports[queue],
        };
        VbdConfig {
            domain: DOMAIN,
            handle: 51712,
            abi: features.abi,
            persistent: features.persistent,
            queues: (0..features.queues).map(queue).collect(),
            geometry: geometry(volume.sectors(), 512),
            volume,
            whereabouts: HERE,
            read_only: features.read_only,
        }
    }

    /// Publishes what its rings have room for, as it lies there.
    pub(super) fn refill(&mut self) {
        let (_, slots) = self.layout();
        for queue in 0..self.features.queues {
            let answered = self.rings[queue].words()[2].load(Ordering::Relaxed);
            let free = slots.saturating_sub(self.producers[queue].wrapping_sub(answered));
            if free > 0 {
                self.publish(queue, free);
            }
        }
    }

    /// What it does between two steps of the backend, and what counts those.
    pub(super) fn peer(&self) -> Peer {
        flicker::peer(self.fetches.to_vec(), self.flicker.clone())
    }

    /// Responses on its rings.
    pub(super) fn answers(&self) -> u64 {
        self.rings.iter().map(|ring| u64::from(ring.words()[2].load(Ordering::Relaxed))).sum()
    }

    /// Pages of it that are mapped.
    pub(super) fn mapped(&self) -> usize {
        self.domain.mapped()
    }

    fn queue(&self, queue: bool) -> usize {
        usize::from(queue) % self.features.queues
    }

    /// Words of a slot, and slots of a ring.
    fn layout(&self) -> (usize, u32) {
        let words = if self.features.abi == Abi::X86_64 { 28 } else { 27 };
        (words, if self.features.ring_pages == 1 { 32 } else { 64 })
    }

    fn memory(&self, area: Area) -> &GuestMemory {
        match area {
            Area::Ring(queue) => &self.rings[usize::from(queue)],
            Area::Data => &self.pages,
            Area::Indirect => &self.indirect,
        }
    }

    fn value(&self, word: &Word) -> u32 {
        let page = |area: Area, page: u8, writable: bool| match (area, writable) {
            (Area::Indirect, _) => u32::from(PAGES) * 2 + u32::from(page),
            (_, true) => page.into(),
            (_, false) => u32::from(PAGES) + u32::from(page),
        };
        match word {
            Word::Number(value) => *value,
            Word::Grant { area, page: number, writable } => self.first_grant + page(*area, *number, *writable),
            Word::Fickle => self.fickle.0,
        }
    }

    fn store(&mut self, area: Area, place: usize, words: &[Word]) {
        for (memory, word) in self.memory(area).words()[place..].iter().zip(words) {
            memory.store(self.value(word), Ordering::Relaxed);
        }
        self.recorder.note(|| Step::Store { area, place: place as u32, words: words.to_vec() });
    }

    fn put(&mut self, queue: usize, words: &[Word]) {
        let (width, slots) = self.layout();
        let start = 16 + (self.producers[queue] & (slots - 1)) as usize * width;
        self.store(Area::Ring(queue as u8), start, &words[..words.len().min(width)]);
        self.publish(queue, 1);
    }

    fn publish(&mut self, queue: usize, count: u32) {
        self.producers[queue] = self.producers[queue].wrapping_add(count);
        self.store(Area::Ring(queue as u8), 0, &[Word::Number(self.producers[queue])]);
        self.notify(queue);
    }

    fn notify(&mut self, queue: usize) {
        self.domain.notify(self.ports[queue]);
        self.recorder.note(|| Step::Notify(queue as u8));
    }

    /// The beginning of a slot: operation and its companion, id, sector. In the 32-bit layout there is no padding.
    fn head(&mut self, first: u32, sector: u64) -> Vec<Word> {
        self.next_id += 1;
        let numbers = [self.next_id, sector].into_iter().flat_map(|number| [number as u32, (number >> 32) as u32]);
        let padding = if self.features.abi == Abi::X86_64 { vec![first, 0] } else { vec![first] };
        padding.into_iter().chain(numbers).map(Word::Number).collect()
    }

    fn sector(place: Where) -> u64 {
        match place {
            Where::Low(sector) | Where::Low1(sector) | Where::Low2(sector) => {
                u64::from(sector) % super::MALLORY_SECTORS
            }
            Where::End(before) => super::MALLORY_SECTORS.wrapping_sub(u64::from(before) % 8),
            Where::Any(sector) => sector,
        }
    }

    fn segment(piece: Piece) -> [Word; 2] {
        let grant = match piece.page {
            250 => Word::Fickle,
            251..=254 => Word::Number(u32::from(piece.page) << 8),
            255 => Word::Number(0),
            page => {
                let place = page % (PAGES * 2);
                Word::Grant { area: Area::Data, page: place % PAGES, writable: place < PAGES }
            }
        };
        // The bounds are in order mostly.
        let (a, b) = (piece.bounds & 7, piece.bounds >> 3 & 7);
        let (first, last) = match piece.bounds >> 6 {
            3 => (a, b.wrapping_mul(3)),
            _ => (a.min(b), a.max(b)),
        };
        [grant, Word::Number(u32::from(first) | u32::from(last) << 8)]
    }

    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::Direct { queue, operation, place, pieces, count } => {
                let count = if *count < 128 { *count % 4 } else { *count % 16 };
                let operation = if *operation < 240 { *operation % 4 } else { *operation };
                let mut words = self.head(u32::from(operation) | u32::from(count) << 8, Self::sector(*place));
                for place in 0..usize::from(count.min(11)) {
                    words.extend(Self::segment(pieces[place % pieces.len()]));
                }
                let queue = self.queue(*queue);
                self.put(queue, &words);
            }
            Action::Indirect { queue, operation, place, pieces, count, page } => {
                let count = if *count & 3 == 0 { *count } else { *count % 24 };
                let operation = if *operation < 240 { *operation & 1 } else { *operation };
                let local = page % INDIRECT_PAGES;
                let segments =
                    (0..usize::from(count).min(256)).map(|place| Self::segment(pieces[place % pieces.len()]));
                self.store(Area::Indirect, usize::from(local) * 1024, &segments.flatten().collect::<Vec<_>>());
                let reference = Word::Grant { area: Area::Indirect, page: local, writable: false };
                let first = 6 | u32::from(operation) << 8 | u32::from(count) << 16;
                let mut words = self.head(first, Self::sector(*place));
                words.extend([Word::Number(0), if *page < 240 { reference } else { Word::Number((*page).into()) }]);
                let queue = self.queue(*queue);
                self.put(queue, &words);
            }
            Action::Discard { queue, flag, place, sectors } => {
                let mut words = self.head(5 | u32::from(*flag) << 8, Self::sector(*place));
                let sectors = Self::sector(*sectors);
                words.extend([sectors as u32, (sectors >> 32) as u32].map(Word::Number));
                let queue = self.queue(*queue);
                self.put(queue, &words);
            }
            Action::Slot { queue, words } => {
                let queue = self.queue(*queue);
                self.put(queue, &words.map(Word::Number));
            }
            Action::Word { queue, place, value } => {
                let queue = self.queue(*queue);
                let place = usize::from(*place) % self.rings[queue].words().len();
                self.store(Area::Ring(queue as u8), place, &[Word::Number(*value)]);
                self.notify(queue);
            }
            Action::Index { queue, which, steps } => {
                let queue = self.queue(*queue);
                let (place, value) = (u32::from(which & 3), i32::from(*steps) as u32);
                self.rings[queue].words()[place as usize].fetch_add(value, Ordering::Relaxed);
                self.recorder.note(|| Step::Add { area: Area::Ring(queue as u8), place, value });
                self.notify(queue);
            }
            Action::Publish { queue, count } => {
                let queue = self.queue(*queue);
                self.publish(queue, u32::from(*count % 32));
            }
            Action::Notify { queue } => self.notify(self.queue(*queue)),
            Action::Scribble { page, value } => {
                let place = usize::from(page % INDIRECT_PAGES) * 1024;
                self.store(Area::Indirect, place, &[Word::Number(*value); 32]);
            }
            Action::Flicker { what, place, value } => {
                let copies = what & 2 != 0;
                let area = if copies { Area::Indirect } else { Area::Ring(what & 1) };
                // Of a page of segments the first are used mostly.
                let place = if copies { *place & 0xc1f } else { *place };
                self.flicker = Some(Flicker::new(self.memory(area), place.into(), *value, copies));
                self.recorder.note(|| Step::Flicker { area, place: place.into(), bits: *value });
            }
            Action::Revoke => {
                let ended = self.domain.end_grant(self.fickle);
                self.fickle = if ended { self.domain.grant(&self.pages, 0, true) } else { self.fickle };
                self.recorder.note(|| Step::Revoke);
            }
            _ => {}
        }
    }
}
