//! Many devices at once, and a store that refuses for now. Floor 1.

use super::*;
use crate::fakes::StoreQuotas;
use alloc::vec::Vec;

const CROWD: u32 = 40;

impl Host {
    /// As many connected devices, one a guest.
    fn crowd(&mut self) {
        for number in 0..CROWD {
            let frontend = guest(number);
            self.store.add_domain(DomainId(frontend));
            self.attach(frontend, 0);
        }
    }

    /// All frontends connect before anybody looks.
    fn connect_at_once(&mut self) {
        for number in 0..CROWD {
            let fe = fe_path(guest(number), 0);
            self.store.put(&format!("{fe}/ring-ref"), "8", &[]);
            self.store.put(&format!("{fe}/state"), "4", &[]);
        }
    }

    /// Every device is told of another link before anybody looks.
    fn change_link(&mut self, link: u32) {
        let handles: Vec<_> = self.kind.handles.borrow().values().cloned().collect();
        for handle in handles {
            handle.write_node("carrier", link);
        }
    }

    /// Devices whose nodes say this link and `Connected`.
    fn with_link(&self, link: &str) -> usize {
        let fits = |number: &u32| {
            self.state(guest(*number), 0) == Some(4)
                && self.backend(guest(*number), 0, "carrier").as_deref() == Some(link)
        };
        (0..CROWD).filter(fits).count()
    }
}

fn guest(number: u32) -> u16 {
    10 + u16::try_from(number).expect("few")
}

#[test]
fn forty_frontends_that_come_at_once_are_all_connected() {
    let mut host = Host::new();
    host.crowd();
    host.connect_at_once();
    host.settle();
    let states: Vec<_> = (0..CROWD).map(|number| host.state(guest(number), 0)).collect();
    assert_eq!((states, host.kind.live.get()), (alloc::vec![Some(4); CROWD as usize], CROWD as usize));
    assert_eq!((host.store.refusals(), host.store.transactions()), (0, 0));
}

#[test]
fn forty_devices_hear_of_a_link_at_once() {
    let mut host = Host::new();
    host.crowd();
    host.connect_at_once();
    host.settle();
    host.change_link(0);
    host.settle();
    assert_eq!((host.with_link("0"), host.kind.live.get()), (CROWD as usize, CROWD as usize));
    assert_eq!((host.store.refusals(), host.store.transactions()), (0, 0));
}

/// Somebody else of our domain has all the transactions that it may have.
#[test]
fn what_the_store_refuses_for_now_is_done_later() {
    let mut host = Host::new();
    host.crowd();
    host.connect_at_once();
    host.settle();
    let hoard: Rc<RefCell<Vec<_>>> = Rc::default();
    let (us, taken) = (host.store.connection(US), hoard.clone());
    host.tasks.spawn(async move {
        while let Ok(transaction) = us.start().await {
            taken.borrow_mut().push(transaction);
        }
    });
    host.settle();
    assert_eq!(hoard.borrow().len(), StoreQuotas::default().transactions);
    host.change_link(0);
    host.attach(3, 0);
    for _ in 0..100 {
        host.advance(100);
    }
    // Nothing is given up, and nobody asks without pause.
    assert_eq!((host.with_link("0"), host.kind.live.get(), host.state(3, 0)), (0, CROWD as usize, Some(1)));
    assert!(host.store.refusals() < 200, "{} refusals", host.store.refusals());
    let us = host.store.connection(US);
    host.tasks.spawn(async move {
        for transaction in hoard.take() {
            assert_eq!(us.end(transaction, false).await, Ok(()));
        }
    });
    // What was asked for meanwhile counts.
    host.change_link(7);
    for _ in 0..20 {
        host.advance(1000);
    }
    assert_eq!(
        (host.with_link("7"), host.kind.live.get(), host.state(3, 0)),
        (CROWD as usize, CROWD as usize, Some(2))
    );
    host.connect(3, 0);
    assert_eq!(host.state(3, 0), Some(4));
}

/// Also where the frontend goes, and the device, while the store refuses: its nodes say in the end what we did.
#[test]
fn the_store_follows_what_was_done() {
    let mut host = Host::new();
    host.crowd();
    host.connect_at_once();
    host.settle();
    host.store.set_quotas(StoreQuotas { transactions: 0, ..StoreQuotas::default() });
    for number in 0..CROWD {
        let frontend = guest(number);
        match number % 3 {
            0 => host.fail(frontend, 0, "ring overrun"),
            1 => host.frontend(frontend, 0, "state", "5"),
            _ => host.detach(frontend, 0, true),
        }
    }
    host.advance(3000);
    assert_eq!(host.kind.live.get(), 0, "rings are given back at once");
    host.store.set_quotas(StoreQuotas::default());
    for _ in 0..30 {
        host.advance(1000);
    }
    for number in 0..CROWD {
        let expected = [Some(5), Some(5), None][number as usize % 3];
        assert_eq!(host.state(guest(number), 0), expected, "{number}");
    }
}

/// A device for which there is no room is refused with a reason and harms nobody.
#[test]
fn no_room_for_another_device() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    let watches = host.store.watches(US);
    host.store.set_quotas(StoreQuotas { watches, ..StoreQuotas::default() });
    host.attach(3, 1);
    for _ in 0..20 {
        host.advance(100);
    }
    assert_eq!((host.state(3, 0), host.state(3, 1)), (Some(4), Some(5)));
    let error = host.backend(3, 1, "error").expect("a reason");
    assert!(error.contains("quota"), "{error}");
}

/// libxl takes a directory that is gone before it read `Closed` for a failure, and comes round to the devices of a guest one by one.
#[test]
fn devices_that_go_together_linger_until_the_last_is_closed() {
    const DEVICES: u32 = 12;
    let mut host = Host::new();
    for handle in 0..=DEVICES {
        host.attach(3, handle);
        host.connect(3, handle);
    }
    // One alone is as quick as ever.
    host.detach(3, DEVICES, true);
    host.advance(499);
    assert_eq!(host.state(3, DEVICES), Some(6));
    host.advance(1);
    assert_eq!(host.state(3, DEVICES), None);
    for handle in 0..DEVICES {
        host.detach(3, handle, true);
        host.advance(200);
    }
    host.advance(1000);
    assert!((0..DEVICES).all(|handle| host.state(3, handle) == Some(6)), "all can be read");
    host.advance(5000);
    host.assert_clean();
}

/// Also where they never cease to go: none stays longer than the toolstack waits.
#[test]
fn no_device_lingers_for_ever() {
    let mut host = Host::new();
    for handle in 0..CROWD {
        host.attach(3, handle);
    }
    for handle in 0..CROWD {
        host.detach(3, handle, true);
        host.advance(400);
    }
    assert_eq!(host.state(3, 0), None);
    host.advance(6000);
    host.assert_clean();
}

#[test]
fn who_breaks_the_protocol_waits_longer_each_time() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.attach(3, 1);
    let mut waits = Vec::new();
    for _ in 0..6 {
        host.connect(3, 0);
        let mut seconds = 0;
        while host.state(3, 0) != Some(4) {
            assert_eq!(host.state(3, 0), Some(2), "it is offered all, and waits");
            host.advance(1000);
            seconds += 1;
        }
        waits.push(seconds);
        host.fail(3, 0, "ring overrun");
        host.frontend(3, 0, "state", "6");
        host.frontend(3, 0, "state", "1");
    }
    assert_eq!(waits, [0, 0, 1, 2, 4, 8]);
    // Its other device does not wait with it, and it is removed at once.
    host.connect(3, 0);
    host.connect(3, 1);
    assert_eq!((host.state(3, 0), host.state(3, 1)), (Some(2), Some(4)));
    host.detach(3, 0, true);
    assert_eq!(host.state(3, 0), Some(6));
}

/// A frontend that begins anew without end costs a beginning a second.
#[test]
fn beginnings_are_bounded() {
    let mut host = Host::new();
    host.attach(3, 0);
    for _ in 0..100 {
        for state in ["5", "6", "1"] {
            host.frontend(3, 0, "state", state);
        }
        host.advance(10);
    }
    let before = host.kind.prepared.get();
    assert!(before < 12, "{before}");
    host.advance(2000);
    assert_eq!(host.state(3, 0), Some(2), "in its turn it is served");
    host.connect(3, 0);
    assert_eq!(host.state(3, 0), Some(4));
}

/// What a guest writes is cut before it is written anywhere.
#[test]
fn a_long_state_is_cut() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.frontend(3, 0, "state", &"\u{1}".repeat(1900));
    let error = host.backend(3, 0, "error").expect("a reason");
    assert!(error.len() < 400 && error.contains("1900 bytes"), "{error}");
}

/// Linux' netfront is probed by the one thread that looks at all devices of its guest, and waits there while its back end is `Closed`.
#[test]
fn a_refused_device_does_not_keep_its_guest_waiting() {
    let mut host = Host::new();
    host.attach(3, 0);
    let be = be_path(3, 0);
    host.store.delete(&format!("{be}/mac"));
    host.store.put(&format!("{be}/state"), "1", &[]);
    host.settle();
    assert_eq!(host.state(3, 0), Some(5));
    // The probe returns; the driver sees `Closing`, and closes.
    host.frontend(3, 0, "state", "6");
    assert_eq!(host.state(3, 0), Some(6));
    // Its module is loaded again: the same.
    host.frontend(3, 0, "state", "1");
    assert_eq!(host.state(3, 0), Some(5));
    host.frontend(3, 0, "state", "6");
    // Put right, it is served.
    host.store.put(&format!("{be}/mac"), "00:16:3e:00:00:01", &[]);
    host.frontend(3, 0, "state", "1");
    host.connect(3, 0);
    assert_eq!(host.state(3, 0), Some(4));
}

/// The domain may have no more nodes: the reason is said all the same, and all is well when there is room.
#[test]
fn no_node_left_for_another_device() {
    let mut host = Host::new();
    host.attach(3, 0);
    host.connect(3, 0);
    assert_eq!(host.bus.store_nodes(), host.store.paths(&be_path(3, 0)).len());
    // Ours will be those, the seven that a toolstack makes, `data` and `error`.
    host.store.set_quotas(StoreQuotas { nodes: host.bus.store_nodes() + 7 + 2, ..StoreQuotas::default() });
    host.attach(3, 1);
    for _ in 0..20 {
        host.advance(100);
    }
    assert_eq!((host.state(3, 0), host.state(3, 1)), (Some(4), Some(5)));
    let error = host.backend(3, 1, "error").expect("a reason");
    assert!(error.contains("no more nodes"), "{error}");
    host.store.set_quotas(StoreQuotas::default());
    host.frontend(3, 1, "state", "6");
    host.frontend(3, 1, "state", "1");
    host.connect(3, 1);
    assert_eq!((host.state(3, 1), host.backend(3, 1, "error")), (Some(4), None));
}
