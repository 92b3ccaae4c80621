//! What the domain's next life has to know of the router: sessions and leases, in bytes. What an earlier life wrote is checked as a guest's word
//! would be. Pure. Floor 3.

use super::nat::{KEPT_BYTES, KeptSession, Nat};
use super::{Kind, Routed, Router};
use crate::ethernet::MacAddress;
use crate::switch::PortId;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use split_driver::time::Instant;

/// Bytes of a lease that is kept: a client's Ethernet address, and its IP address.
const LEASE_BYTES: usize = 10;

impl Router {
    /// Whether sessions or leases came since this was asked last: the next life has to know them, as no guest says so again.
    pub fn take_changed(&mut self) -> bool {
        let opened = self.nat.as_mut().is_some_and(Nat::take_opened);
        core::mem::take(&mut self.leased) || opened
    }

    /// The sessions of the guest behind a port.
    pub fn keep_sessions(&self, port: PortId) -> Vec<u8> {
        let sessions = self.nat.iter().flat_map(|nat| nat.keep(port));
        sessions.flat_map(KeptSession::to_bytes).collect()
    }

    /// Goes on with sessions of the guest behind a port, as far as it still has their addresses.
    pub fn restore_sessions(&mut self, port: PortId, bytes: &[u8], now: Instant) {
        let Some(Kind::Guest(Routed { addresses, translated: true, .. })) =
            self.interfaces.get(port.index()).and_then(Option::as_ref).map(|interface| &interface.kind)
        else {
            return;
        };
        let Some(nat) = &mut self.nat else {
            return;
        };
        let (all, _rest) = bytes.as_chunks::<KEPT_BYTES>();
        for session in all.iter().copied().filter_map(KeptSession::from_bytes) {
            if addresses.contains(&session.inside.address) {
                nat.restore(port, session, now);
            }
        }
    }

    /// The leases on a bridge without a NIC, or the router's own on the way out; none where the port is on no such bridge.
    pub fn keep_leases(&self, port: PortId, now: Instant) -> Option<Vec<u8>> {
        if let Some(lease) = self.keep_lease(port) {
            return Some(lease.into());
        }
        let Some(Kind::Internal(leases)) = self.interface(port).map(|interface| &interface.kind) else {
            return None;
        };
        let lease = |(mac, address): (MacAddress, Ipv4Addr)| mac.0.into_iter().chain(address.octets());
        Some(leases.iter(now).flat_map(lease).collect())
    }

    /// Goes on with leases: those on a bridge without a NIC as if each had been given now, the router's own as long as it lasts.
    pub fn restore_leases(&mut self, port: PortId, bytes: &[u8], now: Instant) {
        self.restore_lease(port, bytes, now);
        let interface = self.interfaces.get_mut(port.index()).and_then(Option::as_mut);
        let Some(Kind::Internal(leases)) = interface.map(|interface| &mut interface.kind) else {
            return;
        };
        let (all, _rest) = bytes.as_chunks::<LEASE_BYTES>();
        for [a, b, c, d, e, f, address @ ..] in all.iter().copied() {
            leases.restore(MacAddress([a, b, c, d, e, f]), Ipv4Addr::from(address), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Network, Setup};
    use super::*;
    use split_driver::time::Duration;

    #[test]
    fn leases_go_over_a_life() {
        let own = Network { address: Ipv4Addr::new(10, 0, 7, 1), length: 24 };
        let router = || {
            let mut router = Router::new(&Setup::default(), 1500, 1);
            router.add_internal(PortId(4), own);
            router
        };
        let now = Instant::default() + Duration::from_secs(9);
        let mut before = router();
        let lease = |mac: u8, last: u8| [2, 0, 0, 0, 0, mac, 10, 0, 7, last];
        // The rest is of no station, of no address of this network, and of an address that is another client's.
        let wrong = [[1, 0, 0, 0, 0, 9, 10, 0, 7, 9], [2, 0, 0, 0, 0, 8, 10, 0, 8, 9], lease(5, 20)];
        let bytes = [lease(3, 20), lease(4, 21)].into_iter().chain(wrong).collect::<Vec<_>>().concat();
        before.restore_leases(PortId(4), &bytes, now);
        before.restore_leases(PortId(5), &bytes, now);
        let kept = before.keep_leases(PortId(4), now).unwrap();
        assert_eq!(kept, [lease(3, 20), lease(4, 21)].concat());
        let mut after = router();
        after.restore_leases(PortId(4), &kept, now);
        assert_eq!(after.keep_leases(PortId(4), now), Some(kept));
        assert_eq!(after.keep_leases(PortId(5), now), None);
    }
}
