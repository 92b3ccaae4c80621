//! UDP services: echo, discard, the flow sink with its reports, the flow generator, names, and DHCP's transport. Host.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket, UdpMetadata};
use smoltcp::wire::{DHCP_CLIENT_PORT, IpAddress, IpEndpoint};

use crate::dhcp::{self, DhcpServer};
use crate::names;
use crate::protocol::{
    DISCARD_PORT, Datagram, DatagramKind, ECHO_PORT, FLOW_PORT, FlowCounter, FlowReport, FlowRequest,
};
use crate::stats::{Stats, mac_text};

/// More than one read from a NIC's socket can bring.
const RECEIVE_PACKETS: usize = 8192;
const RECEIVE_BYTES: usize = 2 << 20;
const SEND_PACKETS: usize = 1024;
const SEND_BYTES: usize = 2 << 20;

/// How many flows the sink remembers.
const FLOWS: usize = 1024;
const GENERATORS: usize = 64;
/// The end of a generated flow is told several times, since datagrams get lost.
const FAREWELLS: u32 = 3;
const FAREWELL_INTERVAL: Duration = Duration::from_millis(50);

/// A receiver that has not told of progress for so long has lost what is under way, or the message was lost.
const STALL: Duration = Duration::from_millis(100);

type FlowKey = (IpEndpoint, u32);

pub(crate) struct UdpServices {
    echo: SocketHandle,
    discard: SocketHandle,
    flow: SocketHandle,
    names: SocketHandle,
    dhcp: Option<(SocketHandle, DhcpServer)>,
    flows: BTreeMap<FlowKey, FlowCounter>,
    order: VecDeque<FlowKey>,
    generators: Vec<Generator>,
}

/// A flow on its way to a guest.
struct Generator {
    flow: u32,
    to: UdpMetadata,
    request: FlowRequest,
    start: Duration,
    sent: u64,
    /// Up to here the receiver has come, and when it last said so.
    progress: u64,
    progress_at: Duration,
    farewells: u32,
    farewell_at: Option<Duration>,
}

impl UdpServices {
    pub(crate) fn new(sockets: &mut SocketSet<'_>, dhcp: Option<DhcpServer>) -> Self {
        Self {
            echo: bind(sockets, ECHO_PORT),
            discard: bind(sockets, DISCARD_PORT),
            flow: bind(sockets, FLOW_PORT),
            names: bind(sockets, names::PORT),
            dhcp: dhcp.map(|server| (bind(sockets, dhcp::PORT), server)),
            flows: BTreeMap::new(),
            order: VecDeque::new(),
            generators: Vec::new(),
        }
    }

    /// Takes what has come and sends what is due. `now` is the time since the wire's start.
    pub(crate) fn poll(&mut self, sockets: &mut SocketSet<'_>, stats: &mut Stats, now: Duration) {
        let socket = sockets.get_mut::<Socket<'_>>(self.echo);
        while socket.can_send() {
            let Ok((data, from)) = socket.recv() else {
                break;
            };
            let data = data.to_vec();
            stats.udp_echoed += u64::from(socket.send_slice(&data, answer(from)).is_ok());
        }
        let socket = sockets.get_mut::<Socket<'_>>(self.discard);
        while socket.recv().is_ok() {
            stats.udp_discarded += 1;
        }
        self.poll_flows(sockets.get_mut(self.flow), stats, now);
        let socket = sockets.get_mut::<Socket<'_>>(self.names);
        while let Ok((question, from)) = socket.recv() {
            if let Some(reply) = names::answer(question) {
                stats.names_answered += u64::from(socket.send_slice(&reply, answer(from)).is_ok());
            }
        }
        if let Some((handle, server)) = &mut self.dhcp {
            poll_dhcp(sockets.get_mut(*handle), server, stats);
        }
    }

    /// When the next datagram of a generator is due.
    pub(crate) fn poll_at(&self) -> Option<Duration> {
        self.generators.iter().filter_map(Generator::poll_at).min()
    }

    fn poll_flows(&mut self, socket: &mut Socket<'_>, stats: &mut Stats, now: Duration) {
        while let Ok((data, from)) = socket.recv() {
            let Ok((datagram, body)) = Datagram::decode(data) else {
                continue;
            };
            let key = (from.endpoint, datagram.flow);
            match datagram.kind {
                DatagramKind::Data => {
                    stats.udp_sunk += 1;
                    let length = data.len();
                    self.flow(key).handle_datagram(datagram.value, length, nanoseconds(now));
                }
                DatagramKind::Query => {
                    let report = self.flows.get(&key).map_or(FlowReport::default(), FlowCounter::report);
                    let head = Datagram { kind: DatagramKind::Report, ..datagram };
                    let reply = [head.encode().as_slice(), report.encode().as_slice()].concat();
                    let _ = socket.send_slice(&reply, answer(from));
                }
                DatagramKind::Generate => {
                    if let Ok(request) = FlowRequest::decode(body) {
                        self.generate(from, datagram.flow, request, now);
                    }
                }
                DatagramKind::Stop => {
                    for generator in &mut self.generators {
                        if generator.is(from.endpoint, datagram.flow) {
                            generator.request.milliseconds = 0;
                        }
                    }
                }
                DatagramKind::Progress => {
                    for generator in &mut self.generators {
                        if generator.is(from.endpoint, datagram.flow) {
                            generator.progress = generator.progress.max(datagram.value.min(generator.sent));
                            generator.progress_at = now;
                        }
                    }
                }
                DatagramKind::Report | DatagramKind::Finished => {}
            }
        }
        self.generators.retain_mut(|generator| generator.poll(socket, stats, now));
    }

    fn flow(&mut self, key: FlowKey) -> &mut FlowCounter {
        if !self.flows.contains_key(&key) {
            if self.order.len() >= FLOWS
                && let Some(oldest) = self.order.pop_front()
            {
                self.flows.remove(&oldest);
            }
            self.order.push_back(key);
        }
        self.flows.entry(key).or_default()
    }

    fn generate(&mut self, from: UdpMetadata, flow: u32, request: FlowRequest, now: Duration) {
        let known = self.generators.iter().any(|generator| generator.is(from.endpoint, flow));
        if known || self.generators.len() >= GENERATORS {
            return;
        }
        self.generators.push(Generator {
            flow,
            to: answer(from),
            request,
            start: now,
            sent: 0,
            progress: 0,
            progress_at: now,
            farewells: 0,
            farewell_at: None,
        });
    }
}

impl Generator {
    fn is(&self, to: IpEndpoint, flow: u32) -> bool {
        self.to.endpoint == to && self.flow == flow
    }

    fn end(&self) -> Duration {
        self.start + Duration::from_millis(u64::from(self.request.milliseconds))
    }

    fn poll_at(&self) -> Option<Duration> {
        if self.farewell_at.is_some() {
            return self.farewell_at;
        }
        let pace = u64::from(self.request.per_second);
        // Without a pace it waits for the receiver's progress.
        let next = match self.sent.saturating_mul(1_000_000_000).checked_div(pace) {
            Some(due) => self.start + Duration::from_nanos(due),
            None => return Some(self.end().min(self.progress_at + STALL)),
        };
        Some(next.min(self.end()))
    }

    /// How many datagrams may be sent by now, in all.
    fn due(&self, now: Duration) -> u64 {
        match u64::from(self.request.per_second) {
            0 => self.progress.saturating_add(u64::from(self.request.window.max(1))),
            pace => {
                let elapsed = nanoseconds(now.saturating_sub(self.start));
                (u128::from(elapsed) * u128::from(pace) / 1_000_000_000) as u64 + 1
            }
        }
    }

    /// False when the flow is over.
    fn poll(&mut self, socket: &mut Socket<'_>, stats: &mut Stats, now: Duration) -> bool {
        if now < self.end() && self.farewell_at.is_none() {
            if now >= self.progress_at + STALL {
                (self.progress, self.progress_at) = (self.sent, now);
            }
            let due = self.due(now);
            while self.sent < due && socket.can_send() && self.send(socket, DatagramKind::Data) {
                self.sent += 1;
                stats.udp_generated += 1;
            }
            return true;
        }
        if self.farewell_at.is_some_and(|at| now < at) {
            return true;
        }
        if socket.can_send() {
            self.send(socket, DatagramKind::Finished);
            self.farewells += 1;
        }
        self.farewell_at = Some(now + FAREWELL_INTERVAL);
        self.farewells < FAREWELLS
    }

    fn send(&self, socket: &mut Socket<'_>, kind: DatagramKind) -> bool {
        let head = Datagram { kind, flow: self.flow, value: self.sent }.encode();
        let size = match kind {
            DatagramKind::Data => usize::from(self.request.size).max(head.len()),
            _ => head.len(),
        };
        let Ok(room) = socket.send(size, self.to) else {
            return false;
        };
        let (start, rest) = room.split_at_mut(head.len());
        start.copy_from_slice(&head);
        rest.fill(0);
        true
    }
}

fn poll_dhcp(socket: &mut Socket<'_>, server: &mut DhcpServer, stats: &mut Stats) {
    while let Ok((message, _)) = socket.recv() {
        stats.dhcp_messages += 1;
        let Some(reply) = server.handle_message(message) else {
            continue;
        };
        let to = IpEndpoint::new(IpAddress::Ipv4(Ipv4Addr::BROADCAST), DHCP_CLIENT_PORT);
        let _ = socket.send_slice(&reply, to);
        stats.leases = server.leases().iter().map(|(mac, address)| (mac_text(*mac), address.to_string())).collect();
    }
}

fn bind(sockets: &mut SocketSet<'_>, port: u16) -> SocketHandle {
    let buffer = |packets, bytes| PacketBuffer::new(vec![PacketMetadata::EMPTY; packets], vec![0; bytes]);
    let mut socket = Socket::new(buffer(RECEIVE_PACKETS, RECEIVE_BYTES), buffer(SEND_PACKETS, SEND_BYTES));
    // It fails only for port 0 and for a socket that is open already.
    let _ = socket.bind(port);
    sockets.add(socket)
}

/// The way back to where a datagram came from.
fn answer(from: UdpMetadata) -> UdpMetadata {
    UdpMetadata { endpoint: from.endpoint, local_address: from.local_address, meta: from.meta }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
