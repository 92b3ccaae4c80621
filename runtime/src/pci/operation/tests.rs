//! Operations on a pciback that may write to the shared page between any two looks at it. Host.

use super::*;
use alloc::rc::Rc;
use alloc::vec;
use core::future::Future;
use core::pin::pin;
use core::task::Context;
use proptest::prelude::*;
use split_driver::fakes::peer::{Fetches, Step};
use split_driver::fakes::{FakeRing, FakeXen, GuestMemory};
use split_driver::hypervisor::Hypervisor;
use xen_pv_sys::DomainId;

/// What an honest pciback answers, in turn: error and value. None: nothing, for now.
type Answer = Option<(i32, u32)>;

/// Sees an operation when it is notified, and answers.
struct Pciback {
    page: GuestMemory,
    answers: RefCell<Vec<Answer>>,
    /// The words of each operation, without flags, as it was notified.
    asked: RefCell<Vec<[u32; 9]>>,
    now: Cell<Instant>,
}

impl Pciback {
    fn set(&self, word: usize, value: u32) {
        self.page.words()[word].store(value, Ordering::Relaxed);
    }

    fn answer(&self, (error, value): (i32, u32)) {
        self.set(word::ERROR, error.cast_unsigned());
        self.set(word::VALUE, value);
        self.page.words()[word::FLAGS].fetch_and(!ACTIVE.bits(), Ordering::Release);
    }
}

impl Doorbell for Rc<Pciback> {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn notify(&self) {
        let load = |word: usize| self.page.words()[word].load(Ordering::Relaxed);
        self.asked.borrow_mut().push(core::array::from_fn(|place| load(word::COMMAND + place)));
        if let Some(answer) = self.answers.borrow_mut().pop().flatten() {
            for entry in (0..3).map(|place| word::ENTRIES + place) {
                self.set(entry, load(entry) & 0xffff_0000 | (50 + (load(entry) >> 16)));
            }
            self.answer(answer);
        }
    }

    async fn wait_until(&self, deadline: Instant) -> Result<(), Elapsed> {
        self.now.set(deadline);
        Err(Elapsed)
    }
}

/// A connection, what is behind it, and the hypervisor in which a peer may be set.
fn connection(answers: &[Answer]) -> (Bus<FakeRing, Rc<Pciback>>, Rc<Pciback>, FakeXen) {
    let xen = FakeXen::new();
    let domain = xen.domain(DomainId(1));
    let page = domain.pages(1);
    let mapped = xen.map_ring(DomainId(1), &[domain.grant(&page, 0, true)]).expect("it is granted");
    let answers = RefCell::new(answers.iter().rev().copied().collect());
    let pciback = Rc::new(Pciback { page, answers, asked: RefCell::default(), now: Cell::new(Instant(0)) });
    (Bus::new(mapped, Rc::clone(&pciback)), pciback, xen)
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the fake never waits"),
    }
}

fn address() -> PciAddress {
    PciAddress::new(1, 2, 3, 4)
}

#[test]
fn operations_are_answered() {
    let answers = [Some((0, 0x8086_100e)), Some((0, 7)), Some((-1, 7)), Some((-5, 7)), Some((0, 0)), Some((0, 2))];
    let (bus, pciback, _) = connection(&answers);
    assert_eq!(now(bus.call(&Operation::read(address(), 8, Width::Double))), Ok(0x8086_100e));
    assert_eq!(now(bus.call(&Operation::write(address(), 4, Width::Word, 6))), Ok(7));
    assert_eq!(now(bus.call(&Operation::of(address(), 3, 0))), Err(PciError::NotFound));
    assert_eq!(now(bus.call(&Operation::of(address(), 3, 0))), Err(PciError::Refused { command: 3, error: -5 }));
    assert_eq!(now(bus.enable_msix(address(), 3)), Ok(vec![50, 51, 52]));
    assert_eq!(now(bus.enable_msix(address(), 3)), Err(PciError::Refused { command: 4, error: 2 }), "there are two");
    let asked = pciback.asked.take();
    assert_eq!(asked[0], [0, 0, 1, 2, 3 << 3 | 4, 8, 4, 0, 0]);
    assert_eq!(asked[1], [1, 0, 1, 2, 3 << 3 | 4, 4, 2, 6, 0]);
    assert_eq!(asked[4], [4, 0, 1, 2, 3 << 3 | 4, 0, 0, 3, 0]);
}

/// Also when a late answer comes: it is not taken for that of the next operation.
#[test]
fn an_operation_under_way_is_not_written_over() {
    let (bus, pciback, _) = connection(&[None, Some((0, 2))]);
    let (first, second) = (Operation::of(address(), 2, 0), Operation::of(address(), 3, 0));
    assert_eq!(now(bus.call(&first)), Err(PciError::Timeout { command: 2 }));
    assert_eq!(pciback.now.get(), Instant(0) + TIMEOUT);
    assert_eq!(now(bus.call(&second)), Err(PciError::Timeout { command: 3 }));
    assert_eq!(pciback.page.words()[word::COMMAND].load(Ordering::Relaxed), 2, "it is under way still");
    pciback.answer((0, 1));
    assert_eq!(now(bus.call(&second)), Ok(2));
    assert_eq!(pciback.asked.borrow().len(), 2);
}

/// Words that were looked at, and the value of each.
type Seen = Rc<RefCell<Vec<(usize, u32)>>>;

/// What a hostile pciback does before each look: it writes these words, and the one that is looked at becomes another one.
fn scribble(pciback: &Rc<Pciback>, xen: &FakeXen, noise: Vec<(usize, u32)>) -> (Fetches, Seen) {
    let (fetches, seen) = (Fetches::new(&pciback.page), Rc::new(RefCell::new(Vec::new())));
    let (counted, noted, memory) = (fetches.clone(), Rc::clone(&seen), pciback.page.clone());
    let mut noise = noise.into_iter().cycle();
    xen.set_peer(Some(alloc::boxed::Box::new(move |step| {
        counted.note(step);
        let Step::Look(words) = step else { return };
        let (place, value) = noise.next().unwrap_or_default();
        memory.words()[place].store(value, Ordering::Relaxed);
        let looked = memory.place(words).expect("it is the page");
        if looked == word::FLAGS {
            memory.words()[looked].store(value & !ACTIVE.bits(), Ordering::Relaxed);
        } else {
            // In a quarter of cases it says that all is well.
            let value = if value & 3 == 0 { 0 } else { value.rotate_left(7) };
            memory.words()[looked].store(value, Ordering::Relaxed);
            noted.borrow_mut().push((looked, value));
        }
    })));
    (fetches, seen)
}

proptest! {
    /// What comes of an operation is what one look at each word of the answer saw.
    #[test]
    fn nothing_is_fetched_twice(
        noise in proptest::collection::vec((0_usize..160, any::<u32>()), 1..16),
        vectors in 0_u16..200,
        msix: bool,
    ) {
        let (bus, pciback, xen) = connection(&[]);
        let (fetches, seen) = scribble(&pciback, &xen, noise);
        let result = if msix {
            now(bus.enable_msix(address(), vectors))
        } else {
            now(bus.call(&Operation::of(address(), 2, 0))).map(|value| vec![value])
        };
        xen.set_peer(None);
        prop_assert_eq!(fetches.take_repeated(word::FLAGS + 1), None, "a word of the answer was fetched twice");
        let seen = seen.take();
        let of = |word: usize| seen.iter().find(|(place, _)| *place == word).map_or(0, |(_, value)| *value);
        let command = if msix { XEN_PCI_OP_ENABLE_MSIX } else { 2 };
        let expected = match (of(word::ERROR).cast_signed(), of(word::VALUE)) {
            (0, value) if !msix => Ok(vec![value]),
            (0, 0) => Ok((0..usize::from(vectors).min(SH_INFO_MAX_VEC)).map(|place| of(word::ENTRIES + place) & 0xffff).collect()),
            (0, error) => Err(PciError::Refused { command, error: error.cast_signed() }),
            (XEN_PCI_ERR_DEV_NOT_FOUND, _) => Err(PciError::NotFound),
            (error, _) => Err(PciError::Refused { command, error }),
        };
        prop_assert_eq!(result, expected);
    }
}
