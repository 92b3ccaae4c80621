//! How much a guest may send: `rate=` of a vif, as Linux' netback counts it. Pure. Floor 3.
//!
//! `rate` is `bytes,microseconds` (written by the toolstack from `rate=10MB/s@50ms`): so many bytes in each interval. What is not used
//! is kept up to a burst of 128 KiB (or one interval's bytes, where that is more), so that the largest packet can go at all.

use core::fmt;
use split_driver::time::{Duration, Instant};

/// The burst that is always possible: a packet of 64 KiB twice over.
const BURST: u64 = 128 * 1024;

/// A `rate` node's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes an interval.
    pub bytes: u64,
    /// The interval.
    pub interval: Duration,
}

/// Why a `rate` node says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateError {
    /// No comma, or no number before or behind it.
    Malformed,
    /// A number of more than 64 bits.
    TooLarge,
    /// No bytes, or no time: neither means anything.
    Zero,
}

impl fmt::Display for RateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "it is not bytes,microseconds",
            Self::TooLarge => "a number has more than 64 bits",
            Self::Zero => "a number is zero",
        })
    }
}

impl core::error::Error for RateError {}

impl Rate {
    /// Reads `bytes,microseconds`, each of at most 64 bits.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let number = |text: &str| {
            let text = text.trim();
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(RateError::Malformed);
            }
            match text.parse::<u64>() {
                Ok(0) => Err(RateError::Zero),
                Ok(number) => Ok(number),
                Err(_) => Err(RateError::TooLarge),
            }
        };
        let (bytes, microseconds) = text.split_once(',').ok_or(RateError::Malformed)?;
        Ok(Self { bytes: number(bytes)?, interval: Duration::from_micros(number(microseconds)?) })
    }
}

/// What a guest may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    rate: Rate,
    remaining: u64,
    /// When bytes were last added.
    added: Instant,
}

impl Credit {
    /// One interval's bytes, from now on.
    pub const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, remaining: rate.bytes, added: now }
    }

    /// The rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Another rate from now on (the node may be written at any time); what was used stays used.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
        self.remaining = self.remaining.min(rate.bytes.max(BURST));
    }

    /// Takes `length` bytes.
    ///
    /// # Errors
    /// There is not so much: nothing is taken, and when to ask again.
    pub fn take(&mut self, length: usize, now: Instant) -> Result<(), Instant> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let next = self.added + self.rate.interval;
        if now >= next {
            // One interval's bytes however long ago it was: the burst is not meant to grow with idleness.
            self.remaining = self.remaining.saturating_add(self.rate.bytes).min(self.rate.bytes.max(BURST));
            self.added = now;
        }
        match self.remaining.checked_sub(length) {
            Some(remaining) => {
                self.remaining = remaining;
                Ok(())
            }
            None => Err(self.added + self.rate.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MILLISECOND: u64 = 1_000_000;

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * MILLISECOND)
    }

    #[test]
    fn rate_is_read() {
        let rate = |bytes, microseconds| Ok(Rate { bytes, interval: Duration::from_micros(microseconds) });
        for (text, expected) in [
            ("500000,50000", rate(500_000, 50_000)),
            ("4294967295,4294967295", rate(4_294_967_295, 4_294_967_295)),
            (" 5 , 6\n", rate(5, 6)),
            // `rate=10GB/s@1s`.
            ("10000000000,1000000", rate(10_000_000_000, 1_000_000)),
            ("18446744073709551615,18446744073709551615", rate(u64::MAX, u64::MAX)),
            ("18446744073709551616,1", Err(RateError::TooLarge)),
            ("1,99999999999999999999999", Err(RateError::TooLarge)),
            ("0,50000", Err(RateError::Zero)),
            ("1,0", Err(RateError::Zero)),
            ("", Err(RateError::Malformed)),
            ("5", Err(RateError::Malformed)),
            ("5,", Err(RateError::Malformed)),
            (",5", Err(RateError::Malformed)),
            ("-5,5", Err(RateError::Malformed)),
            ("+5,5", Err(RateError::Malformed)),
            ("5,5,5", Err(RateError::Malformed)),
            ("5,5x", Err(RateError::Malformed)),
        ] {
            assert_eq!(Rate::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn so_many_bytes_an_interval() {
        let rate = Rate::parse("10000,50000").unwrap();
        let mut credit = Credit::new(rate, at(0));
        let mut sent = Vec::new();
        for millisecond in 0..200 {
            match credit.take(1500, at(millisecond)) {
                Ok(()) => sent.push(millisecond),
                Err(again) => assert!(again > at(millisecond) && again <= at(millisecond + 50)),
            }
        }
        // 6 packets in the first interval, 1,000 bytes kept, and so on: 4 times 10,000 bytes.
        assert_eq!(sent.len(), 40_000 / 1500);
        assert_eq!(sent.iter().filter(|time| **time < 50).count(), 6);
    }

    #[test]
    fn a_large_packet_saves_up() {
        let rate = Rate::parse("1000,1000").unwrap();
        let mut credit = Credit::new(rate, at(0));
        let mut now = at(0);
        let mut waits = 0;
        while let Err(again) = credit.take(65_535, now) {
            now = again;
            waits += 1;
            assert!(waits < 100, "it never goes");
        }
        assert_eq!(waits, 65);
    }

    /// The largest numbers are no limit, and nothing overflows.
    #[test]
    fn the_largest_rate() {
        let mut credit = Credit::new(Rate { bytes: u64::MAX, interval: Duration::from_micros(u64::MAX) }, at(0));
        for millisecond in 0..10 {
            assert_eq!(credit.take(65_535, at(millisecond)), Ok(()));
        }
        credit.set_rate(Rate { bytes: 1, interval: Duration::from_micros(u64::MAX) });
        assert_eq!(credit.take(usize::MAX, at(10)), Err(Instant(u64::MAX)));
        let mut credit = Credit::new(Rate { bytes: u64::MAX, interval: Duration::from_micros(1) }, at(0));
        for millisecond in 0..10 {
            assert_eq!(credit.take(65_535, at(millisecond)), Ok(()));
        }
    }

    #[test]
    fn idleness_gives_no_more_than_the_burst() {
        let rate = Rate::parse("1000000,1000").unwrap();
        let mut credit = Credit::new(rate, at(0));
        for second in 1..100 {
            assert!(credit.take(1, at(second * 1000)).is_ok());
        }
        let now = at(100_000);
        let taken = (0..).take_while(|_| credit.take(10_000, now).is_ok()).count();
        assert_eq!(taken, 100);
        credit.set_rate(Rate::parse("10,1000").unwrap());
        assert_eq!(credit.take(131_073, at(100_001)), Err(at(100_002)));
    }
}
