//! What a receiver, a NIC or a guest, does itself of what is left to do to a packet. Pure. Floor 3.
//!
//! A NIC is told where the headers are. A guest is not: it finds them itself, and drops what it does not find. Linux' netfront
//! (`checksum_setup`, `skb_checksum_setup`) looks behind an untagged Ethernet header for IPv4 or IPv6, then for TCP or UDP, behind those
//! extension headers that [`headers::parse`](super::headers::parse) knows, too. So a guest gets a blank checksum or a super-frame in that
//! form only.

use super::headers::{Layout, Network, Transport};
use crate::packet::{Checksum, Gso, GsoKind, Offload};

/// What a receiver takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ability {
    /// It completes checksums over IPv4, and over IPv6.
    pub(crate) checksum_v4: bool,
    pub(crate) checksum_v6: bool,
    /// It takes super-frames of TCP over IPv4, and over IPv6.
    pub(crate) gso_v4: bool,
    pub(crate) gso_v6: bool,
    /// It is told where the headers are.
    pub(crate) told_headers: bool,
    /// Bytes of the longest packet, or of the longest segment.
    pub(crate) longest: usize,
}

/// What must be done to a packet before its receiver takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// Nothing.
    AsIs,
    /// Its checksum must be completed, or it must be cut into segments.
    Prepared,
    /// It is too long for this receiver.
    Never,
}

impl Ability {
    /// Whether it completes the checksum of a packet with these headers.
    pub(crate) fn checksum(&self, layout: &Layout) -> bool {
        let able = match layout.network {
            Network::V4 => self.checksum_v4,
            Network::V6 => self.checksum_v6,
        };
        able && (self.told_headers || layout.is_untagged())
    }

    /// Whether it takes a TCP super-frame with these headers.
    pub(crate) fn gso(&self, layout: &Layout) -> bool {
        let able = match layout.network {
            Network::V4 => self.gso_v4,
            Network::V6 => self.gso_v6,
        };
        // A guest may have to cut it, to pass it on; Linux cuts behind some of the extension headers only (`ipv6_gso_pull_exthdrs`). A NIC
        // knows no routing header, whose last address the checksum is over.
        let found = !layout.has_extensions() && (self.told_headers || layout.is_untagged());
        able && found && layout.transport == Transport::Tcp
    }

    /// What must be done to a packet of `length` bytes with that much left to do. `layout` is where its headers are.
    pub(crate) fn accepts(&self, length: u32, offload: Offload, layout: Option<&Layout>) -> Acceptance {
        let blank = offload.checksum == Checksum::Blank;
        let as_is = match offload.gso {
            Some(gso) => blank && layout.is_some_and(|layout| fits(gso, layout) && self.gso(layout)),
            None if length as usize > self.longest => return Acceptance::Never,
            None => !blank || layout.is_some_and(|layout| self.checksum(layout)),
        };
        if as_is { Acceptance::AsIs } else { Acceptance::Prepared }
    }
}

/// Whether a super-frame is what its extra info says.
pub(crate) fn fits(gso: Gso, layout: &Layout) -> bool {
    layout.transport == Transport::Tcp
        && match gso.kind {
            GsoKind::TcpV4 => layout.network == Network::V4,
            GsoKind::TcpV6 => layout.network == Network::V6,
        }
}
