//! The server on a hypervisor and guests that tests play. Floor 3, host only.

mod guest;
mod hostile;
mod lifecycle;
mod restart;
mod shortage;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use alloc::collections::{BTreeMap, VecDeque};

use split_driver::domains::{Change, DomainState, Domains};
use split_driver::fakes::FakeXen;
use split_driver::hypervisor::XenError;
use xen_pv_sys::io::xs_wire::{XS_INTRODUCE, XS_SET_PERMS, XS_WRITE};
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::Config;

use crate::{Server, Wait};
use guest::Guest;

const DOM0: DomainId = DomainId(0);
const OWN: DomainId = DomainId(1);

fn config() -> Config {
    Config { own: OWN, ..Config::default() }
}

/// The host's domains, as Xen would tell of them.
#[derive(Clone, Debug, Default)]
struct FakeDomains(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    domains: BTreeMap<DomainId, DomainState>,
    /// `None` where Xen does not say which domain changed.
    changed: Option<VecDeque<DomainId>>,
    unique: u64,
}

impl FakeDomains {
    fn change(&self, domain: DomainId, state: Option<DomainState>) {
        let mut this = self.0.borrow_mut();
        match state {
            Some(state) => drop(this.domains.insert(domain, state)),
            None => drop(this.domains.remove(&domain)),
        }
        if let Some(changed) = &mut this.changed {
            changed.push_back(domain);
        }
    }

    fn create(&self, domain: DomainId) {
        self.0.borrow_mut().unique += 1;
        let unique = self.0.borrow().unique;
        self.change(domain, Some(DomainState { shut_down: false, gone: false, unique }));
    }

    fn shut_down(&self, domain: DomainId) {
        let state = self.0.borrow().domains.get(&domain).copied();
        self.change(domain, state.map(|state| DomainState { shut_down: true, ..state }));
    }
}

impl Domains for FakeDomains {
    fn state(&self, domain: DomainId) -> Result<Option<DomainState>, XenError> {
        Ok(self.0.borrow().domains.get(&domain).copied())
    }

    fn next_changed(&self) -> Change {
        match &mut self.0.borrow_mut().changed {
            Some(changed) => changed.pop_front().map_or(Change::None, Change::Of),
            None => Change::Unknown,
        }
    }
}

/// A host with dom0 and the store's domain.
struct World {
    xen: FakeXen,
    domains: FakeDomains,
    server: Server<FakeXen, FakeDomains>,
    dom0: Guest,
}

impl World {
    /// Where Xen says which domain changed, or does not.
    fn new(xen_names_changes: bool) -> Self {
        let (xen, domains) = (FakeXen::new(), FakeDomains::default());
        domains.0.borrow_mut().changed = xen_names_changes.then(VecDeque::new);
        domains.create(DOM0);
        domains.create(OWN);
        let dom0 = Guest::new(&xen, DOM0);
        let mut server = Server::new(xen.clone(), domains.clone(), config());
        server.start(dom0.port).expect("dom0's ring is there");
        let mut world = Self { xen, domains, server, dom0 };
        world.publish();
        world
    }

    /// A node that every domain may read.
    fn publish(&mut self) {
        self.ask_dom0(XS_WRITE, b"/open\0value");
        self.ask_dom0(XS_SET_PERMS, b"/open\0r0\0");
        self.dom0.domain.take_notifications(self.dom0.port);
    }

    /// A domain that the toolstack made and introduced.
    fn guest(&mut self, number: u16) -> Guest {
        let guest = self.stranger(number);
        self.introduce(number, guest.port);
        guest
    }

    /// A domain that nobody introduced.
    fn stranger(&mut self, number: u16) -> Guest {
        self.domains.create(DomainId(number));
        Guest::new(&self.xen, DomainId(number))
    }

    fn introduce(&mut self, number: u16, port: Port) {
        let request = alloc::format!("{number}\00\0{}\0", port.0);
        assert_eq!(self.ask_dom0(XS_INTRODUCE, request.as_bytes()), (XS_INTRODUCE, b"OK\0".to_vec()));
    }

    /// Delivers events and gives turns until nobody has anything to do.
    fn run(&mut self) {
        let mut ports = Vec::new();
        loop {
            ports.extend(core::iter::from_fn(|| self.xen.next_event()));
            let idle = ports.is_empty();
            self.server.handle_events(&mut ports);
            match self.server.round(1000) {
                Wait::Briefly => self.server.retry_held(),
                Wait::ForEvent if idle => return,
                _ => {}
            }
        }
    }

    /// A request of dom0 and its answer; watch events before it are left for [`Guest::receive`].
    fn ask_dom0(&mut self, kind: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        let dom0 = self.dom0.clone();
        self.ask(&dom0, kind, payload)
    }

    /// A request of a guest and its answer.
    fn ask(&mut self, guest: &Guest, kind: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        self.ask_in(guest, 0, kind, payload)
    }

    /// The same in a transaction.
    fn ask_in(&mut self, guest: &Guest, transaction: u32, kind: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        guest.send_in(transaction, kind, payload);
        self.run();
        guest.answer().expect("an answer")
    }
}
