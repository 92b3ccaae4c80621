//! The store's face (being filled in: answers nothing yet). Floor 1.

use xen_pv_sys::{DomainId, Port};

use crate::Host;

/// A connection, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u32);

/// A message longer than the protocol allows: what follows cannot be told from its payload any more, the connection is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// Its length.
    pub length: u32,
}

/// What a store begins with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domain to which nothing is refused.
    pub privileged: DomainId,
    /// The bits that `GET_FEATURE` tells and that belong into a ring's `server_features`.
    pub features: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { privileged: DomainId(0), features: 0xf }
    }
}

/// A connection for the embedder, e.g. after [`Store::read_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Which.
    pub id: ConnectionId,
    /// Whose.
    pub domain: DomainId,
    /// What [`Store::set_port`] said.
    pub port: Port,
    /// [`Host::domain`]'s number of that domain; 0 where unknown.
    pub unique: u64,
    /// The bits for the ring's `server_features`.
    pub features: u32,
}

/// Why a state cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// No `xenstore` stream, or of a version or a byte order that is not ours.
    Header,
    /// The record at that offset is cut short or contradicts itself.
    Record(usize),
}

/// The xenstore.
#[derive(Debug)]
pub struct Store {
    config: Config,
}

impl Store {
    /// With the nodes of a fresh store.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// A domain's connection, one for each; `None` where it has got one. Fires `@introduceDomain`.
    pub fn connect(&mut self, domain: DomainId) -> Option<ConnectionId> {
        Some(ConnectionId(u32::from(domain.0) + u32::from(self.config.privileged.0)))
    }

    /// Ends a connection with its watches, its transactions and what was under way. Nodes stay, and the domain counts as introduced.
    pub fn disconnect(&mut self, _id: ConnectionId) {}

    /// Has a connection begin anew, as after [`connect`](Self::connect).
    pub fn reset(&mut self, _id: ConnectionId) {}

    /// Notes the event channel of a connection, for [`write_state`](Self::write_state).
    pub fn set_port(&mut self, _id: ConnectionId, _port: Port) {}

    /// The connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> {
        core::iter::empty()
    }

    /// A domain's connection.
    pub fn connection(&self, _domain: DomainId) -> Option<ConnectionId> {
        None
    }

    /// Takes bytes, serves at most one whole request, and gives how many bytes were taken. Takes none while too many answers wait.
    ///
    /// # Errors
    /// [`ProtocolError`]: cut the connection off.
    pub fn handle_bytes(
        &mut self,
        _id: ConnectionId,
        input: &[u8],
        _host: &mut dyn Host,
    ) -> Result<usize, ProtocolError> {
        Ok(input.len())
    }

    /// What to transmit next; empty for nothing.
    pub fn poll_transmit(&self, _id: ConnectionId) -> &[u8] {
        &[]
    }

    /// So many bytes of [`poll_transmit`](Self::poll_transmit) are gone.
    pub fn transmitted(&mut self, _id: ConnectionId, _count: usize) {}

    /// A connection that has got something to transmit since it was last named here.
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        None
    }

    /// Whether a connection is held back for another's sake: call [`handle_bytes`](Self::handle_bytes) again after a millisecond or so.
    pub fn poll_held(&self) -> bool {
        false
    }

    /// A domain is gone: its connection, its nodes and its permissions go too. Fires `@releaseDomain`.
    pub fn handle_domain_gone(&mut self, _domain: DomainId, _host: &mut dyn Host) {}

    /// A domain has shut down: fires `@releaseDomain`, once until `RESUME`.
    pub fn handle_domain_shutdown(&mut self, _domain: DomainId) {}

    /// The whole state, as records of Xen's `xenstore-migration.md`.
    pub fn write_state(&self, _out: &mut dyn FnMut(&[u8])) {}

    /// A store from what [`write_state`](Self::write_state) gave.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read_state(_bytes: &[u8], config: Config) -> Result<Self, StateError> {
        Ok(Self::new(config))
    }
}
