//! What the next life of the domain has to know of a NIC: what it counted, what lies in its rings, and which of the semaphores that it shares with
//! others are held. It is kept up to date in cells, so that it can be read wherever a life ends. Pure. Floor 3.

use super::NicStatistics;
use super::ring::left::{KeptUnsent, KeptUntaken, Places, Unsent, Untaken};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use minicbor::encode::{self, Write};
use minicbor::{Decode, Encode, Encoder};

/// The ledger of a NIC, which outlives its driver.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counted: Cell<NicStatistics>,
    /// Parts of the device that this domain holds: bits of `SW_FW_SYNC`.
    parts: Cell<u32>,
    /// It holds the register by which those are taken, SWSM, or is about to.
    register: Cell<bool>,
    /// By queue.
    rings: RefCell<Vec<Rings>>,
}

/// The rings of a queue.
pub(super) type Rings = (Rc<Unsent>, Rc<Untaken>);

impl Ledger {
    /// What was counted, in all lives.
    pub fn counted(&self) -> NicStatistics {
        self.0.counted.get()
    }

    pub(super) fn set_counted(&self, counted: NicStatistics) {
        self.0.counted.set(counted);
    }

    /// The driver has these rings, by queue.
    pub(super) fn set_rings(&self, rings: Vec<Rings>) {
        *self.0.rings.borrow_mut() = rings;
    }

    /// Queues that have rings.
    pub(super) fn queues(&self) -> usize {
        self.0.rings.borrow().len()
    }

    /// Counts what lies in the rings of a device that is reset next; `places` says where it is in those of a queue.
    pub(super) fn settle_rings(&self, mut places: impl FnMut(usize) -> Places) {
        let mut counted = self.counted();
        let rings = self.0.rings.borrow();
        for (queue, (unsent, untaken)) in rings.iter().enumerate() {
            let Places { transmit, receive } = places(queue);
            counted.transmit_reset += unsent.packets(transmit);
            counted.receive_reset += untaken.frames(receive);
        }
        self.set_counted(counted);
        for (unsent, untaken) in &*rings {
            unsent.clear();
            untaken.clear();
        }
    }

    /// The parts that are held.
    pub(super) fn parts(&self) -> u32 {
        self.0.parts.get()
    }

    /// Others are held from now on. To be called before the device is told of what is added, and after it is told of what is taken away; while
    /// the register is held.
    pub(super) fn set_parts(&self, parts: u32) {
        self.0.parts.set(parts);
    }

    /// Whether the register is held, or may be.
    pub(super) fn has_register(&self) -> bool {
        self.0.register.get()
    }

    /// It is, or is no longer. To be called before it is taken, and after it was given back.
    pub(super) fn set_register(&self, held: bool) {
        self.0.register.set(held);
    }

    /// Bytes that it is written in, at most.
    fn length(&self) -> usize {
        const NUMBERS: usize = 32 + 9 * COUNTERS;
        let rings = self.0.rings.borrow();
        NUMBERS + rings.iter().map(|(unsent, _)| unsent.length() + Untaken::LENGTH).sum::<usize>()
    }
}

/// Counters of [`NicStatistics`].
const COUNTERS: usize = 8;

const fn numbers(counted: &NicStatistics) -> [u64; COUNTERS] {
    let NicStatistics {
        receive_errors,
        receive_missed,
        receive_malformed,
        receive_oversize,
        receive_reset,
        transmit_errors,
        transmit_reset,
        pauses,
    } = *counted;
    [
        receive_errors,
        receive_missed,
        receive_malformed,
        receive_oversize,
        transmit_errors,
        pauses,
        receive_reset,
        transmit_reset,
    ]
}

/// The ledgers of all NICs, by the host's address.
#[derive(Clone, Debug, Default)]
pub struct Ledgers(Rc<RefCell<Vec<(String, Ledger)>>>);

impl Ledgers {
    /// As the last life wrote them; none where that makes no sense.
    pub fn parse(bytes: Option<&[u8]>) -> Self {
        let kept: Vec<Kept> = bytes.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        Self(Rc::new(RefCell::new(kept.into_iter().map(|Kept { host, ledger }| (host, ledger.into())).collect())))
    }

    /// The ledger of a NIC: that of an earlier life, or a new one.
    pub fn of(&self, host: &str) -> Ledger {
        let mut ledgers = self.0.borrow_mut();
        if let Some((_, ledger)) = ledgers.iter().find(|(address, _)| address == host) {
            return ledger.clone();
        }
        let ledger = Ledger::default();
        ledgers.push((host.into(), ledger.clone()));
        ledger
    }

    /// Forgets all NICs but these.
    pub fn retain(&self, mut has: impl FnMut(&str) -> bool) {
        self.0.borrow_mut().retain(|(host, _)| has(host));
    }

    /// Bytes that [`Self::write`] gives at most.
    pub fn length(&self) -> usize {
        const HEADER: usize = 16;
        HEADER + self.0.borrow().iter().map(|(host, ledger)| HEADER + host.len() + ledger.length()).sum::<usize>()
    }

    /// Gives them to `out`, without allocating; false where one is just being changed.
    pub fn write(&self, out: &mut dyn FnMut(&[u8])) -> bool {
        self.0.try_borrow().is_ok_and(|ledgers| Encoder::new(Out(out)).encode(&*ledgers).is_ok())
    }
}

/// Bytes on their way to the next life.
struct Out<'a>(&'a mut dyn FnMut(&[u8]));

impl Write for Out<'_> {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        (self.0)(bytes);
        Ok(())
    }
}

impl<C> Encode<C> for Ledger {
    fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        let Inner { counted, parts, register, rings } = &*self.0;
        let rings = rings.try_borrow().map_err(|_| encode::Error::message("the rings are just being changed"))?;
        encoder.array(4)?.encode(numbers(&counted.get()))?;
        encoder.array(rings.len() as u64)?;
        for (unsent, untaken) in &*rings {
            encoder.array(2)?.encode(&**unsent)?.encode(&**untaken)?;
        }
        encoder.u32(parts.get())?.bool(register.get())?;
        Ok(())
    }
}

/// A ledger, and whose it is. A field that a later version adds has a number of its own and may be absent.
#[derive(Decode)]
struct Kept {
    #[n(0)]
    host: String,
    #[n(1)]
    ledger: KeptLedger,
}

/// [`Ledger`], written down.
#[derive(Decode)]
struct KeptLedger {
    /// In the order of [`numbers`].
    #[n(0)]
    counted: Vec<u64>,
    #[n(1)]
    rings: Vec<KeptRings>,
    #[n(2)]
    parts: u32,
    #[n(3)]
    register: bool,
}

#[derive(Decode)]
struct KeptRings {
    #[n(0)]
    unsent: KeptUnsent,
    #[n(1)]
    untaken: KeptUntaken,
}

impl From<KeptLedger> for Ledger {
    fn from(kept: KeptLedger) -> Self {
        let KeptLedger { counted, rings, parts, register } = kept;
        let mut counted = counted.into_iter();
        let mut next = || counted.next().unwrap_or(0);
        let counted = NicStatistics {
            receive_errors: next(),
            receive_missed: next(),
            receive_malformed: next(),
            receive_oversize: next(),
            transmit_errors: next(),
            pauses: next(),
            receive_reset: next(),
            transmit_reset: next(),
        };
        let rings = rings
            .into_iter()
            .map(|KeptRings { unsent, untaken }| (Rc::new(Unsent::from(unsent)), Rc::new(Untaken::from(untaken))));
        Self(Rc::new(Inner {
            counted: Cell::new(counted),
            parts: Cell::new(parts),
            register: Cell::new(register),
            rings: RefCell::new(rings.collect()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::ring::left::Place;

    fn next_life(ledgers: &Ledgers) -> Ledgers {
        let mut bytes = Vec::new();
        assert!(ledgers.write(&mut |piece| bytes.extend_from_slice(piece)));
        assert!(bytes.len() <= ledgers.length(), "{} of {}", bytes.len(), ledgers.length());
        Ledgers::parse(Some(&bytes))
    }

    #[test]
    fn the_next_life_knows_all() {
        let ledgers = Ledgers::default();
        let ledger = ledgers.of("0000:03:00.0");
        let counted = NicStatistics {
            receive_errors: 1,
            receive_missed: 2,
            receive_malformed: 3,
            receive_oversize: 4,
            receive_reset: 5,
            transmit_errors: 6,
            transmit_reset: 7,
            pauses: u64::MAX,
        };
        ledger.set_counted(counted);
        ledger.set_parts(0x8);
        ledger.set_register(true);
        let (unsent, untaken) = (Rc::new(Unsent::new(4096)), Rc::new(Untaken::new(4096)));
        unsent.reclaim(4095);
        (0..4094).for_each(|index| unsent.fill(index, index % 2 == 0, index + 1));
        untaken.fill(4095);
        ledger.set_rings([(unsent, untaken)].into());
        let next = next_life(&next_life(&ledgers));
        let ledger = next.of("0000:03:00.0");
        assert_eq!((ledger.counted(), ledger.parts(), ledger.has_register(), ledger.queues()), (counted, 8, true, 1));
        let place = |head| Place { bytes: 4096 * 16, head };
        for _ in 0..2 {
            // Once.
            ledger.settle_rings(|_| Places { transmit: place(4090), receive: place(17) });
            let settled = NicStatistics { receive_reset: 5 + 17, transmit_reset: 7 + 2, ..counted };
            assert_eq!(next_life(&next).of("0000:03:00.0").counted(), settled);
        }
        next.retain(|host| host != "0000:03:00.0");
        assert_eq!(next.of("0000:03:00.0").counted(), NicStatistics::default());
    }

    #[test]
    fn nothing_is_known_where_nothing_was_written() {
        for bytes in [None, Some(&b""[..]), Some(b"\x81"), Some(b"\x81\x82\x61a\x84\x80\x81\x80\x00\xf4")] {
            assert_eq!(Ledgers::parse(bytes).length(), Ledgers::default().length());
        }
    }
}
