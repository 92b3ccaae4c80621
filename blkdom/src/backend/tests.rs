//! blkback on a store and a bus: from the nodes that the toolstack and the frontend write to sectors, and back.

mod lives;

use super::{Blkback, Inventory, VBD_BYTES};
use crate::blkback::journal::journal_bytes;
use crate::blkback::request::{Abi, SLOTS_PER_PAGE};
use crate::datapath::{DataPath, bytes_for};
use crate::disk::{Geometry, UnitId};
use crate::fakes::frontend::Response;
use crate::fakes::{Drive, FakeDisk, Frontend, Setup, geometry};
use crate::kept::Kept;
use crate::volume::{Claims, NameError, Resolved, UnitRef, Volume};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};
use proptest::prelude::*;
use split_driver::fakes::{FakeClock, FakePages, FakeStore, FakeXen, Live, Tasks};
use split_driver::hypervisor::XenError;
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::{Available, Bus, Connections, DeviceMemory, Timing};
use xen_pv_sys::DomainId;
use xen_pv_sys::errno::ENOSPC;
use xen_pv_sys::grant_table::{GNTST_BAD_GNTREF, GNTST_NO_SPACE};

const US: DomainId = DomainId(7);
const PAGES: usize = 1024;
const UNIT: UnitRef = UnitRef { controller: 0, unit: UnitId(0) };
/// Of the whole unit.
const SECTORS: u64 = 8192;
/// The device's number, as of `xvda`.
const XVDA: u32 = 51712;

/// Names and what they mean, as the test has it.
#[derive(Default)]
struct Names {
    known: RefCell<BTreeMap<String, Resolved>>,
    /// Found by the next scan.
    hidden: RefCell<Vec<Resolved>>,
    claims: Claims,
    /// Guests wrote what is known.
    written: Cell<bool>,
    /// The disks' headers say something else.
    changed: Cell<bool>,
    /// The disks are not up.
    starting: Cell<bool>,
    scans: Cell<usize>,
    /// What tells the disk from others.
    disk: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Names {
    fn put(&self, volume: Resolved) {
        self.known.borrow_mut().insert(volume.name.clone(), volume);
    }

    fn start(&self) {
        self.starting.set(false);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}

impl Inventory for Names {
    async fn ready(&self) {
        poll_fn(|context| {
            self.wakers.borrow_mut().push(context.waker().clone());
            if self.starting.get() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    async fn rescan(&self) {
        self.scans.set(self.scans.get() + 1);
        self.written.set(false);
        self.changed.set(false);
        for volume in self.hidden.take() {
            self.put(volume);
        }
    }

    async fn is_current(&self, _target: &str) -> bool {
        !self.changed.get()
    }

    fn resolve(&self, target: &str) -> Result<Resolved, NameError> {
        let (shared, name) = target.strip_prefix("w!:").map_or((false, target), |name| (true, name));
        if self.written.get() {
            return Err(NameError::Changing(name.into()));
        }
        let known = self.known.borrow();
        let unknown = || NameError::Unknown {
            name: name.into(),
            existing: known.keys().cloned().collect(),
            left_out: Vec::new(),
            hints: Vec::new(),
        };
        known.get(name).map(|found| Resolved { shared, ..found.clone() }).ok_or_else(unknown)
    }

    fn whereabouts(&self, volume: &Volume, sectors: u64) -> Option<u64> {
        volume.whereabouts(sectors, |unit| Some(format!("{} {unit:?}", self.disk.get())))
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}

fn resolved(name: &str, start: u64, sectors: u64) -> Resolved {
    let geometry = Geometry { sectors, ..geometry(SECTORS, 512) };
    let volume = Volume::linear(UNIT, start, sectors);
    Resolved { name: name.into(), lasting: None, volume, geometry, unwritable: None, shared: false }
}

struct Host {
    xen: FakeXen,
    store: FakeStore,
    clock: FakeClock,
    tasks: Tasks<'static>,
    path: Rc<RefCell<DataPath<FakeXen>>>,
    names: Rc<Names>,
    blkback: Blkback<FakeXen, Names>,
    drive: Rc<RefCell<Drive>>,
    /// What the next life finds of connected disks, where it finds that.
    written: Option<Rc<Connections>>,
    /// What it finds of statistics.
    kept: Rc<RefCell<Kept>>,
    now: Instant,
}

impl Host {
    fn new() -> Self {
        Self::with_memory(DeviceMemory::unbounded())
    }

    fn with_memory(memory: DeviceMemory) -> Self {
        let xen = FakeXen::new();
        let path = Rc::new(RefCell::new(DataPath::new(xen.clone(), Box::new(FakePages::new(&xen, PAGES)))));
        let (disk, drive) = FakeDisk::new(&xen, &[geometry(SECTORS, 512)]);
        assert_eq!(path.borrow_mut().add_disk(Box::new(disk)), UNIT.controller);
        let names = Rc::new(Names::default());
        for volume in [resolved("disk", 0, SECTORS), resolved("vg0/a", 1024, 1024), resolved("vg0/b", 4096, 1024)] {
            names.put(volume);
        }
        let blkback = Blkback::new(Rc::clone(&path), Rc::clone(&names), Rc::new(|| {})).with_memory(memory);
        let (store, clock) = (FakeStore::new(), FakeClock::default());
        let home = format!("/local/domain/{}", US.0);
        for path in [home.clone(), format!("{home}/backend"), format!("{home}/error")] {
            store.put(&path, "", &[&format!("n{}", US.0)]);
        }
        let mut tasks = Tasks::new();
        let bus = Bus::with_timing(store.connection(US), clock.clone(), blkback.clone(), Timing::AT_ONCE);
        let written = Some(bus.connections());
        tasks.spawn(async move {
            let _ = bus.run().await;
        });
        let (kept, now) = (Rc::default(), Instant(0));
        let mut host = Self { xen, store, clock, tasks, path, names, blkback, drive, written, kept, now };
        host.settle();
        host
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.tasks.run_until_stalled();
            self.now = self.now + Duration::from_micros(10);
            let mut path = self.path.borrow_mut();
            while let Some(port) = self.xen.next_event() {
                path.handle_event(port, self.now);
            }
            path.poll(self.now);
            drop(path);
            self.blkback.report();
        }
        self.tasks.run_until_stalled();
    }

    fn backend(&self, guest: u16, name: &str) -> Option<String> {
        self.store.get(&format!("/local/domain/{}/backend/vbd/{guest}/{XVDA}/{name}", US.0))
    }

    fn state(&self, guest: u16) -> Option<String> {
        self.backend(guest, "state")
    }

    fn error(&self, guest: u16) -> String {
        let error = self.store.get(&format!("/local/domain/{}/error/backend/vbd/{guest}/{XVDA}/error", US.0));
        assert_eq!(self.backend(guest, "error"), error);
        error.unwrap_or_default()
    }

    fn put_backend(&self, guest: u16, name: &str, value: &str) {
        let permissions = [&*format!("n{}", US.0), &*format!("r{guest}")];
        self.store.put(&format!("/local/domain/{}/backend/vbd/{guest}/{XVDA}{name}", US.0), value, &permissions);
    }

    fn put_frontend(&mut self, guest: u16, name: &str, value: &str) {
        let permissions = [&*format!("n{guest}"), &*format!("r{}", US.0)];
        self.store.put(&format!("/local/domain/{guest}/device/vbd/{XVDA}{name}"), value, &permissions);
    }

    /// The toolstack makes a vbd.
    fn create(&mut self, guest: u16, target: &str, extra: &[(&str, &str)]) {
        for (name, value) in [("", ""), ("/state", "1")] {
            self.put_frontend(guest, name, value);
        }
        let frontend = format!("/local/domain/{guest}/device/vbd/{XVDA}");
        let id = guest.to_string();
        for (name, value) in [
            ("", ""),
            ("/frontend", &*frontend),
            ("/frontend-id", &*id),
            ("/params", target),
            ("/mode", "w"),
            ("/device-type", "disk"),
            ("/dev", "xvda"),
            ("/removable", "0"),
            ("/type", "phy"),
            ("/online", "1"),
        ] {
            self.put_backend(guest, name, value);
        }
        for (name, value) in extra {
            self.put_backend(guest, name, value);
        }
        self.put_backend(guest, "/state", "1");
        self.settle();
    }

    /// The frontend does its part, as Linux does: `Initialised`, then `Connected` when we are.
    fn connect(&mut self, guest: u16, setup: Setup) -> Frontend {
        let frontend = Frontend::new(&self.xen, guest, setup);
        self.say(guest, &frontend);
        assert_eq!(self.state(guest).as_deref(), Some("4"), "{}", self.error(guest));
        self.put_frontend(guest, "/state", "4");
        self.settle();
        frontend
    }

    /// The frontend writes its nodes.
    fn say(&mut self, guest: u16, frontend: &Frontend) {
        let setup = frontend.setup;
        let protocol = if setup.abi == Abi::X86_32 { "x86_32-abi" } else { "x86_64-abi" };
        self.put_frontend(guest, "/protocol", protocol);
        self.put_frontend(guest, "/feature-persistent", &u8::from(setup.persistent).to_string());
        if setup.ring_pages > 1 {
            self.put_frontend(guest, "/ring-page-order", &setup.ring_pages.ilog2().to_string());
        }
        if setup.queues > 1 {
            self.put_frontend(guest, "/multi-queue-num-queues", &setup.queues.to_string());
        }
        let config = frontend.config(Volume::default(), geometry(8, 512));
        for (number, queue) in config.queues.iter().enumerate() {
            let directory = if setup.queues == 1 { String::new() } else { format!("/queue-{number}") };
            for (page, reference) in queue.ring.iter().enumerate() {
                let name = if setup.ring_pages > 1 { format!("ring-ref{page}") } else { "ring-ref".into() };
                self.put_frontend(guest, &format!("{directory}/{name}"), &reference.0.to_string());
            }
            self.put_frontend(guest, &format!("{directory}/event-channel"), &queue.port.0.to_string());
        }
        self.put_frontend(guest, "/state", "3");
        self.settle();
    }

    /// A guest writes a page of `byte`s.
    fn write(&mut self, frontend: &mut Frontend, queue: usize, sector: u64, byte: u8) -> Vec<Response> {
        frontend.write(0, &[byte; 4096]);
        assert!(frontend.transfer(queue, 5, 1, sector, (0, 8)));
        frontend.publish(queue);
        self.settle();
        frontend.responses(queue)
    }

    /// What the disk has there.
    fn byte(&self, sector: u64) -> u8 {
        self.drive.borrow().contents(UNIT.unit)[sector as usize * 512]
    }

    /// libxl takes a guest's disk away; `force` where the guest is destroyed.
    fn detach(&mut self, guest: u16, force: bool) {
        if force {
            self.store.delete(&format!("/local/domain/{guest}/device/vbd/{XVDA}"));
        }
        self.put_backend(guest, "/online", "0");
        self.put_backend(guest, "/state", "5");
        self.settle();
    }

    fn advance(&mut self, milliseconds: u64) {
        self.clock.advance(Duration::from_millis(milliseconds));
        self.settle();
    }

    fn end(mut self) {
        self.tasks = Tasks::new();
        assert_eq!(self.blkback.connected(), 0, "dropping the bus disconnects all");
        self.settle();
        assert_eq!(self.drive.borrow().misuse, [""; 0]);
        drop((self.path, self.blkback));
        assert_eq!(self.xen.live(), Live::default());
        assert_eq!(self.xen.take_violations(), []);
    }
}

const OKAY: Response = Response { id: 5, operation: 1, status: 0 };

#[test]
fn a_guest_gets_its_disk() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[]);
    for (name, value) in [
        ("state", Some("2")),
        ("feature-max-indirect-segments", Some("256")),
        ("max-ring-page-order", Some("4")),
        ("multi-queue-max-queues", Some("4")),
        ("hotplug-status", Some("connected")),
        // Of the disk, nothing yet: a frontend that reads too early must not find half of it.
        ("sectors", None),
        ("feature-persistent", None),
    ] {
        assert_eq!(host.backend(3, name).as_deref(), value, "{name}");
    }
    let mut guest = host.connect(3, Setup::default());
    for (name, value) in [
        ("state", "4"),
        ("feature-flush-cache", "1"),
        ("feature-barrier", "1"),
        ("feature-discard", "1"),
        ("discard-granularity", "4096"),
        ("feature-persistent", "1"),
        ("sectors", "1024"),
        ("info", "0"),
        ("sector-size", "512"),
        ("physical-sector-size", "4096"),
    ] {
        assert_eq!(host.backend(3, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(host.write(&mut guest, 0, 8, 0xab), [OKAY]);
    assert_eq!((host.byte(1024 + 8), host.byte(8)), (0xab, 0));
    // The volume's end is the guest's.
    assert_eq!(host.write(&mut guest, 0, 1017, 1), [Response { status: -1, ..OKAY }]);
    assert_eq!(host.blkback.volumes().len(), 1);
    host.end();
}

/// Every kind of frontend connects by its nodes, and each of its queues works.
#[test]
fn every_kind_of_frontend() {
    let mut host = Host::new();
    let mut guest = 3;
    for abi in [Abi::X86_64, Abi::X86_32] {
        for (queues, ring_pages, persistent) in [(1, 1, true), (1, 2, false), (2, 1, true), (4, 16, true)] {
            host.create(guest, "vg0/a", &[]);
            let setup = Setup { abi, queues, ring_pages, persistent, ..Setup::default() };
            let mut frontend = host.connect(guest, setup);
            for queue in 0..queues {
                assert_eq!(host.write(&mut frontend, queue, 16, queue as u8 + 1), [OKAY], "{setup:?}");
                assert_eq!(host.byte(1024 + 16), queue as u8 + 1);
            }
            host.detach(guest, true);
            host.advance(500);
            guest += 1;
        }
    }
    host.end();
}

#[test]
fn what_is_not_offered() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[("/mode", "r"), ("/device-type", "cdrom"), ("/removable", "1")]);
    host.create(4, "vg0/b", &[("/discard-enable", "0")]);
    let mut reader = host.connect(3, Setup::default());
    let mut other = host.connect(4, Setup::default());
    let told = |host: &Host, guest| ["info", "feature-discard"].map(|name| host.backend(guest, name));
    assert_eq!(told(&host, 3), [Some("7".into()), None]);
    assert_eq!(told(&host, 4), [Some("0".into()), None]);
    assert_eq!(host.write(&mut reader, 0, 0, 1), [Response { status: -1, ..OKAY }]);
    for guest in [&mut reader, &mut other] {
        assert!(guest.queues[0].discard(9, 0, 8, 0));
        guest.publish(0);
    }
    host.settle();
    for guest in [&mut reader, &mut other] {
        let answers = guest.responses(0);
        assert!(answers.iter().all(|answer| answer.status < 0) && answers.len() == 1, "{answers:?}");
    }
    assert_eq!(host.byte(1024), 0);
    host.end();
}

/// A target, nodes beside those of every vbd, and what must be in the `error` node.
type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// Names, claims and nonsense: said where the disk is attached, and nothing is held afterwards.
#[test]
fn refusals_at_once() {
    let mut host = Host::new();
    let read_only = Geometry { read_only: true, ..geometry(SECTORS, 512) };
    host.names.put(Resolved { geometry: read_only, ..resolved("cd", 0, 8) });
    host.create(3, "vg0/a", &[]);
    let cases: &[Refused<'_>] = &[
        ("vg0/nowhere", &[], "there is no vg0/nowhere; there are: cd, disk, vg0/a, vg0/b"),
        ("vg0/a", &[], "domain 3's xvda has vg0/a for writing"),
        ("vg0/a", &[("/mode", "r")], "domain 3's xvda has vg0/a for writing"),
        ("disk", &[], "and disk has sectors in common with it"),
        ("w!:vg0/a", &[], "two may write it only if both share it"),
        ("cd", &[], "cd cannot be written; say access=ro"),
        ("", &[], "target= is empty"),
        ("vg0/b", &[("/removable", "perhaps")], "node removable is malformed"),
    ];
    for (guest, (target, extra, reason)) in (10..).zip(cases) {
        host.create(guest, target, extra);
        assert!(host.error(guest).contains(reason), "{target}: {}", host.error(guest));
        assert_eq!(host.state(guest).as_deref(), Some("5"), "{target}");
        host.detach(guest, true);
        host.advance(500);
        assert_eq!(host.state(guest), None, "{target}");
    }
    // The name that is unknown was looked for; the others were known.
    assert_eq!(host.names.scans.get(), 1);
    assert_eq!(host.blkback.volumes(), [(host.blkback.volumes()[0].0, "vg0/a".into())]);
    host.create(4, "vg0/b", &[]);
    host.create(5, "cd", &[("/mode", "r")]);
    assert_eq!((host.state(3), host.state(4), host.state(5)), (Some("2".into()), Some("2".into()), Some("2".into())));
    host.end();
}

/// What libxl makes of `format=qcow2`: a device for QEMU, which nobody else would say anything of. The guest's other disks are served.
#[test]
fn a_disk_for_qemu_is_refused_with_its_reason() {
    let mut host = Host::new();
    let bus = Bus::with_timing(
        host.store.connection(US),
        host.clock.clone(),
        host.blkback.refusing_images(),
        Timing::AT_ONCE,
    );
    host.tasks.spawn(async move {
        let _ = bus.run().await;
    });
    host.create(3, "vg0/a", &[]);
    let qdisk = format!("/local/domain/{}/backend/qdisk/3/{XVDA}", US.0);
    let frontend = format!("/local/domain/3/device/vbd/{XVDA}");
    for (name, value) in [
        ("", ""),
        ("/frontend", &*frontend),
        ("/frontend-id", "3"),
        ("/params", "qcow2:/images/guest.qcow2"),
        ("/type", "qdisk"),
        ("/online", "1"),
        ("/state", "1"),
    ] {
        host.store.put(&format!("{qdisk}{name}"), value, &[&format!("n{}", US.0)]);
    }
    host.settle();
    assert_eq!(host.store.get(&format!("{qdisk}/state")).as_deref(), Some("5"));
    let error = host.store.get(&format!("{qdisk}/error")).unwrap();
    assert!(error.contains("\"qcow2:/images/guest.qcow2\"") && error.contains("format=raw"), "{error}");
    assert_eq!(host.state(3).as_deref(), Some("2"));
    for (name, value) in [("online", "0"), ("state", "5")] {
        host.store.put(&format!("{qdisk}/{name}"), value, &[]);
    }
    host.settle();
    host.advance(500);
    assert_eq!(host.store.get(&format!("{qdisk}/state")), None);
    // The vbd of the same number keeps its volume.
    assert_eq!(host.blkback.volumes().len(), 1);
    host.detach(3, true);
    host.advance(500);
    // By other words, on the vbd itself.
    host.create(4, "vg0/b", &[("/script", "block-iscsi")]);
    assert!(host.error(4).contains("script=block-iscsi: blkdom runs no scripts"), "{}", host.error(4));
    host.end();
}

#[test]
fn who_shares_may_write_beside_each_other() {
    let mut host = Host::new();
    host.create(3, "w!:vg0/a", &[]);
    host.create(4, "vg0/a", &[("/mode", "w!")]);
    host.create(5, "vg0/a", &[("/mode", "r")]);
    let (mut a, mut b) = (host.connect(3, Setup::default()), host.connect(4, Setup::default()));
    assert_eq!(host.write(&mut a, 0, 0, 1), [OKAY]);
    assert_eq!(host.write(&mut b, 0, 8, 2), [OKAY]);
    assert_eq!((host.byte(1024), host.byte(1032)), (1, 2));
    assert_eq!(host.state(5).as_deref(), Some("2"));
    host.create(6, "vg0/a", &[]);
    assert_eq!(host.state(6).as_deref(), Some("5"));
    host.end();
}

/// A vbd may appear before its disk is up, and before its volume was found.
#[test]
fn disks_that_start_and_volumes_that_come() {
    let mut host = Host::new();
    host.names.starting.set(true);
    host.names.hidden.borrow_mut().push(resolved("vg0/new", 6000, 8));
    host.create(3, "vg0/a", &[]);
    host.create(4, "vg0/new", &[]);
    assert_eq!((host.state(3).as_deref(), host.state(4).as_deref()), (Some("1"), Some("1")));
    host.detach(3, true);
    assert_eq!(host.state(3).as_deref(), Some("6"), "nobody waits for a disk that is not wanted");
    host.names.start();
    host.settle();
    assert_eq!((host.state(4).as_deref(), host.names.scans.get()), (Some("2"), 1));
    let mut guest = host.connect(4, Setup::default());
    assert_eq!(host.write(&mut guest, 0, 0, 3), [OKAY]);
    assert_eq!(host.byte(6000), 3);
    host.end();
}

/// What a name meant counts no longer once the disks may say something else.
#[test]
fn disks_are_looked_at_again_before_what_may_have_moved_is_served() {
    let mut host = Host::new();
    type Doubt = fn(&Names) -> &Cell<bool>;
    let doubts: [(u16, &str, u64, Doubt); 2] =
        [(3, "vg0/a", 4000, |names| &names.written), (4, "vg0/b", 5000, |names| &names.changed)];
    for (frontend, name, moved, doubt) in doubts {
        doubt(&host.names).set(true);
        host.names.hidden.borrow_mut().push(resolved(name, moved, 8));
        host.create(frontend, name, &[]);
        let mut guest = host.connect(frontend, Setup::default());
        assert_eq!(host.write(&mut guest, 0, 0, 9), [OKAY]);
        assert_eq!(host.byte(moved), 9, "{name} is served from where it was");
    }
    assert_eq!(host.names.scans.get(), 2);
    host.end();
}

/// The volume is the next one's when the disk works no more on the last one's requests.
#[test]
fn a_volume_is_held_till_its_last_command_is_done() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[]);
    let mut guest = host.connect(3, Setup { persistent: true, ..Setup::default() });
    host.drive.borrow_mut().hold = true;
    assert_eq!(host.write(&mut guest, 0, 0, 7), []);
    assert_eq!(host.drive.borrow().in_flight(), 1);
    host.detach(3, true);
    assert_eq!((host.state(3).as_deref(), host.blkback.connected()), (Some("5"), 0));
    assert!(guest.domain.mapped() > 0, "the disk reads its page");
    host.create(4, "vg0/a", &[]);
    assert!(host.error(4).contains("domain 3's xvda has vg0/a for writing"));
    host.drive.borrow_mut().hold = false;
    host.settle();
    assert_eq!((host.state(3).as_deref(), guest.domain.mapped(), host.byte(1024)), (Some("6"), 0, 7));
    host.create(5, "vg0/a", &[]);
    assert_eq!(host.state(5).as_deref(), Some("2"));
    host.advance(500);
    assert_eq!(host.state(3), None);
    host.end();
}

#[test]
fn a_frontend_begins_anew() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[]);
    for round in 0..3 {
        let mut guest = host.connect(3, Setup::default());
        assert_eq!(host.write(&mut guest, 0, 0, round), [OKAY]);
        // Closing and closed; or, as after a crash, without a word.
        if round == 0 {
            host.put_frontend(3, "/state", "5");
            host.settle();
            assert_eq!((host.state(3).as_deref(), host.blkback.connected()), (Some("5"), 0));
            host.put_frontend(3, "/state", "6");
            host.settle();
            assert_eq!((host.state(3).as_deref(), guest.domain.mapped()), (Some("6"), 0));
            // Nobody has it now.
            assert_eq!(host.blkback.volumes(), []);
        }
        host.put_frontend(3, "/state", "1");
        host.settle();
        assert_eq!((host.state(3).as_deref(), guest.domain.mapped()), (Some("2"), 0));
    }
    host.end();
}

#[test]
fn a_volume_changes_its_size() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[]);
    let mut guest = host.connect(3, Setup::default());
    host.create(4, "vg0/b", &[]);
    host.connect(4, Setup::default());
    let beyond = Response { status: -1, ..OKAY };
    assert_eq!(host.write(&mut guest, 0, 2040, 1), [beyond]);
    host.names.put(resolved("vg0/a", 1024, 2048));
    host.blkback.handle_rescan();
    host.settle();
    assert_eq!((host.backend(3, "sectors").as_deref(), host.state(3).as_deref()), (Some("2048"), Some("4")));
    assert_eq!(host.write(&mut guest, 0, 2040, 2), [OKAY]);
    assert_eq!(host.byte(1024 + 2040), 2);
    assert_eq!(host.backend(4, "sectors").as_deref(), Some("1024"));
    // Never into what is another's.
    host.names.put(resolved("vg0/a", 1024, 4096));
    host.blkback.handle_rescan();
    host.settle();
    assert_eq!(host.backend(3, "sectors").as_deref(), Some("2048"));
    assert_eq!(host.write(&mut guest, 0, 3100, 3), [beyond]);
    // A name that is gone takes nothing away.
    host.names.known.borrow_mut().remove("vg0/a");
    host.blkback.handle_rescan();
    assert_eq!(host.write(&mut guest, 0, 0, 4), [OKAY]);
    host.end();
}

#[test]
fn a_frontend_of_nonsense_is_closed_and_told_why() {
    let mut host = Host::new();
    for (guest, change, reason) in [
        (3, ("/protocol", "ia64-abi"), "unknown protocol \"ia64-abi\""),
        (4, ("/multi-queue-num-queues", "5"), "5 queues, of 1 to 4 offered"),
        (5, ("/ring-page-order", "9"), "ring-page-order is 9, of 4 offered"),
        (6, ("/ring-ref", "4000"), "mapping the ring of queue 0"),
        (8, ("/event-channel", "4000"), "binding the event channel of queue 0"),
    ] {
        host.names.put(resolved(&format!("v{guest}"), u64::from(guest) * 8, 8));
        host.create(guest, &format!("v{guest}"), &[]);
        let frontend = Frontend::new(&host.xen, guest, Setup::default());
        host.put_frontend(guest, "/state", "2");
        host.say(guest, &frontend);
        host.put_frontend(guest, "/state", "1");
        host.settle();
        host.put_frontend(guest, "/state", "6");
        host.settle();
        host.put_frontend(guest, "/state", "1");
        host.settle();
        assert_eq!(host.state(guest).as_deref(), Some("2"));
        host.put_frontend(guest, change.0, change.1);
        host.put_frontend(guest, "/state", "3");
        host.settle();
        assert!(host.error(guest).contains(reason), "{reason}: {}", host.error(guest));
        assert_eq!((host.state(guest).as_deref(), frontend.domain.mapped()), (Some("5"), 0));
    }
    host.end();
}

#[test]
fn a_broken_ring_is_told() {
    let mut host = Host::new();
    host.create(3, "vg0/a", &[]);
    let mallory = host.connect(3, Setup { queues: 2, ..Setup::default() });
    host.create(4, "vg0/b", &[]);
    let mut alice = host.connect(4, Setup::default());
    assert!(mallory.queues[1].memory.write(0, &1000_u32.to_le_bytes()));
    mallory.domain.notify(mallory.queues[1].port);
    host.settle();
    assert_eq!(host.error(3), "ring overrun in queue 1: request producer 1000, consumer 0");
    assert_eq!((host.state(3).as_deref(), host.blkback.connected()), (Some("5"), 1));
    assert_eq!(host.write(&mut alice, 0, 0, 9), [OKAY]);
    host.end();
}

/// 85 disks of four queues fit into what 16 MiB leave for them. One too many is refused with the figures, and the others go on.
#[test]
fn a_disk_without_memory_is_refused() {
    const DISKS: u16 = 4;
    let needed = VBD_BYTES + bytes_for(4 * SLOTS_PER_PAGE) + 4 * journal_bytes(SLOTS_PER_PAGE as u32);
    assert!(85 * needed <= 7 << 20, "{needed}");
    let left = usize::from(DISKS) * needed + 1000;
    let mut host = Host::with_memory(DeviceMemory::new(1 << 20, move || Available { free: left + (1 << 20), heap: 0 }));
    let setup = Setup { queues: 4, pages: 16, persistent: true, ..Setup::default() };
    let mut guests = Vec::new();
    for guest in 8..8 + DISKS {
        host.names.put(resolved(&format!("v{guest}"), u64::from(guest) * 8, 8));
        host.create(guest, &format!("v{guest}"), &[]);
        guests.push(host.connect(guest, setup));
    }
    host.create(3, "vg0/a", &[]);
    let late = Frontend::new(&host.xen, 3, setup);
    host.say(3, &late);
    let reason = host.error(3);
    let figures = format!("may take {} KiB of memory and 0 KiB are left", needed.div_ceil(1024));
    assert!(reason.contains(&figures) && reason.contains("memory="), "{reason}");
    assert_eq!((late.domain.mapped(), host.blkback.connected()), (0, usize::from(DISKS)));
    for (queue, guest) in guests.iter_mut().enumerate() {
        assert_eq!(host.write(guest, queue, 0, 7), [OKAY]);
    }
    host.end();
}

/// A frontend that broke the protocol twice waits before it is connected again. One for which this domain, or Xen, had no memory does not.
#[test]
fn who_broke_the_protocol_waits() {
    let mut host = Host::new();
    for (guest, waits) in [(8, true), (9, true), (10, true), (11, false), (12, false), (13, false)] {
        host.names.put(resolved(&format!("v{guest}"), u64::from(guest) * 8, 8));
        host.create(guest, &format!("v{guest}"), &[]);
        for _ in 0..2 {
            let frontend = Frontend::new(&host.xen, guest, Setup::default());
            match guest {
                8 => {}
                9 => assert!(frontend.queues[0].memory.write(0, &1000_u32.to_le_bytes())),
                10 => host.xen.fail_next_map(XenError::Grant(GNTST_BAD_GNTREF)),
                11 => host.xen.fail_next_map(XenError::Exhausted),
                12 => host.xen.fail_next_bind(XenError::Errno(ENOSPC)),
                _ => host.xen.fail_next_map(XenError::Grant(GNTST_NO_SPACE)),
            }
            if guest == 8 {
                let config = frontend.config(Volume::default(), geometry(8, 512));
                let port = config.queues[0].port.0.to_string();
                for (name, value) in [("/ring-ref", "nothing"), ("/event-channel", &*port), ("/state", "3")] {
                    host.put_frontend(guest, name, value);
                }
                host.settle();
            } else {
                host.say(guest, &frontend);
            }
            assert_eq!(host.state(guest).as_deref(), Some("5"), "{guest}");
            for state in ["6", "1"] {
                host.put_frontend(guest, "/state", state);
                host.settle();
            }
            assert_eq!(host.state(guest).as_deref(), Some("2"), "{guest}");
        }
        let frontend = Frontend::new(&host.xen, guest, Setup::default());
        host.say(guest, &frontend);
        assert_eq!(host.state(guest).as_deref() != Some("4"), waits, "{guest}: {}", host.error(guest));
        host.advance(1000);
        assert_eq!(host.state(guest).as_deref(), Some("4"), "{guest}");
    }
    host.end();
}

/// Fifty disks come and go, some without ever being used: nothing is left of them.
#[test]
fn fifty_cycles_leave_nothing() {
    let mut host = Host::new();
    for cycle in 0_u16..50 {
        let guest = 3 + cycle % 3;
        host.create(guest, "vg0/a", &[]);
        let frontend = (cycle % 4 != 0).then(|| {
            let setup = Setup { persistent: cycle % 2 == 0, ring_pages: 1 << (cycle % 5), ..Setup::default() };
            host.connect(guest, setup)
        });
        if let Some(mut frontend) = frontend {
            assert_eq!(host.write(&mut frontend, 0, 0, cycle as u8), [OKAY]);
        }
        host.detach(guest, cycle % 3 == 0);
        if cycle % 3 != 0 {
            host.put_frontend(guest, "/state", "6");
            host.settle();
        }
        host.advance(500);
        assert_eq!(host.state(guest), None, "cycle {cycle}");
        assert_eq!(host.blkback.volumes(), [], "cycle {cycle}");
        host.store.delete(&format!("/local/domain/{guest}/device/vbd/{XVDA}"));
    }
    host.end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Toolstack, two guests and the disk do anything in any order: never do both guests have the volume's sectors, and when all are
    /// gone nothing is left of them.
    #[test]
    fn anything(steps in proptest::collection::vec((0_u8..8, 0_u32..9, any::<bool>()), 1..60)) {
        let mut host = Host::new();
        let mut guests: BTreeMap<u16, Frontend> = BTreeMap::new();
        for (what, number, second) in steps {
            let guest = if second { 4 } else { 3 };
            let present = host.state(guest).is_some();
            match what {
                0 if !present => {
                    let target = ["vg0/a", "disk", "w!:vg0/a", "vg0/none"][number as usize % 4];
                    host.create(guest, target, &[("/mode", if number > 6 { "r" } else { "w" })]);
                }
                1 if present => {
                    let setup = Setup { persistent: number > 4, queues: 1 + number as usize % 2, pages: 16, ..Setup::default() };
                    let frontend = Frontend::new(&host.xen, guest, setup);
                    host.say(guest, &frontend);
                    guests.insert(guest, frontend);
                }
                2 if present => {
                    host.put_frontend(guest, "/state", &number.to_string());
                    host.settle();
                }
                3 => if let Some(frontend) = guests.get_mut(&guest) {
                    // What is in the way of the ring is not asked for.
                    let _ = frontend.transfer(0, 5, number.min(1) as u8, u64::from(number) * 8, (0, 8));
                    frontend.publish(0);
                    host.settle();
                },
                4 if present => host.detach(guest, second),
                5 => host.drive.borrow_mut().hold = number > 5,
                6 => host.advance(u64::from(number) * 300),
                _ => {
                    let sectors = 1024 + u64::from(number) * 512;
                    host.names.put(resolved("vg0/a", 1024, sectors));
                    host.blkback.handle_rescan();
                }
            }
            host.settle();
            let writers = host.blkback.volumes().len();
            let shared = [3, 4].map(|guest| host.backend(guest, "params").is_some_and(|params| params.starts_with("w!")));
            let readers = [3, 4].map(|guest| host.backend(guest, "mode").is_some_and(|mode| mode == "r"));
            let agree = (0..2).all(|guest| shared[guest] || readers[guest]);
            prop_assert!(writers < 2 || agree, "{:?}", host.blkback.volumes());
        }
        host.drive.borrow_mut().hold = false;
        host.settle();
        for guest in [3, 4] {
            if host.state(guest).is_some() {
                host.detach(guest, true);
            }
        }
        for _ in 0..3 {
            host.advance(2500);
        }
        prop_assert_eq!((host.state(3), host.state(4), host.blkback.volumes()), (None, None, Vec::new()));
        prop_assert!(guests.values().all(|guest| guest.domain.mapped() == 0));
        host.end();
    }
}
