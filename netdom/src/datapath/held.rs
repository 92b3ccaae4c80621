//! How many packets are in local memory: those that wait for guests and for NICs, and the frames that the round that is under way took from NICs.
//! They are lost where a life ends. Pure. Floor 3.

use alloc::rc::Rc;
use core::cell::Cell;

/// The count of all of a data path. It can be read whatever is borrowed.
#[derive(Clone, Debug, Default)]
pub struct Held(Rc<Cell<u32>>);

impl Held {
    /// Packets that are there.
    pub fn get(&self) -> u32 {
        self.0.get()
    }
}

/// The part of it that waits in one place; gone with it.
#[derive(Debug)]
pub(super) struct Share {
    all: Held,
    own: u32,
}

impl Share {
    pub(super) fn new(all: &Held) -> Self {
        Self { all: all.clone(), own: 0 }
    }

    /// So many packets wait there now.
    #[inline]
    pub(super) fn set(&mut self, own: usize) {
        let own = u32::try_from(own).unwrap_or(u32::MAX);
        self.all.0.set(self.all.0.get().wrapping_add(own.wrapping_sub(self.own)));
        self.own = own;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
