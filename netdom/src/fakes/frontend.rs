//! A guest's netfront, well-behaved unless the test reaches into its rings. Floor 3.

use crate::ethernet::MacAddress;
use crate::netback::config::{ControlConfig, Features, QueueConfig, RemotePorts, VifConfig};
use crate::packet::{Checksum, Gso, GsoKind};
use crate::policy::{AntiSpoof, Guard};
use crate::switch::Vlans;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use split_driver::fakes::{FakeDomain, FakeXen, GuestMemory};
use split_driver::ring::FrontRing;
use xen_pv_sys::io::netif::{
    CtrlRequest, CtrlResponse, ExtraHash, ExtraInfo, RxFlags, RxRequest, RxResponse, TxFlags, TxRequest, TxResponse,
    XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_HASH, XEN_NETIF_EXTRA_TYPE_MCAST_ADD,
    XEN_NETIF_EXTRA_TYPE_MCAST_DEL, XEN_NETIF_EXTRA_TYPE_XDP,
};
use xen_pv_sys::{DomainId, GrantRef, PAGE_SIZE, Port};

/// Pages each way.
const PAGES: usize = 256;

/// A packet to be sent.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The slots' sizes; what they leave over goes into one more slot. Empty: slots of a page.
    pub cuts: Vec<usize>,
    /// What is said of the checksum.
    pub checksum: Checksum,
    /// Whether it is a super-frame.
    pub gso: Option<Gso>,
}

/// A packet that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its bytes; empty where a response said that it was lost.
    pub bytes: Vec<u8>,
    /// The first response's flags, the chain's own left out.
    pub flags: RxFlags,
    /// Whether it is a super-frame.
    pub gso: Option<Gso>,
    /// Its hash, where it was told.
    pub hash: Option<ExtraHash>,
    /// Where it begins in its first page, as the response says.
    pub offset: u16,
    /// The same as an extra info says.
    pub headroom: Option<u16>,
    /// Slots that it took, extras included.
    pub slots: usize,
    /// Whether a response was an error.
    pub error: bool,
}

/// The frontend. One with a single queue is used as that queue.
pub struct Frontend {
    /// The domain that it runs in.
    pub domain: FakeDomain,
    /// Its address.
    pub mac: [u8; 6],
    /// Its queues, at least one.
    pub queues: Vec<FrontQueue>,
    /// Its control ring, where it has one.
    pub control: Option<FrontControl>,
}

impl Deref for Frontend {
    type Target = FrontQueue;

    fn deref(&self) -> &FrontQueue {
        &self.queues[0]
    }
}

impl DerefMut for Frontend {
    fn deref_mut(&mut self) -> &mut FrontQueue {
        &mut self.queues[0]
    }
}

/// A control ring.
pub struct FrontControl {
    /// The ring.
    pub ring: FrontRing<GuestMemory, CtrlRequest, CtrlResponse>,
    /// Its page.
    pub memory: GuestMemory,
    ring_grant: GrantRef,
    /// Its port.
    pub port: Port,
    /// A page for keys and tables, which the backend may read.
    pub data: GuestMemory,
    /// Its grant.
    pub data_grant: GrantRef,
    domain: FakeDomain,
    asked: u16,
}

impl FrontControl {
    fn new(domain: &FakeDomain) -> Self {
        let (memory, data) = (domain.pages(1), domain.pages(1));
        Self {
            ring: FrontRing::init(memory.clone()).expect("a page"),
            ring_grant: domain.grant(&memory, 0, true),
            port: domain.allocate_port(),
            data_grant: domain.grant(&data, 0, false),
            memory,
            data,
            domain: domain.clone(),
            asked: 0,
        }
    }

    /// Makes a request. False where the ring is full.
    pub fn ask(&mut self, kind: u16, data: [u32; 3]) -> bool {
        self.asked = self.asked.wrapping_add(1);
        let placed = self.ring.push(&CtrlRequest { id: self.asked, kind, data });
        if self.ring.push_and_check_notify() {
            self.domain.notify(self.port);
        }
        placed
    }

    /// Takes the responses, oldest first.
    pub fn answers(&mut self) -> Vec<CtrlResponse> {
        let count = self.ring.unconsumed().expect("a sane backend");
        let answers = (0..count).map(|_| self.ring.take()).collect();
        let _ = self.ring.final_check_for_responses();
        answers
    }
}

/// One of its queues.
pub struct FrontQueue {
    domain: FakeDomain,
    /// The transmit ring.
    pub transmit: FrontRing<GuestMemory, TxRequest, TxResponse>,
    /// The receive ring.
    pub receive: FrontRing<GuestMemory, RxRequest, RxResponse>,
    /// The pages of both rings: transmit, receive.
    pub rings: [GuestMemory; 2],
    ring_grants: [GrantRef; 2],
    /// Its ports: transmit (or both), receive.
    pub ports: [Port; 2],
    split: bool,
    transmit_pages: GuestMemory,
    transmit_grants: Vec<GrantRef>,
    transmit_free: VecDeque<u16>,
    receive_pages: GuestMemory,
    receive_grants: Vec<GrantRef>,
    receive_free: VecDeque<u16>,
    /// Requests posted, by ring index: the page.
    posted: BTreeMap<u32, u16>,
    /// Responses to transmit requests, `(id, status)`, oldest first.
    pub answers: Vec<(u16, i16)>,
}

impl Frontend {
    /// A frontend of one queue in domain `id`, with split event channels or one.
    pub fn new(xen: &FakeXen, id: u16, split: bool) -> Self {
        Self::with_queues(xen, id, &[split])
    }

    /// A frontend with a queue for each of `split`, which says whether that has two event channels.
    pub fn with_queues(xen: &FakeXen, id: u16, split: &[bool]) -> Self {
        let domain = xen.domain(DomainId(id));
        // Grants 0 to 7 are reserved, as in Linux.
        let reserved = domain.pages(1);
        for _ in 0..8 {
            let grant = domain.grant(&reserved, 0, false);
            domain.end_grant(grant);
        }
        let queues = split.iter().map(|split| FrontQueue::new(&domain, *split)).collect();
        Self { domain, mac: [0, 0x16, 0x3e, 0, 0, id as u8], queues, control: None }
    }

    /// The same with a control ring.
    pub fn with_control(mut self) -> Self {
        self.control = Some(FrontControl::new(&self.domain));
        self
    }

    /// What a Linux frontend negotiates.
    pub fn linux_features() -> Features {
        Features {
            scatter_gather: true,
            gso_tcpv4: true,
            gso_tcpv6: true,
            checksum_v4: true,
            checksum_v6: true,
            receive_notify: true,
            multicast_control: false,
        }
    }

    /// What the backend reads of it.
    pub fn config(&self, bridge: &str, features: Features) -> VifConfig {
        VifConfig {
            domain: self.domain.id(),
            handle: 0,
            mac: MacAddress(self.mac),
            bridge: String::from(bridge),
            vlans: Vlans::TRUNK,
            features,
            queues: self.queues.iter().map(FrontQueue::config).collect(),
            control: self
                .control
                .as_ref()
                .map(|control| ControlConfig { ring: control.ring_grant, port: control.port }),
            headroom: 0,
            rate: None,
            guard: Guard::new(AntiSpoof::Off, MacAddress(self.mac), None),
            routed: None,
        }
    }
}

impl FrontQueue {
    fn new(domain: &FakeDomain, split: bool) -> Self {
        let rings = [domain.pages(1), domain.pages(1)];
        let ring_grants = [domain.grant(&rings[0], 0, true), domain.grant(&rings[1], 0, true)];
        let (transmit_pages, receive_pages) = (domain.pages(PAGES), domain.pages(PAGES));
        let transmit_grants = (0..PAGES).map(|page| domain.grant(&transmit_pages, page, false)).collect();
        let receive_grants = (0..PAGES).map(|page| domain.grant(&receive_pages, page, true)).collect();
        let ports = [domain.allocate_port(), domain.allocate_port()];
        let [transmit, receive] = rings.clone();
        Self {
            transmit: FrontRing::init(transmit).expect("a page"),
            receive: FrontRing::init(receive).expect("a page"),
            rings,
            ring_grants,
            ports,
            split,
            transmit_pages,
            transmit_grants,
            transmit_free: (0..PAGES as u16).collect(),
            receive_pages,
            receive_grants,
            receive_free: (0..PAGES as u16).collect(),
            posted: BTreeMap::new(),
            answers: Vec::new(),
            domain: domain.clone(),
        }
    }

    /// What the backend reads of it.
    pub fn config(&self) -> QueueConfig {
        let [transmit, receive] = self.ports;
        QueueConfig {
            transmit_ring: self.ring_grants[0],
            receive_ring: self.ring_grants[1],
            ports: match self.split {
                true => RemotePorts::Split { transmit, receive },
                false => RemotePorts::Single(transmit),
            },
        }
    }

    /// The port to be notified when receive slots were posted.
    pub fn receive_port(&self) -> Port {
        self.ports[usize::from(self.split)]
    }

    /// Grants of transmit pages, by id.
    pub fn transmit_grant(&self, id: u16) -> GrantRef {
        self.transmit_grants[usize::from(id)]
    }

    /// Posts up to `count` receive slots and says so where asked to.
    pub fn post(&mut self, count: usize) -> usize {
        let mut done = 0;
        while done < count && self.receive.free() > 0 {
            let Some(page) = self.receive_free.pop_front() else {
                break;
            };
            self.posted.insert(self.receive.state().produced, page);
            assert!(self.receive.push(&RxRequest { id: page, pad: 0, gref: self.receive_grants[usize::from(page)] }));
            done += 1;
        }
        if self.receive.push_and_check_notify() {
            self.domain.notify(self.receive_port());
        }
        done
    }

    /// Sends a packet. False where the ring or the pages do not do.
    pub fn send(&mut self, packet: &Outgoing) -> bool {
        let placed = self.place(packet);
        self.publish();
        placed
    }

    /// Lists a group. False where the ring or the pages do not do.
    pub fn join(&mut self, group: [u8; 6]) -> bool {
        self.change_groups(XEN_NETIF_EXTRA_TYPE_MCAST_ADD, group)
    }

    /// Takes a group off the list. False likewise.
    pub fn leave(&mut self, group: [u8; 6]) -> bool {
        self.change_groups(XEN_NETIF_EXTRA_TYPE_MCAST_DEL, group)
    }

    fn change_groups(&mut self, kind: u8, group: [u8; 6]) -> bool {
        if self.transmit.free() < 2 {
            return false;
        }
        let Some(id) = self.transmit_free.pop_front() else {
            return false;
        };
        let gref = self.transmit_grants[usize::from(id)];
        assert!(self.transmit.push(&TxRequest { gref, offset: 0, flags: TxFlags::EXTRA_INFO, id, size: 0 }));
        let extra = ExtraInfo { kind, flags: 0, value: group };
        assert!(self.transmit.push_as(&extra));
        self.publish();
        true
    }

    /// Publishes what was placed, and says so where asked to.
    pub fn publish(&mut self) {
        if self.transmit.push_and_check_notify() {
            self.domain.notify(self.ports[0]);
        }
    }

    /// Places a packet's requests without publishing them.
    pub fn place(&mut self, packet: &Outgoing) -> bool {
        let mut sizes = packet.cuts.clone();
        let mut left = packet.bytes.len() - sizes.iter().sum::<usize>();
        while left > 0 || sizes.is_empty() {
            sizes.push(left.min(PAGE_SIZE));
            left -= left.min(PAGE_SIZE);
        }
        let extras = usize::from(packet.gso.is_some());
        if sizes.len() > self.transmit_free.len() || sizes.len() + extras > self.transmit.free() as usize {
            return false;
        }
        let mut at = 0;
        for (index, &size) in sizes.iter().enumerate() {
            let id = self.transmit_free.pop_front().expect("counted");
            // Somewhere in the page, so that offsets are tried too.
            let offset = (PAGE_SIZE - size).min(index * 36 + 2);
            assert!(self.transmit_pages.write(usize::from(id) * PAGE_SIZE + offset, &packet.bytes[at..at + size]));
            at += size;
            let mut flags = TxFlags::empty();
            flags.set(TxFlags::MORE_DATA, index + 1 < sizes.len());
            let mut whole = size;
            if index == 0 {
                whole = packet.bytes.len();
                flags.set(TxFlags::EXTRA_INFO, packet.gso.is_some());
                match packet.checksum {
                    Checksum::Blank => flags |= TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED,
                    Checksum::Verified => flags |= TxFlags::DATA_VALIDATED,
                    Checksum::Unverified => {}
                }
            }
            assert!(self.transmit.push(&TxRequest {
                gref: self.transmit_grants[usize::from(id)],
                offset: offset as u16,
                flags,
                id,
                size: whole as u16,
            }));
            if let (0, Some(gso)) = (index, packet.gso) {
                let kind = match gso.kind {
                    GsoKind::TcpV4 => 1,
                    GsoKind::TcpV6 => 2,
                };
                assert!(self.transmit.push_as(&ExtraInfo::new_gso(gso.size, kind)));
            }
        }
        true
    }

    /// Takes the responses to what was sent. Returns how many slots came back.
    pub fn collect_answers(&mut self) -> usize {
        let count = self.transmit.unconsumed().expect("a sane backend");
        for _ in 0..count {
            let response = self.transmit.take();
            if response.status == 1 {
                continue;
            }
            self.answers.push((response.id, response.status));
            self.transmit_free.push_back(response.id);
        }
        let _ = self.transmit.final_check_for_responses();
        count as usize
    }

    /// Takes what has arrived.
    pub fn arrived(&mut self) -> Vec<Arrived> {
        let mut packets = Vec::new();
        let mut waiting = self.receive.unconsumed().expect("a sane backend");
        while waiting > 0 {
            packets.push(self.one_arrived(&mut waiting));
        }
        let _ = self.receive.final_check_for_responses();
        packets
    }

    fn one_arrived(&mut self, waiting: &mut u32) -> Arrived {
        let mut packet = Arrived {
            bytes: Vec::new(),
            flags: RxFlags::empty(),
            gso: None,
            hash: None,
            offset: 0,
            headroom: None,
            slots: 0,
            error: false,
        };
        loop {
            assert!(*waiting > 0, "a packet published in part");
            let index = self.receive.state().consumed;
            let response = self.receive.take();
            *waiting -= 1;
            let page = self.posted.remove(&index).expect("a posted slot");
            assert_eq!(response.id, page, "a response out of its place");
            self.receive_free.push_back(page);
            packet.slots += 1;
            match usize::try_from(response.status) {
                Ok(length) => {
                    let start = packet.bytes.len();
                    packet.bytes.resize(start + length, 0);
                    let offset = usize::from(page) * PAGE_SIZE + usize::from(response.offset);
                    assert!(self.receive_pages.read(offset, &mut packet.bytes[start..]));
                }
                Err(_) => packet.error = true,
            }
            if packet.slots == 1 {
                packet.flags = response.flags - RxFlags::MORE_DATA - RxFlags::EXTRA_INFO;
                packet.offset = response.offset;
            }
            let mut more = response.flags.contains(RxFlags::EXTRA_INFO);
            while more {
                more = self.take_extra(&mut packet, waiting);
            }
            if !response.flags.contains(RxFlags::MORE_DATA) {
                return packet;
            }
        }
    }

    /// Takes an extra info; whether another follows.
    fn take_extra(&mut self, packet: &mut Arrived, waiting: &mut u32) -> bool {
        assert!(*waiting > 0, "an extra info announced and missing");
        let index = self.receive.state().consumed;
        let extra: ExtraInfo = self.receive.take_as();
        *waiting -= 1;
        let page = self.posted.remove(&index).expect("a posted slot");
        self.receive_free.push_back(page);
        packet.slots += 1;
        match extra.kind {
            XEN_NETIF_EXTRA_TYPE_GSO => {
                let kind = match extra.gso().kind {
                    1 => GsoKind::TcpV4,
                    2 => GsoKind::TcpV6,
                    kind => panic!("GSO kind {kind}"),
                };
                let gso = packet.gso.replace(Gso { kind, size: extra.gso().size });
                assert_eq!((gso, packet.hash, packet.headroom), (None, None, None), "extra infos out of order");
            }
            XEN_NETIF_EXTRA_TYPE_HASH => {
                let hash = packet.hash.replace(extra.hash());
                assert_eq!((hash, packet.headroom), (None, None), "extra infos out of order");
            }
            XEN_NETIF_EXTRA_TYPE_XDP => assert_eq!(packet.headroom.replace(extra.headroom()), None),
            kind => panic!("extra info of type {kind}"),
        }
        assert_eq!(extra.flags & !XEN_NETIF_EXTRA_FLAG_MORE, 0);
        extra.flags == XEN_NETIF_EXTRA_FLAG_MORE
    }
}
