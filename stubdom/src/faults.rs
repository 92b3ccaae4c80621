//! Failures on demand, for tests: an image that is built without the feature `faults` has none of it. Pure. Floor 3.

use xenstore_lite::Error;

/// Where in a request the store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before it is served.
    Before,
    /// It is served, and nobody knows.
    Served,
    /// The state has it, and the ring does not know.
    Kept,
    /// Its answer is on the way.
    Sent,
}

#[cfg(any(test, feature = "faults"))]
pub(crate) use injected::Faults;

#[cfg(any(test, feature = "faults"))]
mod injected {
    use alloc::vec::Vec;
    use core::hint::black_box;

    use super::{Error, Point};

    /// What has a request fail each time that it is served.
    const POISON: &[u8] = b"poison-for-the-store";

    /// What is to fail.
    #[derive(Debug)]
    pub(crate) struct Faults {
        /// Requests until then, and where in the last one.
        due: Option<(u32, Point)>,
        /// What is due is not a panic: all memory goes.
        takes_all: bool,
        /// Has so many allocations succeed and the next one fail.
        memory: fn(u32),
    }

    /// Takes all memory for as long as this life lasts.
    fn take_all() {
        let mut bytes: usize = 1 << 20;
        while bytes > 0 {
            let mut piece: Vec<u8> = Vec::new();
            if piece.try_reserve_exact(bytes).is_ok() {
                core::mem::forget(black_box(piece));
            } else {
                bytes /= 2;
            }
        }
    }

    impl Faults {
        pub(crate) const fn new(memory: fn(u32)) -> Self {
            Self { due: None, takes_all: false, memory }
        }

        /// `fault POINT COUNT`.
        pub(crate) fn control(&mut self, words: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Error> {
            let (point, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let count = core::str::from_utf8(count).ok().and_then(|count| count.parse().ok()).ok_or(Error::EINVAL)?;
            self.takes_all = point == b"exhaust";
            let point = match point {
                b"before" | b"exhaust" => Point::Before,
                b"served" => Point::Served,
                b"kept" => Point::Kept,
                b"sent" => Point::Sent,
                b"memory" => {
                    (self.memory)(count);
                    return Ok(());
                }
                _ => return Err(Error::EINVAL),
            };
            self.due = Some((count, point));
            Ok(())
        }

        /// The store has come to `point`.
        pub(crate) fn reach(&mut self, point: Point) {
            if let Some((count, due)) = &mut self.due
                && *due == point
            {
                assert!(*count > 0 || self.takes_all, "a fault that was asked for: {point:?}");
                match count.checked_sub(1) {
                    Some(left) => *count = left,
                    None => {
                        self.due = None;
                        take_all();
                    }
                }
            }
        }

        /// Those bytes are about to be served.
        pub(crate) fn look_at(&self, input: &[u8]) {
            assert!(!input.windows(POISON.len()).any(|part| part == POISON), "a request that is poison");
        }
    }
}

/// There is no way to make one.
#[cfg(not(any(test, feature = "faults")))]
#[derive(Debug)]
pub(crate) enum Faults {}

#[cfg(not(any(test, feature = "faults")))]
impl Faults {
    pub(crate) fn control(&mut self, _words: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn reach(&mut self, _point: Point) {
        match *self {}
    }

    pub(crate) fn look_at(&self, _input: &[u8]) {
        match *self {}
    }
}
