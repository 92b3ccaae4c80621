//! Responses are written down before they are placed, for a life that ends between. Pure over [`KeptPage`]. Floor 3.
//!
//! A response takes the slot of its request, and counts when the ring's `rsp_prod` covers it. Where a life ends between the two, the next one
//! would take the response for a request. So the responses of a ring are in a page that outlives the life before any is placed:
//!
//! ```text
//! write    the responses, whose ring it is, and where they begin
//! commit   COUNT
//! place    the responses, in the ring's slots
//! show     rsp_prod of the ring
//! forget   COUNT = 0
//! ```
//!
//! The next life places and shows them again where there is a COUNT, and the ring's responses end where these begin. One page is enough: rings
//! are answered one after the other.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, compiler_fence};
use split_driver::kept::{Keep, KeptPage};
use split_driver::memory::{OutOfMemory, SharedMemory};
use split_driver::ring::{BackRing, Slot, words};
use xen_pv_sys::{DomainId, GrantRef};

/// The first two words of the page.
const KEY: [u32; 2] = [0x6f78_4177, 1];
/// Responses that are committed.
const COUNT: usize = 2;
/// The frontend's domain, the ring's reference, the index of the first response, words of each.
const HEADER: usize = 3;
const RESPONSES: usize = 8;
/// Words of all responses, at most: a ring of 256 slots, two words each.
const MOST: usize = 512;

/// Whose ring it is: the frontend's domain, and the ring's reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) domain: DomainId,
    pub(crate) ring: GrantRef,
}

/// What an earlier life had committed.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    whose: Whose,
    start: u32,
    words: usize,
    responses: Vec<u32>,
}

/// The responses that are to be placed next, and the page; without one, a life that ends in between has some responses taken for requests.
#[derive(Default)]
pub(crate) struct WriteAhead {
    page: Option<Box<dyn KeptPage>>,
    responses: Vec<u32>,
    left: Option<Left>,
}

impl WriteAhead {
    /// With the page of an earlier life, or a new one.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(crate) fn new<P: KeptPage + 'static>(keep: &impl Keep<Page = P>) -> Result<Self, OutOfMemory> {
        let mut responses = Vec::new();
        responses.try_reserve_exact(MOST).map_err(|_| OutOfMemory)?;
        let (page, left) = match keep.inherit_page(&KEY) {
            Some(page) => {
                let left = read(&page);
                (page, left)
            }
            None => {
                let page = keep.keep_page()?;
                page.store_all(0, &KEY);
                (page, None)
            }
        };
        Ok(Self { page: Some(Box::new(page)), responses, left })
    }

    /// Adds a response to those that are to be placed.
    #[inline]
    pub(crate) fn add(&mut self, response: &impl Slot) {
        self.responses.extend(words(response));
    }

    /// Places the responses that were added, of `WORDS` words each, in a ring, and shows them.
    pub(crate) fn place<const WORDS: usize, M: SharedMemory, Request: Slot, Response: Slot>(
        &mut self,
        whose: Whose,
        ring: &mut BackRing<M, Request, Response>,
    ) {
        let (responses, _) = self.responses.as_chunks::<WORDS>();
        if let (Some(page), Ok(count), true) =
            (&self.page, u32::try_from(responses.len()), self.responses.len() <= MOST)
        {
            page.store_all(RESPONSES, &self.responses);
            let start = ring.state().produced;
            page.store_all(HEADER, &[whose.domain.0.into(), whose.ring.0, start, WORDS as u32]);
            page.store(COUNT, count);
        }
        // This life may end behind any instruction.
        compiler_fence(Ordering::SeqCst);
        responses.iter().for_each(|response| ring.push_as(response));
        ring.show();
        compiler_fence(Ordering::SeqCst);
        self.responses.clear();
        self.forget();
    }

    /// Places what an earlier life had committed for this ring, where it did not get to showing it; whether there was something.
    pub(crate) fn place_left<const WORDS: usize, M: SharedMemory, Request: Slot, Response: Slot>(
        &mut self,
        whose: Whose,
        ring: &mut BackRing<M, Request, Response>,
    ) -> bool {
        let Some(left) = self.left.take_if(|left| left.whose == whose && left.words == WORDS) else {
            return false;
        };
        let (responses, _) = left.responses.as_chunks::<WORDS>();
        let begins = ring.state().produced == left.start;
        let placed = begins && ring.unconsumed().is_ok_and(|waiting| waiting as usize >= responses.len());
        if placed {
            for response in responses {
                ring.consume(1);
                ring.push_as(response);
            }
            ring.show();
            compiler_fence(Ordering::SeqCst);
        }
        self.forget();
        placed
    }

    /// Nothing is left of an earlier life: its rings were taken up, or are gone.
    pub(crate) fn forget_left(&mut self) {
        if self.left.take().is_some() {
            self.forget();
        }
    }

    fn forget(&self) {
        if let Some(page) = &self.page {
            page.store(COUNT, 0);
        }
    }
}

/// What is committed in a page; `None` where nothing is, or it makes no sense.
fn read(page: &impl KeptPage) -> Option<Left> {
    let count = page.load(COUNT) as usize;
    let [domain, ring, start, words] = [0, 1, 2, 3].map(|word| page.load(HEADER + word));
    let words = words as usize;
    let length = count.checked_mul(words).filter(|length| (1..=MOST).contains(length))?;
    let whose = Whose { domain: DomainId(u16::try_from(domain).ok()?), ring: GrantRef(ring) };
    let responses = (RESPONSES..).take(length).map(|word| page.load(word)).collect();
    Some(Left { whose, start, words, responses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use core::cell::Cell;
    use core::sync::atomic::AtomicU32;
    use split_driver::fakes::FakeXen;
    use split_driver::ring::FrontRing;
    use xen_pv_sys::io::netif::{NETIF_RSP_OKAY, RxFlags, RxRequest, RxResponse, TxFlags, TxRequest, TxResponse};

    const WHOSE: Whose = Whose { domain: DomainId(3), ring: GrantRef(8) };

    /// A ring's memory, which both ends have.
    #[derive(Clone)]
    struct Memory(Rc<[AtomicU32]>);

    impl SharedMemory for Memory {
        fn words(&self) -> &[AtomicU32] {
            &self.0
        }
    }

    fn memory() -> Memory {
        Memory((0..1024).map(|_| AtomicU32::new(0)).collect())
    }

    fn request(id: u16) -> TxRequest {
        TxRequest { gref: GrantRef(100 + u32::from(id)), offset: 0, flags: TxFlags::empty(), id, size: 60 }
    }

    /// The life ends with some of its responses placed and none shown: the next one shows all of them, once.
    #[test]
    fn responses_are_placed_again_by_the_next_life() {
        for placed in 0..=3 {
            let (xen, memory) = (FakeXen::new(), memory());
            let mut front = FrontRing::<_, TxRequest, TxResponse>::init(memory.clone()).unwrap();
            (0..5).for_each(|id| assert!(front.push(&request(id))));
            let _ = front.push_and_check_notify();
            let ahead = WriteAhead::new(&xen).unwrap();
            let page = ahead.page.as_deref().unwrap();
            let responses = [0, 1, 2].map(|id| TxResponse { id, status: NETIF_RSP_OKAY });
            let words: Vec<u32> = responses.iter().flat_map(words).collect();
            page.store_all(RESPONSES, &words);
            page.store_all(HEADER, &[3, 8, 0, 1]);
            page.store(COUNT, 3);
            let mut ring = BackRing::<_, TxRequest, TxResponse>::attach(memory.clone()).unwrap();
            responses.iter().take(placed).for_each(|response| {
                let _ = ring.take();
                ring.push(response);
            });
            xen.end_life_now();
            core::mem::forget(ahead);
            xen.begin_life();

            let mut ahead = WriteAhead::new(&xen).unwrap();
            let mut other = BackRing::<_, TxRequest, TxResponse>::attach(memory.clone()).unwrap();
            let elsewhere = Whose { ring: GrantRef(9), ..WHOSE };
            assert!(!ahead.place_left::<1, _, _, _>(elsewhere, &mut other), "another ring's");
            assert!(ahead.place_left::<1, _, _, _>(WHOSE, &mut other));
            assert!(!ahead.place_left::<1, _, _, _>(WHOSE, &mut other), "once");
            assert_eq!(front.unconsumed(), Ok(3), "{placed} had been placed");
            assert_eq!([front.take(), front.take(), front.take()], responses);
            assert_eq!(other.unconsumed(), Ok(2));
            assert_eq!([other.take().id, other.take().id], [3, 4]);
        }
    }

    /// What was shown, or makes no sense, is not placed.
    #[test]
    fn what_is_over_is_left_alone() {
        let seen = Cell::new(0);
        for (header, count) in [
            ([3, 8, 1, 2], 1),
            ([3, 8, 0, 2], 0),
            ([3, 8, 0, 2], 9),
            ([3, 8, 0, 2], u32::MAX),
            ([3, 8, 0, 0], 1),
            ([3, 8, 0, u32::MAX], 2),
            ([3, 8, 0, 1], 1),
            ([1 << 16, 8, 0, 2], 1),
        ] {
            let (xen, memory) = (FakeXen::new(), memory());
            let mut front = FrontRing::<_, RxRequest, RxResponse>::init(memory.clone()).unwrap();
            assert!(front.push(&RxRequest { id: 7, pad: 0, gref: GrantRef(7) }));
            let _ = front.push_and_check_notify();
            let ahead = WriteAhead::new(&xen).unwrap();
            let page = ahead.page.as_deref().unwrap();
            page.store_all(HEADER, &header);
            page.store(COUNT, count);
            xen.end_life_now();
            core::mem::forget(ahead);
            xen.begin_life();
            let mut ahead = WriteAhead::new(&xen).unwrap();
            let mut ring = BackRing::<_, RxRequest, RxResponse>::attach(memory).unwrap();
            assert!(!ahead.place_left::<2, _, _, _>(WHOSE, &mut ring), "{header:?}, {count}");
            assert_eq!(ring.take().id, 7);
            ahead.add(&RxResponse { id: 7, offset: 0, flags: RxFlags::empty(), status: 60 });
            ahead.place::<2, _, _, _>(WHOSE, &mut ring);
            assert_eq!(front.unconsumed(), Ok(1));
            assert_eq!((front.take().status, ahead.page.as_deref().map(|page| page.load(COUNT))), (60, Some(0)));
            seen.set(seen.get() + 1);
        }
        assert_eq!(seen.get(), 8);
    }
}
