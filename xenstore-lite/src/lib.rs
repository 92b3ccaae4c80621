//! The xenstore: bytes in, bytes out. Pure: no transport, no clock, no Xen. Floor 1.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod host;
mod store;

pub use error::Error;
pub use host::Host;
pub use store::{Config, ConnectionId, ConnectionInfo, ProtocolError, StateError, Store};
