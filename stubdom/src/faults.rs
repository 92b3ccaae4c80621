//! Failures on demand, for tests: a store whose command line does not say `faults` has none of it. Pure. Floor 3.

use xenstore_lite::Error;

/// What has a request fail each time that it is served.
const POISON: &[u8] = b"poison-for-the-store";

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
    pub(crate) fn look_at(input: &[u8]) {
        assert!(!input.windows(POISON.len()).any(|part| part == POISON), "a request that is poison");
    }
}
