//! That each transaction commits in the end, whatever others write. Floor 1.
//!
//! A domain that has lost [`LOSSES`] transactions in a row to changes by others has its next one *protected*: a guest's request that would
//! change what that transaction has met is not taken, until the transaction ends. Only such requests wait, they do so at most [`PATIENCE`]
//! times for one protected transaction, and whoever was protected has to lose as often again before it is so once more. So the most that a
//! guest gains by opening transactions and leaving them open is to slow down, by a bounded share, writers of what it may read. The privileged
//! domain is never held back. One transaction is protected at a time; another domain's claim uses up the patience with it.

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire as abi;

use super::Store;
use crate::ConnectionId;
use crate::Error;
use crate::path;
use crate::payload;
use crate::transaction::Transaction;
use crate::wire::Message;

/// Transactions in a row that a domain may lose.
const LOSSES: u32 = 4;
/// Times that requests are held back for one transaction.
const PATIENCE: u32 = 100;

/// The transaction that is protected.
#[derive(Clone, Debug)]
pub(super) struct Protection {
    connection: ConnectionId,
    transaction: u32,
    held: u32,
}

impl Protection {
    /// Whether requests were held back for it.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }
}

impl Store {
    /// Protects a transaction that begins, if its domain has lost too many.
    pub(super) fn protect_if_losing(&mut self, connection: ConnectionId, domain: DomainId, transaction: u32) {
        if self.domains.get(domain).is_none_or(|domain| domain.losses < LOSSES) {
            return;
        }
        match &mut self.protection {
            Some(other) if other.holds() => self.lose_patience(),
            protection => *protection = Some(Protection { connection, transaction, held: 0 }),
        }
    }

    fn lose_patience(&mut self) {
        if let Some(protection) = &mut self.protection {
            protection.held += 1;
            if protection.held > PATIENCE {
                self.protection = None;
            }
        }
    }

    /// A transaction ends, one way or another.
    pub(super) fn end_protection(&mut self, connection: ConnectionId, transaction: u32) {
        let is = |protection: &Protection| protection.connection == connection && protection.transaction == transaction;
        if self.protection.as_ref().is_some_and(is) {
            self.protection = None;
            let domain = self.connections.get(&connection).map(|connection| connection.domain);
            if let Some(domain) = domain.and_then(|domain| self.domains.get_mut(domain)) {
                domain.losses = 0;
            }
        }
    }

    /// Notes how a domain's transaction ended.
    pub(super) fn note_outcome(&mut self, domain: DomainId, result: Result<(), Error>) {
        if let Some(domain) = self.domains.get_mut(domain) {
            match result {
                Ok(()) => domain.losses = 0,
                Err(Error::EAGAIN) => domain.losses = domain.losses.saturating_add(1),
                Err(_) => {}
            }
        }
    }

    /// Whether a request has to wait for the protected transaction to end.
    pub(super) fn holds_back(&mut self, id: ConnectionId, message: &Message<'_>) -> bool {
        let Some(protection) = &self.protection else {
            return false;
        };
        if protection.connection == id {
            return false;
        }
        let connection = self.connections.get(&protection.connection);
        let Some(transaction) = connection.and_then(|own| own.transactions.get(&protection.transaction)) else {
            // Its connection was cut off or began anew.
            self.protection = None;
            return false;
        };
        let held = self.disturbs(id, message, transaction);
        if held {
            self.lose_patience();
        }
        held && self.protection.is_some()
    }

    /// Whether a guest's request would change what `transaction` has met.
    fn disturbs(&self, id: ConnectionId, message: &Message<'_>, transaction: &Transaction) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        if connection.domain == self.domains.privileged {
            return false;
        }
        let header = &message.header;
        let own = connection.transactions.get(&header.tx_id);
        if header.kind == abi::XS_TRANSACTION_END {
            let changed = own.into_iter().flat_map(Transaction::met).filter(|(_, met)| met.changed);
            return message.payload == b"T\0" && changed.into_iter().any(|(path, _)| transaction.has_met(path));
        }
        let word = payload::word_and_rest(message.payload).map(|(word, _)| word).unwrap_or_default();
        let Some(path) = path::canonical(word, connection.domain, true).filter(|_| header.tx_id == 0) else {
            return false;
        };
        match header.kind {
            abi::XS_WRITE | abi::XS_MKDIR => {
                // It changes the node, those above that are missing, and the list of the first that is there.
                let mut found = false;
                let changed = path::upwards(&path).take_while(|path| {
                    let goes_on = !found;
                    found = self.tree.nodes.get(path).is_some();
                    goes_on
                });
                changed.into_iter().any(|path| transaction.has_met(path))
            }
            abi::XS_SET_PERMS => transaction.has_met(&path),
            abi::XS_RM => {
                let below = |met: &[u8]| path::upwards(met).any(|above| *above == *path);
                transaction.has_met(path::parent(&path)) || transaction.met().any(|(met, _)| below(met))
            }
            _ => false,
        }
    }
}
