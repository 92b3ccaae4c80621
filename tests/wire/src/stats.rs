//! What a wire has seen, as numbers. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

/// A snapshot of a wire's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// How often a NIC connected, all ports together.
    pub connects: u64,
    /// Frames from NICs.
    pub frames_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Frames to NICs, from the peer or from another port.
    pub frames_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Frames for NICs thrown away since QEMU did not read.
    pub dropped_out: u64,
    /// Frames from the NICs that were shorter than an Ethernet header.
    pub runts_in: u64,
    /// Broadcast and multicast frames among `frames_in`.
    pub multicast_in: u64,
    /// Frames put on the wire by [`crate::Wire::inject`].
    pub injected: u64,
    /// TCP connections accepted.
    pub tcp_accepted: u64,
    /// Bytes of TCP payload that services received.
    pub tcp_received: u64,
    /// Bytes of TCP payload that services sent.
    pub tcp_sent: u64,
    /// Datagrams that the UDP echo service answered.
    pub udp_echoed: u64,
    /// Datagrams that the UDP discard service took.
    pub udp_discarded: u64,
    /// Datagrams that the flow sink counted.
    pub udp_sunk: u64,
    /// Datagrams that the generator sent.
    pub udp_generated: u64,
    /// Questions for names that were answered.
    pub names_answered: u64,
    /// DHCP messages received.
    pub dhcp_messages: u64,
    /// Leases, by the client's MAC.
    pub leases: BTreeMap<String, String>,
    /// The last transfers that came to their end.
    pub transfers: Vec<Transfer>,
}

/// A TCP transfer as the wire saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// The client.
    pub peer: SocketAddr,
    /// Bytes that the wire received.
    pub received: u64,
    /// Digest of them, or 0.
    pub received_digest: u64,
    /// Bytes that the wire sent.
    pub sent: u64,
    /// Digest of them, or 0.
    pub sent_digest: u64,
    /// From header to trailer.
    pub nanoseconds: u64,
    /// Whether it came to the end that its header announced.
    pub complete: bool,
}

/// How many transfers [`Stats::transfers`] remembers.
const TRANSFERS: usize = 256;

impl Stats {
    pub(crate) fn push_transfer(&mut self, transfer: Transfer) {
        if self.transfers.len() >= TRANSFERS {
            self.transfers.remove(0);
        }
        self.transfers.push(transfer);
    }
}

/// `aa:bb:cc:dd:ee:ff`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
