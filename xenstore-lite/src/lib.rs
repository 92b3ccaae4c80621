//! The xenstore: bytes in, bytes out. Pure: no transport, no clock, no Xen. Floor 1.
//!
//! A [`Store`] takes the bytes of each domain's connection, serves whole requests one at a time, and has bytes to be transmitted: answers, and
//! events of watches. What it needs to know of the machine it asks a [`Host`]. It means to answer as C xenstored does, error for
//! error; `docs/XENSTORE.md` lists where it differs on purpose.
//!
//! Nodes, permissions, transactions, watches and connections each are a module that knows nothing of the others' insides: `node` and `access`
//! the tree and what a request may do with it, `transaction`, `watches`, `connection`, `domains` with the quotas; `store` joins them.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod access;
mod charge;
mod connection;
mod connection_id;
#[cfg(any(test, feature = "fakes"))]
pub mod differential;
mod domains;
mod error;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
mod host;
mod map;
#[cfg(any(test, feature = "fakes"))]
pub mod model;
mod node;
mod path;
mod path_map;
mod payload;
mod permissions;
mod quota;
mod store;
mod transaction;
mod watches;
mod wire;

pub use connection_id::ConnectionId;
pub use error::Error;
pub use host::Host;
pub use map::Map;
pub use quota::{Quotas, Resource};
pub use store::{Config, ConnectionInfo, StateError, Store, Usage};
pub use wire::ProtocolError;
