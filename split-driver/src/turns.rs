//! Turns: so many at once, all others wait in the order in which they came. Pure. Floor 1.

use alloc::collections::BTreeMap;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// A bounded number of turns.
#[derive(Debug)]
pub(crate) struct Turns {
    free: Cell<usize>,
    next: Cell<u64>,
    /// Who waits, by the order in which they came.
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
}

/// A turn; `Drop` gives it back.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Turns);

/// A place in the queue; `Drop` gives it up.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Turns {
    /// `count` turns at once.
    pub(crate) const fn new(count: usize) -> Self {
        Self { free: Cell::new(count), next: Cell::new(0), waiting: RefCell::new(BTreeMap::new()) }
    }

    /// Waits for a turn.
    pub(crate) async fn take(&self) -> Turn<'_> {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        self.waiting.borrow_mut().insert(ticket, None);
        let place = Place { turns: self, ticket };
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            let first = waiting.keys().next() == Some(&ticket);
            if first && self.free.get() > 0 {
                return Poll::Ready(());
            }
            waiting.insert(ticket, Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        self.free.set(self.free.get() - 1);
        drop(place);
        Turn(self)
    }

    /// Wakes who comes next, where there is a turn.
    fn wake(&self) {
        if self.free.get() == 0 {
            return;
        }
        let waker = self.waiting.borrow_mut().values_mut().next().and_then(Option::take);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.waiting.borrow_mut().remove(&self.ticket);
        self.turns.wake();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.wake();
    }
}

#[cfg(all(test, feature = "fakes", not(loom)))]
mod tests {
    use super::*;
    use crate::fakes::Tasks;
    use alloc::rc::Rc;
    use alloc::vec::Vec;

    #[test]
    fn so_many_at_once_and_in_order() {
        let turns = Rc::new(Turns::new(2));
        let done: Rc<RefCell<Vec<usize>>> = Rc::default();
        let held: Vec<Rc<Turns>> = (0..5).map(|_| Rc::new(Turns::new(0))).collect();
        let mut tasks = Tasks::new();
        for (number, hold) in held.iter().cloned().enumerate() {
            let (turns, done) = (turns.clone(), done.clone());
            tasks.spawn(async move {
                let _turn = turns.take().await;
                done.borrow_mut().push(number);
                let _held = hold.take().await;
            });
        }
        let release = |hold: &Turns| {
            hold.free.set(1);
            hold.wake();
        };
        tasks.run_until_stalled();
        assert_eq!(*done.borrow(), [0, 1]);
        release(&held[1]);
        tasks.run_until_stalled();
        assert_eq!(*done.borrow(), [0, 1, 2]);
        // Who waits and goes away passes the turn on.
        {
            let mut lost = core::pin::pin!(turns.take());
            let mut context = core::task::Context::from_waker(Waker::noop());
            assert!(lost.as_mut().poll(&mut context).is_pending());
            for hold in [&held[0], &held[2]] {
                release(hold);
            }
            tasks.run_until_stalled();
        }
        assert_eq!(*done.borrow(), [0, 1, 2, 3, 4]);
        for hold in &held {
            release(hold);
        }
        tasks.run_until_stalled();
        assert_eq!((turns.free.get(), turns.waiting.borrow().len()), (2, 0));
    }
}
