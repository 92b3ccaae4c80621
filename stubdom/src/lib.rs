//! stubdom's library: every domain's xenstore ring, served in turn, on a [`xenstore_lite::Store`]. Pure: no hypercall, no clock. Floor 3.
//!
//! A domain's ring is its reserved grant 1 and an event channel. [`Server`] maps and binds by the traits of `split_driver`, reads at most
//! one request in a turn, and never waits: whoever does not read its answers is not read from either, whoever breaks the ring is told so
//! in its page and not looked at again, and nobody else notices.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command_line;
mod faults;
mod machine;
mod page;
mod saved;
mod server;
mod update;

pub use saved::{Keeper, Means, STATE, Saved};
pub use server::{Server, Wait};
pub use update::{Begin, Successor};

#[cfg(test)]
mod tests;
