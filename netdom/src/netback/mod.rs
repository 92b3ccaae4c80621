//! netback: the backend half of `io/netif.h`. Pure but for the traits of `split_driver`. Floor 3.
//!
//! [`vif`] is what a frontend said of its vif; [`rings`] and [`control_ring`] are its rings, mapped. [`request`] reads what a guest sends,
//! [`control`] what it asks for on the control ring, and [`violation`] is why a vif is closed; [`steering`] is which of a vif's queues a
//! packet goes to; [`config`] and [`nodes`] are what the store says, and [`bridges`] what a vif may be on. The packets' way from ring to ring
//! is in [`crate::datapath`]; [`crate::backend`] joins both to xenbus.

pub(crate) mod ahead;
pub mod bridges;
pub mod config;
pub mod control;
pub(crate) mod control_ring;
pub mod nodes;
pub mod request;
pub(crate) mod rings;
pub mod steering;
pub mod toeplitz;
pub(crate) mod vif;
pub mod violation;
pub mod vlan_node;

/// Slots of packet bytes in one packet (`XEN_NETIF_NR_SLOTS_MIN`): what every frontend may use.
pub const SLOTS_LEGAL: u32 = xen_pv_sys::io::netif::XEN_NETIF_NR_SLOTS_MIN as u32;
/// A packet of so many slots is no longer a mistake. One more slot than is legal is dropped: there are frontends that miscount by one.
pub const SLOTS_FATAL: u32 = SLOTS_LEGAL + 2;
/// The least segment size taken. A super-frame of 64 KiB in segments of one byte would be 65,000 frames; Linux, too, sends none
/// below 48 (`net.ipv4.tcp_min_snd_mss`).
pub const GSO_SIZE_LEAST: u16 = 48;
