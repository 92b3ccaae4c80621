//! The bus against a fake store: who writes what, and what we answer. Floor 1.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

use proptest::prelude::*;
use xen_pv_sys::io::xenbus::XenbusState;

mod crowds;
mod refusals;

use super::bus::{Subject, subject};
use super::*;
use crate::fakes::{FakeClock, FakeConnection, FakeStore, Tasks};
use crate::store::{Store, Watch};
use crate::time::Duration;

const US: DomainId = DomainId(5);

/// A kind that connects where the frontend says `ring-ref`, and counts.
#[derive(Default)]
struct Kind {
    live: Cell<usize>,
    connected: Cell<usize>,
    changes: RefCell<Vec<String>>,
    handles: RefCell<BTreeMap<DeviceId, DeviceHandle>>,
    /// Devices are not made ready while this is set; who waits.
    unready: Cell<bool>,
    preparing: Cell<usize>,
    /// How often one was made ready.
    prepared: Cell<usize>,
    /// A disconnected frontend's memory is in use still while this is set.
    unsettled: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
    /// The further nodes that the last connection read.
    further: RefCell<Vec<Option<String>>>,
}

impl Kind {
    /// Waits while `flag` is set.
    async fn wait_while(&self, flag: &Cell<bool>) {
        poll_fn(|context| {
            if !flag.get() {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}

/// Counts those who are within.
struct Within<'a>(&'a Cell<usize>);

impl<'a> Within<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Backend for Rc<Kind> {
    type Device = ();
    type Error = BadNode;

    fn kind(&self) -> &'static str {
        "vif"
    }

    /// The frontend's is `ring-ref`; `rate` is the toolstack's.
    fn is_violation(&self, error: &BadNode) -> bool {
        matches!(error, BadNode::Missing(name) | BadNode::Malformed(name) if name == "ring-ref")
    }

    fn backend_nodes(&self) -> &[&str] {
        &["mac", "rate"]
    }

    fn frontend_nodes(&self) -> &[&str] {
        &["ring-ref", "request-multicast-control"]
    }

    fn further_frontend_nodes(&self, frontend: &Directory) -> Vec<String> {
        let count = frontend.optional::<u32>("ring-ref").ok().flatten().filter(|count| *count > 100);
        (100..count.unwrap_or(0)).map(|page| format!("queue-0/ring-ref{page}")).collect()
    }

    fn watched_frontend_nodes(&self) -> &[&str] {
        &["request-multicast-control"]
    }

    async fn prepare(&self, _: DeviceId, nodes: &Nodes) {
        assert!(nodes.backend.get("frontend").is_none(), "what was not asked for");
        let _within = Within::new(&self.preparing);
        self.wait_while(&self.unready).await;
        self.prepared.set(self.prepared.get() + 1);
    }

    async fn settled(&self, _: DeviceId) {
        self.wait_while(&self.unsettled).await;
    }

    fn connects(&self, frontend: XenbusState) -> bool {
        frontend == XenbusState::Connected
    }

    fn probe(&self, _: DeviceId, nodes: &Nodes) -> Result<Vec<(String, String)>, BadNode> {
        nodes.backend.required::<String>("mac")?;
        Ok([("feature-sg".to_string(), "1".to_string())].into())
    }

    fn connect(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<(), BadNode> {
        nodes.frontend.required::<u32>("ring-ref")?;
        self.live.set(self.live.get() + 1);
        self.connected.set(self.connected.get() + 1);
        self.handles.borrow_mut().insert(handle.id(), handle.clone());
        let text = |value: &[u8]| String::from_utf8_lossy(value).into();
        *self.further.borrow_mut() =
            ["queue-0/ring-ref100", "queue-0/ring-ref101"].map(|name| nodes.frontend.get(name).map(text)).into();
        handle.write_node("sectors", self.connected.get());
        Ok(())
    }

    fn changed(&self, (): &mut (), nodes: &Nodes) -> Result<(), BadNode> {
        let rate = nodes.backend.optional::<u32>("rate")?;
        let multicast = nodes.frontend.flag("request-multicast-control")?;
        self.changes.borrow_mut().push(format!("{rate:?} {multicast}"));
        Ok(())
    }

    fn disconnect(&self, (): ()) {
        self.live.set(self.live.get() - 1);
    }
}

type TestBus = Bus<FakeConnection, FakeClock, Rc<Kind>>;

struct Host {
    store: FakeStore,
    clock: FakeClock,
    kind: Rc<Kind>,
    bus: Rc<TestBus>,
    tasks: Tasks<'static>,
}

impl Host {
    fn new() -> Self {
        let store = FakeStore::new();
        for domain in [0, 3, 4, US.0] {
            store.add_domain(DomainId(domain));
        }
        Self::with_store(store)
    }

    fn with_store(store: FakeStore) -> Self {
        Self::with_timing(store, Timing::AT_ONCE)
    }

    fn with_timing(store: FakeStore, timing: Timing) -> Self {
        Self::with(store, timing, |bus| bus)
    }

    /// The next life in the same domain: what happens between the two is what `meanwhile` does. `written` where it finds what the last one
    /// wrote down.
    fn live_on(self, written: bool, meanwhile: impl FnOnce(&mut Self)) -> Self {
        let mut old = self;
        let mut bytes = Vec::new();
        assert!(old.bus.connections().write(|piece| bytes.extend(piece)));
        old.tasks = Tasks::new();
        meanwhile(&mut old);
        let Self { store, bus, .. } = old;
        drop(bus);
        let mut new =
            Self::with(store, Timing::AT_ONCE, |bus| bus.adopting(written.then(|| Connections::parse(&bytes))));
        let begun = Rc::new(Cell::new(false));
        new.tasks.spawn({
            let (bus, begun) = (new.bus.clone(), begun.clone());
            async move {
                bus.begun().await;
                begun.set(true);
            }
        });
        new.settle();
        assert!(begun.get());
        new
    }

    fn with(store: FakeStore, timing: Timing, change: impl FnOnce(TestBus) -> TestBus) -> Self {
        let (clock, kind) = (FakeClock::default(), Rc::new(Kind::default()));
        let bus = Bus::with_timing(store.connection(US), clock.clone(), kind.clone(), timing);
        let bus = Rc::new(change(bus));
        let mut tasks = Tasks::new();
        let running = bus.clone();
        tasks.spawn(async move {
            let _ = running.run().await;
        });
        Self { store, clock, kind, bus, tasks }
    }

    fn settle(&mut self) {
        self.tasks.run_until_stalled();
    }

    fn advance(&mut self, milliseconds: u64) {
        self.clock.advance(Duration::from_millis(milliseconds));
        self.settle();
    }

    /// What libxl does for a new vif.
    fn attach(&mut self, frontend: u16, handle: u32) {
        self.make(frontend, handle);
        self.settle();
    }

    fn make(&mut self, frontend: u16, handle: u32) {
        let (fe, be) = (fe_path(frontend, handle), be_path(frontend, handle));
        let (guest, us) = (format!("n{frontend}"), format!("r{}", US.0));
        for (name, value) in [("", ""), ("/backend", &*be), ("/state", "1")] {
            self.store.put(&format!("{fe}{name}"), value, &[&guest, &us]);
        }
        let (owner, reader) = (format!("n{}", US.0), format!("r{frontend}"));
        let top = format!("/local/domain/{}/backend", US.0);
        for path in [top.clone(), format!("{top}/vif"), format!("{top}/vif/{frontend}")] {
            self.store.put(&path, "", &["n0", &us]);
        }
        // The store tells of a transaction's nodes together: state last here, so that a half-made device is not taken up.
        for (name, value) in [
            ("", ""),
            ("/frontend", &*fe),
            ("/frontend-id", &frontend.to_string()),
            ("/mac", "00:16:3e:00:00:01"),
            ("/online", "1"),
            ("/hotplug-status", ""),
            ("/state", "1"),
        ] {
            self.store.put(&format!("{be}{name}"), value, &[&owner, &reader]);
        }
        self.settle();
    }

    /// What libxl does to remove one; `force` where the guest is being destroyed.
    fn detach(&mut self, frontend: u16, handle: u32, force: bool) {
        self.unmake(frontend, handle, force);
        self.settle();
    }

    fn unmake(&mut self, frontend: u16, handle: u32, force: bool) {
        let be = be_path(frontend, handle);
        if force {
            self.store.delete(&fe_path(frontend, handle));
        }
        self.store.put(&format!("{be}/online"), "0", &[]);
        if self.state(frontend, handle) != Some(6) {
            self.store.put(&format!("{be}/state"), "5", &[]);
        }
    }

    fn frontend(&mut self, frontend: u16, handle: u32, name: &str, value: &str) {
        let path = format!("{}/{name}", fe_path(frontend, handle));
        self.store.put(&path, value, &[]);
        self.settle();
    }

    fn connect(&mut self, frontend: u16, handle: u32) {
        self.frontend(frontend, handle, "ring-ref", "8");
        self.frontend(frontend, handle, "state", "4");
    }

    fn backend(&self, frontend: u16, handle: u32, name: &str) -> Option<String> {
        let path = be_path(frontend, handle);
        self.store.get(&format!("{path}/{name}"))
    }

    fn state(&self, frontend: u16, handle: u32) -> Option<u32> {
        let state = self.backend(frontend, handle, "state")?;
        state.parse().ok()
    }

    fn fail(&mut self, frontend: u16, handle: u32, reason: &str) {
        let id = DeviceId { frontend: DomainId(frontend), handle };
        let handle = self.kind.handles.borrow().get(&id).cloned();
        handle.expect("connected once").fail(reason);
        self.settle();
    }

    /// Nothing of a device is left.
    fn assert_clean(&self) {
        assert_eq!(self.kind.live.get(), 0);
        assert_eq!(self.bus.device_count(), 0);
        assert_eq!(self.store.watches(US), 1, "the bus' own");
        assert_eq!(self.store.transactions(), 0);
        assert_eq!(self.clock.sleepers(), 0);
        let error = format!("/local/domain/{}/error", US.0);
        assert_eq!(self.store.paths(&error), [error]);
    }
}

fn fe_path(frontend: u16, handle: u32) -> String {
    format!("/local/domain/{frontend}/device/vif/{handle}")
}

fn be_path(frontend: u16, handle: u32) -> String {
    format!("/local/domain/{}/backend/vif/{frontend}/{handle}", US.0)
}

/// A device that is connected is served on: nothing in the store changes, and nobody who watches it hears anything.
#[test]
fn another_life_serves_connected_devices_on() {
    [false, true].into_iter().for_each(serves_on);
}

fn serves_on(written: bool) {
    let mut host = Host::new();
    for (frontend, handle) in [(3, 0), (3, 1), (4, 0)] {
        host.attach(frontend, handle);
        host.connect(frontend, handle);
    }
    let heard = Rc::new(Cell::new(0));
    let watcher = host.store.connection(DomainId(3));
    let mut frontend = Tasks::new();
    frontend.spawn({
        let heard = heard.clone();
        async move {
            let mut watch = watcher.watch(&be_path(3, 0)).await.unwrap();
            loop {
                watch.next().await;
                heard.set(heard.get() + 1);
            }
        }
    });
    frontend.run_until_stalled();
    assert_eq!(heard.take(), 1, "as a watch is set");
    let all = |host: &Host| -> Vec<_> {
        host.store.paths("/local").into_iter().map(|path| (host.store.get(&path), path)).collect()
    };
    let before = all(&host);
    let mut host = host.live_on(written, |_| ());
    frontend.run_until_stalled();
    assert_eq!((host.kind.live.get(), host.kind.connected.get(), heard.get()), (3, 3, 0));
    // What the kind says of a connection is counted by it.
    assert_eq!(all(&host).len(), before.len());
    host.frontend(3, 1, "state", "5");
    assert_eq!((host.state(3, 1), host.state(3, 0), host.kind.live.get()), (Some(5), Some(4), 2));
    host.frontend(3, 1, "state", "6");
    for (frontend, handle) in [(3, 0), (3, 1), (4, 0)] {
        host.detach(frontend, handle, true);
    }
    host.advance(5000);
    host.assert_clean();
}

/// Devices that the last life wrote down are served before the store has answered anything; what changed in it meanwhile is told then.
#[test]
fn another_life_serves_before_it_asks_the_store() {
    let mut host = Host::new();
    for handle in 0..12 {
        host.attach(3, handle);
        host.connect(3, handle);
    }
    let mut bytes = Vec::new();
    assert!(host.bus.connections().write(|piece| bytes.extend(piece)));
    host.tasks = Tasks::new();
    host.store.put(&format!("{}/rate", be_path(3, 1)), "7", &[]);
    let (before, _) = host.store.counts();
    let mut host = Host::with(host.store, Timing::AT_ONCE, |bus| bus.adopting(Some(Connections::parse(&bytes))));
    // A life that ends here leaves all of them to the next.
    let mut again: Vec<u8> = Vec::new();
    assert!(host.bus.connections().write(|piece| again.extend(piece)));
    assert_eq!(again, bytes);
    while host.kind.live.get() < 12 {
        assert!(host.tasks.step() > 0, "all are served");
    }
    assert!(host.store.counts().0 <= before + 3, "the watch and the directories of the bus itself");
    host.settle();
    let changes = host.kind.changes.borrow();
    assert_eq!((changes.len(), changes.iter().filter(|change| change.contains("Some(7)")).count()), (12, 1));
}

/// What was written down may be wrong in any way: the store tells.
#[test]
fn another_life_believes_the_store() {
    let id = DeviceId { frontend: DomainId(3), handle: 0 };
    let connection = |id, ring: &str| Connection {
        id,
        frontend: fe_path(3, 0),
        nodes: Nodes { frontend: [("ring-ref", ring)].into_iter().collect(), ..Nodes::default() },
    };
    let other = DeviceId { handle: 9, ..id };
    for (connections, name) in [
        (Vec::from([connection(id, "x")]), "nodes that make no sense"),
        (Vec::from([connection(other, "8")]), "a device that is gone"),
        (Vec::from([connection(id, "8"), connection(id, "8")]), "one device twice"),
        (Vec::new(), "none"),
    ] {
        let mut host = Host::new();
        host.attach(3, 0);
        host.connect(3, 0);
        host.tasks = Tasks::new();
        let mut host = Host::with(host.store, Timing::AT_ONCE, |bus| bus.adopting(Some(connections)));
        host.settle();
        assert_eq!((host.state(3, 0), host.kind.live.get(), host.bus.device_count()), (Some(4), 1, 1), "{name}");
        host.detach(3, 0, true);
        host.advance(5000);
        host.assert_clean();
    }
}

/// The reason of a refusal that an earlier life wrote goes when the frontend begins anew.
#[test]
fn another_life_takes_back_what_the_last_one_said() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    host.fail(3, 0, "a fault");
    host.frontend(3, 0, "state", "6");
    let elsewhere = "/local/domain/5/error/backend/vif/3/0/error";
    let mut host = host.live_on(true, |_| ());
    assert_eq!(host.store.get(elsewhere).as_deref(), Some("a fault"));
    host.frontend(3, 0, "state", "1");
    assert_eq!((host.backend(3, 0, "error"), host.store.get(elsewhere)), (None, None));
    host.connect(3, 0);
    assert_eq!(host.state(3, 0), Some(4));
}

/// What changed between two lives is seen by the second.
#[test]
fn another_life_sees_what_happened_meanwhile() {
    type Meanwhile = (&'static str, fn(&mut Host), Option<u32>, usize);
    let cases: [Meanwhile; 7] = [
        ("it closes", |host| host.frontend(3, 0, "state", "5"), Some(5), 0),
        ("it closed", |host| host.frontend(3, 0, "state", "6"), Some(6), 0),
        ("its directory is gone", |host| host.store.delete(&fe_path(3, 0)), Some(6), 0),
        ("it begins anew", |host| host.frontend(3, 0, "state", "1"), Some(2), 0),
        ("it reconfigures", |host| host.frontend(3, 0, "state", "7"), Some(8), 1),
        ("the toolstack removes it", |host| host.unmake(3, 0, false), Some(5), 0),
        ("another comes", |host| host.make(3, 1), Some(4), 1),
    ];
    for (written, (name, meanwhile, state, live)) in
        [false, true].into_iter().flat_map(|written| cases.map(|case| (written, case)))
    {
        let mut host = Host::new();
        host.attach(3, 0);
        host.connect(3, 0);
        let mut host = host.live_on(written, meanwhile);
        assert_eq!((host.state(3, 0), host.kind.live.get()), (state, live), "{name}");
        if name == "another comes" {
            assert_eq!(host.state(3, 1), Some(2));
            host.connect(3, 1);
            assert_eq!((host.state(3, 1), host.kind.live.get()), (Some(4), 2));
            host.detach(3, 1, true);
        }
        host.detach(3, 0, true);
        host.advance(5000);
        host.assert_clean();
    }
}

#[test]
fn paths() {
    let id = |frontend, handle| DeviceId { frontend: DomainId(frontend), handle };
    for (path, expected) in [
        ("backend/vif", Subject::All),
        ("backend/vif/3", Subject::Frontend(DomainId(3))),
        ("backend/vif/3/0", Subject::Device(id(3, 0), None)),
        ("backend/vif/3/0/state", Subject::Device(id(3, 0), Some("state"))),
        ("backend/vif/3/0/a/b", Subject::Device(id(3, 0), Some("a/b"))),
        ("backend/vif/3/4294967296", Subject::Nothing),
        ("backend/vif/03/0", Subject::Nothing),
        ("backend/vif/+3/0", Subject::Nothing),
        ("backend/vif/3/-1", Subject::Nothing),
        ("backend/vif/32752/0", Subject::Nothing),
        ("backend/vif/65536/0", Subject::Nothing),
        ("backend/vif//0", Subject::Nothing),
        ("backend/vif/3/", Subject::Nothing),
        ("backend/vif/../0", Subject::Nothing),
        ("backend/vifs/3/0", Subject::Nothing),
        ("elsewhere", Subject::Nothing),
        ("", Subject::Nothing),
    ] {
        assert_eq!(subject("backend/vif", path), expected, "{path}");
    }
}

#[derive(Debug)]
enum Do {
    /// The frontend writes its state.
    Fe(u32),
    /// The frontend writes a node.
    FeNode(&'static str, &'static str),
    /// The frontend's directory goes.
    FeGone,
    /// The toolstack writes a node of ours.
    Be(&'static str, &'static str),
    /// libxl removes it.
    Detach,
    /// The data path gives up on it.
    Fail(&'static str),
    /// Milliseconds pass.
    Pass(u64),
}
use Do::{Be, Detach, Fail, Fe, FeGone, FeNode, Pass};

/// A life: steps with the state we show after each (none: our directory is gone), and whether rings are in use.
type Life = (&'static str, &'static [(Do, Option<u32>, usize)]);

const LIVES: &[Life] = &[
    (
        "connects, closes, connects again, is removed",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Fe(5), Some(5), 0),
            (Fe(6), Some(6), 0),
            (Pass(20_000), Some(6), 0),
            (Fe(1), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Detach, Some(5), 0),
            (Fe(6), Some(6), 0),
            (Pass(499), Some(6), 0),
            (Pass(1), None, 0),
        ],
    ),
    (
        "Windows closes before it connects",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(5), Some(5), 0),
            (Fe(6), Some(6), 0),
            (Fe(1), Some(2), 0),
            (Fe(4), Some(4), 1),
        ],
    ),
    (
        "begins anew without closing",
        &[(FeNode("ring-ref", "8"), Some(2), 0), (Fe(4), Some(4), 1), (Fe(1), Some(2), 0), (Fe(4), Some(4), 1)],
    ),
    (
        "reconfigures",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Fe(7), Some(8), 1),
            (Fe(4), Some(4), 1),
            (Fe(6), Some(6), 0),
        ],
    ),
    ("never connects, is removed", &[(Detach, Some(6), 0), (Pass(500), None, 0)]),
    (
        "does not answer a removal",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Detach, Some(5), 0),
            (Pass(1999), Some(5), 0),
            (Pass(1), Some(6), 0),
            (Pass(500), None, 0),
        ],
    ),
    (
        "its directory goes first",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (FeGone, Some(6), 0),
            (Be("online", "0"), Some(6), 0),
            (Pass(500), None, 0),
        ],
    ),
    ("is removed when closed already", &[(Fe(6), Some(6), 0), (Detach, Some(6), 0), (Pass(500), None, 0)]),
    (
        "breaks the protocol, stays closed, begins anew",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Fail("ring overrun"), Some(5), 0),
            (Fe(3), Some(5), 0),
            (Fe(4), Some(5), 0),
            (Fail("an echo"), Some(5), 0),
            (Fe(6), Some(6), 0),
            (Fe(4), Some(6), 0),
            (Fe(6), Some(6), 0),
            (Fe(1), Some(2), 0),
            (Fe(4), Some(4), 1),
        ],
    ),
    (
        "breaks the protocol and is removed, not waited for",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Fail("ring overrun"), Some(5), 0),
            (Detach, Some(6), 0),
            (Pass(500), None, 0),
        ],
    ),
    (
        "nonsense where a number belongs",
        &[
            (FeNode("ring-ref", "eight"), Some(2), 0),
            (Fe(4), Some(5), 0),
            (FeNode("ring-ref", "8"), Some(5), 0),
            (Fe(6), Some(6), 0),
            (Fe(1), Some(2), 0),
            (Fe(4), Some(4), 1),
        ],
    ),
    (
        "no ring at all, and states that are none",
        &[
            (Fe(9), Some(6), 0),
            (Fe(4_294_967_295), Some(6), 0),
            (FeNode("state", "four"), Some(6), 0),
            (Fe(1), Some(2), 0),
            (Fe(4), Some(5), 0),
        ],
    ),
    (
        "nonsense while it is connected",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (FeNode("request-multicast-control", "yes"), Some(5), 0),
        ],
    ),
    (
        "somebody overwrites our state",
        &[
            (FeNode("ring-ref", "8"), Some(2), 0),
            (Fe(4), Some(4), 1),
            (Be("state", "6"), Some(4), 1),
            (Be("state", "nonsense"), Some(4), 1),
        ],
    ),
];

#[test]
fn lives() {
    for (name, steps) in LIVES {
        let mut host = Host::new();
        // A neighbour of the same guest and one of another, who shall see nothing of it.
        for (frontend, handle) in [(3, 1), (4, 0)] {
            host.attach(frontend, handle);
            host.connect(frontend, handle);
        }
        host.attach(3, 0);
        assert_eq!(host.state(3, 0), Some(2), "{name}");
        for (index, (step, state, live)) in steps.iter().enumerate() {
            match step {
                Fe(state) => host.frontend(3, 0, "state", &state.to_string()),
                FeNode(name, value) => host.frontend(3, 0, name, value),
                FeGone => host.store.delete(&fe_path(3, 0)),
                Be(name, value) => host.store.put(&format!("{}/{name}", be_path(3, 0)), value, &[]),
                Detach => host.detach(3, 0, false),
                Fail(reason) => host.fail(3, 0, reason),
                Pass(milliseconds) => host.advance(*milliseconds),
            }
            host.settle();
            assert_eq!(host.state(3, 0), *state, "{name}, step {index} {step:?}");
            assert_eq!(host.kind.live.get() - 2, *live, "{name}, step {index} {step:?}");
        }
        for (frontend, handle) in [(3, 1), (4, 0)] {
            assert_eq!(host.state(frontend, handle), Some(4), "{name}: a neighbour");
            host.detach(frontend, handle, true);
        }
        assert_eq!(
            host.kind.connected.get() - 2,
            steps.iter().filter(|(step, state, live)| matches!(step, Fe(4)) && *state == Some(4) && *live == 1).count()
                - usize::from(*name == "reconfigures"),
            "{name}: connected as often as it should"
        );
        if host.state(3, 0).is_some() {
            host.detach(3, 0, true);
        }
        host.advance(5000);
        assert_eq!(host.state(3, 0), None, "{name}");
        host.assert_clean();
    }
}

/// libxl reads the state once it hears of it, and wants to find `InitWait`. A frontend that begins anew need not wait for that.
#[test]
fn a_new_device_is_announced_for_a_while() {
    let store = FakeStore::new();
    for domain in [0, 3, US.0] {
        store.add_domain(DomainId(domain));
    }
    let mut host = Host::with_timing(store, Timing::default());
    host.attach(3, 0);
    host.connect(3, 0);
    host.advance(99);
    assert_eq!(host.state(3, 0), Some(2));
    host.advance(1);
    assert_eq!(host.state(3, 0), Some(4));
    for (state, expected) in [("5", 5), ("6", 6), ("1", 2)] {
        host.frontend(3, 0, "state", state);
        assert_eq!(host.state(3, 0), Some(expected));
    }
    host.connect(3, 0);
    assert_eq!(host.state(3, 0), Some(4));
    // One that the toolstack makes in its place is new.
    host.attach(3, 0);
    host.connect(3, 0);
    host.advance(99);
    assert_eq!(host.state(3, 0), Some(2));
    host.advance(1);
    assert_eq!(host.state(3, 0), Some(4));
}

#[test]
fn what_is_written() {
    let mut host = Host::new();
    host.attach(3, 0);
    assert_eq!(host.backend(3, 0, "feature-sg").as_deref(), Some("1"));
    let hotplug = host.backend(3, 0, "hotplug-status");
    assert_eq!(hotplug.as_deref(), Some("connected"));
    host.connect(3, 0);
    let id = DeviceId { frontend: DomainId(3), handle: 0 };
    let handle = host.kind.handles.borrow()[&id].clone();
    handle.write_node("carrier", 1);
    handle.write_node("carrier", 0);
    host.settle();
    assert_eq!(host.backend(3, 0, "carrier").as_deref(), Some("0"));
    host.fail(3, 0, "request 7 leaves its page");
    let error = host.backend(3, 0, "error");
    assert_eq!(error.as_deref(), Some("request 7 leaves its page"));
    let elsewhere = "/local/domain/5/error/backend/vif/3/0/error";
    assert_eq!(host.store.get(elsewhere), error);
    // A handle of a connection that is over says nothing.
    handle.write_node("carrier", 1);
    host.frontend(3, 0, "state", "6");
    assert_eq!(host.backend(3, 0, "carrier").as_deref(), Some("0"));
    host.frontend(3, 0, "state", "1");
    assert_eq!(host.backend(3, 0, "error"), None);
    assert_eq!(host.store.get(elsewhere), None);
}

#[test]
fn changes_while_connected() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    host.store.put(&format!("{}/rate", be_path(3, 0)), "12", &[]);
    host.settle();
    host.frontend(3, 0, "request-multicast-control", "1");
    host.frontend(3, 0, "of-no-interest", "1");
    assert_eq!(*host.kind.changes.borrow(), ["Some(12) false", "Some(12) true"]);
}

#[test]
fn what_was_there_before_us_is_found() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.attach(4, 7);
    // A second bus on the same store begins later, as a restarted domain does.
    let Host { store, .. } = host;
    let mut host = Host::with_store(store);
    host.settle();
    assert_eq!(host.bus.device_count(), 2);
    host.connect(3, 0);
    host.connect(4, 7);
    assert_eq!(host.kind.live.get(), 2);
}

#[test]
fn malformed_toolstack_nodes() {
    for (name, value) in [
        ("frontend", "/local/domain/4/device/vif/0"),
        ("frontend", "/local/domain/3/../4/device/vif/0"),
        ("frontend", "relative"),
        ("frontend", ""),
        ("frontend-id", "4"),
        ("frontend-id", "03"),
        ("frontend-id", "three"),
    ] {
        let mut host = Host::new();
        host.attach(3, 1);
        let be = be_path(3, 0);
        host.attach(3, 0);
        // Made again with nonsense in it.
        host.store.put(&format!("{be}/{name}"), value, &[]);
        host.store.put(&format!("{be}/state"), "1", &[]);
        host.settle();
        assert_eq!(host.state(3, 0), Some(5), "{name} {value}");
        assert!(host.backend(3, 0, "error").is_some(), "{name} {value}");
        host.connect(3, 1);
        assert_eq!(host.state(3, 1), Some(4));
        for handle in [0, 1] {
            host.detach(3, handle, true);
        }
        host.advance(2500);
        host.assert_clean();
    }
}

#[test]
fn the_kind_refuses_what_it_is_to_serve() {
    let mut host = Host::new();
    host.attach(3, 0);
    let be = be_path(3, 0);
    host.store.delete(&format!("{be}/mac"));
    host.store.put(&format!("{be}/state"), "1", &[]);
    host.settle();
    assert_eq!(host.state(3, 0), Some(5));
    let error = host.backend(3, 0, "error");
    assert_eq!(error.as_deref(), Some("node mac is missing"));
}

/// Also where all that lies between what it is refused for and a new beginning is over before anybody looked.
#[test]
fn a_frontend_begins_anew_after_nonsense_however_quickly() {
    for (node, value, state) in [("state", "x", "x"), ("ring-ref", "moo", "4")] {
        for steps in 0..60 {
            let mut host = Host::new();
            host.attach(3, 0);
            let fe = fe_path(3, 0);
            host.store.put(&format!("{fe}/{node}"), value, &[]);
            host.store.put(&format!("{fe}/state"), state, &[]);
            for _ in 0..steps {
                host.tasks.step();
            }
            host.store.put(&format!("{fe}/state"), "1", &[]);
            host.settle();
            assert_eq!(host.state(3, 0), Some(2), "{value} after {steps} steps");
            host.connect(3, 0);
            assert_eq!(host.state(3, 0), Some(4), "{value} after {steps} steps");
        }
    }
}

/// What a data path says of a connection after its end is said of no other one.
#[test]
fn a_handle_speaks_for_its_connection_alone() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    let id = DeviceId { frontend: DomainId(3), handle: 0 };
    let first = host.kind.handles.borrow().get(&id).cloned().unwrap();
    for state in ["6", "1", "4"] {
        host.frontend(3, 0, "state", state);
    }
    assert_eq!((host.kind.connected.get(), host.state(3, 0)), (2, Some(4)));
    first.write_node("sectors", "old");
    first.fail("of the first");
    host.settle();
    assert_eq!(host.state(3, 0), Some(4));
    assert_eq!(host.backend(3, 0, "sectors").as_deref(), Some("2"));
    assert_eq!(host.backend(3, 0, "error"), None);
}

/// Writes that could not be done are done again, but for what was asked for since; not in the next connection.
#[test]
fn writes_come_back_to_their_connection_alone() {
    let mailbox = Rc::new(backend::Mailbox::default());
    let handle = DeviceHandle::new(DeviceId { frontend: DomainId(3), handle: 0 }, &mailbox);
    handle.write_node("carrier", 1);
    handle.write_node("rate", 2);
    let (connection, writes) = mailbox.take_writes();
    handle.write_node("carrier", 0);
    mailbox.return_writes(connection, writes.clone());
    let expected = [("carrier", "0"), ("rate", "2")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(mailbox.take_writes(), (connection, expected.into()));
    mailbox.end_connection();
    mailbox.return_writes(connection, writes);
    assert!(!mailbox.has_writes());
}

#[test]
fn fifty_cycles_leave_nothing() {
    let mut host = Host::new();
    host.settle();
    for cycle in 0_u32..50 {
        host.attach(3, cycle % 3);
        if cycle % 2 == 0 {
            host.connect(3, cycle % 3);
        }
        host.detach(3, cycle % 3, cycle % 5 == 0);
        if cycle % 5 != 0 {
            host.frontend(3, cycle % 3, "state", "6");
        }
        host.advance(500);
        assert_eq!(host.state(3, cycle % 3), None, "cycle {cycle}");
        host.store.delete(&fe_path(3, cycle % 3));
        host.store.delete("/local/domain/5/backend/vif/3");
        host.settle();
        host.assert_clean();
    }
    assert_eq!(host.kind.connected.get(), 25);
}

#[test]
fn removed_and_made_again_behind_our_back() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    // Both before we get to look.
    host.store.delete(&be_path(3, 0));
    host.store.delete(&fe_path(3, 0));
    host.attach(3, 0);
    assert_eq!((host.state(3, 0), host.kind.live.get()), (Some(2), 0));
    host.connect(3, 0);
    assert_eq!((host.state(3, 0), host.kind.live.get()), (Some(4), 1));
    // The whole of the guest's devices at once.
    host.store.delete("/local/domain/5/backend/vif/3");
    host.settle();
    host.assert_clean();
}

#[test]
fn a_bus_that_is_dropped_gives_all_back() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    assert_eq!(host.kind.live.get(), 1);
    host.tasks = Tasks::new();
    assert_eq!(host.kind.live.get(), 0);
    assert_eq!(host.store.watches(US), 0);
}

/// A device waits for what it needs; its neighbours do not, and who takes it back need not wait either.
#[test]
fn a_device_that_is_not_ready_yet() {
    let mut host = Host::new();
    host.attach(4, 0);
    host.kind.unready.set(true);
    host.attach(3, 0);
    host.attach(3, 1);
    assert_eq!((host.state(3, 0), host.state(3, 1), host.kind.preparing.get()), (Some(1), Some(1), 2));
    host.connect(4, 0);
    assert_eq!(host.state(4, 0), Some(4));
    // A frontend that does not wait for us is of no use, and does no harm.
    host.frontend(3, 0, "state", "3");
    assert_eq!((host.state(3, 0), host.kind.preparing.get()), (Some(1), 2));
    host.detach(3, 1, true);
    assert_eq!((host.state(3, 1), host.kind.preparing.get()), (Some(6), 1));
    host.advance(500);
    assert_eq!(host.state(3, 1), None);
    host.kind.unready.set(false);
    host.kind.wake();
    host.settle();
    assert_eq!((host.state(3, 0), host.kind.prepared.get()), (Some(2), 2));
    host.connect(3, 0);
    assert_eq!(host.state(3, 0), Some(4));

    // Also one whose directory goes meanwhile.
    host.kind.unready.set(true);
    host.attach(3, 1);
    host.store.delete(&be_path(3, 1));
    host.settle();
    assert_eq!((host.kind.preparing.get(), host.bus.device_count()), (0, 2));
    for frontend in [3, 4] {
        host.detach(frontend, 0, true);
    }
    host.advance(2500);
    host.assert_clean();
}

/// No way leads past it: not to `Closed`, not to a new connection, not to the directory's end.
#[test]
fn a_connection_is_over_when_its_memory_is_free() {
    let unsettled = |host: &Host, unsettled| {
        host.kind.unsettled.set(unsettled);
        host.kind.wake();
    };
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    unsettled(&host, true);
    host.frontend(3, 0, "state", "5");
    assert_eq!((host.state(3, 0), host.kind.live.get()), (Some(5), 0));
    host.frontend(3, 0, "state", "6");
    assert_eq!(host.state(3, 0), Some(5));
    unsettled(&host, false);
    host.settle();
    assert_eq!(host.state(3, 0), Some(6));

    // It begins anew without a word.
    host.frontend(3, 0, "state", "1");
    host.connect(3, 0);
    assert_eq!((host.state(3, 0), host.kind.connected.get()), (Some(4), 2));
    unsettled(&host, true);
    host.frontend(3, 0, "state", "1");
    assert_eq!(host.state(3, 0), Some(5));
    unsettled(&host, false);
    host.settle();
    assert_eq!(host.state(3, 0), Some(2));

    // Its directory is made anew.
    host.connect(3, 0);
    unsettled(&host, true);
    host.store.delete(&be_path(3, 0));
    host.store.delete(&fe_path(3, 0));
    host.attach(3, 0);
    assert_eq!((host.state(3, 0), host.kind.live.get()), (Some(1), 0));
    unsettled(&host, false);
    host.settle();
    assert_eq!(host.state(3, 0), Some(2));

    // The guest is destroyed.
    host.connect(3, 0);
    unsettled(&host, true);
    host.detach(3, 0, true);
    assert_eq!((host.state(3, 0), host.kind.live.get()), (Some(5), 0));
    unsettled(&host, false);
    host.settle();
    assert_eq!(host.state(3, 0), Some(6));
    host.advance(2500);
    host.assert_clean();

    // All is gone at once.
    host.attach(3, 0);
    host.connect(3, 0);
    unsettled(&host, true);
    host.store.delete(&be_path(3, 0));
    host.settle();
    assert_eq!((host.kind.live.get(), host.bus.device_count()), (0, 1));
    unsettled(&host, false);
    host.settle();
    host.assert_clean();
}

/// Whoever sees `Connected` sees what was written by the connection, and later writes are told by another `Connected`.
#[test]
fn what_a_connection_writes_comes_with_connected() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.frontend(3, 0, "ring-ref", "102");
    host.frontend(3, 0, "queue-0/ring-ref100", "a");
    host.frontend(3, 0, "queue-0/ring-ref101", "b");
    host.frontend(3, 0, "queue-0/ring-ref102", "c");
    host.store.put(&format!("{}/state", fe_path(3, 0)), "4", &[]);
    while host.state(3, 0) == Some(2) {
        assert_eq!(host.backend(3, 0, "sectors"), None);
        assert!(host.tasks.step() > 0, "it connects");
    }
    assert_eq!(host.state(3, 0), Some(4));
    assert_eq!(host.backend(3, 0, "sectors").as_deref(), Some("1"));
    assert_eq!(*host.kind.further.borrow(), [Some("a".to_string()), Some("b".to_string())]);

    host.settle();
    let id = DeviceId { frontend: DomainId(3), handle: 0 };
    let handle = host.kind.handles.borrow()[&id].clone();
    let guest = host.store.connection(DomainId(3));
    let seen = Rc::new(Cell::new(0));
    let count = seen.clone();
    host.tasks.spawn(async move {
        let mut watch = guest.watch(&format!("{}/state", be_path(3, 0))).await.expect("readable");
        loop {
            watch.next().await;
            count.set(count.get() + 1);
        }
    });
    host.settle();
    assert_eq!(seen.get(), 1, "a new watch's own event");
    handle.write_node("sectors", 77);
    host.settle();
    assert_eq!((seen.get(), host.backend(3, 0, "sectors").as_deref()), (2, Some("77")));
    assert_eq!(host.state(3, 0), Some(4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Anybody writes anything, in any order, while we run step by step: nothing leaks, nothing spins, and a device of a well-behaved
    /// neighbour is never touched.
    #[test]
    fn anything(steps in proptest::collection::vec((0_u8..10, 0_u32..10, 0_usize..30), 1..80)) {
        let mut host = Host::new();
        host.attach(4, 0);
        host.connect(4, 0);
        for (what, number, polls) in steps {
            let (fe, be) = (fe_path(3, 0), be_path(3, 0));
            let present = host.state(3, 0).is_some();
            match what {
                0..4 => if host.store.get(&fe).is_some() {
                    host.store.put(&format!("{fe}/state"), &number.to_string(), &[]);
                },
                4 => if host.store.get(&fe).is_some() {
                    host.store.put(&format!("{fe}/ring-ref"), if number > 2 { "8" } else { "x" }, &[]);
                },
                5 => if !present { host.make(3, 0) },
                6 => if present { host.unmake(3, 0, number > 4) },
                7 => host.store.delete(&fe),
                8 => { host.store.delete(&be); }
                _ => host.clock.advance(Duration::from_millis(u64::from(number) * 200)),
            }
            if polls > 20 {
                host.settle();
            }
            // Else the next word comes in the middle of what we do about this one.
            for _ in 0..polls {
                host.tasks.step();
            }
        }
        host.settle();
        prop_assert_eq!(host.state(4, 0), Some(4));
        prop_assert!(host.kind.live.get() <= 2);
        for frontend in [3, 4] {
            if host.state(frontend, 0).is_some() {
                host.detach(frontend, 0, true);
            }
        }
        for _ in 0..4 { host.advance(2500); }
        prop_assert_eq!(host.state(3, 0), None);
        host.assert_clean();
        // And all that left nothing behind that harms the next one.
        host.attach(3, 0);
        host.connect(3, 0);
        prop_assert_eq!(host.state(3, 0), Some(4));
    }
}
