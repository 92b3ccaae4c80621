//! netdom's router, against models that are naive: its translation of addresses, its ways of IPv4 and IPv6, its DHCP server, and its DHCP client. Host.

mod client;
pub mod dhcp;
pub mod nat;
pub mod route4;
pub mod route6;
