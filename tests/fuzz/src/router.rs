//! netdom's router, against models that are naive: its translation of addresses, its ways of IPv6, and its DHCP server. Host.

pub mod dhcp;
pub mod nat;
pub mod route6;
