//! Typed bytes made into lines, bounded. Pure. Floor 2.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::task::{Context, Poll, Waker};

/// Bytes of a line; what is typed beyond is ignored.
const LINE: usize = 256;
/// Lines that wait to be read; further ones are ignored.
const WAITING: usize = 16;

/// Lines typed and not yet read.
pub(super) struct Lines {
    current: String,
    complete: VecDeque<String>,
    reader: Option<Waker>,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { current: String::new(), complete: VecDeque::new(), reader: None }
    }

    /// Takes one byte. Backspace and delete remove; what is not printable ASCII is ignored.
    pub(super) fn push(&mut self, byte: u8) {
        match byte {
            b'\r' | b'\n' => {
                let line = core::mem::take(&mut self.current);
                if !line.is_empty() && self.complete.len() < WAITING {
                    self.complete.push_back(line);
                    if let Some(reader) = self.reader.take() {
                        reader.wake();
                    }
                }
            }
            0x08 | 0x7f => {
                self.current.pop();
            }
            b' '..=b'~' if self.current.len() < LINE => self.current.push(char::from(byte)),
            _ => {}
        }
    }

    /// The oldest line.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<String> {
        match self.complete.pop_front() {
            Some(line) => Poll::Ready(line),
            None => {
                self.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{LINE, Lines, WAITING};
    use core::task::{Context, Poll, Waker};

    fn next(lines: &mut Lines) -> Poll<std::string::String> {
        lines.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn bytes_make_lines() {
        let mut lines = Lines::new();
        for byte in b"sta\x00tx\x08s\r\n\r\nsecond\n" {
            lines.push(*byte);
        }
        assert_eq!(next(&mut lines), Poll::Ready("stats".into()));
        assert_eq!(next(&mut lines), Poll::Ready("second".into()));
        assert_eq!(next(&mut lines), Poll::Pending);
    }

    #[test]
    fn what_is_typed_is_bounded() {
        let mut lines = Lines::new();
        for _ in 0..WAITING * 2 {
            for _ in 0..LINE * 2 {
                lines.push(b'a');
            }
            lines.push(b'\n');
        }
        for _ in 0..WAITING {
            assert_eq!(next(&mut lines), Poll::Ready("a".repeat(LINE)));
        }
        assert_eq!(next(&mut lines), Poll::Pending);
    }
}
