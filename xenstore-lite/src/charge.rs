//! What objects count in the memory of the domain that has them: what they take of a heap. Pure. Floor 1.
//!
//! Each figure has in it the allocations that the object makes, their heads, and its share of the maps that find it. The test
//! `tests/memory.rs` holds the figures against an allocator that counts, so whoever changes a structure learns there what to write here.

/// A node beside its path, its value, its permissions and the names of its children: its slot in the tree.
const NODE: usize = 136;
/// An entry of a node's permissions: also where the domain that it names finds the node when it ends.
const PERMISSION: usize = 96;
/// An allocation of its own beside its bytes, e.g. of a value.
const SHARED: usize = 28;
/// The names of a node's children beside their bytes.
const LISTING: usize = 60;
/// A watch beside its path and its token.
const WATCH: usize = 264;
/// A message that waits beside its bytes: its place in the queue.
const WAITING: usize = 128;
/// Where an event that waits is found, so that another like it is dropped.
const KNOWN_EVENT: usize = 80;
/// An open transaction that has met nothing.
pub(crate) const TRANSACTION: usize = 320;
/// A node that a transaction has met beside its path and contents; an absent one takes as much.
const MET: usize = 280;

fn shared(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { SHARED + bytes }
}

/// The contents of a node: value, entries of permissions, names of children, in bytes but for the entries.
fn contents(value: usize, permissions: usize, children: usize) -> usize {
    // A list of names has room for a quarter more.
    let children = if children == 0 { 0 } else { LISTING + children + children / 8 };
    shared(value) + PERMISSION * permissions + children
}

/// A node of the tree.
pub(crate) fn node(path: usize, value: usize, permissions: usize, children: usize) -> usize {
    NODE + path + contents(value, permissions, children)
}

/// A node that a transaction has met; the contents where it is not absent.
pub(crate) fn met(path: usize, node: Option<(usize, usize, usize)>) -> usize {
    MET + path + node.map_or(0, |(value, permissions, children)| shared(value) + shared(4 * permissions) + children)
}

/// A watch, by the bytes of its path and of its token.
pub(crate) fn watch(path: usize, token: usize) -> usize {
    WATCH + path + token
}

/// An answer that waits, of so many bytes.
pub(crate) fn answer(message: usize) -> usize {
    WAITING + message
}

/// An event that waits, of so many bytes.
pub(crate) fn event(message: usize) -> usize {
    WAITING + KNOWN_EVENT + message
}

/// A request that is not whole, of which so many bytes are or will be there.
pub(crate) fn input(message: usize) -> usize {
    if message == 0 { 0 } else { SHARED + message }
}

/// Bytes of a node's record, or of a watch's, in the state beside what is counted for it: header, fields and padding.
pub(crate) const RECORD: usize = 48;

/// What so many nodes and watches count because they lie in a heap, and what the state that is kept of them does not take.
pub(crate) fn not_kept(nodes: usize, watches: usize) -> usize {
    nodes * (node(0, 0, 1, 0) - RECORD) + watches * (watch(0, 0) - RECORD)
}
