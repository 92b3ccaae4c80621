//! What one life leaves to the next: the store as it was when a request had last been served whole, and where each ring stands. Pure. Floor 3.
//!
//! A [`Snapshot`] takes the place of the last one in one step, after a request has been served and before anybody can see that. Whatever
//! fails later finds it untouched: nothing of it is changed, and nothing borrowed. What moves between two snapshots are numbers in cells:
//! how far each ring was read and written. From the two the next life knows what of the answers is out already.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use xen_pv_sys::{DomainId, Port};
use xenstore_lite::{Map, Store};

/// The version of what is written here.
pub const STATE: u32 = 2;
/// The beginning of a box: its name and version.
const MAGIC: [u8; 8] = [b's', b't', b'u', b'b', b'd', b'o', b'm', STATE as u8];

/// Bytes of a ring's record, of a domain's, and of the fields before both.
const RING_BYTES: usize = 28;
const KNOWN_BYTES: usize = 12;
/// No domain.
const NOBODY: u32 = u32::MAX;

/// A ring, as another life needs it.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Where the page is mapped.
    pub(crate) place: [u32; 2],
    /// The local port; 0 for none.
    pub(crate) port: Cell<u32>,
    /// How far requests were taken.
    pub(crate) requests: Cell<u32>,
    /// How far answers were written.
    pub(crate) answers: Cell<u32>,
    /// How far answers were written when none of the store's connection was gone.
    pub(crate) base: Cell<u32>,
    pub(crate) cut_off: Cell<bool>,
    /// Requests of this domain that the store could not survive.
    pub(crate) blame: Cell<u32>,
}

impl Standing {
    /// Bytes of answers that are in the ring, where the store says how many of its connection are gone.
    pub(crate) fn unseen(&self, gone: u32) -> u32 {
        self.answers.get().wrapping_sub(self.base.get()).wrapping_sub(gone)
    }
}

/// The rings by domain.
pub(crate) type Standings = Map<DomainId, Rc<Standing>>;

/// A consistent state.
pub(crate) struct Snapshot {
    pub(crate) store: Store,
    pub(crate) rings: Standings,
    pub(crate) known: Map<DomainId, u64>,
}

/// A request that a life ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) domain: DomainId,
    /// Where its ring stood.
    pub(crate) position: u32,
    /// Lives that it ended.
    pub(crate) lives: u32,
}

/// What there is for the next life when one ends.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Bytes that can be written for it.
    pub room: usize,
    /// Bytes that its heap can have.
    pub heap: usize,
    /// This life ended because memory ran out.
    pub ran_out: bool,
}

impl Means {
    /// More than any state takes.
    pub const PLENTY: Self = Self { room: usize::MAX, heap: usize::MAX, ran_out: false };
}

/// Who hoards less is not cut off for it: it would help nobody.
const HOARD: usize = 64 * 1024;

impl Snapshot {
    /// Bytes that it takes when it is written, without what those took who hoard `limit` or more.
    fn bytes(&self, limit: usize) -> usize {
        let mut bytes = 64 + self.rings.len() * RING_BYTES + self.known.len() * KNOWN_BYTES;
        self.store.write_state_below(limit, &mut |piece| bytes += piece.len());
        bytes
    }

    /// From which hoard on domains are cut off, so that the next life has what it wants; `usize::MAX` for nobody. `again` says that the request
    /// which was served has ended a life before: then somebody's hoard is not the cause. Allocates nothing.
    fn limit(&self, means: &Means, again: bool) -> usize {
        let fits = |limit: usize| {
            self.store.counted_below(limit) <= means.heap
                && (self.store.state_bound() < means.room / 2 || self.bytes(limit) <= means.room)
        };
        let next = |limit| self.store.most_hoarded(limit).map(|(_, hoard)| hoard).filter(|hoard| *hoard >= HOARD);
        let mut limit = if means.ran_out && !again { next(usize::MAX).unwrap_or(usize::MAX) } else { usize::MAX };
        while !fits(limit)
            && let Some(lower) = next(limit)
        {
            limit = lower;
        }
        limit
    }
}

/// What is written when a life ends.
#[derive(Default)]
pub struct Keeper {
    pub(crate) snapshot: Cell<Option<Rc<Snapshot>>>,
    /// Whose turn it is.
    pub(crate) turn: Cell<Option<DomainId>>,
    pub(crate) suspect: Cell<Option<Suspect>>,
    /// Changes since somebody looked at what the state takes.
    pub(crate) changes: Cell<usize>,
}

impl Keeper {
    /// Writes the last consistent state, and allocates nothing; whether there is one. Where `means` are short, the domains that took most
    /// by themselves are cut off.
    pub fn write(&self, means: &Means, out: &mut dyn FnMut(&[u8])) -> bool {
        let Some(snapshot) = self.snapshot.take() else {
            return false;
        };
        let number = |out: &mut dyn FnMut(&[u8]), value: u32| out(&value.to_le_bytes());
        out(&MAGIC);
        let position = |domain| snapshot.rings.get(&domain).map_or(0, |ring| ring.requests.get());
        let suspect = self.turn.get().map(|domain| {
            let position = position(domain);
            let known = self.suspect.get().filter(|known| (known.domain, known.position) == (domain, position));
            Suspect { domain, position, lives: known.map_or(0, |known| known.lives) + 1 }
        });
        let again = suspect.is_some_and(|suspect| suspect.lives > 1);
        let limit = snapshot.limit(means, again);
        let words =
            suspect.map_or([NOBODY, 0, 0], |suspect| [suspect.domain.0.into(), suspect.position, suspect.lives]);
        words.into_iter().for_each(|word| number(out, word));
        for value in [snapshot.rings.len() as u32, snapshot.known.len() as u32] {
            number(out, value);
        }
        for (domain, ring) in &snapshot.rings {
            let gone = snapshot.store.connection(*domain).map_or(0, |id| snapshot.store.gone(id));
            let unseen = ring.unseen(gone);
            let [first, pages] = ring.place;
            let hoards = snapshot.store.is_above(*domain, limit);
            let whose = u32::from(domain.0)
                | u32::from(ring.cut_off.get() || hoards) << 16
                | u32::from(hoards) << 17
                | ring.blame.get().min(255) << 24;
            for value in [whose, ring.port.get(), first, pages, ring.requests.get(), ring.answers.get(), unseen] {
                number(out, value);
            }
        }
        for (domain, unique) in &snapshot.known {
            number(out, domain.0.into());
            out(&unique.to_le_bytes());
        }
        snapshot.store.write_state_below(limit, out);
        self.snapshot.set(Some(snapshot));
        true
    }

    /// Whether so much has changed that it is time to look at [`bound`](Self::bound): the more domains there are, the more it costs.
    pub fn is_due(&self, changes: usize) -> bool {
        let Some(snapshot) = self.snapshot.take() else {
            return false;
        };
        let rings = snapshot.rings.len();
        self.snapshot.set(Some(snapshot));
        self.changes.get() >= changes + rings / 2
    }

    /// Bytes that [`write`](Self::write) gives at most.
    pub fn bound(&self) -> usize {
        let Some(snapshot) = self.snapshot.take() else {
            return 0;
        };
        let rings = snapshot.rings.len() * RING_BYTES + snapshot.known.len() * KNOWN_BYTES;
        let bound = 64 + rings + snapshot.store.state_bound();
        self.snapshot.set(Some(snapshot));
        self.changes.set(0);
        bound
    }
}

/// A ring of an earlier life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedRing {
    pub(crate) domain: DomainId,
    pub(crate) cut_off: bool,
    /// It is cut off since it took most of the memory, and has not been told.
    pub(crate) hoards: bool,
    pub(crate) blame: u32,
    pub(crate) port: Port,
    pub(crate) place: [u32; 2],
    pub(crate) requests: u32,
    pub(crate) answers: u32,
    /// Bytes of the store's answers that are in the ring, of which its state does not know.
    pub(crate) unseen: u32,
}

/// What an earlier life left.
pub struct Saved<'a> {
    pub(crate) suspect: Option<Suspect>,
    pub(crate) rings: Vec<SavedRing>,
    pub(crate) known: Vec<(DomainId, u64)>,
    pub(crate) state: &'a [u8],
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*first))
}

fn domain(bytes: &mut &[u8]) -> Option<(DomainId, u32)> {
    let word = number(bytes)?;
    Some((DomainId(word as u16), word >> 16))
}

impl<'a> Saved<'a> {
    /// Reads what [`Keeper::write`] gave; `None` where it is not that.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut bytes = bytes.strip_prefix(&MAGIC)?;
        let rest = &mut bytes;
        let (whose, position, lives) = (number(rest)?, number(rest)?, number(rest)?);
        let suspect = (whose != NOBODY).then_some(Suspect { domain: DomainId(whose as u16), position, lives });
        let (rings, known) = (number(rest)?, number(rest)?);
        let ring = |rest: &mut &[u8]| {
            let (domain, flags) = domain(rest)?;
            let port = Port(number(rest)?);
            let place = [number(rest)?, number(rest)?];
            let (requests, answers, unseen) = (number(rest)?, number(rest)?, number(rest)?);
            Some(SavedRing {
                domain,
                cut_off: flags & 1 != 0,
                hoards: flags & 2 != 0,
                blame: flags >> 8,
                port,
                place,
                requests,
                answers,
                unseen,
            })
        };
        let rings = (0..rings).map(|_| ring(rest)).collect::<Option<_>>()?;
        let one_known = |rest: &mut &[u8]| {
            let (domain, _) = domain(rest)?;
            let (low, high) = (number(rest)?, number(rest)?);
            Some((domain, u64::from(high) << 32 | u64::from(low)))
        };
        let known = (0..known).map(|_| one_known(rest)).collect::<Option<_>>()?;
        Some(Self { suspect, rings, known, state: rest })
    }
}
