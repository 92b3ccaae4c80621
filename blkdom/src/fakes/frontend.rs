//! A guest's blkfront, well-behaved unless the test has it ask for nonsense or reaches into its rings. Floor 3.

use crate::blkback::config::{QueueConfig, VbdConfig};
use crate::blkback::journal::Whereabouts;
use crate::blkback::request::{Abi, MAX_INDIRECT_SEGMENTS};
use crate::disk::Geometry;
use crate::volume::Volume;
use alloc::vec::Vec;
use split_driver::fakes::{FakeDomain, FakeXen, GuestMemory};
use split_driver::ring::FrontRing;
use xen_pv_sys::io::blkif::{self, RequestSegment, x86_32};
use xen_pv_sys::{DomainId, GrantRef, PAGE_SIZE, Port};
use zerocopy::{FromZeros, IntoBytes};

/// Pages with indirect segments, of a queue.
const INDIRECT_PAGES: usize = 8;

/// What a frontend is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// How it lays out its slots.
    pub abi: Abi,
    /// Its queues.
    pub queues: usize,
    /// Pages of each ring.
    pub ring_pages: usize,
    /// Whether it keeps its grants.
    pub persistent: bool,
    /// Pages of data, each granted for writing and, once more, for reading.
    pub pages: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { abi: Abi::X86_64, queues: 1, ring_pages: 1, persistent: false, pages: 512 }
    }
}

/// A ring of either ABI, the frontend's end.
#[derive(Debug)]
pub enum Ring {
    /// `x86_64-abi`.
    Wide(FrontRing<GuestMemory, blkif::Request, blkif::Response>),
    /// `x86_32-abi`.
    Narrow(FrontRing<GuestMemory, x86_32::Request, x86_32::Response>),
}

macro_rules! either {
    ($self:expr, $ring:ident => $body:expr) => {
        match $self {
            Ring::Wide($ring) => $body,
            Ring::Narrow($ring) => $body,
        }
    };
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    /// Its ring.
    pub ring: Ring,
    /// The ring's pages.
    pub memory: GuestMemory,
    ring_grants: Vec<GrantRef>,
    /// Its port.
    pub port: Port,
    indirect: GuestMemory,
    indirect_grants: Vec<GrantRef>,
    next_indirect: usize,
}

/// A response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// The request's.
    pub operation: u8,
    /// `BLKIF_RSP_*`.
    pub status: i16,
}

/// The frontend.
#[derive(Debug)]
pub struct Frontend {
    /// The domain that it runs in.
    pub domain: FakeDomain,
    /// What it is like.
    pub setup: Setup,
    /// Its queues.
    pub queues: Vec<Queue>,
    /// Its data.
    pub memory: GuestMemory,
    writable: Vec<GrantRef>,
    readable: Vec<GrantRef>,
}

/// Where each volume lies.
pub const HERE: Whereabouts = Whereabouts { sectors: 8, digest: 1 };

impl Frontend {
    /// A frontend in domain `id`.
    pub fn new(xen: &FakeXen, id: u16, setup: Setup) -> Self {
        let domain = xen.domain(DomainId(id));
        // Grants 0 to 7 are reserved, as in Linux.
        let reserved = domain.pages(1);
        for _ in 0..8 {
            let grant = domain.grant(&reserved, 0, false);
            domain.end_grant(grant);
        }
        let memory = domain.pages(setup.pages);
        let grant_all = |writable| (0..setup.pages).map(|page| domain.grant(&memory, page, writable)).collect();
        let (writable, readable) = (grant_all(true), grant_all(false));
        let queues = (0..setup.queues).map(|_| Queue::new(&domain, setup)).collect();
        Self { domain, setup, queues, memory, writable, readable }
    }

    /// What the backend reads of it.
    pub fn config(&self, volume: Volume, geometry: Geometry) -> VbdConfig {
        let queues = self.queues.iter().map(|queue| QueueConfig { ring: queue.ring_grants.clone(), port: queue.port });
        VbdConfig {
            domain: self.domain.id(),
            handle: 51712,
            abi: self.setup.abi,
            persistent: self.setup.persistent,
            queues: queues.collect(),
            volume,
            whereabouts: HERE,
            geometry,
            read_only: false,
        }
    }

    /// The grant of a page of data. One that keeps its grants has them all writable.
    pub fn grant(&self, page: usize, writable: bool) -> GrantRef {
        let grants = if writable || self.setup.persistent { &self.writable } else { &self.readable };
        grants[page]
    }

    /// Segments for `sectors` sectors from the beginning of page `page` on.
    pub fn segments(&self, page: usize, sectors: usize, writable: bool) -> Vec<RequestSegment> {
        let count = sectors.div_ceil(8);
        let segment = |index: usize| {
            let last = if index + 1 == count { (sectors - 1) % 8 } else { 7 };
            segment(self.grant(page + index, writable), 0, last as u8)
        };
        (0..count).map(segment).collect()
    }

    /// Asks for the sectors from `sector` on to be read, or written, from page `page` on, in whatever form it takes. False where the
    /// ring is full.
    pub fn transfer(
        &mut self,
        queue: usize,
        id: u64,
        operation: u8,
        sector: u64,
        (page, sectors): (usize, usize),
    ) -> bool {
        let segments = self.segments(page, sectors, operation == blkif::BLKIF_OP_READ);
        self.place(queue, id, operation, sector, &segments)
    }

    /// Asks for a transfer of these segments, of an indirect one where they are many.
    pub fn place(&mut self, queue: usize, id: u64, operation: u8, sector: u64, segments: &[RequestSegment]) -> bool {
        match segments.len() > blkif::BLKIF_MAX_SEGMENTS_PER_REQUEST {
            true => self.queues[queue].indirect(id, operation, sector, segments),
            false => self.queues[queue].direct(id, operation, sector, segments),
        }
    }

    /// Publishes what was placed, and says so where asked to.
    pub fn publish(&mut self, queue: usize) {
        let queue = &mut self.queues[queue];
        if either!(&mut queue.ring, ring => ring.push_and_check_notify()) {
            self.domain.notify(queue.port);
        }
    }

    /// Takes the responses of a queue.
    pub fn responses(&mut self, queue: usize) -> Vec<Response> {
        self.queues[queue].responses()
    }

    /// Writes its data.
    pub fn write(&self, page: usize, bytes: &[u8]) {
        assert!(self.memory.write(page * PAGE_SIZE, bytes));
    }

    /// Reads its data.
    pub fn read(&self, page: usize, bytes: usize) -> Vec<u8> {
        let mut data = alloc::vec![0; bytes];
        assert!(self.memory.read(page * PAGE_SIZE, &mut data));
        data
    }
}

/// A part of a page, by its first and last sector.
pub fn segment(gref: GrantRef, first_sect: u8, last_sect: u8) -> RequestSegment {
    RequestSegment { gref, first_sect, last_sect, padding: [0; 2] }
}

impl Queue {
    fn new(domain: &FakeDomain, setup: Setup) -> Self {
        let memory = domain.pages(setup.ring_pages);
        let ring_grants = (0..setup.ring_pages).map(|page| domain.grant(&memory, page, true)).collect();
        let ring = match setup.abi {
            Abi::X86_64 => Ring::Wide(FrontRing::init(memory.clone()).expect("a page")),
            Abi::X86_32 => Ring::Narrow(FrontRing::init(memory.clone()).expect("a page")),
        };
        let indirect = domain.pages(INDIRECT_PAGES);
        let indirect_grants = (0..INDIRECT_PAGES).map(|page| domain.grant(&indirect, page, false)).collect();
        let port = domain.allocate_port();
        Self { ring, memory, ring_grants, port, indirect, indirect_grants, next_indirect: 0 }
    }

    /// Requests that may be placed.
    pub fn free(&self) -> u32 {
        either!(&self.ring, ring => ring.free())
    }

    /// Places a request with its segments in the slot, as many as are said, with those that fit.
    pub fn direct(&mut self, id: u64, operation: u8, sector: u64, segments: &[RequestSegment]) -> bool {
        let mut seg = [segment(GrantRef(0), 0, 0); blkif::BLKIF_MAX_SEGMENTS_PER_REQUEST];
        for (to, from) in seg.iter_mut().zip(segments) {
            *to = *from;
        }
        let nr_segments = segments.len() as u8;
        match &mut self.ring {
            Ring::Wide(ring) => {
                let slot = blkif::Request {
                    operation,
                    nr_segments,
                    id,
                    sector_number: sector,
                    seg,
                    ..FromZeros::new_zeroed()
                };
                ring.push(&slot)
            }
            Ring::Narrow(ring) => {
                let slot = x86_32::Request {
                    operation,
                    nr_segments,
                    id,
                    sector_number: sector,
                    seg,
                    ..FromZeros::new_zeroed()
                };
                ring.push(&slot)
            }
        }
    }

    /// Places a request with its segments in a page of their own. At most [`INDIRECT_PAGES`] of them are at work at once: the pages
    /// are used by turns.
    pub fn indirect(&mut self, id: u64, operation: u8, sector: u64, segments: &[RequestSegment]) -> bool {
        let page = self.next_indirect;
        let room = segments.len().min(MAX_INDIRECT_SEGMENTS);
        assert!(self.indirect.write(page * PAGE_SIZE, segments[..room].as_bytes()));
        let mut grefs = [GrantRef(0); 8];
        grefs[0] = self.indirect_grants[page];
        self.next_indirect = (page + 1) % INDIRECT_PAGES;
        self.indirect_at(id, operation, sector, segments.len() as u16, grefs)
    }

    /// The grants of the pages with segments, and the pages.
    pub fn indirect_pages(&self) -> (&GuestMemory, &[GrantRef]) {
        (&self.indirect, &self.indirect_grants)
    }

    /// Places an indirect request as it is said.
    pub fn indirect_at(
        &mut self,
        id: u64,
        indirect_op: u8,
        sector: u64,
        nr_segments: u16,
        indirect_grefs: [GrantRef; 8],
    ) -> bool {
        let (operation, sector_number) = (blkif::BLKIF_OP_INDIRECT, sector);
        match &mut self.ring {
            Ring::Wide(ring) => ring.push_as(&blkif::RequestIndirect {
                operation,
                indirect_op,
                nr_segments,
                id,
                sector_number,
                indirect_grefs,
                ..FromZeros::new_zeroed()
            }),
            Ring::Narrow(ring) => ring.push_as(&x86_32::RequestIndirect {
                operation,
                indirect_op,
                nr_segments,
                id,
                sector_number,
                indirect_grefs,
                ..FromZeros::new_zeroed()
            }),
        }
    }

    /// Places a discard.
    pub fn discard(&mut self, id: u64, sector: u64, nr_sectors: u64, flag: u8) -> bool {
        let (operation, sector_number) = (blkif::BLKIF_OP_DISCARD, sector);
        match &mut self.ring {
            Ring::Wide(ring) => ring.push_as(&blkif::RequestDiscard {
                operation,
                flag,
                id,
                sector_number,
                nr_sectors,
                ..FromZeros::new_zeroed()
            }),
            Ring::Narrow(ring) => ring.push_as(&x86_32::RequestDiscard {
                operation,
                flag,
                id,
                sector_number,
                nr_sectors,
                ..FromZeros::new_zeroed()
            }),
        }
    }

    /// Places a flush.
    pub fn flush(&mut self, id: u64) -> bool {
        self.direct(id, blkif::BLKIF_OP_FLUSH_DISKCACHE, 0, &[])
    }

    fn responses(&mut self) -> Vec<Response> {
        let count = either!(&self.ring, ring => ring.unconsumed()).expect("a sane backend");
        let mut responses = Vec::with_capacity(count as usize);
        for _ in 0..count {
            responses.push(match &mut self.ring {
                Ring::Wide(ring) => {
                    let blkif::Response { id, operation, status, .. } = ring.take();
                    Response { id, operation, status }
                }
                Ring::Narrow(ring) => {
                    let x86_32::Response { id, operation, status, .. } = ring.take();
                    Response { id, operation, status }
                }
            });
        }
        let _ = either!(&self.ring, ring => ring.final_check_for_responses());
        responses
    }
}
