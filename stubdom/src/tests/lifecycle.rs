//! Domains come, end and go. Floor 3, host only.

use super::*;
use core::mem::offset_of;
use split_driver::fakes::Live;
use xen_pv_sys::io::xs_wire::{
    DomainInterface, XENSTORE_CONNECTED, XENSTORE_RECONNECT, XS_ERROR, XS_IS_DOMAIN_INTRODUCED, XS_READ, XS_RELEASE,
    XS_WATCH,
};

const FEATURES: usize = offset_of!(DomainInterface, server_features);
const CONNECTION: usize = offset_of!(DomainInterface, connection);
const PORT: usize = offset_of!(DomainInterface, evtchn_port);

#[test]
fn dom0_is_served_from_the_start() {
    let mut world = World::new(true);
    assert_eq!(world.dom0.word(FEATURES), config().features.bits());
    assert_eq!(world.ask_dom0(XS_WRITE, b"/a\0value"), (XS_WRITE, b"OK\0".to_vec()));
    assert_eq!(world.ask_dom0(XS_READ, b"/a\0"), (XS_READ, b"value".to_vec()));
}

#[test]
fn the_store_counts_as_introduced_to_itself() {
    let mut world = World::new(true);
    for (domain, answer) in [(DOM0, b"T\0"), (OWN, b"T\0"), (DomainId(7), b"F\0")] {
        let payload = alloc::format!("{}\0", domain.0);
        let expected = (XS_IS_DOMAIN_INTRODUCED, answer.to_vec());
        assert_eq!(world.ask_dom0(XS_IS_DOMAIN_INTRODUCED, payload.as_bytes()), expected);
    }
}

#[test]
fn an_introduced_domain_is_served_until_it_is_released() {
    let mut world = World::new(true);
    let before = world.xen.live();
    let guest = world.guest(5);
    assert_eq!(guest.word(FEATURES), config().features.bits());
    assert_eq!(world.ask(&guest, XS_READ, b"/open\0").0, XS_READ);
    assert_eq!(world.xen.live(), Live { mapped_pages: 2, channels: 2, ..before });
    assert_eq!(world.ask_dom0(XS_RELEASE, b"5\0").0, XS_RELEASE);
    assert_eq!(world.xen.live(), before);
    guest.send(XS_READ, b"/open\0");
    world.run();
    assert_eq!(guest.answer(), None);
}

#[test]
fn a_domain_without_a_ring_is_refused() {
    let mut world = World::new(true);
    world.domains.create(DomainId(5));
    assert_eq!(world.ask_dom0(XS_INTRODUCE, b"5\x000\x001\0"), (XS_ERROR, b"EINVAL\0".to_vec()));
    let guest = world.stranger(6);
    let payload = alloc::format!("6\00\0{}\0", guest.port.0 + 1);
    assert_eq!(world.ask_dom0(XS_INTRODUCE, payload.as_bytes()), (XS_ERROR, b"EINVAL\0".to_vec()));
    assert_eq!(guest.domain.mapped(), 0);
    world.introduce(6, guest.port);
}

#[test]
fn a_domain_may_be_introduced_again_with_another_port() {
    let mut world = World::new(true);
    let mut guest = world.guest(5);
    guest.write(b"half a request");
    world.run();
    guest.port = guest.domain.allocate_port();
    world.introduce(5, guest.port);
    guest.attach();
    assert_eq!(world.ask(&guest, XS_READ, b"/open\0").0, XS_READ);
    assert_eq!(world.xen.live().channels, 2);
}

#[test]
fn what_dies_is_noticed_and_leaves_nothing() {
    for xen_names_changes in [true, false] {
        let mut world = World::new(xen_names_changes);
        let before = world.xen.live();
        assert_eq!(world.ask_dom0(XS_WATCH, b"@releaseDomain\0token\0").0, XS_WATCH);
        assert_eq!(world.dom0.events(), ["@releaseDomain token"]);
        let guest = world.guest(5);
        world.ask_dom0(XS_WRITE, b"/local/domain/5/a\0value");
        world.ask_dom0(XS_SET_PERMS, b"/local/domain/5\0n5\0");

        world.domains.shut_down(DomainId(5));
        world.server.handle_domain_change();
        world.run();
        assert_eq!(world.dom0.events(), ["@releaseDomain token"]);
        world.server.handle_domain_change();
        world.run();
        assert_eq!(world.dom0.events(), [""; 0]);

        world.domains.change(DomainId(5), None);
        guest.domain.destroy();
        world.server.handle_domain_change();
        world.run();
        assert_eq!(world.dom0.events(), ["@releaseDomain token"]);
        assert_eq!(world.xen.live(), before);
        assert_eq!(world.ask_dom0(XS_READ, b"/local/domain/5/a\0"), (XS_ERROR, b"ENOENT\0".to_vec()));
    }
}

/// Between two looks a domain went and another got its number.
#[test]
fn a_successor_gets_nothing_of_its_predecessors() {
    for xen_names_changes in [true, false] {
        let mut world = World::new(xen_names_changes);
        let old = world.guest(5);
        old.domain.destroy();
        let new = world.stranger(5);
        world.server.handle_domain_change();
        world.run();
        assert_eq!(world.server.connected(), 1);
        world.introduce(5, new.port);
        assert_eq!(world.ask(&new, XS_READ, b"/open\0").0, XS_READ);
    }
}

/// Hyperlaunch: Xen made the domains before the store, and their event channels too.
#[test]
fn domains_that_were_there_before_are_served() {
    let (xen, domains) = (FakeXen::new(), FakeDomains::default());
    domains.0.borrow_mut().changed = Some(VecDeque::new());
    for number in [0, 1, 2, 3] {
        domains.create(DomainId(number));
    }
    let (dom0, early, silent) = (Guest::new(&xen, DOM0), Guest::new(&xen, DomainId(2)), Guest::new(&xen, DomainId(3)));
    early.set_word(PORT, early.port.0);
    let mut server = Server::new(xen.clone(), domains.clone(), config());
    server.start(dom0.port).expect("dom0's ring is there");
    let mut world = World { xen, domains, server, dom0 };
    world.publish();
    assert_eq!(world.server.connected(), 2);
    assert_eq!(world.ask(&early, XS_READ, b"/open\0").0, XS_READ);
    assert_eq!(silent.domain.mapped(), 0);
}

#[test]
fn a_connection_begins_anew_when_the_domain_asks() {
    let mut world = World::new(true);
    let guest = world.guest(5);
    assert_eq!(world.ask(&guest, XS_WATCH, b"/open\0token\0").0, XS_WATCH);
    guest.receive();
    guest.write(b"half a request");
    world.run();
    guest.domain.take_notifications(guest.port);
    guest.set_word(CONNECTION, XENSTORE_RECONNECT);
    guest.notify();
    world.run();
    assert_eq!(guest.word(CONNECTION), XENSTORE_CONNECTED);
    assert!(guest.domain.take_notifications(guest.port) > 0);
    guest.attach();
    world.ask_dom0(XS_WRITE, b"/open/a\0value");
    assert_eq!(guest.receive(), []);
    assert_eq!(world.ask(&guest, XS_READ, b"/open\0").0, XS_READ);
}
