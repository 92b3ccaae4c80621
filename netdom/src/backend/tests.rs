//! netback on a store and a bus: from the nodes that the toolstack and the frontend write to packets, and back.

use super::Netback;
use crate::blame::Blame;
use crate::datapath::{DataPath, NicId};
use crate::fakes::{FakeNic, Frontend, Outgoing, Wire};
use crate::netback::bridges::Bridges;
use crate::netback::config::RemotePorts;
use crate::nic::Capabilities;
use crate::packet::Pool;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use split_driver::fakes::{FakeClock, FakePages, FakeStore, FakeXen, Live, Tasks};
use split_driver::hypervisor::XenError;
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::{Bus, Timing};
use xen_pv_sys::DomainId;
use xen_pv_sys::errno::{EINVAL, ENOSPC};
use xen_pv_sys::grant_table::{GNTST_BAD_GNTREF, GNTST_NO_SPACE};
use xen_pv_sys::io::netif::{ExtraInfo, TxFlags, TxRequest};

const US: DomainId = DomainId(7);
const PAGES: usize = 512;
const QUEUES: u8 = 4;

type Path = DataPath<FakeXen>;

struct Host {
    xen: FakeXen,
    store: FakeStore,
    clock: FakeClock,
    tasks: Tasks<'static>,
    path: Rc<RefCell<Path>>,
    netback: Netback<FakeXen>,
    nics: Vec<NicId>,
    wire: Rc<RefCell<Wire>>,
    wakes: Rc<Cell<usize>>,
    now: Instant,
}

impl Host {
    fn new() -> Self {
        let mut host = Self::without_nic();
        host.add_nic("xenbr0");
        host
    }

    fn without_nic() -> Self {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, PAGES)));
        let path = Rc::new(RefCell::new(DataPath::new(xen.clone(), pool, 1)));
        let wakes = Rc::new(Cell::new(0));
        let count = Rc::clone(&wakes);
        let netback = Netback::new(
            Rc::clone(&path),
            Bridges::new(["xenbr0"], &["inside".into()]),
            Rc::new(move || count.set(count.get() + 1)),
        );
        let netback = netback.with_queues(QUEUES);
        let (store, clock) = (FakeStore::new(), FakeClock::default());
        let home = format!("/local/domain/{}", US.0);
        for path in [home.clone(), format!("{home}/backend"), format!("{home}/error")] {
            store.put(&path, "", &[&format!("n{}", US.0)]);
        }
        let mut tasks = Tasks::new();
        let bus = Bus::with_timing(store.connection(US), clock.clone(), netback.clone(), Timing::AT_ONCE);
        tasks.spawn(async move {
            let _ = bus.run().await;
        });
        let mut host = Self {
            xen,
            store,
            clock,
            tasks,
            path,
            netback,
            nics: Vec::new(),
            wire: Rc::default(),
            wakes,
            now: Instant(0),
        };
        host.settle();
        host
    }

    /// Puts a NIC on a bridge; the last one is that of `wire`.
    fn add_nic(&mut self, bridge: &str) {
        let (nic, wire) = FakeNic::new(Capabilities { max_frame: 1518, ..Capabilities::default() }, 16);
        let added = self.path.borrow_mut().add_nic(Box::new(nic), bridge);
        self.nics.push(added.ok().unwrap());
        self.wire = wire;
        self.settle();
    }

    /// Takes the last NIC away.
    fn remove_nic(&mut self) {
        let nic = self.nics.pop().unwrap();
        drop(self.path.borrow_mut().remove_nic(nic));
        self.settle();
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
            self.netback.report();
        }
        self.tasks.run_until_stalled();
    }

    /// The last NIC's cable is pulled out or put in.
    fn set_link(&mut self, up: bool) {
        self.wire.borrow_mut().down = !up;
        let nic = *self.nics.last().unwrap();
        self.path.borrow_mut().handle_interrupt(nic, 0);
        self.settle();
    }

    fn backend(&self, guest: u16, name: &str) -> Option<String> {
        self.store.get(&format!("/local/domain/{}/backend/vif/{guest}/0/{name}", US.0))
    }

    fn put_backend(&self, guest: u16, name: &str, value: &str) {
        let permissions = [&*format!("n{}", US.0), &*format!("r{guest}")];
        self.store.put(&format!("/local/domain/{}/backend/vif/{guest}/0{name}", US.0), value, &permissions);
    }

    fn put_frontend(&mut self, guest: u16, name: &str, value: &str) {
        let permissions = [&*format!("n{guest}"), &*format!("r{}", US.0)];
        self.store.put(&format!("/local/domain/{guest}/device/vif/0{name}"), value, &permissions);
    }

    /// The toolstack makes a vif.
    fn create(&mut self, guest: u16, extra: &[(&str, &str)]) {
        for (name, value) in [("", ""), ("/state", "1")] {
            self.put_frontend(guest, name, value);
        }
        let frontend = format!("/local/domain/{guest}/device/vif/0");
        let id = guest.to_string();
        let mac = format!("00:16:3e:00:00:{guest:02x}");
        for (name, value) in [("", ""), ("/frontend", &*frontend), ("/frontend-id", &*id), ("/mac", &*mac)] {
            self.put_backend(guest, name, value);
        }
        for (name, value) in extra {
            self.put_backend(guest, name, value);
        }
        for (name, value) in [("/handle", "0"), ("/online", "1"), ("/hotplug-status", ""), ("/state", "1")] {
            self.put_backend(guest, name, value);
        }
        self.settle();
    }

    /// The frontend does its part.
    fn connect(&mut self, guest: u16) -> Frontend {
        let frontend = Frontend::new(&self.xen, guest, false);
        self.connect_as(frontend)
    }

    /// The same with this frontend.
    fn connect_as(&mut self, mut frontend: Frontend) -> Frontend {
        let guest = frontend.domain.id().0;
        for queue in &mut frontend.queues {
            queue.post(256);
        }
        let config = frontend.config("", Frontend::linux_features());
        let mut nodes = Vec::new();
        let mut put = |name: &str, value: u32| nodes.push((format!("/{name}"), value));
        for name in ["request-rx-copy", "feature-sg", "feature-rx-notify", "feature-gso-tcpv4"] {
            put(name, 1);
        }
        if config.queues.len() > 1 {
            put("multi-queue-num-queues", config.queues.len() as u32);
        }
        for (number, queue) in config.queues.iter().enumerate() {
            let directory = if config.queues.len() > 1 { format!("queue-{number}/") } else { String::new() };
            let mut put = |name: &str, value: u32| put(&format!("{directory}{name}"), value);
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
            put("ctrl-ring-ref", control.ring.0);
            put("event-channel-ctrl", control.port.0);
        }
        put("state", 4);
        for (name, value) in nodes {
            self.put_frontend(guest, &name, &value.to_string());
        }
        self.settle();
        frontend
    }

    /// What is wrong with a guest's vif, as its `error` node says.
    fn error(&self, guest: u16) -> Option<String> {
        self.store.get(&format!("/local/domain/{}/error/backend/vif/{guest}/0/error", US.0))
    }

    /// The frontend goes through these states.
    fn pass(&mut self, guest: u16, states: &[u32]) {
        for state in states {
            self.put_frontend(guest, "/state", &state.to_string());
            self.settle();
        }
    }

    fn end(mut self) {
        self.tasks = Tasks::new();
        while !self.nics.is_empty() {
            self.remove_nic();
        }
        assert_eq!(self.path.borrow().pool().available(), PAGES);
        assert_eq!(self.netback.connected(), 0, "dropping the bus disconnects all");
        drop((self.path, self.netback));
        assert_eq!(self.xen.live(), Live::default());
        assert_eq!(self.xen.take_violations(), []);
    }
}

fn frame(destination: [u8; 6], source: [u8; 6]) -> Outgoing {
    let mut bytes = Vec::from(destination);
    bytes.extend(source);
    bytes.resize(60, 0x55);
    Outgoing { bytes, ..Outgoing::default() }
}

#[test]
fn two_guests_meet() {
    let mut host = Host::new();
    host.create(3, &[("/bridge", "xenbr0")]);
    assert_eq!(host.backend(3, "state").as_deref(), Some("2"));
    for (name, value) in [
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-gso-tcpv6", "1"),
        ("feature-ipv6-csum-offload", "1"),
        ("feature-rx-copy", "1"),
        ("feature-multicast-control", "1"),
        ("feature-dynamic-multicast-control", "1"),
        ("feature-split-event-channels", "1"),
        ("feature-ctrl-ring", "1"),
        ("feature-xdp-headroom", "1"),
        ("multi-queue-max-queues", "4"),
        ("hotplug-status", "connected"),
        ("carrier", "1"),
    ] {
        assert_eq!(host.backend(3, name).as_deref(), Some(value), "{name}");
    }
    let mut a = host.connect(3);
    assert_eq!(host.backend(3, "state").as_deref(), Some("4"));
    assert_eq!(host.wakes.get(), 1);
    // No bridge named: the same one. dom0 is a guest like any other.
    host.create(0, &[]);
    let mut b = host.connect(0);
    let packet = frame([0xff; 6], a.mac);
    a.send(&packet);
    host.settle();
    assert_eq!(b.arrived().len(), 1);
    assert_eq!(host.wire.borrow().sent.len(), 1);
    assert_eq!(a.arrived().len(), 0);

    // Gone and back again.
    host.put_frontend(3, "/state", "5");
    host.settle();
    assert_eq!((host.backend(3, "state").as_deref(), host.netback.connected()), (Some("5"), 1));
    host.end();
}

/// A VLAN behind a bridge's name makes an access port of that bridge: its frames are not for a vif that is a trunk, or have its tag there.
#[test]
fn a_vif_of_a_vlan() {
    let mut host = Host::new();
    host.create(3, &[("/bridge", "xenbr0.100")]);
    host.create(4, &[("/bridge", "xenbr0"), ("/vlan", "100")]);
    host.create(5, &[("/bridge", "xenbr0"), ("/vlan", "")]);
    let (mut a, mut b, mut trunk) = (host.connect(3), host.connect(4), host.connect(5));
    let packet = frame([0xff; 6], a.mac);
    a.send(&packet);
    host.settle();
    assert_eq!(b.arrived().iter().map(|one| &one.bytes).collect::<Vec<_>>(), [&packet.bytes]);
    let tagged = [&packet.bytes[..12], &[0x81, 0, 0, 100], &packet.bytes[12..]].concat();
    assert_eq!(trunk.arrived().iter().map(|one| &one.bytes).collect::<Vec<_>>(), [&tagged]);
    assert_eq!(host.wire.borrow().sent[0].bytes, tagged);
    assert_eq!(host.backend(3, "carrier").as_deref(), Some("1"));
    host.end();
}

/// A vif with `ip` may use these addresses alone, and its own Ethernet address; one without is free where nothing is checked of all.
#[test]
fn a_vif_with_addresses() {
    let mut host = Host::new();
    host.create(3, &[("/ip", "10.0.0.5")]);
    host.create(4, &[]);
    let (mut a, mut b) = (host.connect(3), host.connect(4));
    let from = |mac: [u8; 6], last: u8| {
        let mut bytes = frame([0xff; 6], mac).bytes;
        bytes.truncate(12);
        bytes.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, last, 255, 255, 255, 255]);
        bytes.resize(60, 0);
        Outgoing { bytes, ..Outgoing::default() }
    };
    let (mac, other) = (a.mac, b.mac);
    for packet in [from(mac, 6), from(other, 5), from(mac, 5)] {
        a.send(&packet);
        b.send(&packet);
    }
    host.settle();
    let arrived = |guest: &mut Frontend| guest.arrived().into_iter().map(|one| one.bytes).collect::<Vec<_>>();
    assert_eq!(arrived(&mut b), [from(mac, 5).bytes]);
    assert_eq!(arrived(&mut a), [from(mac, 6).bytes, from(other, 5).bytes, from(mac, 5).bytes]);
    host.end();
}

/// VLANs behind a colon are those whose frames have their tags.
#[test]
fn a_vif_of_tagged_vlans() {
    let mut host = Host::new();
    host.create(3, &[("/bridge", "xenbr0:100:200")]);
    // The same in both.
    host.create(4, &[("/bridge", "xenbr0.100:200"), ("/vlan", "200/100p")]);
    let (mut tags, mut both) = (host.connect(3), host.connect(4));
    let packet = frame([0xff; 6], tags.mac);
    let tagged = |vlan| [&packet.bytes[..12], &[0x81, 0, 0, vlan], &packet.bytes[12..]].concat();
    for bytes in [packet.bytes.clone(), tagged(100), tagged(200), tagged(201)] {
        tags.send(&Outgoing { bytes, ..Outgoing::default() });
    }
    host.settle();
    assert_eq!(
        both.arrived().into_iter().map(|one| one.bytes).collect::<Vec<_>>(),
        [packet.bytes.clone(), tagged(200)]
    );
    let sent: Vec<_> = host.wire.borrow().sent.iter().map(|frame| frame.bytes.clone()).collect();
    assert_eq!(sent, [tagged(100), tagged(200)]);
    host.end();
}

/// `carrier` of the vifs of guests 3, on the NIC's bridge, and 4, on another.
fn carriers(host: &Host) -> [Option<String>; 2] {
    [3, 4].map(|guest| host.backend(guest, "carrier"))
}

#[test]
fn carrier_is_the_link_of_the_bridges_nic() {
    let mut host = Host::new();
    let told = |three: &str, four: &str| [Some(three.to_string()), Some(four.to_string())];
    host.create(3, &[]);
    host.create(4, &[("/bridge", "inside")]);
    host.connect(3);
    host.connect(4);
    assert_eq!(carriers(&host), told("1", "1"));
    host.set_link(false);
    assert_eq!(carriers(&host), told("0", "1"));
    // Those that come meanwhile are told the same.
    host.create(5, &[]);
    host.create(6, &[("/bridge", "inside")]);
    assert_eq!([5, 6].map(|guest| host.backend(guest, "carrier").unwrap()), ["0", "1"]);
    host.set_link(true);
    assert_eq!(carriers(&host), told("1", "1"));

    // The NIC is taken away and given back.
    host.remove_nic();
    assert_eq!(carriers(&host), told("0", "1"));
    host.connect(5);
    assert_eq!(host.backend(5, "carrier").as_deref(), Some("0"));
    host.add_nic("xenbr0");
    assert_eq!(carriers(&host), told("1", "1"));
    assert_eq!(host.backend(5, "carrier").as_deref(), Some("1"));
    host.end();
}

/// A bridge with two NICs has a link while one of them has one. NICs of other bridges do not count.
#[test]
fn a_bridge_has_a_carrier_while_one_of_its_nics_has_a_link() {
    let mut host = Host::new();
    host.create(3, &[]);
    host.connect(3);
    let carrier = |host: &Host| host.backend(3, "carrier").unwrap();
    host.add_nic("dmz");
    host.set_link(false);
    assert_eq!(carrier(&host), "1");
    host.add_nic("xenbr0");
    host.set_link(false);
    assert_eq!(carrier(&host), "1");
    // The first is taken away: what is left has no link.
    let first = host.nics.remove(0);
    drop(host.path.borrow_mut().remove_nic(first));
    host.settle();
    assert_eq!(carrier(&host), "0");
    host.set_link(true);
    assert_eq!(carrier(&host), "1");
    host.end();
}

/// A life that begins goes by the last one's carriers until its NICs say more, and at once where a NIC did not come back.
#[test]
fn carriers_go_over_to_the_next_life() {
    let mut host = Host::without_nic();
    let before = [("xenbr0".into(), true), ("inside".into(), false)];
    host.netback = host.netback.clone().with_inherited(Vec::new(), before.into(), Blame::default());
    host.create(3, &[]);
    host.create(4, &[("/bridge", "inside")]);
    host.connect(3);
    host.connect(4);
    assert_eq!(carriers(&host), ["1", "0"].map(|carrier| Some(carrier.to_string())));
    assert_eq!(host.netback.carriers(), [("xenbr0".to_string(), true), ("inside".to_string(), false)]);
    // Both bridges had a NIC. One is there again, and was not heard of.
    let (nic, _wire) = FakeNic::new(Capabilities { max_frame: 1518, ..Capabilities::default() }, 16);
    let added = host.path.borrow_mut().add_nic(Box::new(nic), "inside");
    host.nics.push(added.ok().unwrap());
    host.netback.forget_inherited();
    host.tasks.run_until_stalled();
    assert_eq!(carriers(&host), ["0", "0"].map(|carrier| Some(carrier.to_string())));
    host.settle();
    assert_eq!(carriers(&host), ["0", "1"].map(|carrier| Some(carrier.to_string())));
    assert_eq!(host.netback.carriers(), [("inside".to_string(), true), ("xenbr0".to_string(), false)]);
    host.end();
}

/// A bridge whose NICs are on others in this life is as one that never had a NIC, and so is one that is internal now.
#[test]
fn a_bridge_that_its_nics_have_left_has_a_carrier() {
    for left in [false, true] {
        let mut host = Host::without_nic();
        let before = [("xenbr0".into(), false), ("inside".into(), false)];
        host.netback = host.netback.clone().with_inherited(Vec::new(), before.into(), Blame::default());
        host.create(3, &[]);
        host.create(4, &[("/bridge", "inside")]);
        host.connect(3);
        host.connect(4);
        let told = |three: &str, four: &str| [Some(three.to_string()), Some(four.to_string())];
        assert_eq!(carriers(&host), told("0", "0"));
        if left {
            host.netback.leave_bridge("xenbr0");
            host.settle();
            assert_eq!(carriers(&host), told("1", "0"));
            assert_eq!(host.netback.carriers(), [("inside".to_string(), false)]);
        }
        host.netback.forget_inherited();
        host.settle();
        assert_eq!(carriers(&host), told(if left { "1" } else { "0" }, "1"));
        let kept: &[(String, bool)] = if left { &[] } else { &[("xenbr0".to_string(), false)] };
        assert_eq!(host.netback.carriers(), kept, "for the next life");
        // One that it gets counts.
        host.add_nic("xenbr0");
        assert_eq!(carriers(&host), told("1", "1"));
        host.set_link(false);
        assert_eq!(carriers(&host), told("0", "1"));
        host.end();
    }
}

/// Guests among themselves have a bridge that is up.
#[test]
fn a_bridge_that_never_had_a_nic_has_a_carrier() {
    let mut host = Host::without_nic();
    host.create(3, &[]);
    host.connect(3);
    assert_eq!(host.backend(3, "carrier").as_deref(), Some("1"));
    host.end();
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let mut host = Host::new();
    for (guest, node, reason) in [
        (3, ("/mac", "nonsense"), "mac is no unicast address"),
        (4, ("/bridge", "not a name"), "bridge is no name"),
        (5, ("/rate", "much"), "rate: it is not bytes,microseconds"),
        (7, ("/rate", "99999999999999999999,1"), "rate: a number has more than 64 bits"),
        (9, ("/bridge", "xenbr1"), "no bridge \"xenbr1\"; there are: xenbr0, inside (internal)."),
        (13, ("/bridge", "xenbr0.4095"), "no VLAN \"4095\" on bridge \"xenbr0\": VLANs are 1 to 4094"),
        (15, ("/bridge", "xenbr0.100:x"), "no VLAN \"100:x\" on bridge \"xenbr0\": VLANs are 1 to 4094"),
        (14, ("/bridge", "xenbr1.100"), "no bridge \"xenbr1.100\"; there are: xenbr0, inside (internal)."),
        (10, ("/ip", "10.0.0.5 web"), "ip is no list of IP addresses"),
        (11, ("/script", "/etc/xen/scripts/vif-other"), "script=/etc/xen/scripts/vif-other: netdom runs no scripts"),
        (18, ("/script", "/etc/xen/scripts/vif-nat"), "script=vif-nat or vif-route: netdom has no address of its own"),
        (12, ("/vlan", "10/20"), "vlan: no VLAN is that of frames without a tag"),
        (16, ("/vlan", "web"), "vlan: it is VLANs from 1 to 4094"),
    ] {
        host.create(guest, &[node]);
        let error = host.store.get(&format!("/local/domain/{}/error/backend/vif/{guest}/0/error", US.0));
        assert!(error.is_some_and(|error| error.contains(reason)), "{reason}");
    }
    host.create(17, &[("/vlan", "5p/7"), ("/bridge", "xenbr0.6")]);
    let error = host.store.get(&format!("/local/domain/{}/error/backend/vif/17/0/error", US.0)).unwrap();
    assert!(error.contains("vlan says VLAN 5, tagged VLANs 7, bridge says VLAN 6"), "{error}");
    host.create(6, &[]);
    host.put_frontend(6, "/request-rx-copy", "0");
    host.put_frontend(6, "/state", "4");
    host.settle();
    let error = host.store.get(&format!("/local/domain/{}/error/backend/vif/6/0/error", US.0)).unwrap();
    assert!(error.contains("request-rx-copy is not 1"), "{error}");
    host.create(8, &[("/script", "/etc/xen/scripts/vif-bridge"), ("/vifname", "web"), ("/mtu", "9000")]);
    host.connect(8);
    assert_eq!(host.backend(8, "state").as_deref(), Some("4"), "the others are well");
    host.end();
}

#[test]
fn a_broken_rule_is_told() {
    let mut host = Host::new();
    host.create(3, &[]);
    let mut mallory = host.connect(3);
    host.create(4, &[]);
    let mut alice = host.connect(4);
    let request =
        TxRequest { gref: mallory.transmit_grant(0), offset: 4000, flags: TxFlags::empty(), id: 0, size: 200 };
    assert!(mallory.transmit.push(&request));
    mallory.publish();
    host.settle();
    let error = host.store.get(&format!("/local/domain/{}/error/backend/vif/3/0/error", US.0)).unwrap();
    assert!(error.contains("offset 4000 with size 200 crosses a page"), "{error}");
    assert_eq!(host.netback.connected(), 1);
    let packet = frame([0xff; 6], alice.mac);
    alice.send(&packet);
    host.settle();
    assert_eq!(host.wire.borrow().sent.len(), 1);
    host.end();
}

/// A frontend that broke the protocol twice waits before it is connected again. One for which this domain, or Xen, had no memory does not.
#[test]
fn who_broke_the_protocol_waits() {
    let mut host = Host::new();
    for (guest, waits) in [(3, true), (4, true), (5, true), (6, false), (8, false), (9, false)] {
        host.create(guest, &[]);
        for _ in 0..2 {
            match guest {
                3 => host.put_frontend(guest, "/request-rx-copy", "0"),
                4 => host.xen.fail_next_map(XenError::Grant(GNTST_BAD_GNTREF)),
                5 => host.xen.fail_next_bind(XenError::Errno(EINVAL)),
                6 => host.xen.fail_next_map(XenError::Exhausted),
                8 => host.xen.fail_next_bind(XenError::Errno(ENOSPC)),
                _ => host.xen.fail_next_map(XenError::Grant(GNTST_NO_SPACE)),
            }
            if guest == 3 {
                host.put_frontend(guest, "/state", "4");
                host.settle();
            } else {
                host.connect(guest);
            }
            assert_eq!(host.backend(guest, "state").as_deref(), Some("5"), "{guest}");
            for state in ["6", "1"] {
                host.put_frontend(guest, "/state", state);
                host.settle();
            }
            assert_eq!(host.backend(guest, "state").as_deref(), Some("2"), "{guest}");
        }
        host.connect(guest);
        assert_eq!(host.backend(guest, "state").as_deref() != Some("4"), waits, "{guest}");
        host.clock.advance(Duration::from_secs(1));
        host.settle();
        assert_eq!(host.backend(guest, "state").as_deref(), Some("4"), "{guest}");
    }
    host.end();
}

#[test]
fn groups_and_rate_change_while_connected() {
    let mut host = Host::new();
    host.create(3, &[]);
    let mut a = host.connect(3);
    host.create(4, &[]);
    let mut b = host.connect(4);
    host.put_frontend(4, "/request-multicast-control", "1");
    host.settle();
    let group = [1, 0, 0x5e, 0, 0, 1];
    let (to_group, to_all) = (frame(group, a.mac), frame([0xff; 6], a.mac));
    a.send(&to_group);
    host.settle();
    assert_eq!(b.arrived().len(), 0);
    for (kind, expected) in [(2, 1), (3, 0)] {
        let request = TxRequest { gref: b.transmit_grant(0), offset: 0, flags: TxFlags::EXTRA_INFO, id: 99, size: 0 };
        assert!(b.transmit.push(&request));
        assert!(b.transmit.push_as(&ExtraInfo { kind, flags: 0, value: group }));
        b.publish();
        host.settle();
        b.collect_answers();
        assert_eq!(b.answers.pop(), Some((99, 0)));
        a.send(&to_group);
        host.settle();
        assert_eq!(b.arrived().len(), expected);
    }
    // 60,000 bytes a second, and a first burst of as much: 1,000 frames of 60 bytes.
    host.put_backend(3, "/rate", "60000,1000000");
    host.settle();
    host.wire.borrow_mut().sent.clear();
    let mut placed = 0;
    for _ in 0..8 {
        while placed < 1500 && a.place(&to_all) {
            placed += 1;
        }
        a.publish();
        host.settle();
        a.collect_answers();
        b.arrived();
        b.post(256);
    }
    assert_eq!(placed, 1000 + 256);
    assert_eq!(host.wire.borrow().sent.len(), 1000);
    host.now = host.now + Duration::from_secs(2);
    host.settle();
    assert_eq!(host.wire.borrow().sent.len(), placed);
    let _ = host.clock.now();
    host.end();
}

/// A frontend comes again and again with another number of queues (`ethtool -L`, or a module loaded with another `max_queues`): by way of
/// `Closed`, and as Windows does without it. Each time all queues work, and nothing is left of those before.
#[test]
fn the_number_of_queues_changes() {
    let mut host = Host::new();
    host.create(3, &[]);
    host.create(4, &[]);
    let mut alice = host.connect(4);
    let hello = frame([0xff; 6], alice.mac);
    alice.send(&hello);
    host.settle();
    for (round, queues) in [1, 4, 2, 3, 1, 4].into_iter().enumerate() {
        let split: Vec<_> = (0..queues).map(|queue| queue % 2 == round % 2).collect();
        let mut guest = Frontend::with_queues(&host.xen, 3, &split);
        if round % 2 == 0 {
            guest = guest.with_control();
        }
        let mut guest = host.connect_as(guest);
        assert_eq!(host.backend(3, "state").as_deref(), Some("4"), "{queues} queues");
        for queue in 0..queues {
            let mut packet = frame(alice.mac, guest.mac);
            packet.bytes.push(queue as u8);
            guest.queues[queue].send(&packet);
            host.settle();
            assert_eq!(alice.arrived().iter().map(|one| &one.bytes).collect::<Vec<_>>(), [&packet.bytes]);
            alice.post(256);
        }
        let rings = host.xen.live().mapped_pages - 2;
        assert_eq!(rings, 2 * queues + usize::from(round % 2 == 0));
        host.pass(3, &[5, 6]);
        assert_eq!(host.backend(3, "state").as_deref(), Some("6"));
        assert_eq!(host.xen.live().mapped_pages, 2);
        // What the last one said goes with it.
        let home = "/local/domain/3/device/vif/0";
        for node in ["multi-queue-num-queues", "ctrl-ring-ref", "event-channel-ctrl", "event-channel", "tx-ring-ref"] {
            host.store.delete(&format!("{home}/{node}"));
        }
        for queue in 0..4 {
            host.store.delete(&format!("{home}/queue-{queue}"));
        }
        host.pass(3, &[1]);
        assert_eq!(host.backend(3, "state").as_deref(), Some("2"));
    }
    host.end();
}

/// Numbers of queues that were not offered, and queues of which something is missing, are refused with the reason.
#[test]
fn queues_that_cannot_be() {
    let mut host = Host::new();
    for (guest, node, reason) in [
        (3, ("/multi-queue-num-queues", "0"), "0 queues, of 1 to 4 offered"),
        (4, ("/multi-queue-num-queues", "5"), "5 queues, of 1 to 4 offered"),
        (5, ("/multi-queue-num-queues", "3"), "node queue-2/event-channel is missing"),
        (6, ("/queue-1/rx-ring-ref", "none"), "node queue-1/rx-ring-ref is malformed"),
        (8, ("/queue-1/tx-ring-ref", "60000"), "mapping the transmit ring: grant status -3"),
        (9, ("/queue-1/event-channel", "60000"), "binding the event channel: Xen refused with errno 22"),
        (10, ("/ctrl-ring-ref", "8"), "node event-channel-ctrl is missing"),
        (11, ("/xdp-headroom", "4096"), "xdp-headroom is 4096, and leaves no room for a packet"),
    ] {
        host.create(guest, &[]);
        host.put_frontend(guest, node.0, node.1);
        let frontend = Frontend::with_queues(&host.xen, guest, &[false; 2]);
        let config = frontend.config("", Frontend::linux_features());
        host.put_frontend(guest, "/request-rx-copy", "1");
        for (number, queue) in config.queues.iter().enumerate() {
            let RemotePorts::Single(port) = queue.ports else { panic!("one channel") };
            let values = [queue.transmit_ring.0, queue.receive_ring.0, port.0];
            for (name, value) in ["tx-ring-ref", "rx-ring-ref", "event-channel"].into_iter().zip(values) {
                let name = format!("/queue-{number}/{name}");
                if name != node.0 {
                    host.put_frontend(guest, &name, &value.to_string());
                }
            }
        }
        if node.0 != "/multi-queue-num-queues" {
            host.put_frontend(guest, "/multi-queue-num-queues", "2");
        }
        host.pass(guest, &[4]);
        let error = host.error(guest);
        assert!(error.as_ref().is_some_and(|error| error.contains(reason)), "{reason}: {error:?}");
        assert_eq!(host.backend(guest, "state").as_deref(), Some("5"), "{reason}");
    }
    assert_eq!(host.xen.live().mapped_pages, 0, "what was mapped is given back");
    host.end();
}

/// A frontend that turns XDP on and off: it asks for headroom, waits for the answer, and goes on.
#[test]
fn headroom_changes_while_connected() {
    let mut host = Host::new();
    host.create(3, &[]);
    let mut a = host.connect(3);
    host.create(4, &[]);
    host.put_frontend(4, "/xdp-headroom", "64");
    let mut b = host.connect(4);
    let packet = frame([0xff; 6], a.mac);
    for (wanted, before) in [("256", 64), ("0", 256), ("256", 0)] {
        a.send(&packet);
        host.settle();
        assert_eq!(b.arrived()[0].offset, before);
        host.put_frontend(4, "/xdp-headroom", wanted);
        host.pass(4, &[7]);
        assert_eq!(host.backend(4, "state").as_deref(), Some("8"));
        a.send(&packet);
        host.settle();
        assert_eq!(b.arrived()[0].offset.to_string(), wanted);
        host.pass(4, &[4]);
        assert_eq!(host.backend(4, "state").as_deref(), Some("4"));
    }
    // Linux' netfront says that it reconfigures before it says how.
    for wanted in ["256", "0"] {
        host.pass(4, &[7]);
        host.put_frontend(4, "/xdp-headroom", wanted);
        host.pass(4, &[4]);
        assert_eq!(host.backend(4, "state").as_deref(), Some("4"));
        a.send(&packet);
        host.settle();
        assert_eq!(b.arrived()[0].offset.to_string(), wanted);
    }
    host.put_frontend(4, "/xdp-headroom", "32767");
    host.pass(4, &[7]);
    assert!(host.error(4).unwrap().contains("xdp-headroom is 32767"));
    assert_eq!(host.netback.connected(), 1);
    host.end();
}
