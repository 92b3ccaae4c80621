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
    /// The oldest version of images that read the state that it writes, as they pass over what it added.
    pub read_by: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

impl Identity {
    /// From a note's content. Without the last field no older image reads its state.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let (writes, rest) = content.split_first_chunk::<4>()?;
        let (reads, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<TEXT>()?;
        let (version, rest) = rest.split_first_chunk::<TEXT>()?;
        let writes = u32::from_le_bytes(*writes);
        Some(Self {
            writes,
            reads: u32::from_le_bytes(*reads),
            name: Text(*name),
            version: Text(*version),
            read_by: rest.first_chunk().map_or(writes, |read_by| u32::from_le_bytes(*read_by)),
        })
    }

    /// Whether it can go on from what an image with that identity leaves: by its own word on older states, by the other's on newer ones.
    pub(super) fn reads_state_of(&self, other: &Self) -> bool {
        let newer = (other.read_by..other.writes).contains(&self.writes);
        (self.reads..=self.writes).contains(&other.writes) || newer
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
    pub const fn new(name: &str, version: &str, writes: u32, reads: u32, read_by: u32) -> Self {
        Self {
            owner_length: NOTE_OWNER.len() as u32,
            length: size_of::<Identity>() as u32,
            kind: NOTE_TYPE,
            owner: *b"oxidom\0\0",
            identity: Identity { writes, reads, name: Text::new(name), version: Text::new(version), read_by },
        }
    }

    /// What it says.
    pub const fn identity(&self) -> Identity {
        self.identity
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
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
        let of = |(writes, reads, read_by)| IdentityNote::new("netdom", "1", writes, reads, read_by).identity();
        /// Of each image: the version that it writes, the oldest that it reads, the oldest image that reads it.
        type Image = (u32, u32, u32);
        let cases: [(Image, Image, bool, &str); 9] = [
            ((1, 1, 1), (1, 1, 1), true, "of the same version"),
            ((3, 2, 3), (2, 2, 2), true, "the newer one reads the older one's"),
            ((3, 2, 3), (1, 1, 1), false, "too old"),
            ((2, 1, 2), (3, 3, 3), false, "newer, and of no use to an older one"),
            ((1, 1, 1), (2, 1, 1), true, "newer, and an older one may pass over what was added"),
            ((1, 1, 1), (3, 1, 2), false, "newer, and too new for this one"),
            ((2, 1, 1), (3, 1, 2), true, "newer by one"),
            ((2, 2, 2), (2, 2, 3), true, "a word that makes no sense takes nothing away"),
            ((5, 2, 5), (2, 1, 1), true, "the word on older images says nothing of newer ones"),
        ];
        for (new, old, reads, name) in cases {
            assert_eq!(of(new).reads_state_of(&of(old)), reads, "{name}: {new:?} after {old:?}");
        }
    }

    #[test]
    fn a_note_without_the_last_field_is_read_by_no_older_image() {
        let mut content = [3_u32.to_le_bytes(), 2_u32.to_le_bytes()].concat();
        content.resize(8 + 2 * TEXT, 0);
        let read_by = |content: &[u8]| Identity::parse(content).map(|identity| identity.read_by);
        assert_eq!(read_by(&content), Some(3));
        content.extend(1_u32.to_le_bytes());
        assert_eq!(read_by(&content), Some(1));
        assert_eq!(read_by(&content[..8 + TEXT]), None);
    }
}
