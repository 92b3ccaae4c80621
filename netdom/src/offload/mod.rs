//! What is done to packets in software where the hardware or a receiver does not. Pure. Floor 3.

pub(crate) mod ability;
pub mod checksum;
pub mod coalesce;
pub mod extensions;
pub mod flow;
pub mod head;
pub mod headers;
pub mod segment;
