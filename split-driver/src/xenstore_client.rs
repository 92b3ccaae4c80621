//! A client of the xenstore: requests out, replies and watch events in, as bytes. Pure: whoever holds the ring moves them. Floor 1.
//!
//! [`Machine`] knows the protocol and no futures; [`Client`] puts futures on top and is the [`Store`](crate::store::Store). The
//! transport calls [`Client::handle_bytes`] with what came and [`Client::take_message`] whenever the ring has room or the `kick` given to
//! [`Client::new`] was called. Replies are told apart by request ids, so dropping a future midway desynchronises nothing.

mod client;
mod machine;

pub use client::{Client, ClientWatch};
pub use machine::{Failure, Machine};

#[cfg(all(test, feature = "fakes", not(loom)))]
mod tests;
