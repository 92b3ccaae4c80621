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
    use super::{Error, Point};

    /// What has a request fail each time that it is served.
    const POISON: &[u8] = b"poison-for-the-store";

    /// What is to fail.
    #[derive(Debug)]
    pub(crate) struct Faults {
        /// Requests until then, and where in the last one.
        due: Option<(u32, Point)>,
        /// Has so many allocations succeed and the next one fail.
        memory: fn(u32),
    }

    impl Faults {
        pub(crate) const fn new(memory: fn(u32)) -> Self {
            Self { due: None, memory }
        }

        /// `fault POINT COUNT`.
        pub(crate) fn control(&mut self, words: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Error> {
            let (point, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let count = core::str::from_utf8(count).ok().and_then(|count| count.parse().ok()).ok_or(Error::EINVAL)?;
            let point = match point {
                b"before" => Point::Before,
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
                assert!(*count > 0, "a fault that was asked for: {point:?}");
                *count -= 1;
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
