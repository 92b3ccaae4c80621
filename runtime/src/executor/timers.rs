//! Deadlines in order. Pure. Floor 2.

use alloc::collections::BTreeMap;
use core::task::Waker;
use split_driver::time::Instant;

/// A deadline, and a number that tells equal ones apart.
pub(super) type TimerId = (Instant, u64);

/// Wakers by deadline.
pub(super) struct Timers {
    waiting: BTreeMap<TimerId, Waker>,
    next: u64,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }

    pub(super) fn add(&mut self, deadline: Instant, waker: &Waker) -> TimerId {
        let id = (deadline, self.next);
        self.next += 1;
        self.waiting.insert(id, waker.clone());
        id
    }

    /// Another waker for a deadline; false where it has fired.
    pub(super) fn replace(&mut self, id: TimerId, waker: &Waker) -> bool {
        match self.waiting.get_mut(&id) {
            Some(known) => {
                known.clone_from(waker);
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&mut self, id: TimerId) {
        self.waiting.remove(&id);
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(id, _)| id.0)
    }

    /// Wakes all whose deadline has come.
    pub(super) fn fire(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            entry.remove().wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::sync::atomic::{AtomicU32, Ordering};
    use core::task::Waker;
    use split_driver::time::Instant;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn deadlines_fire_in_order_and_once() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut timers = Timers::new();
        let late = timers.add(Instant(30), &waker);
        timers.add(Instant(10), &waker);
        timers.add(Instant(10), &waker);
        assert_eq!(timers.earliest(), Some(Instant(10)));
        timers.fire(Instant(9));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.fire(Instant(10));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(timers.earliest(), Some(Instant(30)));
        timers.remove(late);
        assert_eq!(timers.earliest(), None);
        assert!(!timers.replace(late, &waker));
    }
}
