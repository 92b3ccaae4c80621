//! The state to records. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::DomainId;

use super::{
    ALIGNMENT, ALL_LEVELS, CONNECTION, CUT_OFF, DOMAIN, END, GLOBAL, GLOBAL_QUOTA, HAS_UNIQUE, HEADER, NODE, READ,
    RING, STALE, TRANSACTION, WATCH_EXTENDED, WRITTEN,
};
use crate::connection::{Connection, ConnectionId};
use crate::node::{INTRODUCE_DOMAIN, Node, RELEASE_DOMAIN};
use crate::path;
use crate::quota::Quota;
use crate::store::Store;
use crate::transaction::Transaction;

/// A record that is being put together.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A length that the protocol keeps far below its field.
    fn length(&mut self, value: usize) -> &mut Self {
        self.u16(u16::try_from(value).unwrap_or(u16::MAX))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes, and the zero byte that ends them.
    fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes(bytes).bytes(&[0])
    }

    fn pad(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// Gives the record out, padding and all, as C xenstored counts its length.
    fn give(&mut self, kind: u32, out: &mut dyn FnMut(&[u8])) {
        self.pad();
        out(&kind.to_le_bytes());
        out(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        out(&self.0);
        self.0.clear();
    }

    fn node(&mut self, owner: (u32, u32), path: &[u8], node: Option<&Node>, access: u16) -> &mut Self {
        let permissions = node.map_or(&[][..], |node| &node.permissions);
        let value = node.map_or(&[][..], Node::value);
        self.u32(owner.0).u32(owner.1).length(path.len() + 1).length(value.len()).u16(access).length(permissions.len());
        for entry in permissions {
            let stale = if entry.stale { STALE } else { 0 };
            self.bytes(&[entry.rights.letter(), stale]).u16(entry.domain.0);
        }
        self.string(path).bytes(value)
    }
}

impl Store {
    /// The whole state, as records of Xen's `xenstore-migration.md`.
    pub fn write_state(&self, out: &mut dyn FnMut(&[u8])) {
        let mut record = Record::default();
        out(&HEADER);
        record.u32(u32::MAX).u32(u32::MAX).give(GLOBAL, out);
        self.write_quotas(&mut record, out);
        for (id, connection) in &self.connections {
            self.write_connection(*id, connection, &mut record, out);
        }
        self.write_cut_off(&mut record, out);
        for top in [path::ROOT, INTRODUCE_DOMAIN, RELEASE_DOMAIN] {
            for path in self.tree.pre_order(top, |_| true) {
                record.node((0, 0), &path, self.tree.nodes.get(&path), 0).give(NODE, out);
            }
        }
        for (id, connection) in &self.connections {
            for (number, transaction) in &connection.transactions {
                self.write_transaction((id.0, *number), transaction, &mut record, out);
            }
        }
        record.give(END, out);
    }

    fn write_quotas(&self, record: &mut Record, out: &mut dyn FnMut(&[u8])) {
        record.length(Quota::all().count()).u16(0);
        for (quota, _) in Quota::all() {
            record.u32(self.domains.quotas.get(quota));
        }
        for (_, name) in Quota::all() {
            record.string(name.as_bytes());
        }
        record.give(GLOBAL_QUOTA, out);
        for (id, domain) in self.domains.iter() {
            record.u16(id.0).length(domain.own_quotas().count()).u32(domain.features);
            for (_, value) in domain.own_quotas() {
                record.u32(value);
            }
            for (name, _) in domain.own_quotas() {
                record.string(name.as_bytes());
            }
            record.give(DOMAIN, out);
        }
    }

    fn write_connection(
        &self,
        id: ConnectionId,
        connection: &Connection,
        record: &mut Record,
        out: &mut dyn FnMut(&[u8]),
    ) {
        let known = self.domains.get(connection.domain);
        let target = known.and_then(|domain| domain.target).unwrap_or(DomainId::INVALID);
        let waiting = connection.transmit();
        record.u32(id.0).u16(RING).u16(HAS_UNIQUE).u16(connection.domain.0).u16(target.0).u32(connection.port.0);
        record.length(connection.partial.len()).length(connection.begun());
        record.u32(u32::try_from(waiting.len()).unwrap_or(u32::MAX));
        record.bytes(&connection.partial).bytes(waiting).pad();
        record.bytes(&known.map_or(0, |domain| domain.unique).to_le_bytes()).give(CONNECTION, out);
        for (serial, path) in &connection.watches {
            let Some(watch) = self.watches.get(path, *serial) else {
                continue;
            };
            let path = path.get(watch.omitted..).unwrap_or_default();
            record.u32(id.0).length(path.len() + 1).length(watch.token.len() + 1);
            record.u16(watch.depth.unwrap_or(ALL_LEVELS)).u16(0);
            record.string(path).string(&watch.token).give(WATCH_EXTENDED, out);
        }
        for number in connection.transactions.keys() {
            record.u32(id.0).u32(*number).give(TRANSACTION, out);
        }
    }

    fn write_cut_off(&self, record: &mut Record, out: &mut dyn FnMut(&[u8])) {
        let cut_off = self.domains.iter().filter(|(_, domain)| domain.introduced && domain.connection.is_none());
        for ((id, domain), connection) in cut_off.zip(self.next_connection..) {
            let target = domain.target.unwrap_or(DomainId::INVALID);
            record.u32(connection).u16(RING).u16(HAS_UNIQUE).u16(id.0).u16(target.0).u32(CUT_OFF);
            record.u16(0).u16(0).u32(0).bytes(&domain.unique.to_le_bytes()).give(CONNECTION, out);
        }
    }

    fn write_transaction(
        &self,
        owner: (u32, u32),
        transaction: &Transaction,
        record: &mut Record,
        out: &mut dyn FnMut(&[u8]),
    ) {
        if transaction.failed || !transaction.holds(&self.tree, &self.domains) {
            record.node(owner, path::ROOT, None, READ).give(NODE, out);
            return;
        }
        for (path, met) in transaction.met() {
            let access = match (&met.now, met.changed) {
                (None, true) => 0,
                (_, false) => READ,
                (Some(_), true) => READ | WRITTEN,
            };
            record.node(owner, path, met.now.as_ref(), access).give(NODE, out);
        }
    }
}
