//! Two guests, a wire and a data path between them.

mod bonds;
mod frames;
mod headers;
mod hostile;
mod nics;
mod offloads;
mod policies;
mod queues;
mod router;
mod shares;
mod signals;
mod steering;
mod traffic;
mod uplink;
mod vlans;

use super::{DataPath, NicId, Poll, VifId};
use crate::fakes::{FakeNic, Frontend, Outgoing, Wire};
use crate::netback::config::{Features, VifConfig};
use crate::nic::Capabilities;
use crate::packet::Pool;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::fakes::{FakePages, FakeXen, Live};
use split_driver::time::{Duration, Instant};

pub(super) const PAGES: usize = 1024;
pub(super) const RING: usize = 64;

pub(super) struct Net {
    pub(super) xen: FakeXen,
    pub(super) path: DataPath<FakeXen>,
    pub(super) guests: Vec<Frontend>,
    pub(super) ids: Vec<VifId>,
    pub(super) nic: NicId,
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) now: Instant,
}

pub(super) const OFFLOADS: Capabilities = Capabilities {
    checksum_v4: true,
    checksum_v6: true,
    tso_v4: true,
    tso_v6: true,
    max_frame: 9018,
    vlan_stripping: false,
    vlan_insertion: false,
};

impl Net {
    pub(super) fn new(features: &[Features]) -> Self {
        Self::with_nic(features, OFFLOADS)
    }

    pub(super) fn with_nic(features: &[Features], capabilities: Capabilities) -> Self {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, PAGES)));
        let mut path = DataPath::new(xen.clone(), pool, 1);
        let (nic, wire) = FakeNic::new(capabilities, RING);
        let nic = path.add_nic(Box::new(nic), "xenbr0").ok().unwrap();
        let mut net = Self { xen, path, guests: Vec::new(), ids: Vec::new(), nic, wire, now: Instant(0) };
        for features in features {
            net.add(*features, "xenbr0");
        }
        net
    }

    pub(super) fn add(&mut self, features: Features, bridge: &str) -> usize {
        let index = self.guests.len();
        let guest = Frontend::new(&self.xen, index as u16 + 1, index.is_multiple_of(2));
        let config = guest.config(bridge, features);
        self.attach(guest, config)
    }

    pub(super) fn attach(&mut self, mut guest: Frontend, config: VifConfig) -> usize {
        for queue in &mut guest.queues {
            queue.post(256);
        }
        self.ids.push(self.path.attach(config).unwrap());
        self.guests.push(guest);
        self.guests.len() - 1
    }

    /// Adds a guest with so many queues and a control ring, the channels of every second queue split.
    pub(super) fn add_queues(&mut self, queues: usize) -> usize {
        let split: Vec<_> = (0..queues).map(|queue| queue.is_multiple_of(2)).collect();
        let guest = Frontend::with_queues(&self.xen, self.guests.len() as u16 + 1, &split).with_control();
        let config = guest.config("xenbr0", Frontend::linux_features());
        self.attach(guest, config)
    }

    /// Delivers events and polls until nothing is left to do now.
    pub(super) fn run(&mut self) -> Poll {
        for _ in 0..10_000 {
            self.now = self.now + Duration::from_micros(10);
            while let Some(port) = self.xen.next_event() {
                self.path.handle_event(port, self.now);
            }
            let poll = self.path.poll(self.now);
            if !poll.again {
                return poll;
            }
        }
        panic!("the data path never rests");
    }

    /// Lets each guest speak once, so that the switch knows where it is.
    pub(super) fn introduce(&mut self) {
        for index in 0..self.guests.len() {
            let frame = frames::ethernet([0xff; 6], self.guests[index].mac, 50);
            assert!(self.guests[index].send(&Outgoing { bytes: frame, ..Outgoing::default() }));
            self.run();
        }
        for queue in self.guests.iter_mut().flat_map(|guest| &mut guest.queues) {
            queue.arrived();
            queue.post(256);
            queue.collect_answers();
            queue.answers.clear();
        }
        self.run();
        self.wire.borrow_mut().sent.clear();
    }

    pub(super) fn send(&mut self, from: usize, packet: &Outgoing) {
        assert!(self.guests[from].send(packet));
        self.run();
    }

    pub(super) fn failures(&mut self) -> Vec<(usize, crate::netback::violation::Violation)> {
        let mut failures = Vec::new();
        while let Some((id, violation)) = self.path.poll_failed() {
            let index = self.ids.iter().position(|known| *known == id).unwrap();
            failures.push((index, violation));
        }
        failures
    }

    /// Takes all apart and checks that nothing is held any more.
    pub(super) fn end(mut self) {
        for id in &self.ids {
            let _ = self.path.detach(*id);
        }
        drop(self.path.remove_nic(self.nic));
        assert_eq!(self.path.pool().available(), PAGES, "pages leaked");
        assert_eq!(self.xen.take_violations(), []);
        drop(self.path);
        assert_eq!(self.xen.live(), Live::default());
    }
}
