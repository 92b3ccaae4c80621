use super::*;
use split_driver::fakes::{FakeStore, block_on};
use split_driver::store::{Store, StoreError, Transaction};
use std::cell::Cell;
use xen_pv_sys::DomainId;

/// A host with a netdom, a blkdom, a Linux driver domain, two guests, and one that says it were a netdom.
pub(crate) fn host() -> FakeStore {
    let store = FakeStore::new();
    let names = [
        (0, "Domain-0"),
        (1, "Xenstore"),
        (2, "netdom"),
        (3, "blkdom"),
        (4, "web"),
        (5, "db"),
        (6, "linux-net"),
        (7, "liar"),
    ];
    for (id, name) in names {
        store.add_domain(DomainId(id));
        store.put(&format!("/local/domain/{id}/name"), name, &["n0"]);
    }
    store.put("/tool/xenstored/domid", "1", &["n0"]);
    let own = |id: u32, nodes: &[(&str, &str)]| {
        for (node, value) in nodes {
            store.put(&format!("/local/domain/{id}/{node}"), value, &[&format!("n{id}")]);
        }
    };
    own(
        2,
        &[
            ("vm", "/vm/00000000-0000-0000-0000-000000000002"),
            ("device/pci/0/state", "4"),
            ("data/image", "netdom 0.1.0"),
            ("data/control", "7 refused no memory"),
            ("data/ready", "351 ms: 00:03.0"),
            ("data/error", "unknown word \"lgo\""),
            ("data/errors/vif/3", "vif5.1: no bridge xenbr7; there are lan, xenbr0"),
            ("data/errors/vif/removed", "3"),
            ("data/resources", "free-pages 1000, heap-pages 20, lives 2"),
            ("data/statistics/lives", "lives 2, packets that waited and were lost with them 17"),
            (
                "data/statistics/nic/0",
                "pci 00:03.0 on xenbr0, from: 100 packets 9000 bytes, to: 50 packets 4000 bytes, no-link 3, receive-missed 2, link up",
            ),
            (
                "data/statistics/vif/4/0",
                "from: 30 packets 2000 bytes, to: 80 packets 7000 bytes, queue-full 4, spoofed 1",
            ),
            ("data/statistics/router/packets", "forwarded 9 packets, translated 8, not-routed 7, sessions 2"),
            ("data/statistics/router/uplink", "on xenbr0, address 10.0.0.5/24"),
            ("data/statistics/router/leases/lan", "leases 5"),
            ("data/statistics/addresses/xenbr0", "00:16:3e:00:00:01 0 vif/4/0, 52:54:00:12:34:56 100 nic/0"),
        ],
    );
    store.put("/vm/00000000-0000-0000-0000-000000000002/start_time", "1000000.25", &["n0"]);
    own(
        3,
        &[
            ("device/pci/0/state", "4"),
            ("data/control", "7 done 1 1520 900 231 blkdom 0.0.9 blkdom 0.1.0"),
            ("data/ready", "312 ms: 1 disks (nvme0n1)"),
            ("data/resources", "free-pages 900, lives 1"),
            (
                "data/statistics/nvme0n1",
                "1000 reads 8000 sectors, 20 writes 160 sectors, 3 flushes, 0 discards 0 sectors",
            ),
            (
                "data/statistics/vbd/4/51712",
                "900 reads 7200 sectors, 10 writes 80 sectors, 2 flushes, 1 discards 8 sectors, refused 5",
            ),
            ("data/volumes/0", "2097152\tnvme0n1\tSERIAL=abc\n1048576\tvg0/web\tID=x-part1\n"),
            ("data/volumes/1", "2048\tvg0/spare\n"),
        ],
    );
    own(7, &[("data/control", "0 ready netdom 9.9"), ("data/error", "\x1b[2Joh")]);
    let vif = |domain: u32, guest: u32, device: u32, nodes: &[(&str, &str)]| {
        for (node, value) in nodes {
            store.put(
                &format!("/local/domain/{domain}/backend/vif/{guest}/{device}/{node}"),
                value,
                &[&format!("n{domain}")],
            );
        }
    };
    vif(2, 4, 0, &[("bridge", "xenbr0"), ("mac", "00:16:3e:00:00:01"), ("state", "4"), ("carrier", "1")]);
    vif(2, 5, 0, &[("bridge", "lan.7"), ("mac", "00:16:3e:00:00:02"), ("state", "2")]);
    vif(
        2,
        5,
        1,
        &[
            ("bridge", "xenbr7"),
            ("mac", "00:16:3e:00:00:03"),
            ("state", "6"),
            ("error", "no bridge xenbr7; there are lan, xenbr0"),
        ],
    );
    vif(6, 5, 2, &[("bridge", "br1"), ("state", "4")]);
    // What dom0 serves itself is not looked at.
    vif(0, 5, 3, &[("bridge", "br0"), ("state", "4")]);
    store.put("/local/domain/4/device/vif/0/state", "4", &["n4"]);
    store.put("/local/domain/5/device/vif/0/state", "1", &["n5"]);
    for (guest, name, target, state) in [(4, "xvda", "vg0/web", "4"), (5, "xvda", "/dev/vg0/lost", "6")] {
        let path = format!("/local/domain/3/backend/vbd/{guest}/51712");
        for (node, value) in [("dev", name), ("params", target), ("mode", "w"), ("state", state)] {
            store.put(&format!("{path}/{node}"), value, &["n3"]);
        }
        store.put(&format!("/local/domain/{guest}/device/vbd/51712/state"), state, &["n4"]);
    }
    store.put("/local/domain/3/backend/vbd/5/51712/error", "no volume vg0/lost", &["n3"]);
    store
}

/// What is read of it.
pub(crate) fn snapshot() -> Snapshot {
    block_on(read(&host().connection(DomainId(0)))).unwrap()
}

#[test]
fn driver_domains_are_found_and_told_apart() {
    let snapshot = snapshot();
    let image = |image: &Option<Image>| image.as_ref().map(|image| format!("{} {}", image.name, image.version));
    let found: Vec<_> = snapshot
        .domains
        .iter()
        .map(|domain| (domain.name.as_str(), image(&domain.image), domain.is_vouched, domain.is_well()))
        .collect();
    let expected = [
        ("netdom", Some("netdom 0.1.0".into()), true, false),
        ("blkdom", Some("blkdom 0.1.0".into()), true, false),
        ("linux-net", None, true, true),
        ("liar", Some("netdom 9.9".into()), false, true),
    ];
    assert_eq!(found, expected);
    assert_eq!(snapshot.store, Some(StoreDomain { id: 1, name: "Xenstore".into(), image: None, lives: None }));
    assert!(!snapshot.truncated);
}

#[test]
fn dom0_says_which_domains_are_believed() {
    let vouched = |node: &str| {
        let store = host();
        store.put(&format!("/local/domain/7/{node}"), "", &["n0"]);
        let snapshot = block_on(read(&store.connection(DomainId(0)))).unwrap();
        snapshot.domains.iter().find(|domain| domain.id == 7).map(|domain| (domain.is_vouched, domain.is_well()))
    };
    assert_eq!(vouched("data/pci"), Some((false, true)));
    for node in ["libxl", "device/pci/0", "backend/vif/4/7/state"] {
        assert_eq!(vouched(node), Some((true, false)), "{node}");
    }
}

#[test]
fn all_is_read_of_a_netdom() {
    let snapshot = snapshot();
    let netdom = snapshot.domains.first().unwrap();
    assert_eq!((netdom.start, netdom.lives, netdom.lost_packets), (Some(1_000_000.25), Some(2), Some(17)));
    assert_eq!(netdom.error.as_deref(), Some("unknown word \"lgo\""));
    assert_eq!(netdom.refusals, ["vif5.1: no bridge xenbr7; there are lan, xenbr0"]);
    let nic = netdom.nics.first().unwrap();
    assert_eq!((nic.link, nic.port.from.packets, nic.port.drops.get("no-link")), (Some(true), 100, Some(&3)));
    assert_eq!(nic.device, Counts::from([("receive-missed".into(), 2)]));
    let router = netdom.router.as_ref().unwrap();
    assert_eq!((router.forwarded, router.translated, router.sessions), (9, 8, Some(2)));
    assert_eq!((router.drops.get("not-routed"), router.leases.get("lan")), (Some(&7), Some(&5)));
    let vif = netdom.vifs.first().unwrap();
    assert!(vif.is_connected() && vif.carrier == Some(true) && vif.guest.shown() == "web (4)");
    assert_eq!(vif.port.as_ref().unwrap().drops, Counts::from([("queue-full".into(), 4), ("spoofed".into(), 1)]));
    let states: Vec<_> = netdom.vifs.iter().map(|vif| (vif.state.name(), vif.frontend.name())).collect();
    assert_eq!(states, [("connected", "connected"), ("waiting", "initialising"), ("closed", "unknown")]);
}

#[test]
fn all_is_read_of_a_blkdom() {
    let snapshot = snapshot();
    let blkdom = snapshot.domains.get(1).unwrap();
    assert_eq!((blkdom.units.len(), blkdom.volumes.len(), blkdom.vbds.len()), (1, 3, 2));
    assert_eq!(blkdom.volumes[1], Volume { names: vec!["vg0/web".into(), "ID=x-part1".into()], sectors: 1_048_576 });
    let disk = blkdom.vbds[0].disk.as_ref().unwrap();
    assert_eq!((disk.reads, disk.sectors_read, disk.discards, disk.failures.get("refused")), (900, 7200, 1, Some(&5)));
    assert_eq!(blkdom.vbds[1].error.as_deref(), Some("no volume vg0/lost"));
}

#[test]
fn bridges_are_made_of_their_ports() {
    let snapshot = snapshot();
    let bridges = snapshot.domains[0].bridges();
    let ports = |bridge: &Bridge| bridge.ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>().join(" ");
    let shown: Vec<_> = bridges.iter().map(|bridge| (bridge.name.as_str(), ports(bridge), bridge.leases)).collect();
    let expected = [
        ("lan", "vif 5.0".to_owned(), Some(5)),
        ("xenbr0", "nic 0 vif 4.0".to_owned(), None),
        ("xenbr7", "vif 5.1".to_owned(), None),
    ];
    assert_eq!(shown, expected);
    assert_eq!(bridges[0].ports[0].vlans.as_deref(), Some("7"));
    assert_eq!(
        bridges[1].addresses[1],
        Learnt { address: "52:54:00:12:34:56".into(), vlan: 100, port: "nic/0".into() }
    );
}

#[test]
fn what_concerns_one_domain_is_kept() {
    let of = |id| {
        let mut snapshot = snapshot();
        let any = snapshot.retain(id);
        (
            any,
            snapshot.domains.iter().map(|domain| (domain.id, domain.vifs.len(), domain.vbds.len())).collect::<Vec<_>>(),
        )
    };
    assert_eq!(of(2), (true, vec![(2, 3, 0)]));
    assert_eq!(of(5), (true, vec![(2, 2, 0), (3, 0, 1), (6, 1, 0)]));
    assert_eq!(of(1), (true, vec![]));
    assert_eq!(of(0), (false, vec![]));
}

#[test]
fn hostile_texts_are_clean_and_bounded() {
    let store = host();
    let put = |node: &str, value: &str| store.put(&format!("/local/domain/7/data/{node}"), value, &["n7"]);
    for number in 0..500 {
        put(&format!("errors/vif/{number}"), "\x1b]0;mine\x07");
        put(
            &format!("statistics/nic/{number}"),
            "pci \x1b[31m on \x1b[0m, from: x packets 5 bytes, \x1b 5, a\"b 7, ok 1",
        );
    }
    put("image", "netdom \x1b[2J");
    let many: Vec<String> = (0..500).map(|number| format!("cause-{number} {number}")).collect();
    put("resources", &many.join(", "));
    let snapshot = block_on(read(&store.connection(DomainId(0)))).unwrap();
    let liar = snapshot.domains.iter().find(|domain| domain.id == 7).unwrap();
    assert!(snapshot.truncated);
    assert!(liar.refusals.len() <= 32 && liar.nics.len() <= 256 && liar.resources.len() <= 64);
    assert_eq!(liar.nics[0].port.drops, Counts::from([("ok".into(), 1)]));
    let text = format!("{snapshot:?}");
    assert!(!text.contains("\\u{1b}") && !text.contains("\\u{7}"), "{text}");
    // An image that is none: what it says elsewhere counts.
    assert_eq!(liar.image.as_ref().map(|image| image.version.as_str()), Some("9.9"));
}

/// A store in which a node goes at each request, and one that breaks.
struct Vanishing<'a, S> {
    store: &'a S,
    host: &'a FakeStore,
    requests: Cell<usize>,
    /// At this request this is removed.
    removal: (usize, &'a str),
}

impl<S: Store> Store for Vanishing<'_, S> {
    type Watch = S::Watch;

    async fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.step();
        self.store.read(transaction, path).await
    }

    async fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.store.write(transaction, path, value).await
    }

    async fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.step();
        self.store.directory(transaction, path).await
    }

    async fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.store.remove(transaction, path).await
    }

    async fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.store.permissions(transaction, path).await
    }

    async fn set_permissions(&self, transaction: Transaction, path: &str, entries: &[&str]) -> Result<(), StoreError> {
        self.store.set_permissions(transaction, path, entries).await
    }

    async fn start(&self) -> Result<Transaction, StoreError> {
        self.store.start().await
    }

    async fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        self.store.end(transaction, commit).await
    }

    async fn watch(&self, path: &str) -> Result<Self::Watch, StoreError> {
        self.store.watch(path).await
    }
}

impl<S> Vanishing<'_, S> {
    fn step(&self) {
        self.requests.set(self.requests.get() + 1);
        if self.requests.get() == self.removal.0 {
            self.host.delete(self.removal.1);
        }
    }
}

#[test]
fn what_goes_meanwhile_is_not_there() {
    // The device alone at each request, so that it goes between the list that it is in and its own nodes, too.
    let table = [
        ("/local/domain/2", 9),
        ("/local/domain/2/backend/vif/5", 9),
        ("/local/domain/2/data/statistics", 9),
        ("/local/domain/4", 9),
        ("/local/domain/2/backend/vif/5/1", 1),
    ];
    for (gone, step) in table {
        for request in (1..150).step_by(step) {
            let host = host();
            let store = host.connection(DomainId(0));
            let store = Vanishing { store: &store, host: &host, requests: Cell::new(0), removal: (request, gone) };
            let snapshot = block_on(read(&store)).unwrap_or_else(|error| panic!("{gone} at {request}: {error:#}"));
            assert!(snapshot.domains.iter().any(|domain| domain.id == 3), "{gone} at {request}");
            // A device without a state is none.
            let mut vifs = snapshot.domains.iter().flat_map(|domain| &domain.vifs);
            assert!(vifs.all(|vif| vif.state != State::default()), "{gone} at {request}");
        }
    }
}

#[test]
fn a_store_that_refuses_is_an_error() {
    let host = host();
    host.set_busy(Some("/local/domain"));
    let error = block_on(read(&host.connection(DomainId(0)))).unwrap_err();
    assert!(format!("{error:#}").starts_with("listing /local/domain"));
}
