//! Why something that a disk says it has is not handed out. Pure. Floor 3.

use super::member::Member;
use super::region::ReadError;
use super::target::Printable;
use alloc::string::String;
use core::fmt;

/// Why something that is handed out is not to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// LVM's metadata says so.
    Metadata,
    /// What it lies in may be a part of something larger, which alone may write it: the mark of that could not be read.
    Unread {
        /// What it lies in.
        name: String,
        /// Where the mark would be, in bytes from the beginning of that.
        offset: u64,
        /// Why it was not read.
        error: ReadError,
    },
}

impl fmt::Display for Unwritable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata => formatter.write_str("LVM's metadata says that it is read-only"),
            Self::Unread { name, offset, error } => {
                let name = Printable(name);
                write!(formatter, "whether {name} is a part of something larger is not known: byte {offset}: {error}")
            }
        }
    }
}

/// Why something that exists is not handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has no sectors.
    Empty,
    /// Its table puts it outside what is usable, or its end before its beginning.
    Outside {
        /// Its first block.
        first: u64,
        /// Its last one.
        last: u64,
    },
    /// It reaches beyond the end of its unit.
    BeyondUnit,
    /// It has sectors in common with the partition of this number.
    Overlaps(u32),
    /// The partition table, or a part of it, lies in it.
    HoldsTable,
    /// It does not begin and end at logical blocks, of this many bytes.
    Misaligned(u32),
    /// It is of a kind that is not supported: `thin`, `raid1`.
    Kind(String),
    /// It is a part of another logical volume.
    PartOf(String),
    /// Snapshots are kept of it, which writing to it must feed.
    HasSnapshots,
    /// It is an internal volume of LVM.
    Hidden,
    /// Some of it is on a physical volume that is not there.
    Lacks(String),
    /// It has extents in common with another logical volume.
    SharesExtents(String),
    /// Its metadata makes no sense.
    Metadata(&'static str),
    /// Its volume group is not to be used.
    Group(String),
    /// It lies in a part of something larger.
    Within(String, Member),
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("it has no sectors"),
            Self::Outside { first, last } => write!(formatter, "its blocks {first} to {last} are not usable ones"),
            Self::BeyondUnit => formatter.write_str("it reaches beyond the end of its disk"),
            Self::Overlaps(number) => write!(formatter, "it overlaps with partition {number}"),
            Self::HoldsTable => formatter.write_str("a part of the partition table lies in it"),
            Self::Misaligned(bytes) => write!(formatter, "it is not made of whole blocks of {bytes} bytes"),
            Self::Kind(kind) => {
                write!(
                    formatter,
                    "its segments are of type {}; only linear and striped ones are supported",
                    Printable(kind)
                )
            }
            Self::PartOf(name) => write!(formatter, "it is a part of {}", Printable(name)),
            Self::HasSnapshots => formatter.write_str("it has snapshots, which are not supported"),
            Self::Hidden => formatter.write_str("it is an internal volume of LVM"),
            Self::Lacks(name) => write!(formatter, "a part of it is on {}, which is not there", Printable(name)),
            Self::SharesExtents(name) => write!(formatter, "it has extents in common with {}", Printable(name)),
            Self::Metadata(what) => write!(formatter, "its metadata makes no sense: {what}"),
            Self::Group(why) => write!(formatter, "its volume group is not used: {why}"),
            Self::Within(name, member) => {
                write!(formatter, "it lies in {}, which is a part of {member}: ", Printable(name))?;
                formatter.write_str("only what has all parts may write it; ")?;
                write!(formatter, "where that is over, `{} DEVICE` takes the mark off", member.remedy())
            }
        }
    }
}

impl core::error::Error for Unusable {}
