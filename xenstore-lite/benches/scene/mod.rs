//! A store like that of a host with many guests, shared by the benchmarks. Host.

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::{XS_SET_PERMS, XS_WRITE};
use xenstore_lite::fakes::{FakeHost, request};
use xenstore_lite::{Config, ConnectionId, Store};

/// Nodes of one guest: its directory, ten devices, and four leaves in each.
pub(crate) const NODES_A_GUEST: usize = 1 + 1 + 10 * 5;

/// A store of so many nodes in dom0's hands, below `/local/domain`.
pub(crate) struct Scene {
    pub(crate) store: Store,
    pub(crate) host: FakeHost,
    pub(crate) dom0: ConnectionId,
    pub(crate) guests: usize,
}

impl Scene {
    pub(crate) fn new(nodes: usize) -> Self {
        let mut store = Store::new(Config::default());
        let dom0 = store.connect(DomainId(0)).expect("the first connection");
        let host = FakeHost { domains: (0..2).map(|domain| (DomainId(domain), 1)).collect(), ..FakeHost::default() };
        let mut scene = Self { store, host, dom0, guests: (nodes / NODES_A_GUEST).max(1) };
        for guest in 0..scene.guests {
            for device in 0..10 {
                for leaf in ["backend", "state", "handle", "event-channel"] {
                    scene.ask(XS_WRITE, 0, &format!("/local/domain/{guest}/device/{device}/{leaf}\01234"));
                }
            }
        }
        scene.ask(XS_SET_PERMS, 0, "/local/domain/1\0n1\0");
        scene
    }

    /// Dom0's request; the answer is thrown away.
    pub(crate) fn ask(&mut self, kind: u32, transaction: u32, payload: &str) {
        let bytes = request(kind, transaction, payload.as_bytes());
        self.send(self.dom0, &bytes);
    }

    pub(crate) fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        let taken = self.store.handle_bytes(id, bytes, &mut self.host);
        assert_eq!(taken, Ok(bytes.len()));
        let waiting = self.store.waiting(self.dom0);
        self.store.transmitted(self.dom0, waiting);
    }
}
