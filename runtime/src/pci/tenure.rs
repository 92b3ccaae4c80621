//! Whose a device is, and how its access to memory ends. Pure. Floor 2.
//!
//! A device goes back in this order: its driver closes it; we say Reconfiguring; pciback forgets it, resets it, and says Reconfigured.
//! In between, pciback answers that it knows no such device, though its reset may be under way; and after that, another device may stand
//! at the same address. So nothing is asked of pciback once we have said Reconfiguring, and `NotFound` proves nothing.

use super::config::{self, ConfigSpace, Width};
use super::error::PciError;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;
use pci_types::PciAddress;
use split_driver::memory::{BusMaster, Quiesced, Reach};

/// The first and the longest pause before a device that pciback refused to take back is given back again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a device of the last life is waited for that pciback does not know, and that nobody took away. pciback resets a device right behind
/// forgetting it, and waits for 0.7 s at most until what the device has under way is over (`pci_wait_for_pending_transaction` of Linux).
pub(super) const FORGOTTEN: Duration = Duration::from_secs(3);

/// Whose a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Custody {
    /// This domain's: pciback answers for it.
    Ours,
    /// pciback was told to take it back. What stands at its address from now on may be another device.
    LetGo,
    /// pciback has taken it back and reset it.
    Returned,
    /// The connection to pciback ended before pciback said so: nothing more will be heard of the device.
    Lost,
}

/// Why there is no proof that a device has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// pciback refused, did not answer, or is about to take the device back: there may be a proof later.
    Later,
    /// pciback knows no such device: it is about to take the device back, or somebody has unbound the device from it in dom0.
    Forgotten,
    /// There will never be one.
    Never,
}

/// This domain's hold on one device: shared by the device and the connection that it came through.
#[derive(Debug)]
pub(super) struct Tenure {
    custody: Cell<Custody>,
    /// Its bus mastering was asked for, and was not seen to end since.
    mastering: Cell<bool>,
    reach: Reach,
}

impl BusMaster for Tenure {
    fn reach(&self) -> Reach {
        self.reach.clone()
    }

    fn has_ended(&self) -> bool {
        !self.mastering.get() || self.custody.get() == Custody::Returned
    }
}

impl Tenure {
    /// Of a device that was found.
    pub(super) fn new() -> Self {
        Self { custody: Cell::new(Custody::Ours), mastering: Cell::new(false), reach: Reach::default() }
    }

    /// Whether pciback may be asked for it: its address names no other device.
    pub(super) fn is_ours(&self) -> bool {
        self.custody.get() == Custody::Ours
    }

    /// Nothing more will be heard of it.
    pub(super) fn is_lost(&self) {
        self.custody.set(Custody::Lost);
    }

    /// pciback has taken it back and reset it, as the store says.
    pub(super) fn has_returned(&self) {
        self.custody.set(Custody::Returned);
    }

    /// Its bus mastering is asked for.
    pub(super) fn master(&self) {
        self.mastering.set(true);
    }

    /// Takes its access to memory, where pciback may be asked for that; `command` is left of the command register.
    pub(super) async fn end(&self, config: &impl ConfigSpace, command: u16) -> Result<Quiesced, Unfinished> {
        let mut unfinished = Unfinished::Later;
        if self.mastering.get() && self.is_ours() {
            match config.write(config::COMMAND, Width::Word, command.into()).await {
                Ok(()) => self.mastering.set(false),
                Err(PciError::NotFound) => {
                    log::warn!("pciback forgot a device, and has not said that it was reset");
                    unfinished = Unfinished::Forgotten;
                }
                Err(error) => log::warn!("a device may still write to memory: {error}"),
            }
        }
        match self.custody.get() {
            Custody::Lost => self.quiesced().ok_or(Unfinished::Never),
            Custody::Ours => self.quiesced().ok_or(unfinished),
            Custody::LetGo | Custody::Returned => self.quiesced().ok_or(Unfinished::Later),
        }
    }
}

/// Tries until there is a proof, or until there will never be one, with longer and longer pauses between. A device that pciback does not know is
/// given up where that is so for `patience`.
pub(super) async fn persist(
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<Quiesced, Unfinished>,
    sleep: impl AsyncFn(Duration),
) -> Option<Quiesced> {
    let (mut pause, mut forgotten) = (PAUSES.0, Duration::ZERO);
    loop {
        match attempt().await {
            Ok(proof) => return Some(proof),
            Err(Unfinished::Never) => return None,
            Err(Unfinished::Forgotten) if forgotten >= patience => return None,
            Err(Unfinished::Forgotten) => forgotten += pause,
            Err(Unfinished::Later) => forgotten = Duration::ZERO,
        }
        sleep(pause).await;
        pause = (2 * pause).min(PAUSES.1);
    }
}

/// The devices that came through one connection to pciback. Where it ends, those that did not go back by then are lost.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: Vec<(PciAddress, Rc<Tenure>)>,
    /// Those that the toolstack takes away, until pciback has them.
    leaving: Vec<(PciAddress, Rc<Tenure>)>,
}

impl Holdings {
    /// Whether the device at an address is known.
    pub(super) fn has(&self, address: PciAddress) -> bool {
        self.held.iter().any(|(held, _)| *held == address)
    }

    /// A device was found.
    pub(super) fn add(&mut self, address: PciAddress, tenure: Rc<Tenure>) {
        self.held.push((address, tenure));
    }

    /// The toolstack takes away the device at an address. False where it is not known.
    pub(super) fn take_away(&mut self, address: PciAddress) -> bool {
        let Some(index) = self.held.iter().position(|(held, _)| *held == address) else {
            return false;
        };
        self.leaving.push(self.held.remove(index));
        true
    }

    /// The toolstack takes away all devices: gives their addresses.
    pub(super) fn take_away_all(&mut self) -> Vec<PciAddress> {
        let addresses = self.held.iter().map(|(address, _)| *address).collect();
        self.leaving.append(&mut self.held);
        addresses
    }

    /// pciback is about to be told that the devices that leave may be taken.
    pub(super) fn let_go(&self) {
        for (_, tenure) in &self.leaving {
            tenure.custody.set(Custody::LetGo);
        }
    }

    /// pciback has taken what was let go, and reset it: gives the addresses.
    pub(super) fn returned(&mut self) -> Vec<PciAddress> {
        let gone = self.leaving.extract_if(.., |(_, tenure)| tenure.custody.get() == Custody::LetGo);
        gone.map(|(address, tenure)| {
            tenure.custody.set(Custody::Returned);
            address
        })
        .collect()
    }

    /// Forgets the devices that pciback no longer lists, though nobody took them away.
    pub(super) fn keep(&mut self, listed: impl Fn(PciAddress) -> bool) {
        for (_, tenure) in self.held.extract_if(.., |(address, _)| !listed(*address)) {
            tenure.custody.set(Custody::Lost);
        }
    }

    /// The device at an address is no longer of this connection.
    pub(super) fn forget(&mut self, address: PciAddress) {
        self.held.retain(|(held, _)| *held != address);
    }

    /// pciback will say nothing more.
    pub(super) fn lose(&mut self) {
        for (_, tenure) in self.held.drain(..).chain(self.leaving.drain(..)) {
            tenure.custody.set(Custody::Lost);
        }
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.lose();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::cell::RefCell;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    fn address() -> PciAddress {
        PciAddress::new(0, 0, 1, 0)
    }

    /// A pciback that gives these answers to writes, the last one first, and then takes them.
    #[derive(Default)]
    struct Fake {
        answers: RefCell<Vec<PciError>>,
        writes: Cell<usize>,
    }

    impl Fake {
        fn new(answers: &[PciError]) -> Self {
            Self { answers: RefCell::new(answers.to_vec()), writes: Cell::new(0) }
        }
    }

    impl ConfigSpace for Fake {
        async fn read(&self, _: u16, _: Width) -> Result<u32, PciError> {
            unreachable!("nothing is read")
        }

        async fn write(&self, offset: u16, width: Width, value: u32) -> Result<(), PciError> {
            assert_eq!((offset, width, value), (config::COMMAND, Width::Word, 0));
            self.writes.set(self.writes.get() + 1);
            self.answers.borrow_mut().pop().map_or(Ok(()), Err)
        }
    }

    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("the fake never waits"),
        }
    }

    /// A device that masters the bus, and the connection that it came through.
    fn device() -> (Rc<Tenure>, Holdings) {
        let (tenure, mut holdings) = (Rc::new(Tenure::new()), Holdings::default());
        holdings.add(address(), Rc::clone(&tenure));
        tenure.master();
        (tenure, holdings)
    }

    const REFUSED: PciError = PciError::Refused { command: 1, error: -5 };
    const UNANSWERED: PciError = PciError::Timeout { command: 1 };

    fn end(tenure: &Tenure, pciback: &Fake) -> Option<Unfinished> {
        now(tenure.end(pciback, 0)).err()
    }

    #[test]
    fn only_a_write_that_was_taken_is_a_proof() {
        let (tenure, _holdings) = device();
        let pciback = Fake::new(&[UNANSWERED, PciError::NotFound, REFUSED]);
        for (why, unfinished) in [
            ("refused", Unfinished::Later),
            ("forgotten, and perhaps not yet reset", Unfinished::Forgotten),
            ("not answered", Unfinished::Later),
        ] {
            assert_eq!(end(&tenure, &pciback), Some(unfinished), "{why}");
            assert!(tenure.quiesced().is_none());
        }
        let proof = now(tenure.end(&pciback, 0)).expect("it was taken");
        assert!(tenure.reach().end(&proof) && !Reach::default().end(&proof));
        assert_eq!(end(&tenure, &pciback), None);
        assert_eq!(pciback.writes.get(), 4, "it is not asked for what it has done");
    }

    #[test]
    fn a_device_that_never_mastered_the_bus_has_ended() {
        let pciback = Fake::default();
        assert_eq!(end(&Tenure::new(), &pciback), None);
        assert_eq!(pciback.writes.get(), 0);
    }

    #[test]
    fn a_late_close_does_not_touch_what_stands_at_the_address() {
        let (tenure, mut holdings) = device();
        let pciback = Fake::new(&[REFUSED]);
        assert_eq!(end(&tenure, &pciback), Some(Unfinished::Later));
        assert!(holdings.take_away(address()) && !holdings.has(address()));
        holdings.returned();
        assert_eq!(tenure.custody.get(), Custody::Ours, "it was not let go yet");
        holdings.let_go();
        assert_eq!(end(&tenure, &pciback), Some(Unfinished::Later), "its reset may be under way");
        holdings.returned();
        let other = Rc::new(Tenure::new());
        holdings.add(address(), Rc::clone(&other));
        assert_eq!(end(&tenure, &pciback), None, "pciback has reset it");
        assert_eq!(pciback.writes.get(), 1, "the second device at that address is left alone");
        assert!(other.is_ours());
    }

    #[test]
    fn nothing_is_tried_for_ever() {
        let pauses = RefCell::new(Vec::new());
        let (tenure, holdings) = device();
        let holdings = RefCell::new(holdings);
        let pciback = Fake::new(&[UNANSWERED; 20]);
        let sleep = async |pause: Duration| {
            pauses.borrow_mut().push(pause.as_secs());
            if pauses.borrow().len() == 8 {
                holdings.take();
            }
        };
        let patience = Duration::MAX;
        assert!(now(persist(patience, async || tenure.end(&pciback, 0).await, &sleep)).is_none(), "pciback has gone");
        assert_eq!((pciback.writes.get(), pauses.take()), (8, vec![1, 2, 4, 8, 16, 32, 60, 60]));
        let (tenure, _holdings) = device();
        let pciback = Fake::new(&[UNANSWERED, REFUSED]);
        assert!(now(persist(patience, async || tenure.end(&pciback, 0).await, &sleep)).is_some());
        assert_eq!((pciback.writes.get(), pauses.take()), (3, vec![1, 2]));
    }

    #[test]
    fn a_device_that_pciback_does_not_know_is_given_up_in_time() {
        const UNKNOWN: PciError = PciError::NotFound;
        for (answers, proof, expected) in [
            // The last answer comes first.
            ([UNKNOWN; 9].as_slice(), false, [1, 2].as_slice()),
            // One that comes back meanwhile is stopped.
            (&[UNKNOWN; 2], true, &[1, 2]),
            // Its time begins anew where pciback says something else.
            (&[UNKNOWN, UNKNOWN, REFUSED, UNKNOWN, UNKNOWN], false, &[1, 2, 4, 8]),
            (&[UNANSWERED; 5], true, &[1, 2, 4, 8, 16]),
        ] {
            let (tenure, _holdings) = device();
            let (pciback, pauses) = (Fake::new(answers), RefCell::new(Vec::new()));
            let sleep = async |pause: Duration| pauses.borrow_mut().push(pause.as_secs());
            let stopped = now(persist(FORGOTTEN, async || tenure.end(&pciback, 0).await, sleep));
            assert_eq!((stopped.is_some(), pauses.take().as_slice()), (proof, expected), "{answers:?}");
            tenure.is_lost();
            let writes = pciback.writes.get();
            assert_eq!(end(&tenure, &pciback), (!proof).then_some(Unfinished::Never));
            assert_eq!(pciback.writes.get(), writes, "what stands at its address now is left alone");
        }
    }

    #[test]
    fn devices_that_vanish_from_the_list_are_lost() {
        let (tenure, mut holdings) = device();
        holdings.keep(|known| known == address());
        assert!(tenure.is_ours());
        holdings.keep(|_| false);
        assert_eq!(end(&tenure, &Fake::default()), Some(Unfinished::Never));
    }
}
