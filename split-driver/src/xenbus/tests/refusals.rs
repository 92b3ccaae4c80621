//! Devices that are refused: whose fault it is, when they are looked at again, and where the reason is found. Floor 1.

use super::*;
use crate::fakes::StoreQuotas;
use alloc::vec::Vec;

impl Host {
    /// Lets time pass in steps that a retry fits into.
    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds * 10 {
            self.advance(100);
        }
    }

    /// A device, refused since the store has no room for another watch.
    fn without_a_watch(&mut self) {
        self.attach(3, 0);
        self.connect(3, 0);
        let watches = self.store.watches(US);
        self.store.set_quotas(StoreQuotas { watches, ..StoreQuotas::default() });
        self.attach(3, 1);
        self.pass(3);
        assert_eq!(self.state(3, 1), Some(5));
    }
}

/// The texts below `data/errors`, by the names of their nodes.
fn errors(host: &Host) -> Vec<(String, String)> {
    let top = format!("/local/domain/{}/data/errors/vif/", US.0);
    let paths = host.store.paths(top.trim_end_matches('/'));
    let text = |path: &String| Some((path.strip_prefix(&top)?.into(), host.store.get(path)?));
    paths.iter().filter_map(text).collect()
}

/// Its frontend has not come yet when the quota is raised: it is offered without anybody's doing.
#[test]
fn a_device_without_a_watch_is_offered_when_there_is_room() {
    let mut host = Host::new();
    host.without_a_watch();
    let before = host.store.counts().0;
    host.pass(60);
    let requests = host.store.counts().0 - before;
    assert!(requests < 60, "{requests} requests in a minute");
    host.store.set_quotas(StoreQuotas::default());
    host.pass(11);
    assert_eq!((host.state(3, 1), host.backend(3, 1, "error")), (Some(2), None));
    host.connect(3, 1);
    assert_eq!(host.state(3, 1), Some(4));
}

/// Nothing tells of its frontend's states, and they are seen all the same.
#[test]
fn a_device_without_a_watch_is_not_deaf() {
    let mut host = Host::new();
    host.without_a_watch();
    host.frontend(3, 1, "state", "6");
    host.pass(6);
    assert_eq!(host.state(3, 1), Some(6));
    // The driver is loaded again, before there is room and after.
    host.frontend(3, 1, "state", "1");
    host.pass(8);
    assert_eq!(host.state(3, 1), Some(5));
    host.frontend(3, 1, "state", "6");
    host.store.set_quotas(StoreQuotas::default());
    host.pass(6);
    host.frontend(3, 1, "state", "1");
    host.connect(3, 1);
    assert_eq!((host.state(3, 0), host.state(3, 1)), (Some(4), Some(4)));
    host.store.set_quotas(StoreQuotas { watches: 0, ..StoreQuotas::default() });
    host.attach(4, 0);
    host.pass(3);
    host.detach(4, 0, true);
    host.pass(1);
    assert_eq!(host.state(4, 0), None, "it goes as quickly as any");
}

/// Also where it is nodes that there is no room for.
#[test]
fn a_device_without_nodes_is_offered_when_there_is_room() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.store.set_quotas(StoreQuotas { nodes: host.bus.store_nodes() + 7 + 2, ..StoreQuotas::default() });
    host.attach(3, 1);
    host.pass(3);
    assert_eq!(host.state(3, 1), Some(5));
    host.store.set_quotas(StoreQuotas::default());
    host.pass(6);
    assert_eq!((host.state(3, 1), host.backend(3, 1, "error")), (Some(2), None));
}

/// Who waits longer each time is a frontend that broke the protocol, not one whose host has no room or wrong nodes.
#[test]
fn nobody_waits_for_a_fault_of_the_host() {
    let mut host = Host::new();
    host.attach(3, 0);
    for _ in 0..8 {
        host.connect(3, 0);
        assert_eq!(host.state(3, 0), Some(4), "it is served at once");
        host.store.put(&format!("{}/rate", be_path(3, 0)), "much", &[]);
        host.settle();
        assert_eq!(host.state(3, 0), Some(5));
        host.store.delete(&format!("{}/rate", be_path(3, 0)));
        host.frontend(3, 0, "state", "6");
        host.frontend(3, 0, "state", "1");
        host.advance(1000);
    }
    // Its own fault costs it what it did before.
    let mut waits = Vec::new();
    for _ in 0..4 {
        host.frontend(3, 0, "ring-ref", "none");
        host.frontend(3, 0, "state", "4");
        let mut seconds = 0;
        while host.state(3, 0) != Some(5) {
            host.advance(1000);
            seconds += 1;
        }
        waits.push(seconds);
        host.frontend(3, 0, "state", "6");
        host.frontend(3, 0, "state", "1");
    }
    assert_eq!(waits, [0, 0, 1, 2]);
}

/// The directories of one frontend cannot be read for now: those of others are found, and this one's when it can be.
#[test]
fn discovery_is_not_held_up_by_what_the_store_refuses_for_now() {
    let mut host = Host::new();
    host.attach(3, 0);
    let busy = format!("/local/domain/{}/backend/vif/3", US.0);
    host.store.set_busy(Some(&busy));
    // An event that stands for many: all of it is to be looked at.
    host.store.put(&busy, "", &[]);
    host.pass(1);
    host.attach(4, 0);
    assert_eq!(host.state(4, 0), Some(2), "found at once");
    let before = host.store.counts().0;
    host.pass(60);
    let requests = host.store.counts().0 - before;
    assert!(requests < 600, "{requests} requests in a minute");
    host.store.set_busy(None);
    host.pass(2);
    let quiet = host.store.counts().0;
    host.pass(5);
    assert_eq!(host.store.counts().0, quiet, "all was looked at");
}

/// What `xl` has taken away by the time that anybody looks.
#[test]
fn reasons_outlive_their_devices() {
    let mut host = Host::new();
    for domain in 3..21 {
        host.make(domain, 0);
        host.store.delete(&format!("{}/mac", be_path(domain, 0)));
        host.store.put(&format!("{}/state", be_path(domain, 0)), "1", &[]);
        host.settle();
        if domain == 3 {
            assert_eq!(errors(&host), [("0".into(), "vif3.0: node mac is missing".into())]);
        }
        host.detach(domain, 0, true);
        host.advance(10_000);
    }
    let errors = errors(&host);
    assert_eq!(errors.len(), 17);
    assert!(errors.contains(&("removed".into(), "2".into())), "{errors:?}");
    assert!(errors.contains(&("17".into(), "vif20.0: node mac is missing".into())), "{errors:?}");
}

/// A node that is left out where it says what the header says of its absence must not be there from an earlier connection.
#[test]
fn what_an_earlier_connection_wrote_is_gone_where_it_is_not_written_again() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    host.kind.handles.borrow()[&DeviceId { frontend: DomainId(3), handle: 0 }].write_node("feature-discard", 1);
    host.settle();
    assert_eq!(host.backend(3, 0, "feature-discard").as_deref(), Some("1"));
    for state in ["5", "6", "1"] {
        host.frontend(3, 0, "state", state);
    }
    host.connect(3, 0);
    assert_eq!((host.state(3, 0), host.backend(3, 0, "feature-discard")), (Some(4), None));
    assert_eq!(host.backend(3, 0, "sectors").as_deref(), Some("2"));
}
