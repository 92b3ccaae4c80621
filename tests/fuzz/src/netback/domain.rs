//! The driver domain around the data path, as netdom joins it together: vifs on a bus, and what is written down for the next life. Host.
//!
//! The honest guests' vifs are always on the bus. So is the hostile one where a life ends in an input; else it is attached without, as a
//! store costs more than most inputs.

use super::honest::BRIDGES;
use netdom::backend::Netback;
use netdom::blame::Suspect;
use netdom::datapath::{DataPath, NicId, VifId};
use netdom::fakes::{FakeNic, Wire};
use netdom::kept::{INTERVAL, Kept, PAUSE, write_suspect};
use netdom::netback::bridges::Bridges;
use netdom::netback::config::{RemotePorts, VifConfig};
use netdom::nic::Capabilities;
use netdom::packet::Pool;
use split_driver::fakes::{FakeClock, FakeConnection, FakePages, FakeStore, FakeXen, Tasks};
use split_driver::kept::Written;
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::{Bus, Connections, DeviceId, Timing};
use std::cell::RefCell;
use std::rc::Rc;
use xen_pv_sys::DomainId;

/// The domain's own number.
const US: DomainId = DomainId(7);
/// Pages of the pool: few, so that it runs out.
const PAGES: usize = 512;
/// Queues that a vif is offered.
const QUEUES: u8 = 3;
/// Buffers of the NIC's ring, and the host's address of the NIC.
const RING: usize = 16;
const HOST: &str = "0000:03:00.0";
const CAPABILITIES: Capabilities = Capabilities {
    checksum_v4: true,
    checksum_v6: false,
    tso_v4: true,
    tso_v6: false,
    vlan_stripping: false,
    vlan_insertion: false,
    max_frame: 9018,
};

/// The recovery box: what a life leaves to the next.
#[derive(Clone, Default)]
pub(super) struct Legacy {
    connections: Option<Vec<u8>>,
    image: Option<Vec<u8>>,
    suspect: Option<Vec<u8>>,
}

/// What is there whatever life it is.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) xen: FakeXen,
    pub(super) store: FakeStore,
    clock: FakeClock,
    pub(super) wire: Rc<RefCell<Wire>>,
}

/// One life.
pub(super) struct Domain {
    host: Host,
    path: Rc<RefCell<DataPath<FakeXen>>>,
    bus: Rc<Bus<FakeConnection, FakeClock, Netback<FakeXen>>>,
    tasks: Tasks<'static>,
    suspect: Suspect,
    nic: Option<NicId>,
    inherited: Kept,
    written: Written,
    /// When it was written last.
    pub(super) kept_at: Instant,
    changed: bool,
}

impl Host {
    /// A machine with a store.
    pub(super) fn new() -> Self {
        let (_, wire) = FakeNic::new(CAPABILITIES, RING);
        let host = Self { xen: FakeXen::new(), store: FakeStore::new(), clock: FakeClock::default(), wire };
        let home = format!("/local/domain/{}", US.0);
        for path in [home.clone(), format!("{home}/backend"), format!("{home}/error")] {
            host.store.put(&path, "", &[&format!("n{}", US.0)]);
        }
        host
    }

    /// Time goes on.
    pub(super) fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    /// What it is.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    fn directories(id: DeviceId) -> [String; 2] {
        let (domain, handle) = (id.frontend.0, id.handle);
        [
            format!("/local/domain/{domain}/device/vif/{handle}"),
            format!("/local/domain/{}/backend/vif/{domain}/{handle}", US.0),
        ]
    }

    /// The toolstack makes a vif, and its frontend says all at once.
    pub(super) fn create(&self, config: &VifConfig) {
        let id = DeviceId { frontend: config.domain, handle: config.handle };
        let [frontend, backend] = Self::directories(id);
        let (us, guest) = (US.0, id.frontend.0);
        self.store.put(&frontend, "", &[&format!("n{guest}"), &format!("r{us}")]);
        for (name, value) in frontend_nodes(config) {
            self.store.put(&format!("{frontend}/{name}"), &value.to_string(), &[]);
        }
        self.store.put(&backend, "", &[&format!("n{us}"), &format!("r{guest}")]);
        let mac: Vec<String> = config.mac.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let put = |name: &str, value: &str| self.store.put(&format!("{backend}/{name}"), value, &[]);
        put("frontend", &frontend);
        put("frontend-id", &guest.to_string());
        put("mac", &mac.join(":"));
        put("bridge", &config.bridge);
        if let Some(rate) = config.rate {
            put("rate", &format!("{},{}", rate.bytes, rate.interval.as_micros()));
        }
        for (name, value) in [("handle", config.handle.to_string().as_str()), ("online", "1"), ("state", "1")] {
            put(name, value);
        }
    }

    /// The toolstack takes it away at once.
    pub(super) fn delete(&self, id: DeviceId) {
        Self::directories(id).iter().for_each(|path| self.store.delete(path));
    }

    /// All nodes of a vif.
    pub(super) fn nodes(&self, id: DeviceId) -> Vec<(String, Option<String>)> {
        let paths = Self::directories(id).into_iter().flat_map(|top| self.store.paths(&top));
        paths.map(|path| (path.clone(), self.store.get(&path))).collect()
    }

    /// The backend's `state` node.
    pub(super) fn state(&self, id: DeviceId) -> Option<String> {
        let [_, backend] = Self::directories(id);
        self.store.get(&format!("{backend}/state"))
    }

    /// Why a vif was refused.
    pub(super) fn error(&self, id: DeviceId) -> Option<String> {
        let (domain, handle) = (id.frontend.0, id.handle);
        self.store.get(&format!("/local/domain/{}/error/backend/vif/{domain}/{handle}/error", US.0))
    }
}

/// What a frontend says of itself (`io/netif.h`).
fn frontend_nodes(config: &VifConfig) -> Vec<(String, u32)> {
    let features = config.features;
    let mut nodes: Vec<(String, u32)> = [
        ("request-rx-copy", true),
        ("feature-sg", features.scatter_gather),
        ("feature-gso-tcpv4", features.gso_tcpv4),
        ("feature-gso-tcpv6", features.gso_tcpv6),
        ("feature-no-csum-offload", !features.checksum_v4),
        ("feature-ipv6-csum-offload", features.checksum_v6),
        ("feature-rx-notify", features.receive_notify),
        ("request-multicast-control", features.multicast_control),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    if config.queues.len() > 1 {
        nodes.push(("multi-queue-num-queues".into(), config.queues.len() as u32));
    }
    for (number, queue) in config.queues.iter().enumerate() {
        let directory = if config.queues.len() > 1 { format!("queue-{number}/") } else { String::new() };
        let mut put = |name: &str, value: u32| nodes.push((format!("{directory}{name}"), value));
        put("tx-ring-ref", queue.transmit_ring.0);
        put("rx-ring-ref", queue.receive_ring.0);
        match queue.ports {
            RemotePorts::Single(port) => put("event-channel", port.0),
            RemotePorts::Split { transmit, receive } => {
                put("event-channel-tx", transmit.0);
                put("event-channel-rx", receive.0);
            }
        }
    }
    if let Some(control) = config.control {
        nodes.push(("ctrl-ring-ref".into(), control.ring.0));
        nodes.push(("event-channel-ctrl".into(), control.port.0));
    }
    if config.headroom > 0 {
        nodes.push(("xdp-headroom".into(), config.headroom.into()));
    }
    nodes.push(("state".into(), 4));
    nodes
}

impl Domain {
    /// A life begins, with what the last one left; it serves nobody yet.
    pub(super) fn new(host: &Host, legacy: Option<&Legacy>) -> Self {
        let pool = Pool::new(Box::new(FakePages::new(&host.xen, PAGES)));
        let mut path = DataPath::new(host.xen.clone(), pool, 1);
        path.begin_at(host.now());
        path.write_ahead(&host.xen).expect("a page");
        let (suspect, path) = (path.suspect(), Rc::new(RefCell::new(path)));
        let bridges = Bridges::new([BRIDGES[0]], &[BRIDGES[BRIDGES.len() - 1].into()]);
        let netback = Netback::new(Rc::clone(&path), bridges, Rc::new(|| ())).with_queues(QUEUES);
        let image = legacy.and_then(|legacy| legacy.image.as_deref());
        let mut inherited = Kept::parse(image);
        let blame = inherited.take_blame(legacy.and_then(|legacy| legacy.suspect.as_deref()), host.now());
        let netback = netback.with_inherited(inherited.take_vifs(), inherited.take_carriers(), blame);
        let mut bus = Bus::with_timing(host.store.connection(US), host.clock.clone(), netback, Timing::AT_ONCE);
        if let Some(legacy) = legacy {
            bus = bus.adopting(legacy.connections.as_deref().map(Connections::parse));
        }
        let (bus, mut tasks) = (Rc::new(bus), Tasks::new());
        let running = Rc::clone(&bus);
        tasks.spawn(async move {
            let _ = running.run().await;
        });
        let written = Written::new(image);
        let host = host.clone();
        let kept_at = host.now();
        Self { host, path, bus, tasks, suspect, nic: None, inherited, written, kept_at, changed: false }
    }

    /// Takes over what the last life had.
    pub(super) fn take_over(&mut self) {
        self.run_tasks();
        self.bus.backend().forget_inherited();
        let nic = FakeNic::again(&self.host.wire, CAPABILITIES, RING);
        let mut path = self.path.borrow_mut();
        let Ok(id) = path.add_nic(Box::new(nic), BRIDGES[0]) else {
            panic!("there is room for a NIC");
        };
        if let Some((kept, _)) = self.inherited.take_nic(HOST, BRIDGES[0]) {
            path.restore_nic(id, &kept);
        }
        self.nic = Some(id);
    }

    /// The bus takes its steps.
    pub(super) fn run_tasks(&mut self) {
        self.tasks.run_until_stalled();
    }

    /// The data path.
    pub(super) fn path(&self) -> std::cell::RefMut<'_, DataPath<FakeXen>> {
        self.path.borrow_mut()
    }

    /// A vif that is connected.
    pub(super) fn vif(&self, id: DeviceId) -> Option<VifId> {
        self.bus.backend().vifs().into_iter().find(|(device, _)| *device == id).map(|(_, vif)| vif)
    }

    /// Hands events over and does one round; true where another one shall follow.
    pub(super) fn round(&mut self) -> bool {
        let now = self.host.now();
        let mut path = self.path.borrow_mut();
        while let Some(port) = self.host.xen.next_event() {
            path.handle_event(port, now);
        }
        let again = path.poll(now).again;
        self.changed |= path.take_changed();
        again
    }

    /// Tells the bus what the round brought.
    pub(super) fn report(&mut self) {
        self.bus.backend().report();
        self.run_tasks();
    }

    /// Writes the state down where that is due; true where it was.
    pub(super) fn keep(&mut self) -> bool {
        let (now, since) = (self.host.now(), self.host.now().since(self.kept_at));
        if since < PAUSE || since < INTERVAL && !self.changed {
            return false;
        }
        (self.kept_at, self.changed) = (now, false);
        let path = self.path.borrow();
        let nic = self.nic.and_then(|id| Some((String::from(HOST), path.keep_nic(id)?)));
        drop(path);
        self.written.set(Kept::new(self.bus.backend(), nic, &self.inherited, 0).to_bytes());
        true
    }

    /// The life ends: what it has is dropped, but for what it leaves. One that failed leaves the vif that it served, too, if that is `blamed`.
    pub(super) fn end(&mut self, blamed: Option<DeviceId>) -> Legacy {
        let legacy = self.legacy(blamed);
        self.tasks = Tasks::new();
        // One without pages takes its place until the next life's does.
        let none = Pool::new(Box::new(FakePages::new(&self.host.xen, 0)));
        *self.path.borrow_mut() = DataPath::new(self.host.xen.clone(), none, 1);
        drop(FakeNic::again(&self.host.wire, CAPABILITIES, RING));
        legacy
    }

    fn legacy(&self, blamed: Option<DeviceId>) -> Legacy {
        let mut legacy = Legacy::default();
        let mut connections = Vec::new();
        if self.bus.connections().write(|piece| connections.extend_from_slice(piece)) {
            legacy.connections = Some(connections);
        }
        let mut image = Vec::new();
        if self.written.write(&mut |bytes| image.extend_from_slice(bytes)) {
            legacy.image = Some(image);
        }
        let netback = self.bus.backend();
        let mut bytes = Vec::new();
        if blamed.is_some()
            && self.suspect.get().and_then(|port| netback.vif_at(port)) == blamed
            && write_suspect(netback, &self.suspect, &mut |piece| bytes.extend_from_slice(piece))
        {
            legacy.suspect = Some(bytes);
        }
        legacy
    }
}
