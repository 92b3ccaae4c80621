//! The recovery box in parts: each has a number, and one that cannot be written is left out. Pure. Floor 2.
//!
//! A part is its number, its length in bytes (both 32 bits, little-endian) and its bytes. A number means one thing for good: content that
//! changes gets a new one. A reader passes over parts that it does not know, and does without those that are not there.

use super::writer::{BoxWriter, Unwritten};

const HEADER: usize = 8;

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// The devices that pcifront has ([`crate::pci`]).
    Devices = 1,
    /// The connected devices of the domain's bus ([`split_driver::xenbus::Connections`]).
    Connections = 2,
    /// The image's own.
    Image = 3,
    /// The device that was served when the life ended.
    Suspect = 4,
    /// How many packets waited when the life ended.
    Waiting = 5,
    /// What the last life left in its NICs.
    Nics = 6,
    /// Of an image for tests, which no other image knows.
    #[cfg(any(test, feature = "faults"))]
    Trial = u32::MAX,
}

/// The parts of a box.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'b>(&'b [u8]);

impl<'b> Parts<'b> {
    /// In the content of a box.
    pub const fn new(content: &'b [u8]) -> Self {
        Self(content)
    }

    /// The bytes of a part; `None` where there is none.
    pub fn get(self, part: Part) -> Option<&'b [u8]> {
        let mut rest = self.0;
        while let Some((number, behind)) = rest.split_first_chunk::<4>() {
            let (length, behind) = behind.split_first_chunk::<4>()?;
            let (bytes, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            if u32::from_le_bytes(*number) == part as u32 {
                return Some(bytes);
            }
            rest = behind;
        }
        None
    }
}

impl BoxWriter {
    /// Adds a part: what `write` gives to the function that it gets. Where that finds no room, or `write` says that it has nothing consistent
    /// to give, the part is left out.
    pub fn part(&mut self, part: Part, write: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool) {
        let start = self.length;
        let mut fits = self.write(&(part as u32).to_le_bytes()).is_ok() && self.write(&[0; 4]).is_ok();
        let consistent = write(&mut |bytes| fits = fits && self.write(bytes) == Ok::<(), Unwritten>(()));
        let length = u32::try_from(self.length.saturating_sub(start + HEADER));
        if let (true, true, Ok(length)) = (fits, consistent, length) {
            self.patch(start + HEADER / 2, length.to_le_bytes());
        } else {
            self.length = start;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::restart::writer::Cause;
    use std::vec;
    use std::vec::Vec;

    fn written(room: usize, write: impl FnOnce(&mut BoxWriter)) -> Vec<u8> {
        let mut memory = vec![0_u8; room];
        let mut writer = BoxWriter {
            address: memory.as_mut_ptr() as usize,
            capacity: room,
            length: 0,
            cause: Cause::Failure,
            from_outside: false,
        };
        write(&mut writer);
        let length = writer.length;
        memory.truncate(length);
        memory
    }

    /// What a later version added before, between and behind the others takes nothing from an image that knows nothing of it.
    #[test]
    fn unknown_parts_are_passed_over() {
        let bytes = written(200, |out| {
            for (part, content) in [
                (Part::Trial, &b"1234567890"[..]),
                (Part::Image, b"ab"),
                (Part::Trial, b""),
                (Part::Connections, b"c"),
                (Part::Trial, b"x"),
            ] {
                out.part(part, |out| {
                    out(content);
                    true
                });
            }
        });
        let parts = Parts::new(&bytes);
        let known = [Part::Image, Part::Connections, Part::Devices, Part::Suspect].map(|part| parts.get(part));
        assert_eq!(known, [Some(&b"ab"[..]), Some(b"c"), None, None]);
    }

    #[test]
    fn parts_are_found_by_their_number() {
        let bytes = written(100, |out| {
            out.part(Part::Connections, |out| {
                out(b"ab");
                out(b"c");
                true
            });
            out.part(Part::Image, |_| true);
            out.part(Part::Devices, |out| {
                out(b"half");
                false
            });
        });
        let parts = Parts::new(&bytes);
        assert_eq!(parts.get(Part::Connections), Some(&b"abc"[..]));
        assert_eq!(parts.get(Part::Image), Some(&b""[..]));
        assert_eq!(parts.get(Part::Devices), None);
        for end in 0..bytes.len() {
            let cut = Parts::new(&bytes[..end]);
            assert!(cut.get(Part::Connections).is_none_or(|bytes| bytes == b"abc"), "{end}");
            assert_eq!(cut.get(Part::Devices), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_what_follows_is_not() {
        let long = |out: &mut dyn FnMut(&[u8])| {
            out(&[7; 91]);
            out(b"xx");
            true
        };
        let bytes = written(100, |out| {
            out.part(Part::Devices, long);
            out.part(Part::Devices, |out| {
                out(&[1; 80]);
                true
            });
            out.part(Part::Image, |out| {
                out(b"1234");
                true
            });
            out.part(Part::Connections, |_| true);
        });
        let parts = Parts::new(&bytes);
        assert_eq!(parts.get(Part::Devices), Some(&[1; 80][..]));
        assert_eq!((parts.get(Part::Image), parts.get(Part::Connections)), (Some(&b"1234"[..]), None));
    }
}
