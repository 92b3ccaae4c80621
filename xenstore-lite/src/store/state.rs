//! The state as bytes, and back: the records of Xen's `docs/designs/xenstore-migration.md`, version 2. Floor 1.
//!
//! What the format has no field for is told so that it means the same: a transaction that cannot commit any more has, in its records, met the
//! root as absent; a domain that was cut off has a connection with no event channel ([`CUT_OFF`]). Generations begin anew, a domain's
//! having been told of its shutdown is forgotten, and a transaction's events are all for the subtree: watches may hear of more, never of less.

mod read;
mod write;

pub use read::StateError;

/// `GLOBAL_DATA`: descriptors of a daemon.
const GLOBAL: u32 = 1;
const CONNECTION: u32 = 2;
const WATCH: u32 = 3;
const TRANSACTION: u32 = 4;
const NODE: u32 = 5;
const GLOBAL_QUOTA: u32 = 6;
const DOMAIN: u32 = 7;
const WATCH_EXTENDED: u32 = 8;
const END: u32 = 0;

/// The beginning of a stream: its name, version 2 and little-endian, both in big-endian numbers.
const HEADER: [u8; 16] = *b"xenstore\0\0\0\x02\0\0\0\0";
/// Records are padded to that.
const ALIGNMENT: usize = 8;
/// A connection is a ring's; sockets are not ours.
const RING: u16 = 0;
/// The domain's unique number follows.
const HAS_UNIQUE: u16 = 1;
/// The event channel of a domain that was cut off.
const CUT_OFF: u32 = u32::MAX;
/// A node that a transaction has read; in the records of a transaction that all are.
const READ: u16 = 1;
/// It was written, too.
const WRITTEN: u16 = 2;
/// A node that was changed brings no event: its list of children is what changed. C xenstored writes no transactions, so this is ours.
const SILENT: u16 = 4;
/// It brings one for watches of the very path. Ours likewise.
const EXACT: u16 = 8;
/// Of the same field, for all nodes but those that a transaction only read: the bytes of it that the privileged domain gave, rounded down to
/// sixteens. Ours too. The root has some; where it has none, who wrote the state does not tell of gifts, as C xenstored.
const GIVEN: u16 = 0xfff0;
/// In the last field of a watch's record, which C xenstored leaves empty: there was no room for an event of it.
const MISSED: u16 = 1;
/// An entry of permissions that is not heeded.
const STALE: u8 = 1;
/// A watch that looks all the way down.
const ALL_LEVELS: u16 = u16::MAX;
