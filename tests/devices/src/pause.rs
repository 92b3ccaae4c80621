//! Pause frames, IEEE 802.3 annex 31B, and the marks of a packet buffer from which on they are sent. Pure.

use std::time::Duration;

use crate::checksum::half;
use crate::ethernet::destination;

/// The time of a pause frame, in units of 512 bits; `None` where the frame is none.
pub fn time_of(frame: &[u8]) -> Option<u16> {
    let is_pause =
        destination(frame) == [1, 0x80, 0xC2, 0, 0, 1] && (half(frame, 12), half(frame, 14)) == (Some(0x8808), Some(1));
    half(frame, 16).filter(|_| is_pause)
}

/// How long that is at so many Mbit/s.
pub fn duration(time: u16, speed: u32) -> Duration {
    Duration::from_nanos(u64::from(time) * 512 * 1000 / u64::from(speed.max(1)))
}

/// Why these marks of a buffer, in bytes each, are none for which pause frames can be sent.
pub fn fault(low: u32, high: u32, buffer: u32) -> Option<&'static str> {
    match () {
        () if low == 0 => Some("pause frames are sent down to an empty packet buffer"),
        () if low >= high => Some("the low mark of the packet buffer is not below the high one"),
        // One frame more may be on its way.
        () if high + 1522 > buffer => Some("the high mark of the packet buffer leaves no room for a frame"),
        () => None,
    }
}

/// A pause frame.
#[must_use]
pub fn frame(time: u16) -> Vec<u8> {
    let mut frame = vec![1, 0x80, 0xC2, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 0x08, 0, 1];
    frame.extend(time.to_be_bytes());
    frame.resize(60, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_times() {
        assert_eq!((time_of(&frame(7)), time_of(&frame(0))), (Some(7), Some(0)));
        for place in [5, 13, 15] {
            let mut other = frame(7);
            other[place] ^= 1;
            assert_eq!(time_of(&other), None);
        }
        assert_eq!(duration(0xFFFF, 1000), Duration::from_nanos(33_553_920));
        assert_eq!(duration(100, 10_000), Duration::from_nanos(5120));
    }

    #[test]
    fn marks_have_their_order() {
        assert_eq!(fault(1000, 2000, 4000), None);
        for (low, high, buffer) in [(0, 2000, 4000), (2000, 2000, 4000), (1000, 2500, 4000)] {
            assert!(fault(low, high, buffer).is_some());
        }
    }
}
