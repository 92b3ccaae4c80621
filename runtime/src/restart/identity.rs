//! Which image this is, and which states of an image before it it can go on from: a note in its file. Pure. Floor 2.

use core::fmt;

/// The note's owner, with the zero that ends it.
pub(super) const NOTE_OWNER: &[u8] = b"oxidom\0";
/// The note's type: that of [`Frame`](super::Frame) is 1.
pub(super) const NOTE_TYPE: u32 = 2;
/// Bytes of a name and of a version.
const TEXT: usize = 16;

/// A name or a version: ASCII, with zeros behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Text([u8; TEXT]);

impl Text {
    /// Cut off where it is too long.
    pub const fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut cut = [0; TEXT];
        let mut rest: &mut [u8] = &mut cut;
        let mut index = 0;
        while let Some((slot, others)) = rest.split_first_mut() {
            if index < bytes.len() {
                *slot = bytes[index];
            }
            index += 1;
            rest = others;
        }
        Self(cut)
    }

    /// As a string; empty where it is not ASCII, or holds control characters.
    pub fn as_str(&self) -> &str {
        let text = str::from_utf8(&self.0).map_or("", |text| text.trim_end_matches('\0'));
        if text.bytes().all(|byte| byte.is_ascii_graphic()) { text } else { "" }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

/// Which image it is. Its state is what it writes into the recovery box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    /// The version of the state that it writes.
    pub writes: u32,
    /// The oldest version that it reads.
    pub reads: u32,
    /// Its package.
    pub name: Text,
    /// Its package's version.
    pub version: Text,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

impl Identity {
    /// From a note's content.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let (writes, rest) = content.split_first_chunk::<4>()?;
        let (reads, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<TEXT>()?;
        let (version, _) = rest.split_first_chunk::<TEXT>()?;
        Some(Self {
            writes: u32::from_le_bytes(*writes),
            reads: u32::from_le_bytes(*reads),
            name: Text(*name),
            version: Text(*version),
        })
    }

    /// Whether it can go on from what an image with that identity leaves.
    pub(super) fn reads_state_of(&self, other: &Self) -> bool {
        (self.reads..=self.writes).contains(&other.writes)
    }
}

/// The note, as [`entry!`](crate::entry) puts it into the image.
#[derive(Debug)]
#[repr(C)]
pub struct IdentityNote {
    owner_length: u32,
    length: u32,
    kind: u32,
    owner: [u8; 8],
    identity: Identity,
}

impl IdentityNote {
    /// Of the package of this name and version, whose states have these versions.
    pub const fn new(name: &str, version: &str, writes: u32, reads: u32) -> Self {
        Self {
            owner_length: NOTE_OWNER.len() as u32,
            length: size_of::<Identity>() as u32,
            kind: NOTE_TYPE,
            owner: *b"oxidom\0\0",
            identity: Identity { writes, reads, name: Text::new(name), version: Text::new(version) },
        }
    }

    /// What it says.
    pub const fn identity(&self) -> Identity {
        self.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_ascii_and_cut() {
        for (text, kept) in
            [("netdom", "netdom"), ("", ""), ("a-name-of-17-char", "a-name-of-17-cha"), ("a\u{1b}b", "")]
        {
            assert_eq!(Text::new(text).as_str(), kept);
        }
    }

    #[test]
    fn states_of_a_range_of_versions_are_read() {
        let of = |writes, reads| IdentityNote::new("netdom", "1", writes, reads).identity();
        for (new, old, reads) in [((1, 1), 1, true), ((3, 2), 2, true), ((3, 2), 1, false), ((2, 1), 3, false)] {
            assert_eq!(of(new.0, new.1).reads_state_of(&of(old, old)), reads, "{new:?} after {old}");
        }
    }
}
