//! Failures on demand, for tests: an image that is built without the feature `faults` has none of it. Floor 2.
//!
//! Unsafe because a page fault is one of them.

use crate::{faults, restart, time};
use core::hint::{black_box, spin_loop};

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A panic.
    Panic,
    /// A page fault.
    Page,
    /// A loop without end, in which no event is seen.
    Hang,
}

impl Fault {
    /// Fails.
    ///
    /// # Panics
    /// Where that is the way.
    pub fn fail(self) -> ! {
        match self {
            Self::Panic => {}
            // SAFETY: the null page is mapped in no life: reading it is the fault that is asked for.
            Self::Page => drop(black_box(unsafe { black_box(core::ptr::null::<u8>()).read_volatile() })),
            Self::Hang => loop {
                spin_loop();
            },
        }
        panic!("a fault that was asked for")
    }
}

/// `faults=WAY:COUNT:LIVES`: how each life ends, and before which hypercall after it is ready, on average, until there were so many lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    fault: Fault,
    mean: u32,
    lives: u64,
}

impl Faults {
    /// What the word says.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let (way, rest) = value.split_once(':')?;
        let (mean, lives) = rest.split_once(':')?;
        let fault = match way {
            "panic" => Fault::Panic,
            "page" => Fault::Page,
            "hang" => Fault::Hang,
            _ => return None,
        };
        let mean = mean.parse().ok().filter(|mean| (1..1 << 30).contains(mean))?;
        Some(Self { fault, mean, lives: lives.parse().ok()? })
    }

    /// Has this life end so, before any hypercall up to twice the mean.
    pub(super) fn arm(self) {
        if restart::lives() >= self.lives {
            return;
        }
        // Different in each life: the time, spread by a multiplication (Knuth, "The Art of Computer Programming", section 6.4).
        let random = (time::now().0 as u32).wrapping_mul(2_654_435_769) >> 4;
        let action = match self.fault {
            Fault::Panic => || fail(Fault::Panic),
            Fault::Page => || fail(Fault::Page),
            Fault::Hang => || fail(Fault::Hang),
        };
        faults::arm(1 + random % (2 * self.mean), action);
    }
}

fn fail(fault: Fault) {
    if !restart::is_ending() {
        // No guest made it fail.
        restart::note_outside();
        fault.fail();
    }
}
