//! The hostile frontend: rings, pages and grants that last, and what it may do with them. Host.

use super::honest::{STATION, public_address};
use crate::flicker::{self, Flicker};
use crate::recorder::Recorder;
use arbitrary::Arbitrary;
use guests::tape::{Area, Step, Word};
use netdom::credit::Rate;
use netdom::netback::config::{ControlConfig, Features, QueueConfig, RemotePorts, VifConfig};
use netdom::policy::{AntiSpoof, Guard};
use netdom::switch::Vlans;
use split_driver::fakes::peer::{Fetches, Peer};
use split_driver::fakes::{FakeDomain, FakeXen, GuestMemory};
use split_driver::memory::SharedMemory;
use std::sync::atomic::Ordering;
use xen_pv_sys::{DomainId, GrantRef, Port};

/// Its address.
pub(super) const ADDRESS: [u8; 6] = [0, 0x16, 0x3e, 0, 0, 66];
const DOMAIN: DomainId = DomainId(66);
/// Pages with packets, and pages for them.
const PAGES: u8 = 24;

/// A slot of a packet.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Piece {
    size: u16,
    offset: u8,
    page: u8,
}

impl Piece {
    /// At most a page; mostly less, for the bytes take the time.
    fn size(&self) -> u16 {
        if self.page & 3 == 0 { self.size % 4097 } else { self.size % 160 }
    }

    /// The page that its bytes are in.
    fn page(&self) -> usize {
        usize::from(self.page / 4 % PAGES)
    }
}

/// As many pieces as a packet is made of.
fn used(pieces: &[Piece]) -> &[Piece] {
    &pieces[..pieces.len().min(24)]
}

/// The pages that a packet is in, a bit each; its headers may reach into a page more.
fn touched(pieces: &[Piece]) -> u32 {
    let pages = used(pieces).iter().fold(0, |pages, piece| pages | 1 << piece.page());
    pages | pieces.first().map_or(0, |piece| 2 << piece.page())
}

/// What is wrong with a chain that is otherwise in order.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Fault {
    None,
    None1,
    None2,
    Total(u16),
    Grant,
    Offset(u16),
    Cut,
    Flags(u16),
}

/// Where a packet goes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum To {
    Neighbour(bool),
    Distant(bool),
    Wire,
    All,
    Group(u8),
    Link(u8),
    Itself,
}

/// What is done: by the hostile guest mostly, by others where it says so.
#[derive(Arbitrary, Clone, Debug)]
pub(super) enum Action {
    /// A packet, with a fault or without.
    Send { to: To, kind: u8, extra: Option<(u8, u16, u8)>, flags: u8, pieces: Vec<Piece>, fault: Fault },
    /// Any slot.
    Slot { words: [u32; 3] },
    /// Receive slots: how many, and which grants.
    Post { count: u8, first: u8, writable: bool },
    /// A word of a ring page, anywhere.
    Word { receive: bool, place: u16, value: u32 },
    /// An index of a ring, by some steps.
    Index { receive: bool, which: u8, steps: i16 },
    /// Events.
    Notify { receive: bool },
    /// A round of the data path.
    Poll,
    /// Time, in milliseconds.
    Wait(u16),
    /// An honest packet.
    Honest { from: u8, length: u16, super_frame: bool },
    /// An honest packet to it.
    ToMallory { from: bool, length: u16 },
    /// A frame from the wire.
    Wire { to_mallory: bool, length: u16 },
    /// The NIC sends nothing for now.
    NicFull(bool),
    /// An honest packet to a group.
    HonestGroup { from: u8, group: u8 },
    /// From now on a word of a ring, or of its packets, is another one each time that it is looked at or copied.
    Flicker { what: u8, place: u16, value: u32 },
    /// What it does on rings is from now on done on those of another queue.
    Queue(u8),
    /// A request on the control ring: of which kind, whether it names a page that is granted, and numbers.
    Ask { kind: u8, granted: bool, numbers: [u8; 2] },
    /// Any request on the control ring.
    Request { words: [u32; 4] },
    /// An index of the control ring, by some steps.
    ControlIndex { which: u8, steps: i16 },
}

fn ring_area(ring: usize) -> Area {
    Area::Ring(ring as u8)
}

/// Queues that it has, at most.
const QUEUES: usize = 3;

/// One of its queues.
struct Queue {
    rings: [GuestMemory; 2],
    ring_grants: [GrantRef; 2],
    ports: [Port; 2],
    producers: [u32; 2],
    published: [u32; 2],
    split: bool,
}

impl Queue {
    fn new(domain: &FakeDomain) -> Self {
        let rings = [domain.pages(1), domain.pages(1)];
        let ring_grants = [domain.grant(&rings[0], 0, true), domain.grant(&rings[1], 0, true)];
        let ports = [domain.allocate_port(), domain.allocate_port()];
        Self { rings, ring_grants, ports, producers: [0; 2], published: [0; 2], split: false }
    }

    fn reset(&mut self, split: bool) -> QueueConfig {
        self.rings.iter().for_each(clear);
        (self.producers, self.published, self.split) = ([0; 2], [0; 2], split);
        let [transmit, receive] = self.ports;
        QueueConfig {
            transmit_ring: self.ring_grants[0],
            receive_ring: self.ring_grants[1],
            ports: if split { RemotePorts::Split { transmit, receive } } else { RemotePorts::Single(transmit) },
        }
    }
}

/// Its control ring.
struct Control {
    ring: GuestMemory,
    ring_grant: GrantRef,
    port: Port,
    producer: u32,
}

/// Makes a ring's page one of a new ring.
fn clear(ring: &GuestMemory) {
    for (word, value) in ring.words().iter().zip([0, 1, 0, 1]) {
        word.store(value, Ordering::Relaxed);
    }
}

pub(super) struct Mallory {
    domain: FakeDomain,
    queues: [Queue; QUEUES],
    /// Queues in this life.
    count: usize,
    /// The queue that it is at.
    queue: usize,
    control: Control,
    pages: GuestMemory,
    /// First of the grants of `pages` for packets from it; as many follow for packets to it.
    first_grant: u32,
    /// What is fetched from its transmit rings and its control ring.
    fetches: Vec<Fetches>,
    flicker: Option<Flicker>,
    /// It keeps to what can be said beforehand: packets in order, but for their grants.
    tame: bool,
    /// Pages of packets that may be under way, a bit each.
    busy: u32,
    pub(super) recorder: Recorder,
}

/// What it is in one life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) features: Features,
    pub(super) bridge: &'static str,
    pub(super) rate: Option<Rate>,
    pub(super) tame: bool,
    pub(super) queues: u8,
    pub(super) control: bool,
    pub(super) headroom: u16,
}

impl Life {
    /// The nodes that say so (`io/netif.h`). Those of its queues are left out: a tape is played on one.
    pub(super) fn nodes(&self) -> Vec<String> {
        let Features {
            scatter_gather,
            gso_tcpv4,
            gso_tcpv6,
            checksum_v4,
            checksum_v6,
            receive_notify,
            multicast_control,
        } = self.features;
        let nodes = [
            ("feature-sg", scatter_gather),
            ("feature-gso-tcpv4", gso_tcpv4),
            ("feature-gso-tcpv6", gso_tcpv6),
            ("feature-no-csum-offload", !checksum_v4),
            ("feature-ipv6-csum-offload", checksum_v6),
            ("feature-rx-notify", receive_notify),
            ("request-multicast-control", multicast_control),
        ];
        nodes.map(|(node, value)| format!("{node}={}", u8::from(value))).into()
    }
}

impl Mallory {
    pub(super) fn new(xen: &FakeXen) -> Self {
        let domain = xen.domain(DOMAIN);
        let reserved = domain.pages(1);
        let ended = domain.grant(&reserved, 0, true);
        domain.end_grant(ended);
        let queues = std::array::from_fn(|_| Queue::new(&domain));
        let pages = domain.pages(usize::from(PAGES) * 2);
        let grants: Vec<_> = (0..PAGES * 2).map(|page| domain.grant(&pages, page.into(), page >= PAGES)).collect();
        let ring = domain.pages(1);
        let (ring_grant, port) = (domain.grant(&ring, 0, true), domain.allocate_port());
        let fetched = queues.iter().map(|queue| &queue.rings[0]).chain([&ring]);
        Self {
            fetches: fetched.map(Fetches::new).collect(),
            flicker: None,
            tame: false,
            busy: 0,
            domain,
            queues,
            count: 1,
            queue: 0,
            control: Control { ring, ring_grant, port, producer: 0 },
            pages,
            first_grant: grants[0].0,
            recorder: Recorder::default(),
        }
    }

    /// A new life.
    pub(super) fn reset(&mut self, life: &Life) -> VifConfig {
        let Life { features, bridge, rate, tame, queues, control, headroom } = life;
        for page in PAGES..2 * PAGES {
            self.pages.write(usize::from(page) * 4096, &[0; 16]);
        }
        (self.flicker, self.tame, self.busy) = (None, *tame, 0);
        (self.count, self.queue) = (usize::from(*queues).clamp(1, QUEUES), 0);
        clear(&self.control.ring);
        self.control.producer = 0;
        let split = features.scatter_gather ^ features.receive_notify;
        let queues = self.queues.iter_mut().take(self.count).enumerate();
        let queues = queues.map(|(number, queue)| queue.reset(split ^ (number == 1))).collect();
        let Control { ring_grant, port, .. } = self.control;
        VifConfig {
            domain: DOMAIN,
            handle: 0,
            mac: ADDRESS.into(),
            bridge: (*bridge).into(),
            vlans: Vlans::TRUNK,
            features: *features,
            queues,
            control: control.then_some(ControlConfig { ring: ring_grant, port }),
            headroom: *headroom,
            rate: *rate,
            guard: Guard::new(AntiSpoof::Off, ADDRESS.into(), None),
            routed: None,
        }
    }

    /// A word of a ring that was fetched more than once since the last look.
    pub(super) fn take_repeated(&mut self, header: usize) -> Option<usize> {
        self.fetches.iter_mut().filter_map(|fetches| fetches.take_repeated(header)).last()
    }

    /// What it does between two steps of the backend, and what counts those.
    pub(super) fn peer(&self) -> Peer {
        flicker::peer(self.fetches.clone(), self.flicker.clone())
    }

    /// Addresses and tag of what lies in the pages for packets to it.
    pub(super) fn received(&self) -> impl Iterator<Item = [u8; 16]> {
        (PAGES..2 * PAGES).map(|page| {
            let mut head = [0; 16];
            self.pages.read(usize::from(page) * 4096, &mut head);
            head
        })
    }

    /// Whether an act must wait until what is under way is done, or it would change that.
    pub(super) fn must_wait(&self, action: &Action) -> bool {
        match action {
            Action::Send { pieces, .. } => self.tame && self.busy & touched(pieces) != 0,
            _ => false,
        }
    }

    /// Nothing is under way.
    pub(super) fn handle_rest(&mut self) {
        self.busy = 0;
    }

    /// Responses on its transmit rings and its control ring.
    pub(super) fn answers(&self) -> u64 {
        let rings = self.queues.iter().map(|queue| &queue.rings[0]).chain([&self.control.ring]);
        rings.map(|ring| u64::from(ring.words()[2].load(Ordering::Relaxed))).sum()
    }

    /// Notes a step on the queue that it is at; a tape has the first one's.
    fn note(&mut self, step: impl FnOnce() -> Step) {
        if self.queue == 0 {
            self.recorder.note(step);
        }
    }

    /// The grant of a page for packets from it, or for packets to it, which are writable.
    fn grant(page: u32, writable: bool) -> Word {
        let first = if writable { PAGES } else { 0 };
        Word::Grant { area: Area::Data, page: first + (page % u32::from(PAGES)) as u8, writable }
    }

    fn store(&mut self, ring: usize, place: usize, words: &[Word]) {
        for (memory, word) in self.queues[self.queue].rings[ring].words()[place..].iter().zip(words) {
            let value = match word {
                Word::Number(value) => *value,
                Word::Grant { page, .. } => self.first_grant + u32::from(*page),
                Word::Fickle => 0,
            };
            memory.store(value, Ordering::Relaxed);
        }
        self.note(|| Step::Store { area: ring_area(ring), place: place as u32, words: words.to_vec() });
    }

    fn put(&mut self, ring: usize, words: &[Word]) {
        let width = [3, 2][ring];
        let producer = self.queues[self.queue].producers[ring];
        self.store(ring, 16 + (producer as usize & 255) * width, words);
        self.queues[self.queue].producers[ring] = producer.wrapping_add(1);
    }

    fn publish(&mut self, ring: usize) {
        let queue = &mut self.queues[self.queue];
        queue.published[ring] = queue.producers[ring];
        let published = queue.published[ring];
        self.store(ring, 0, &[Word::Number(published)]);
        self.notify(ring == 1);
    }

    fn notify(&mut self, receive: bool) {
        let queue = &self.queues[self.queue];
        self.domain.notify(queue.ports[usize::from(receive && queue.split)]);
        self.note(|| Step::Notify(receive.into()));
    }

    /// Gives what it sent where that can be said.
    pub(super) fn act(&mut self, action: &Action) -> Option<Vec<u8>> {
        match action {
            Action::Send { to, kind, pieces, fault, .. } if self.tame => {
                let fault = if matches!(fault, Fault::Grant) { Fault::Grant } else { Fault::None };
                self.send(*to, *kind, None, 0, pieces, fault);
                self.busy |= touched(pieces);
                // A page of which nothing is sent is not looked at.
                let copied = used(pieces).last().is_some_and(|piece| piece.size() > 0);
                return (matches!(fault, Fault::None) || !copied).then(|| self.bytes_of(pieces));
            }
            Action::Slot { .. }
            | Action::Word { .. }
            | Action::Index { .. }
            | Action::Flicker { .. }
            | Action::ControlIndex { .. }
                if self.tame => {}
            Action::Send { to, kind, extra, flags, pieces, fault } => {
                self.send(*to, *kind, *extra, *flags, pieces, *fault);
            }
            Action::Flicker { what, place, value } => {
                let copies = what % 3 == 2;
                let rings = &self.queues[self.queue].rings;
                let memory = if copies { &self.pages } else { &rings[usize::from(what % 3)] };
                let place = usize::from(*place) % memory.words().len();
                self.flicker = Some(Flicker::new(memory, place, *value, copies));
                let area = if copies { Area::Data } else { ring_area(usize::from(what % 3)) };
                self.note(|| Step::Flicker { area, place: place as u32, bits: *value });
            }
            Action::Queue(number) => self.queue = usize::from(*number) % self.count,
            Action::Ask { kind, granted, numbers: [first, second] } => {
                let page = self.first_grant + u32::from(*first % PAGES);
                let (first, second) = (u32::from(*first), u32::from(*second));
                let data = if *granted { [page, second, first] } else { [first, second, 0] };
                self.request([u32::from(*kind % 12) << 16 | second, data[0], data[1], data[2]]);
            }
            Action::Request { words } => self.request(*words),
            Action::ControlIndex { which, steps } => {
                let value = i32::from(*steps) as u32;
                self.control.ring.words()[usize::from(which & 3)].fetch_add(value, Ordering::Relaxed);
                self.domain.notify(self.control.port);
            }
            Action::Slot { words } => {
                self.put(0, &words.map(Word::Number));
                self.publish(0);
            }
            Action::Post { count, first, writable } => {
                for place in 0..u32::from(*count) {
                    let reference = Self::grant(u32::from(*first) + place, *writable);
                    self.put(1, &[Word::Number(place), reference]);
                }
                self.publish(1);
            }
            Action::Word { receive, place, value } => {
                // Most of a ring is slots; the indices have an action of their own.
                let place = usize::from(*place) % 1024;
                self.store((*receive).into(), place, &[Word::Number(*value)]);
                self.notify(*receive);
            }
            Action::Index { receive, which, steps } => {
                let (ring, place, value) = (usize::from(*receive), u32::from(which & 3), i32::from(*steps) as u32);
                self.queues[self.queue].rings[ring].words()[place as usize].fetch_add(value, Ordering::Relaxed);
                self.note(|| Step::Add { area: ring_area(ring), place, value });
                self.notify(*receive);
            }
            Action::Notify { receive } => self.notify(*receive),
            _ => {}
        }
        None
    }

    /// Makes a request on the control ring.
    fn request(&mut self, words: [u32; 4]) {
        let Control { ring, port, producer, .. } = &mut self.control;
        let place = 16 + (*producer as usize & 127) * 4;
        for (memory, word) in ring.words()[place..].iter().zip(words) {
            memory.store(word, Ordering::Relaxed);
        }
        *producer = producer.wrapping_add(1);
        ring.words()[0].store(*producer, Ordering::Relaxed);
        self.domain.notify(*port);
    }

    /// The bytes of a packet in order.
    fn bytes_of(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in used(pieces) {
            let mut part = vec![0; usize::from(piece.size())];
            let offset = usize::from(u16::from(piece.offset).min(4096 - piece.size()));
            self.pages.read(piece.page() * 4096 + offset, &mut part);
            bytes.extend(part);
        }
        bytes
    }

    fn send(&mut self, to: To, kind: u8, extra: Option<(u8, u16, u8)>, flags: u8, pieces: &[Piece], fault: Fault) {
        let pieces = used(pieces);
        let total: u32 = pieces.iter().map(|piece| u32::from(piece.size())).sum();
        for (index, piece) in pieces.iter().enumerate() {
            let size = piece.size();
            let mut offset = u16::from(piece.offset).min(4096 - size);
            let mut reference = Self::grant(u32::from(piece.page / 4), false);
            if index == 0 {
                self.write_headers(usize::from(piece.page / 4 % PAGES) * 4096 + usize::from(offset), to, kind, total);
            }
            let mut slot_flags = u16::from(flags & 3);
            if index + 1 < pieces.len() {
                slot_flags |= 4;
            }
            if index == 0 && extra.is_some() {
                slot_flags |= 8;
            }
            let mut whole = if index == 0 { total as u16 } else { size };
            match fault {
                Fault::Total(delta) if index == 0 => whole = whole.wrapping_add(delta),
                Fault::Grant if index + 1 == pieces.len() => reference = Word::Number(0),
                Fault::Offset(value) if index + 1 == pieces.len() => offset = value,
                Fault::Flags(value) if index == 0 => slot_flags = value,
                Fault::Cut if index + 1 == pieces.len() => slot_flags |= 4,
                _ => {}
            }
            let id = u32::from(piece.page);
            let words = [u32::from(offset) | u32::from(slot_flags) << 16, id | u32::from(whole) << 16];
            self.put(0, &[reference, Word::Number(words[0]), Word::Number(words[1])]);
            if let (0, Some((kind, size, gso))) = (index, extra) {
                let kind = if kind & 0xc0 == 0 { 1 } else { kind & 7 };
                let more = if kind & 0x20 == 0 { 0 } else { 1 };
                let words = [u32::from(kind) | more << 8 | u32::from(size) << 16, 1 + u32::from(gso & 1), 0];
                self.put(0, &words.map(Word::Number));
            }
        }
        self.publish(0);
    }

    /// Headers of Ethernet, IP and TCP that are nearly right.
    fn write_headers(&mut self, at: usize, to: To, kind: u8, total: u32) {
        let destination = match to {
            To::Neighbour(which) => public_address(which.into()),
            To::Distant(which) => public_address(2 + usize::from(which)),
            To::Wire => STATION,
            To::All => [0xff; 6],
            To::Group(last) => [1, 0, 0x5e, 0, 0, last],
            To::Link(last) => [1, 0x80, 0xc2, 0, 0, last % 32],
            To::Itself => ADDRESS,
        };
        let mut head = Vec::from(destination);
        head.extend(ADDRESS);
        if kind & 4 != 0 {
            head.extend([0x81, 0, 0, 5]);
        }
        let rest = total.saturating_sub(head.len() as u32 + 2) as u16;
        match kind & 3 {
            0 => {
                head.extend([0x08, 0, 0x45 | kind >> 6, 0]);
                head.extend(rest.to_be_bytes());
                head.extend([0, 1, 0x40, 0, 64, if kind & 8 == 0 { 6 } else { 17 }, 0, 0, 10, 0, 0, 66, 10, 0, 0, 1]);
            }
            1 => {
                head.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                head.extend(rest.saturating_sub(40).to_be_bytes());
                head.extend([if kind & 8 == 0 { 6 } else { 17 }, 64]);
                head.extend([0xfd; 32]);
            }
            _ => head.extend([0x08, 0x06]),
        }
        head.extend([0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50 | kind >> 4, 0x18, 1, 0, 0, 0, 0, 0]);
        let room = (self.pages.words().len() * 4).saturating_sub(at);
        head.truncate(room.min(4096));
        assert!(self.pages.write(at, &head));
        self.recorder.note(|| {
            let words = self.pages.words()[at / 4..(at + head.len()).div_ceil(4)].iter();
            let words = words.map(|word| Word::Number(word.load(Ordering::Relaxed))).collect();
            Step::Store { area: Area::Data, place: (at / 4) as u32, words }
        });
    }
}
