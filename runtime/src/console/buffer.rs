//! The bounded buffer between the log and the console ring: whole lines, or none. Pure. Floor 2.

use core::fmt::{self, Write};

/// Bytes that wait.
const SIZE: usize = 16 * 1024;

/// A ring of bytes that takes a line only where all of it fits.
pub(super) struct Buffer {
    bytes: [u8; SIZE],
    first: usize,
    used: usize,
    dropped: u64,
    reported: u64,
}

impl Buffer {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; SIZE], first: 0, used: 0, dropped: 0, reported: 0 }
    }

    /// Adds a line with its end, `\r\n` for a terminal. A line that does not fit is dropped; how many were is told before the next.
    pub(super) fn write_line(&mut self, text: fmt::Arguments<'_>, terminal: bool) {
        let end = if terminal { "\r\n" } else { "\n" };
        let missed = self.dropped - self.reported;
        let used = self.used;
        let told = missed == 0 || self.add(format_args!("... {missed} lines dropped{end}"));
        if told && self.add(format_args!("{text}{end}")) {
            self.reported = self.dropped;
        } else {
            self.used = used;
            self.dropped += 1;
        }
    }

    /// Adds bytes as they are, as many as fit.
    pub(super) fn add_raw(&mut self, bytes: impl Iterator<Item = u8>) {
        for byte in bytes.take(SIZE - self.used) {
            let at = (self.first + self.used) % SIZE;
            if let Some(slot) = self.bytes.get_mut(at) {
                *slot = byte;
            }
            self.used += 1;
        }
    }

    /// Adds text, or leaves everything as it was.
    fn add(&mut self, text: fmt::Arguments<'_>) -> bool {
        let used = self.used;
        let fits = Appender(self).write_fmt(text).is_ok();
        if !fits {
            self.used = used;
        }
        fits
    }

    /// The oldest bytes, as far as they lie together.
    pub(super) fn front(&self) -> &[u8] {
        let end = usize::min(self.first + self.used, SIZE);
        self.bytes.get(self.first..end).unwrap_or(&[])
    }

    /// Forgets the oldest `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        let count = usize::min(count, self.used);
        self.used -= count;
        self.first = (self.first + count) % SIZE;
    }

    /// Lines that did not fit.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.dropped
    }
}

struct Appender<'a>(&'a mut Buffer);

impl Write for Appender<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let buffer = &mut *self.0;
        if text.len() > SIZE - buffer.used {
            return Err(fmt::Error);
        }
        for byte in text.bytes() {
            let at = (buffer.first + buffer.used) % SIZE;
            if let Some(slot) = buffer.bytes.get_mut(at) {
                *slot = byte;
            }
            buffer.used += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Buffer, SIZE};
    use std::string::String;
    use std::vec::Vec;

    fn drain(buffer: &mut Buffer) -> String {
        let mut all = Vec::new();
        while !buffer.front().is_empty() {
            all.extend_from_slice(buffer.front());
            let count = buffer.front().len();
            buffer.consume(count);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn lines_come_out_as_they_went_in_also_around_the_end() {
        let mut buffer = Buffer::new();
        for round in 0..3000 {
            buffer.write_line(format_args!("line {round}"), false);
            assert_eq!(drain(&mut buffer), std::format!("line {round}\n"));
        }
        assert_eq!(buffer.dropped_lines(), 0);
    }

    #[test]
    fn a_flood_is_cut_at_a_line_and_counted() {
        let mut buffer = Buffer::new();
        let line = "x".repeat(99);
        for _ in 0..1000 {
            buffer.write_line(format_args!("{line}"), false);
        }
        let kept = (SIZE / 100) as u64;
        assert_eq!(buffer.dropped_lines(), 1000 - kept);
        let text = drain(&mut buffer);
        assert_eq!(text.len() as u64, kept * 100);
        assert!(text.ends_with("x\n"));
        buffer.write_line(format_args!("after"), true);
        let missed = 1000 - kept;
        assert_eq!(drain(&mut buffer), std::format!("... {missed} lines dropped\r\nafter\r\n"));
        buffer.write_line(format_args!("again"), false);
        assert_eq!(drain(&mut buffer), "again\n");
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_dropped_whole() {
        let mut buffer = Buffer::new();
        let line = "y".repeat(SIZE + 1);
        buffer.write_line(format_args!("{line}"), false);
        assert_eq!(buffer.dropped_lines(), 1);
        assert!(buffer.front().is_empty());
    }
}
