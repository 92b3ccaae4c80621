//! Where a packet goes, by its head: to which ports, and in a guest with several queues to which of them. Floor 3.

use super::ports::Ports;
use super::vlan::Tagging;
use crate::ethernet::{MacAddress, Tag};
use crate::hash::KeyedHash;
use crate::netback::steering::{Steer, steer};
use crate::offload::flow::Flow;
use crate::offload::head::{Head, HeadReader};
use crate::offload::headers::{Layout, Transport};
use crate::packet::Packet;
use crate::policy::multicast::{Audience, Behind, Multicast};
use crate::router::Router;
use crate::statistics::DropCause;
use crate::switch::{AGEING, AddError, Forward, PortId, Reason, Switch, TABLE_ENTRIES, Vlans};

use alloc::boxed::Box;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Where a packet for one station goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The port.
    pub(crate) to: PortId,
    /// Where it goes there, if that is a guest.
    pub(crate) steer: Steer,
}

/// A look-up of the switch: from which port, in which VLAN, for which addresses, and to which port.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lookup {
    from: PortId,
    vlan: u16,
    destination: MacAddress,
    source: MacAddress,
    to: PortId,
}

/// When a packet is looked up: as it came, or as it left the router.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Came,
    Routed,
}

/// What was decided on a packet.
#[derive(Clone, Copy, Default)]
pub(crate) struct Decision {
    pub(crate) tagging: Tagging,
    /// The way to the one port that it goes to, where it is for a single station. Otherwise it goes to [`Forwarder::destinations`].
    pub(crate) way: Option<Way>,
    /// That port is a NIC's.
    pub(crate) to_nic: bool,
    /// That port is of a guest for which segments with these headers may be joined.
    pub(crate) joins: bool,
}

/// The switch, and all else that decides.
pub(crate) struct Forwarder {
    pub(super) switch: Switch,
    /// The groups of guests.
    multicast: Multicast,
    /// Spreads flows over the queues of guests.
    flow_key: KeyedHash,
    /// Whether BPDUs go from guests to the wire, and from there to guests.
    pub(super) bpdus_on_wire: bool,
    /// The router, where the domain is one.
    pub(super) router: Option<Box<Router>>,
    reader: HeadReader,
    /// The ports that the last packet goes to.
    destinations: Vec<PortId>,
    /// The last look-up of the round that gave one port, of packets as they came and as they left the router: flows between two stations differ
    /// in their ports.
    last_looks: [Option<Lookup>; 2],
    /// What was decided last.
    decision: Decision,
    /// The last packet came from the wire and is for this port of the router alone. Then `decision` says of the guest that it goes on to, as far as
    /// that is known before, whether segments may be joined.
    router_port: Option<PortId>,
    /// That holds for packets with the same head that come from this port, without or with this tag apart from their bytes.
    run: Option<(PortId, Option<Tag>)>,
    /// Where the last head is among those that were parsed in the round.
    parsed: u32,
}

impl Forwarder {
    /// A switch without ports. `seed` is a number that guests do not know.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            switch: Switch::new(TABLE_ENTRIES, AGEING, seed),
            multicast: Multicast::new(seed.rotate_left(17)),
            // Another key than the switch's: a guest sees which queue its packets come from.
            flow_key: KeyedHash::new(!seed),
            bpdus_on_wire: false,
            router: None,
            reader: HeadReader::default(),
            destinations: Vec::new(),
            last_looks: [None; 2],
            decision: Decision::default(),
            router_port: None,
            run: None,
            parsed: 0,
        }
    }

    /// Puts a port on a bridge ([`Switch::add`]), and says what is behind it.
    ///
    /// # Errors
    /// [`AddError`].
    pub(super) fn add_port(
        &mut self,
        port: PortId,
        bridge: &str,
        (vlans, limit): (Vlans, usize),
        behind: Behind,
        now: Instant,
    ) -> Result<(), AddError> {
        self.switch.add(port, bridge, vlans, limit)?;
        if let Some(number) = self.switch.bridge_number(port) {
            self.multicast.add(port, number, behind, now);
        }
        Ok(())
    }

    /// Takes a port off its bridge.
    pub(super) fn remove_port(&mut self, port: PortId) {
        self.switch.remove(port);
        self.multicast.remove(port);
    }

    /// A round begins: what was decided in the last one may no longer hold.
    pub(super) fn begin_round(&mut self) {
        (self.last_looks, self.run) = ([None; 2], None);
    }

    /// Reads the head of the next packet, and says where it is among those that were parsed in the round; `None` where it has no Ethernet
    /// header.
    #[inline]
    pub(super) fn read(&mut self, packet: &Packet, parsed: &mut Vec<Head>) -> Option<u32> {
        self.reader.read(packet)?;
        if !self.reader.repeated() || parsed.is_empty() {
            self.run = None;
            self.parsed = parsed.len() as u32;
            parsed.push(*self.reader.head()?);
        }
        Some(self.parsed)
    }

    /// The bytes that the last head was read from.
    pub(super) fn bytes(&self) -> &[u8] {
        self.reader.bytes()
    }

    /// Decides on the packet whose head was read last: from which port it comes, and which tag a NIC took out. [`Self::decided`] says what.
    ///
    /// # Errors
    /// Why it goes nowhere.
    #[inline]
    pub(super) fn decide<H: Hypervisor>(
        &mut self,
        ports: &mut Ports<H>,
        from: PortId,
        tag: Option<Tag>,
        now: Instant,
    ) -> Result<(), DropCause> {
        if self.run == Some((from, tag)) { Ok(()) } else { self.decide_anew(ports, from, tag, now) }
    }

    #[inline(never)]
    fn decide_anew<H: Hypervisor>(
        &mut self,
        ports: &mut Ports<H>,
        from: PortId,
        tag: Option<Tag>,
        now: Instant,
    ) -> Result<(), DropCause> {
        let head = &self.reader.head().copied().ok_or(DropCause::NotForwarded)?;
        (self.run, self.router_port) = (None, None);
        let tagging = match ports.guest(from) {
            Some(guest) if !guest.vif.config.guard.permits(head, self.reader.bytes()) => {
                return Err(DropCause::Spoofed);
            }
            Some(guest) => Tagging::new(&guest.vif.config.vlans, head)?,
            None => Tagging::of_trunk(head, tag),
        };
        self.choose(ports, (from, tagging.vlan), head, Stage::Came, now);
        self.decision = Decision { tagging, ..Decision::default() };
        if let [only] = *self.destinations.as_slice()
            && !head.destination.is_group()
        {
            if ports.is_router(only) {
                self.decide_for_router(ports, (from, tag), only, now);
            } else {
                self.decision = self.decide_on(ports, only, tagging, head);
                self.run = Some((from, tag));
            }
        }
        Ok(())
    }

    /// Decides on a packet for a port of the router alone.
    #[inline(never)]
    fn decide_for_router<H: Hypervisor>(
        &mut self,
        ports: &Ports<H>,
        (from, tag): (PortId, Option<Tag>),
        router: PortId,
        now: Instant,
    ) {
        if self.decision.tagging.vlan != 0 || !ports.is_wire(from) {
            return;
        }
        let layout = self.reader.head().and_then(|head| head.layout);
        let segment = layout.filter(|layout| layout.transport == Transport::Tcp);
        self.router_port = Some(router);
        self.decision.joins = segment.is_some_and(|layout| self.joins_behind(ports, router, &layout, now));
        // A segment whose header is wrong is joined with none: that holds for no other of its flow.
        self.run = (self.decision.joins || segment.is_none()).then_some((from, tag));
    }

    /// Whether segments as the one that was read last may be joined before a port of the router: the guest that they go on to takes them so.
    fn joins_behind<H: Hypervisor>(&self, ports: &Ports<H>, router: PortId, layout: &Layout, now: Instant) -> bool {
        let foreseen = self.router.as_ref().and_then(|known| known.foresee(router, self.reader.bytes(), now));
        // Beside the router there is one guest.
        let members = foreseen.map_or(&[][..], |out| self.switch.members(out));
        members.iter().any(|member| joins(ports, *member, layout, Tagging::default()))
    }

    /// What is decided on a packet for one station, which is behind this port.
    #[inline(always)]
    fn decide_on<H: Hypervisor>(&self, ports: &Ports<H>, only: PortId, tagging: Tagging, head: &Head) -> Decision {
        let joins = head.layout.is_some_and(|layout| joins(ports, only, &layout, tagging));
        let way = self.way_of(ports, only, head, self.reader.bytes());
        Decision { tagging, way: Some(way), to_nic: ports.is_nic(way.to), joins }
    }

    /// Decides on a packet that leaves a port of the router, with this head, which these bytes say. Without a way it goes to
    /// [`Self::destinations`].
    pub(super) fn decide_routed<H: Hypervisor>(
        &mut self,
        ports: &mut Ports<H>,
        from: PortId,
        head: &Head,
        bytes: &[u8],
        now: Instant,
    ) -> Decision {
        self.choose(ports, (from, 0), head, Stage::Routed, now);
        match *self.destinations.as_slice() {
            [only] if !ports.is_router(only) => {
                let way = self.way_of(ports, only, head, bytes);
                Decision { way: Some(way), to_nic: ports.is_nic(way.to), ..Decision::default() }
            }
            _ => Decision::default(),
        }
    }

    /// Takes the router's port out of those that were chosen last, if it is among them.
    pub(super) fn take_router<H: Hypervisor>(&mut self, ports: &Ports<H>) -> Option<PortId> {
        self.router.as_ref()?;
        let place = self.destinations.iter().position(|to| ports.is_router(*to))?;
        Some(self.destinations.swap_remove(place))
    }

    /// The port of the router that the last packet, which came from the wire, is for alone.
    pub(super) const fn router_port(&self) -> Option<PortId> {
        self.router_port
    }

    /// What was decided last, and the head that it was decided by.
    #[inline]
    pub(super) const fn decided(&self) -> Option<(&Decision, &Head)> {
        match self.reader.head() {
            Some(head) => Some((&self.decision, head)),
            None => None,
        }
    }

    /// The ports that were chosen last.
    pub(super) fn destinations(&self) -> &[PortId] {
        &self.destinations
    }

    /// Chooses the ports that a packet of a VLAN (0: none) with this head goes to.
    fn choose<H: Hypervisor>(
        &mut self,
        ports: &mut Ports<H>,
        (from, vlan): (PortId, u16),
        head: &Head,
        stage: Stage,
        now: Instant,
    ) {
        let &Head { destination, source, .. } = head;
        self.destinations.clear();
        // In a round no time passes: the same look-up would learn nothing and find the same.
        let place = stage as usize;
        if let Some(Some(look)) = self.last_looks.get(place)
            && (look.from, look.vlan, look.destination, look.source) == (from, vlan, destination, source)
        {
            return self.destinations.push(look.to);
        }
        // What comes may teach the switch; the router's own addresses are known.
        self.last_looks.iter_mut().skip(place).for_each(|look| *look = None);
        match self.switch.forward(from, vlan, destination, source, now) {
            Forward::Drop(Reason::Isolated) => ports.count_drop(from, DropCause::Isolated),
            Forward::Drop(_) => ports.count_drop(from, DropCause::NotForwarded),
            Forward::Port(to) => {
                self.destinations.push(to);
                if let Some(look) = self.last_looks.get_mut(place) {
                    *look = Some(Lookup { from, vlan, destination, source, to });
                }
            }
            Forward::Flood => self.spread(ports, from, vlan, head, now),
        }
    }

    /// Chooses the ports that a packet goes to which is for no single station that is known.
    #[inline(never)]
    fn spread<H: Hypervisor>(&mut self, ports: &mut Ports<H>, from: PortId, vlan: u16, head: &Head, now: Instant) {
        let Self { switch, multicast, reader, destinations, bpdus_on_wire, .. } = self;
        if head.destination.is_group()
            && multicast.handle(from, vlan, (head, reader.bytes()), now, destinations) == Audience::Listed
        {
            return destinations.retain(|to| switch.reaches(from, *to, vlan));
        }
        if let Some(guest) = ports.guest_mut(from)
            && let Some(flooding) = &mut guest.flooding
            && !flooding.take(now)
        {
            return guest.statistics.drop(DropCause::Storm);
        }
        if head.destination != MacAddress::BRIDGE_GROUP || *bpdus_on_wire {
            return destinations.extend(switch.flood(from, vlan));
        }
        // From guest to guest, and from wire to wire, so that bridges out there see a loop through this one.
        let wired = ports.is_wire(from);
        destinations.extend(switch.flood(from, vlan).filter(|to| ports.is_wire(*to) == wired));
        if destinations.is_empty() && wired {
            ports.count_drop(from, DropCause::NotForwarded);
        }
    }

    /// The way to a port of the packet whose head was read last.
    pub(super) fn way<H: Hypervisor>(&self, ports: &Ports<H>, to: PortId, head: &Head) -> Way {
        self.way_of(ports, to, head, self.reader.bytes())
    }

    /// The way to a port of a packet with this head, which these bytes say. Where the guest there has one queue and asked for no hash, the packet
    /// is not looked at.
    #[inline(always)]
    fn way_of<H: Hypervisor>(&self, ports: &Ports<H>, to: PortId, head: &Head, bytes: &[u8]) -> Way {
        let plain = Way { to, steer: Steer::default() };
        let Some(guest) = ports.guest(to) else {
            return Way { to: ports.outlet(to, head, bytes), ..plain };
        };
        let (queues, hashing) = (guest.queue_count(), guest.hashing());
        if queues < 2 && hashing.is_none() {
            return plain;
        }
        let flow = Flow::new(head, bytes);
        Way { to, steer: steer(flow.as_ref(), queues, hashing, self.flow_key) }
    }
}

/// Whether segments may be joined for a port. The guest there must take the super-frame as it is: cut again here, it would have been joined in
/// vain.
fn joins<H: Hypervisor>(ports: &Ports<H>, to: PortId, layout: &Layout, tagging: Tagging) -> bool {
    ports
        .guest(to)
        .is_some_and(|guest| guest.vif.ability.gso(layout) && tagging.edit_for(&guest.vif.config.vlans).is_none())
}
