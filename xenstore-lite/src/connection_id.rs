//! The name of a connection, for those that it is told to. Pure. Floor 1.

/// A connection, as long as it lives. None is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u32);
