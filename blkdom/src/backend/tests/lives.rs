//! Disks that the last life served: adopted without a node that changes, by whom they belong to, from the disk that they were on.

use super::*;
use split_driver::xenbus::{Backend, DeviceId};

impl Host {
    /// The domain's life ends, and the next one begins. Its disks are not up before [`Names::start`].
    fn next_life(&mut self) {
        self.xen.end_life_now();
        self.tasks = Tasks::new();
        self.drive.borrow_mut().reset(|_, _| false);
        let path = DataPath::new(self.xen.clone(), Box::new(FakePages::new(&self.xen, PAGES)));
        self.path = Rc::new(RefCell::new(path));
        let known = RefCell::new(self.names.known.take());
        let names = Names { known, disk: Cell::new(self.names.disk.get()), ..Names::default() };
        names.starting.set(true);
        self.names = Rc::new(names);
        let blkback = Blkback::new(Rc::clone(&self.path), Rc::clone(&self.names), Rc::new(|| {}));
        self.blkback = blkback.with_inherited(Rc::clone(&self.kept));
        self.xen.begin_life();
        self.path.borrow_mut().add_disk(Box::new(FakeDisk::again(&self.drive)));
        let bus =
            Bus::with_timing(self.store.connection(US), self.clock.clone(), self.blkback.clone(), Timing::AT_ONCE);
        let bytes = self.written.as_ref().map(|written| {
            let mut bytes = Vec::new();
            assert!(written.write(|piece| bytes.extend(piece)));
            bytes
        });
        let bus = bus.adopting(bytes.as_deref().map(Connections::parse));
        self.written = bytes.is_some().then(|| bus.connections());
        self.tasks.spawn(async move {
            let _ = bus.run().await;
        });
        self.settle();
    }

    /// The statistics are written down, as they are once a second.
    fn write_down(&mut self) {
        let path = self.path.borrow();
        let vbds: Vec<_> =
            self.blkback.vbds().into_iter().filter_map(|(id, vbd)| Some((id, path.vbd_statistics(vbd)?))).collect();
        let kept = Kept::new(vbds, [], Vec::new(), &self.kept.borrow());
        self.kept = Rc::new(RefCell::new(Kept::parse(Some(&kept.to_bytes()))));
    }

    /// All that a guest's directories hold.
    fn nodes(&self, guest: u16) -> Vec<(String, String)> {
        let [frontend, backend] = [
            format!("/local/domain/{guest}/device/vbd/{XVDA}"),
            format!("/local/domain/{}/backend/vbd/{guest}/{XVDA}", US.0),
        ];
        let names = [
            "state",
            "sectors",
            "sector-size",
            "info",
            "feature-flush-cache",
            "feature-persistent",
            "feature-barrier",
            "feature-discard",
            "hotplug-status",
            "error",
        ];
        let paths = [frontend, backend].into_iter().flat_map(|top| names.map(|name| format!("{top}/{name}")));
        paths.filter_map(|path| Some((path.clone(), self.store.get(&path)?))).collect()
    }
}

#[test]
fn a_disk_is_served_on_once_it_is_up() {
    for setup in [Setup::default(), Setup { queues: 3, pages: 16, persistent: true, ..Setup::default() }] {
        let mut host = Host::new();
        // What was written down, or the store alone.
        if setup.persistent {
            host.written = None;
        }
        host.create(3, "vg0/a", &[]);
        let mut guest = host.connect(3, setup);
        let before = host.nodes(3);
        assert!(before.len() > 8);
        host.drive.borrow_mut().hold = true;
        assert_eq!(host.write(&mut guest, 0, 8, 9), []);
        host.drive.borrow_mut().hold = false;
        host.next_life();
        assert_eq!(host.blkback.connected(), 0, "the disk is starting");
        assert_eq!((host.nodes(3), guest.responses(0)), (before.clone(), Vec::new()));
        host.names.start();
        host.settle();
        assert_eq!((host.blkback.connected(), host.nodes(3)), (1, before.clone()));
        let id = DeviceId { frontend: DomainId(3), handle: XVDA };
        let described = host.blkback.describe(&id);
        assert!(described.ends_with("; requests unanswered: 1, direct writes 1, indirect writes 0"), "{described}");
        assert_eq!((guest.responses(0), host.byte(1024 + 8)), ([OKAY].to_vec(), 9));
        assert_eq!(host.write(&mut guest, setup.queues - 1, 16, 7), [OKAY]);
        // Another life, and then it goes as any disk does.
        host.next_life();
        host.names.start();
        host.settle();
        assert_eq!((host.write(&mut guest, 0, 24, 5), host.xen.taken_over()), ([OKAY].to_vec(), 0));
        host.detach(3, false);
        host.put_frontend(3, "/state", "6");
        host.settle();
        assert_eq!(host.state(3).as_deref(), Some("6"));
        host.end();
    }
}

/// A disk that is attached while the domain begins anew waits until those that have theirs have them again.
#[test]
fn whoever_had_a_volume_has_it_again() {
    let mut host = Host::new();
    // The newcomer's number comes first.
    host.create(9, "vg0/a", &[]);
    let mut guest = host.connect(9, Setup::default());
    host.next_life();
    host.create(3, "vg0/a", &[]);
    host.create(4, "vg0/b", &[]);
    host.names.start();
    host.settle();
    assert!(host.error(3).contains("domain 9's xvda has vg0/a for writing"), "{}", host.error(3));
    assert_eq!(host.state(4).as_deref(), Some("2"), "nobody had it");
    assert_eq!(host.write(&mut guest, 0, 0, 3), [OKAY]);
    host.xen.taken_over();
    host.end();
}

#[test]
fn a_disk_that_is_gone_or_another_one_fails_what_is_asked_of_it() {
    for other in [false, true] {
        let mut host = Host::new();
        host.create(3, "vg0/a", &[]);
        let mut guest = host.connect(3, Setup::default());
        assert_eq!(host.write(&mut guest, 0, 0, 3), [OKAY]);
        let before = host.nodes(3);
        host.next_life();
        if other {
            host.names.disk.set(99);
        } else {
            host.names.known.borrow_mut().clear();
        }
        host.names.start();
        host.settle();
        assert_eq!((host.blkback.connected(), host.nodes(3)), (1, before));
        assert_eq!(host.write(&mut guest, 0, 0, 4), [Response { status: -1, ..OKAY }]);
        assert_eq!(host.byte(1024), 3);
        // Nobody has the disk that it does not get; where there is none, there is none for others.
        host.create(4, "disk", &[]);
        assert_eq!(host.state(4).as_deref(), if other { Some("2") } else { Some("5") });
        // The next life has it again, and it stays as it is until it is attached anew.
        host.names.put(resolved("vg0/a", 1024, 1024));
        host.names.disk.set(0);
        host.next_life();
        host.names.start();
        host.settle();
        assert_eq!(host.write(&mut guest, 0, 0, 4), [Response { status: -1, ..OKAY }]);
        host.detach(3, false);
        host.put_frontend(3, "/state", "6");
        host.settle();
        host.xen.taken_over();
        host.end();
    }
}

/// Removed, closed, or on its way: nothing is adopted that the last life would not have served.
#[test]
fn disks_that_were_not_connected_go_on_where_they_were() {
    let mut host = Host::new();
    for guest in [3, 4, 5] {
        host.names.put(resolved(&format!("v{guest}"), u64::from(guest) * 8, 8));
        host.create(guest, &format!("v{guest}"), &[]);
    }
    let frontend = Frontend::new(&host.xen, 3, Setup::default());
    let _gone = host.connect(4, Setup::default());
    let _going = host.connect(5, Setup::default());
    host.xen.end_life_now();
    host.store.delete(&format!("/local/domain/4/device/vbd/{XVDA}"));
    host.put_backend(5, "/online", "0");
    host.put_backend(5, "/state", "5");
    host.next_life();
    host.names.start();
    host.settle();
    assert_eq!(host.blkback.connected(), 0);
    assert_eq!(host.state(3).as_deref(), Some("2"));
    assert!(host.xen.taken_over() > 0, "the journals of those that went");
    host.say(3, &frontend);
    assert_eq!(host.state(3).as_deref(), Some("4"), "{}", host.error(3));
    host.end();
}

/// Between the rings that were taken up and the node that says so, a life ends: the next one connects anew, and the one after it adopts.
#[test]
fn a_life_that_ends_while_a_disk_connects_leaves_a_journal_that_is_forgotten() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[]);
    let mut guest = host.connect(3, Setup::default());
    assert_eq!(host.write(&mut guest, 0, 0, 3), [OKAY]);
    // As it was before the node was written.
    host.put_backend(3, "/state", "2");
    host.put_frontend(3, "/state", "3");
    host.next_life();
    host.names.start();
    host.settle();
    assert_eq!((host.state(3).as_deref(), host.xen.live().kept_pages), (Some("4"), 1));
    host.put_frontend(3, "/state", "4");
    host.settle();
    assert_eq!(host.write(&mut guest, 0, 8, 4), [OKAY]);
    host.next_life();
    host.names.start();
    host.settle();
    assert_eq!((host.write(&mut guest, 0, 16, 5), host.xen.taken_over()), ([OKAY].to_vec(), 0));
    host.end();
}

/// Code that went astray wrote over what is known of one disk's requests: that disk is closed and says why, and no other one.
#[test]
fn a_damaged_journal_closes_its_disk_and_says_so() {
    // What was written down of the connections, or the store alone; in one of the rings, or in the only one.
    for (written, queues) in [(true, 1), (false, 1), (true, 3)] {
        let mut host = Host::new();
        if !written {
            host.written = None;
        }
        host.create(3, "vg0/a", &[]);
        host.create(4, "vg0/b", &[]);
        let mut guest = host.connect(3, Setup { queues, ..Setup::default() });
        let mut neighbour = host.connect(4, Setup::default());
        let before = host.nodes(4);
        host.drive.borrow_mut().hold = true;
        assert_eq!(host.write(&mut guest, queues - 1, 8, 9), []);
        assert_eq!(host.write(&mut neighbour, 0, 8, 7), []);
        host.drive.borrow_mut().hold = false;
        // The first entry's request, in the last page of the first vbd.
        host.xen.damage(queues - 1, 64 + 5, |word| word ^ 4);
        host.next_life();
        host.names.start();
        host.settle();
        let reason = format!(
            "the journal of the requests of queue {} that the last life took is of no use (it was written over), so they are lost: \
             attach the disk anew",
            queues - 1
        );
        assert_eq!((host.state(3).as_deref(), host.error(3)), (Some("5"), reason.clone()));
        assert_eq!((guest.responses(queues - 1), host.byte(1024 + 8)), (Vec::new(), 0), "nobody knows what was asked");
        assert_eq!((host.blkback.connected(), host.nodes(4)), (1, before));
        assert_eq!((neighbour.responses(0), host.byte(4096 + 8)), ([OKAY].to_vec(), 7));
        host.xen.taken_over();
        // Attached anew, it is as any other one.
        host.put_frontend(3, "/state", "6");
        host.settle();
        host.detach(3, true);
        host.advance(500);
        assert_eq!(host.state(3), None, "{}", host.error(3));
        host.create(3, "vg0/a", &[]);
        let mut guest = host.connect(3, Setup::default());
        assert_eq!((host.write(&mut guest, 0, 8, 5), host.error(3)), ([OKAY].to_vec(), String::new()));
        host.next_life();
        host.names.start();
        host.settle();
        assert_eq!((host.write(&mut guest, 0, 16, 6), host.xen.taken_over()), ([OKAY].to_vec(), 0));
        host.end();
    }
}

/// What a disk counted goes over, and where it is attached anew it begins anew.
#[test]
fn a_disk_counts_on_in_the_next_life() {
    for written in [true, false] {
        let mut host = Host::new();
        if !written {
            host.written = None;
        }
        host.create(3, "vg0/a", &[]);
        host.create(4, "vg0/b", &[]);
        let mut guest = host.connect(3, Setup::default());
        let counted = |host: &Host, guest: u16| {
            let mut vbds = host.blkback.vbds().into_iter();
            let (_, vbd) = vbds.find(|(id, _)| id.frontend.0 == guest)?;
            let statistics = host.path.borrow().vbd_statistics(vbd)?;
            Some((statistics.writes, statistics.sectors_written))
        };
        for sector in [0, 8, 16] {
            assert_eq!(host.write(&mut guest, 0, sector, 9), [OKAY]);
        }
        host.write_down();
        host.next_life();
        host.names.start();
        host.settle();
        assert_eq!((counted(&host, 3), counted(&host, 4)), (Some((3, 24)), None));
        assert_eq!(host.write(&mut guest, 0, 24, 9), [OKAY]);
        host.write_down();
        // A life that ends before its disks are up leaves what it found.
        host.next_life();
        host.write_down();
        host.next_life();
        host.names.start();
        host.settle();
        assert_eq!(counted(&host, 3), Some((4, 32)));
        host.detach(3, true);
        host.advance(500);
        host.create(3, "vg0/a", &[]);
        let _guest = host.connect(3, Setup::default());
        let _other = host.connect(4, Setup::default());
        assert_eq!((counted(&host, 3), counted(&host, 4)), (Some((0, 0)), Some((0, 0))));
        host.xen.taken_over();
        host.end();
    }
}
