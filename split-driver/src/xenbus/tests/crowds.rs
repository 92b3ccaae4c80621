//! Many devices at once, and a store that refuses for now. Floor 1.

use super::*;
use crate::fakes::StoreQuotas;

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
    assert_eq!((host.state(3, 0), host.state(3, 1)), (Some(4), Some(6)));
    let error = host.backend(3, 1, "error").expect("a reason");
    assert!(error.contains("quota"), "{error}");
}
