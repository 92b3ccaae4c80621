//! Where a stream of messages stands, in plain numbers. Pure. Floor 1.

use super::HEADER_BYTES;

/// How much of the message that has begun is there. It holds no payload, so that it is small enough to outlive the client that reads the
/// stream: another one knows by it where the next message begins. Any content is a valid `Framing`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there; 0 between two messages.
    have: u32,
    /// Bytes of the payload to come, once the header is whole.
    left: u32,
}

impl Framing {
    /// Whether no message has begun that is not whole.
    pub const fn is_between(&self) -> bool {
        self.have == 0
    }

    /// Takes the bytes that come next.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = self.step(bytes);
        }
    }

    /// Takes the rest of the message that has begun; what comes behind it is left.
    pub fn finish<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.is_between() { bytes } else { self.step(bytes) }
    }

    /// Takes bytes up to the end of a message at most.
    fn step<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(slot) = self.header.get_mut(self.have as usize) {
            let Some((first, rest)) = bytes.split_first() else {
                return bytes;
            };
            *slot = *first;
            bytes = rest;
            self.have += 1;
            if self.have as usize == HEADER_BYTES {
                let [.., a, b, c, d] = self.header;
                self.left = u32::from_le_bytes([a, b, c, d]);
            }
        }
        let count = bytes.len().min(self.left as usize);
        self.left -= count as u32;
        if self.left == 0 {
            self.have = 0;
        }
        bytes.get(count..).unwrap_or_default()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::xs_wire::{Kind, encode};
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    /// Messages of these payloads, and where each ends.
    fn stream(payloads: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let mut queue = VecDeque::new();
        let mut ends = Vec::new();
        for length in payloads {
            encode(&mut queue, Kind::READ, 7, 0, &[&[0xff].repeat(*length)]).unwrap();
            ends.push(queue.len());
        }
        (queue.into(), ends)
    }

    /// Whatever the pieces are, and wherever the first reader ends, the second begins with the next message.
    #[test]
    fn another_reader_finds_the_next_message() {
        let (bytes, ends) = stream(&[0, 1, 30, 0, 0, 200]);
        for piece in [1, 7, 16, 300] {
            for cut in 0..=bytes.len() {
                let mut framing = Framing::default();
                bytes[..cut].chunks(piece).for_each(|bytes| framing.pass(bytes));
                let next = ends.iter().copied().find(|end| *end >= cut).unwrap_or(0);
                assert_eq!(framing.is_between(), cut == 0 || cut == next, "{cut}");
                let begins = if cut == 0 { 0 } else { next };
                let mut rest = &bytes[cut..];
                while !framing.is_between() {
                    let (now, later) = rest.split_at(piece.min(rest.len()));
                    let left = framing.finish(now).len();
                    rest = &rest[now.len() - left..];
                    assert!(!later.is_empty() || framing.is_between());
                }
                assert_eq!(rest, &bytes[begins..], "{cut}");
            }
        }
    }

    /// A number of bytes that no header gave is a long payload, and nothing else.
    #[test]
    fn any_content_is_valid() {
        let mut framing = Framing { header: [9; HEADER_BYTES], have: u32::MAX, left: u32::MAX };
        framing.pass(&[0; 100]);
        assert_eq!((framing.is_between(), framing.left), (false, u32::MAX - 100));
    }
}
