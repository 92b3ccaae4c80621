//! The state to records. Floor 1.

use xen_pv_sys::DomainId;

use super::{
    ALIGNMENT, ALL_LEVELS, CONNECTION, CUT_OFF, DOMAIN, END, EXACT, GIVEN, GLOBAL, GLOBAL_QUOTA, HAS_UNIQUE, HEADER,
    MISSED, NODE, READ, RING, SILENT, STALE, TRANSACTION, WATCH_EXTENDED, WRITTEN,
};
use crate::ConnectionId;
use crate::charge;
use crate::connection::Connection;
use crate::node::{INTRODUCE_DOMAIN, Node, RELEASE_DOMAIN};
use crate::path;
use crate::quota::{Quota, Resource};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::watches::Scope;

/// Gives records out in pieces. Only small ones are put together first, in a buffer on the stack: nothing is allocated.
struct Records<'a> {
    out: &'a mut dyn FnMut(&[u8]),
    buffer: [u8; PIECE],
    /// Bytes in the buffer.
    filled: usize,
    /// Bytes that the record still lacks, padding and all.
    lacking: usize,
}

/// Bytes that are given out at a time, but for values that are longer.
const PIECE: usize = 512;
/// Bytes of a node's record beside its permissions, its path and its value.
const NODE_FIELDS: usize = 16;
/// Bytes of a connection's record before what came in and what waits.
const CONNECTION_FIELDS: usize = 24;

/// What a node's record says of what was given of it.
fn given(node: &Node) -> u16 {
    u16::try_from(node.given).unwrap_or(u16::MAX) & GIVEN
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

impl Records<'_> {
    /// Begins a record of so many bytes; padding is counted with them, as C xenstored does.
    fn begin(&mut self, kind: u32, length: usize) -> &mut Self {
        self.lacking = 8 + padded(length);
        self.u64(u64::from(kind) | u64::from(u32::try_from(padded(length)).unwrap_or(u32::MAX)) << 32)
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A length that the protocol keeps far below its field.
    fn length(&mut self, value: usize) -> &mut Self {
        self.u16(u16::try_from(value).unwrap_or(u16::MAX))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.lacking = self.lacking.saturating_sub(bytes.len());
        if bytes.len() > PIECE - self.filled {
            self.flush();
        }
        let room = self.buffer.get_mut(self.filled..).and_then(|room| room.get_mut(..bytes.len()));
        match room {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled += bytes.len();
            }
            None => (self.out)(bytes),
        }
        self
    }

    /// Gives out what is in the buffer.
    fn flush(&mut self) {
        (self.out)(self.buffer.get(..self.filled).unwrap_or_default());
        self.filled = 0;
    }

    /// Bytes, and the zero byte that ends them.
    fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes(bytes).bytes(&[0])
    }

    /// So many zero bytes, fewer than [`ALIGNMENT`].
    fn zeros(&mut self, count: usize) -> &mut Self {
        self.bytes([0; ALIGNMENT].get(..count).unwrap_or_default())
    }

    /// Ends a record.
    fn end(&mut self) {
        if self.lacking > 0 {
            self.zeros(self.lacking);
        }
    }

    fn node(&mut self, owner: (u32, u32), path: &[u8], node: Option<&Node>, access: u16) {
        let permissions = node.map_or(&[][..], |node| &node.permissions);
        let value = node.map_or(&[][..], Node::value);
        self.begin(NODE, NODE_FIELDS + 4 * permissions.len() + path.len() + 1 + value.len());
        let short = |length: usize| u64::from(u16::try_from(length).unwrap_or(u16::MAX));
        let lengths = short(path.len() + 1) | short(value.len()) << 16;
        let access = u64::from(access) << 32 | short(permissions.len()) << 48;
        // Most of the state is nodes, so they are written in few pieces.
        self.u64(u64::from(owner.0) | u64::from(owner.1) << 32).u64(lengths | access);
        for entry in permissions {
            let stale = if entry.stale { STALE } else { 0 };
            self.u32(u32::from_le_bytes([entry.rights.letter(), stale, 0, 0]) | u32::from(entry.domain.0) << 16);
        }
        self.string(path).bytes(value).end();
    }
}

impl Store {
    /// The whole state, as records of Xen's `xenstore-migration.md`. Allocates nothing.
    pub fn write_state(&self, out: &mut dyn FnMut(&[u8])) {
        self.write_state_below(usize::MAX, out);
    }

    /// The state without what domains took that [hoard](Self::most_hoarded) `limit` bytes or more: their connections are as new, and nodes
    /// that they made are gone, with what is below. Nobody is told of those. Allocates nothing.
    pub fn write_state_below(&self, limit: usize, out: &mut dyn FnMut(&[u8])) {
        let is_shed = |domain| self.is_above(domain, limit);
        out(&HEADER);
        let mut records = Records { out, buffer: [0; PIECE], filled: 0, lacking: 0 };
        records.begin(GLOBAL, 8).u32(u32::MAX).u32(u32::MAX).end();
        self.write_quotas(&mut records);
        for (id, connection) in &self.connections {
            self.write_connection(*id, connection, is_shed(connection.domain), &mut records);
        }
        self.write_cut_off(&mut records);
        for top in [path::ROOT, INTRODUCE_DOMAIN, RELEASE_DOMAIN] {
            // The depth of the last node that is left out: what is deeper, up to the next that is not, is below it.
            let mut left_out = usize::MAX;
            self.tree.walk(top, &mut |path, node| {
                let depth = path.iter().filter(|byte| **byte == b'/').count();
                if depth > left_out {
                    return;
                }
                let is_own = node.given == 0 && path != path::ROOT && !path.starts_with(b"@");
                left_out = if is_own && is_shed(node.owner()) { depth } else { usize::MAX };
                if left_out == usize::MAX {
                    records.node((0, 0), path, Some(node), given(node));
                }
            });
        }
        for (id, connection) in self.connections.iter().filter(|(_, connection)| !is_shed(connection.domain)) {
            for (number, transaction) in &connection.transactions {
                self.write_transaction((id.0, *number), transaction, &mut records);
            }
        }
        records.begin(END, 0).end();
        records.flush();
    }

    /// Bytes that [`write_state`](Self::write_state) gives at most, by what is counted anyway: one look at each domain and connection.
    pub fn state_bound(&self) -> usize {
        let names: usize = Quota::all().map(|(_, name)| 4 + name.len() + 1).sum();
        let mut bound = 1024 + names + self.connections.len() * 2 * charge::RECORD;
        for (id, domain) in self.domains.iter() {
            let own = domain.own_quotas().count().min(1) * names;
            bound += self.domains.takes(id, Resource::Memory) + 2 * charge::RECORD + own;
        }
        bound.saturating_sub(self.domains.not_kept())
    }

    fn write_quotas(&self, records: &mut Records<'_>) {
        let names: usize = Quota::all().map(|(_, name)| 4 + name.len() + 1).sum();
        records.begin(GLOBAL_QUOTA, 4 + names).length(Quota::all().count()).u16(0);
        for (quota, _) in Quota::all() {
            records.u32(self.domains.quotas.get(quota));
        }
        for (_, name) in Quota::all() {
            records.string(name.as_bytes());
        }
        records.end();
        for (id, domain) in self.domains.iter() {
            let names: usize = domain.own_quotas().map(|(name, _)| 4 + name.len() + 1).sum();
            records.begin(DOMAIN, 8 + names);
            records.u16(id.0).length(domain.own_quotas().count()).u32(domain.features);
            for (_, value) in domain.own_quotas() {
                records.u32(value);
            }
            for (name, _) in domain.own_quotas() {
                records.string(name.as_bytes());
            }
            records.end();
        }
    }

    /// A connection; as new where it is `shed`.
    fn write_connection(&self, id: ConnectionId, connection: &Connection, shed: bool, records: &mut Records<'_>) {
        let known = self.domains.get(connection.domain);
        let target = known.and_then(|domain| domain.target).unwrap_or(DomainId::INVALID);
        let (partial, begun, waiting) =
            if shed { (&[][..], 0, 0) } else { (&*connection.partial, connection.begun(), connection.waiting_bytes()) };
        let data = partial.len() + waiting;
        records.begin(CONNECTION, CONNECTION_FIELDS + padded(data) + 8);
        records.u32(id.0).u16(RING).u16(HAS_UNIQUE).u16(connection.domain.0).u16(target.0).u32(connection.port.0);
        records.length(partial.len()).length(begun);
        records.u32(u32::try_from(waiting).unwrap_or(u32::MAX));
        records.bytes(partial);
        for piece in connection.pieces().filter(|_| !shed) {
            records.bytes(piece);
        }
        records.zeros(padded(data) - data);
        records.u64(known.map_or(0, |domain| domain.unique)).end();
        if shed {
            return;
        }
        for (serial, path) in &connection.watches {
            let Some(watch) = self.watches.get(path, *serial) else {
                continue;
            };
            let path = path.get(watch.omitted..).unwrap_or_default();
            records.begin(WATCH_EXTENDED, 12 + path.len() + 1 + watch.token.len() + 1);
            records.u32(id.0).length(path.len() + 1).length(watch.token.len() + 1);
            records.u16(watch.depth.unwrap_or(ALL_LEVELS)).u16(if watch.missed { MISSED } else { 0 });
            records.string(path).string(&watch.token).end();
        }
        for number in connection.transactions.keys() {
            records.begin(TRANSACTION, 8).u32(id.0).u32(*number).end();
        }
    }

    fn write_cut_off(&self, records: &mut Records<'_>) {
        let cut_off = self.domains.iter().filter(|(_, domain)| domain.introduced && domain.connection.is_none());
        for ((id, domain), connection) in cut_off.zip(self.next_connection..) {
            let target = domain.target.unwrap_or(DomainId::INVALID);
            records.begin(CONNECTION, CONNECTION_FIELDS + 8);
            records.u32(connection).u16(RING).u16(HAS_UNIQUE).u16(id.0).u16(target.0).u32(CUT_OFF);
            records.u16(0).u16(0).u32(0).u64(domain.unique).end();
        }
    }

    fn write_transaction(&self, owner: (u32, u32), transaction: &Transaction, records: &mut Records<'_>) {
        if transaction.failed || !transaction.holds(&self.tree, &self.domains) {
            records.node(owner, path::ROOT, None, READ);
            return;
        }
        for (path, met) in transaction.met() {
            let access = match (&met.now, met.changed) {
                (None, true) => 0,
                (_, false) => READ,
                (Some(_), true) => READ | WRITTEN,
            };
            let event = match met.fires {
                None if met.changed => SILENT,
                Some(Scope::Exact) => EXACT,
                _ => 0,
            };
            // Of a node that was only read, the tree's says it. Images of before would take another bit than `READ` for a change.
            let given = met.now.as_ref().filter(|_| met.changed).map_or(0, given);
            records.node(owner, path, met.now.as_ref(), access | event | given);
        }
    }
}
