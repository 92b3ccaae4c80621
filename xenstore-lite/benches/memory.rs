//! Bytes that a node takes, by what the process grew, and the memory of a store's domain by its guests: `cargo bench -p xenstore-lite --bench
//! memory`. Host, Linux.

mod scene;

use scene::{NODES_A_GUEST, Scene};
use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::*;
use xenstore_lite::fakes::{FakeHost, fetch, request};
use xenstore_lite::{Config, ConnectionId, Store};

/// The driver domain.
const DRIVERS: u16 = 1;
/// The first guest.
const FIRST: u16 = 10;
/// Bytes of the store's domain that are not for what domains have in the store (stubdom's `RESERVE`).
const RESERVE: usize = 5 << 19;

/// What `xl` writes for a guest with a vif and a vbd of a driver domain: paths, values and the permissions of the node, where `@` is the
/// guest's number; without permissions, those of the one above.
const TREE: &[(&str, &str, &str)] = &[
    ("/vm/00000000-0000-0000-0000-@/name", "guest-@", ""),
    ("/libxl/@/type", "pv", ""),
    ("/libxl/@/device/vif/0/backend", "/local/domain/1/backend/vif/@/0", ""),
    ("/libxl/@/device/vbd/51712/backend", "/local/domain/1/backend/vbd/@/51712", ""),
    ("/local/domain/@", "", "n0 r@"),
    ("/local/domain/@/vm", "/vm/00000000-0000-0000-0000-@", ""),
    ("/local/domain/@/name", "guest-@", ""),
    ("/local/domain/@/domid", "@", ""),
    ("/local/domain/@/cpu/0/availability", "online", ""),
    ("/local/domain/@/memory/static-max", "1048576", ""),
    ("/local/domain/@/memory/target", "1048577", ""),
    ("/local/domain/@/control", "", "n@"),
    ("/local/domain/@/control/shutdown", "", "n@"),
    ("/local/domain/@/data", "", "n@"),
    ("/local/domain/@/store/port", "1", ""),
    ("/local/domain/@/store/ring-ref", "1044447", ""),
    ("/local/domain/@/console/backend", "/local/domain/0/backend/console/@/0", ""),
    ("/local/domain/@/console/port", "2", ""),
    ("/local/domain/@/console/ring-ref", "1044446", ""),
    ("/local/domain/@/device/vif/0", "", "n@ r1"),
    ("/local/domain/@/device/vif/0/backend", "/local/domain/1/backend/vif/@/0", ""),
    ("/local/domain/@/device/vif/0/backend-id", "1", ""),
    ("/local/domain/@/device/vif/0/state", "1", ""),
    ("/local/domain/@/device/vif/0/handle", "0", ""),
    ("/local/domain/@/device/vif/0/mac", "00:16:3e:5e:6c:01", ""),
    ("/local/domain/@/device/vbd/51712", "", "n@ r1"),
    ("/local/domain/@/device/vbd/51712/backend", "/local/domain/1/backend/vbd/@/51712", ""),
    ("/local/domain/@/device/vbd/51712/backend-id", "1", ""),
    ("/local/domain/@/device/vbd/51712/state", "1", ""),
    ("/local/domain/@/device/vbd/51712/virtual-device", "51712", ""),
    ("/local/domain/0/backend/console/@/0/frontend", "/local/domain/@/console", ""),
    ("/local/domain/1/backend/vif/@/0", "", "n1 r@"),
    ("/local/domain/1/backend/vif/@/0/frontend", "/local/domain/@/device/vif/0", ""),
    ("/local/domain/1/backend/vif/@/0/frontend-id", "@", ""),
    ("/local/domain/1/backend/vif/@/0/online", "1", ""),
    ("/local/domain/1/backend/vif/@/0/state", "1", ""),
    ("/local/domain/1/backend/vif/@/0/script", "/etc/xen/scripts/vif-bridge", ""),
    ("/local/domain/1/backend/vif/@/0/mac", "00:16:3e:5e:6c:01", ""),
    ("/local/domain/1/backend/vif/@/0/bridge", "xenbr0", ""),
    ("/local/domain/1/backend/vif/@/0/handle", "0", ""),
    ("/local/domain/1/backend/vif/@/0/type", "vif", ""),
    ("/local/domain/1/backend/vbd/@/51712", "", "n1 r@"),
    ("/local/domain/1/backend/vbd/@/51712/frontend", "/local/domain/@/device/vbd/51712", ""),
    ("/local/domain/1/backend/vbd/@/51712/frontend-id", "@", ""),
    ("/local/domain/1/backend/vbd/@/51712/online", "1", ""),
    ("/local/domain/1/backend/vbd/@/51712/state", "1", ""),
    ("/local/domain/1/backend/vbd/@/51712/params", "/dev/vg0/guest-@", ""),
    ("/local/domain/1/backend/vbd/@/51712/mode", "w", ""),
];
/// What a Linux guest adds, and what it watches, below its own directory.
const OF_GUEST: &[&str] = &[
    "control/feature-poweroff",
    "control/feature-reboot",
    "device/vif/0/tx-ring-ref",
    "device/vif/0/rx-ring-ref",
    "device/vif/0/event-channel-tx",
    "device/vif/0/event-channel-rx",
    "device/vif/0/request-rx-copy",
    "device/vif/0/feature-rx-notify",
    "device/vif/0/feature-sg",
    "device/vif/0/feature-gso-tcpv4",
    "device/vif/0/feature-gso-tcpv6",
    "device/vif/0/feature-ipv6-csum-offload",
    "device/vbd/51712/ring-ref",
    "device/vbd/51712/event-channel",
    "device/vbd/51712/protocol",
    "device/vbd/51712/feature-persistent",
];
const WATCHED: &[&str] = &[
    "device",
    "backend",
    "control/shutdown",
    "control/sysrq",
    "memory/target",
    "/local/domain/1/backend/vif/@/0/state",
    "/local/domain/1/backend/vbd/@/51712/state",
];
/// What the driver domain adds to each device, and watches of it.
const OF_DRIVERS: &[&str] = &[
    "vif/@/0/hotplug-status",
    "vif/@/0/feature-sg",
    "vif/@/0/feature-gso-tcpv4",
    "vif/@/0/feature-gso-tcpv6",
    "vif/@/0/feature-rx-copy",
    "vif/@/0/carrier",
    "vbd/@/51712/sectors",
    "vbd/@/51712/sector-size",
    "vbd/@/51712/info",
    "vbd/@/51712/feature-flush-cache",
    "vbd/@/51712/feature-persistent",
    "vbd/@/51712/feature-max-indirect-segments",
];
const DRIVERS_WATCH: &[&str] = &["/local/domain/@/device/vif/0", "/local/domain/@/device/vbd/51712"];

/// A host with so many guests, each with a vif and a vbd of one driver domain.
struct Host {
    store: Store,
    machine: FakeHost,
}

impl Host {
    fn new(guests: u16) -> Self {
        let all = [0, DRIVERS].into_iter().chain(FIRST..FIRST + guests);
        let machine = FakeHost { domains: all.map(|id| (DomainId(id), 1)).collect(), ..FakeHost::default() };
        let mut store = Store::new(Config::default());
        let ids: Vec<ConnectionId> = [0, DRIVERS].iter().filter_map(|id| store.connect(DomainId(*id))).collect();
        let mut host = Self { store, machine };
        let (dom0, drivers) = (ids[0], ids[1]);
        for guest in FIRST..FIRST + guests {
            let number = guest.to_string();
            let of = |text: &str| text.replace('@', &number);
            let own = host.store.connect(DomainId(guest)).expect("its first connection");
            for (path, value, permissions) in TREE {
                host.ask(dom0, XS_WRITE, &format!("{}\0{}", of(path), of(value)));
                if !permissions.is_empty() {
                    host.ask(dom0, XS_SET_PERMS, &format!("{}\0{}\0", of(path), of(permissions).replace(' ', "\0")));
                }
            }
            OF_GUEST.iter().for_each(|path| host.ask(own, XS_WRITE, &format!("{path}\x001234")));
            WATCHED.iter().for_each(|path| host.ask(own, XS_WATCH, &format!("{}\0ffff888003a51b40\0", of(path))));
            OF_DRIVERS.iter().for_each(|path| host.ask(drivers, XS_WRITE, &format!("backend/{}\x001", of(path))));
            DRIVERS_WATCH.iter().for_each(|path| host.ask(drivers, XS_WATCH, &format!("{}\x001234\0", of(path))));
            host.rest();
        }
        host
    }

    fn ask(&mut self, id: ConnectionId, kind: u32, payload: &str) {
        let bytes = request(kind, 0, payload.as_bytes());
        assert_eq!(self.store.handle_bytes(id, &bytes, &mut self.machine), Ok(bytes.len()));
        let refused = fetch(&mut self.store, id).into_iter().find(|heard| heard.kind == XS_ERROR);
        assert_eq!(refused.map(|heard| heard.text()), None, "{}", payload.escape_debug());
    }

    /// All have read what was for them.
    fn rest(&mut self) {
        let all: Vec<ConnectionId> = self.store.connections().map(|info| info.id).collect();
        all.into_iter().for_each(|id| drop(fetch(&mut self.store, id)));
    }
}

/// What a store's domain needs for so many guests, in a line.
fn show(guests: u16) {
    let host = Host::new(guests);
    let all = [0, DRIVERS].into_iter().chain(FIRST..FIRST + guests).map(|id| host.store.usage(DomainId(id)));
    let (nodes, watches, counted) = all.fold((0, 0, 0), |(nodes, watches, memory), usage| {
        (nodes + usage.nodes, watches + usage.watches, memory + usage.memory)
    });
    let kept = host.store.state_bound();
    let needed = counted + kept + RESERVE;
    println!(
        "{guests} guests: {nodes} nodes, {watches} watches; {} KiB counted, {} KiB kept: {:.1} MiB with the reserve",
        counted >> 10,
        kept >> 10,
        needed as f64 / f64::from(1 << 20)
    );
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

fn main() {
    // Tests of all targets call this too, and want no long run.
    let sizes: &[usize] =
        if std::env::args().any(|word| word == "--bench") { &[10_000, 100_000, 1_000_000] } else { &[1000] };
    for nodes in sizes {
        let before = resident();
        let scene = Scene::new(*nodes);
        let made = scene.guests * NODES_A_GUEST;
        println!("{made} nodes: {} bytes a node", (resident() - before) / made);
        // What is freed may be taken again without a growth that could be seen.
        std::mem::forget(scene);
    }
    let guests: &[u16] = if sizes.len() > 1 { &[100, 500, 1000] } else { &[5] };
    guests.iter().for_each(|guests| show(*guests));
}
