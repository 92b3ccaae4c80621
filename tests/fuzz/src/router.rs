//! netdom's router, against models that are naive: its translation of addresses, and its DHCP server. Host.

pub mod dhcp;
pub mod nat;
