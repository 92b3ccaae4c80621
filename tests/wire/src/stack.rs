//! The wire's thread: waits for frames, commands and timers, and drives smoltcp and the services. Host.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;
use smoltcp::iface::{Config as InterfaceConfig, Interface, PollResult, SocketSet};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::EthernetAddress;

use crate::config::Config;
use crate::device::MemoryDevice;
use crate::dhcp::{DhcpServer, cidr};
use crate::port::Port;
use crate::segment::{Capture, Captured, Observer, Segment};
use crate::service::{TcpServices, UdpServices};
use crate::stats::Stats;
use crate::timeline::Timeline;

/// Bytes that the stack may have under way to QEMU before it has to wait: enough to keep QEMU busy, little enough that a
/// ping does not wait behind a second of flood.
const WINDOW: usize = 256 * 1024;
/// The longest sleep, so that a lost wakeup would show as slowness and not as a hang.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What a [`crate::Wire`] asks its thread for.
pub(crate) enum Command {
    Stats(Sender<Stats>),
    Inject(Vec<Vec<u8>>),
    Capture(usize),
    Captured(Sender<Vec<Captured>>),
    Observe(Option<Observer>),
    Group(bool),
    StartTimeline(Duration),
    Timeline(Sender<Option<Timeline>>),
    Stop,
}

pub(crate) struct Stack {
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    start: Instant,
    segment: Segment,
    device: MemoryDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: TcpServices,
    udp: UdpServices,
    stats: Stats,
    capture: Capture,
    timeline: Option<Timeline>,
    /// The stack has more to send than it had credit for.
    choked: bool,
}

impl Stack {
    pub(crate) fn new(config: &Config, commands: Receiver<Command>, wake: Arc<EventFd>) -> io::Result<Self> {
        let ports = config.ports.iter().map(|path| Port::listen(path.clone())).collect::<io::Result<Vec<_>>>()?;
        let mut device = MemoryDevice::new(config.mtu);
        let mut settings = InterfaceConfig::new(EthernetAddress(config.mac).into());
        settings.random_seed = u64::from_le_bytes([0x6f, 0x78, 1, 2, 3, 4, 5, config.mac[4]]);
        let mut interface = Interface::new(settings, &mut device, StackInstant::ZERO);
        let mut addresses = vec![cidr(config.ipv4.into(), config.prefix)];
        addresses.extend(config.ipv6.iter().map(|(address, prefix)| cidr((*address).into(), *prefix)));
        let mut full = false;
        interface.update_ip_addrs(|list| {
            full = addresses.into_iter().any(|address| list.push(address).is_err());
        });
        if full || config.mtu < 576 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = config.dhcp.clone().map(|dhcp| DhcpServer::new(dhcp, config.ipv4, config.prefix, config.mtu));
        let udp = UdpServices::new(&mut sockets, dhcp);
        Ok(Self {
            commands,
            wake,
            start: Instant::now(),
            segment: Segment::new(ports, config.mac),
            device,
            interface,
            sockets,
            tcp: TcpServices::new(config),
            udp,
            stats: Stats::default(),
            capture: Capture { limit: config.capture, ..Capture::default() },
            timeline: None,
            choked: false,
        })
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(&mut self) {
        self.poll_stack();
        while self.handle_commands() {
            let ready = self.wait();
            for (number, ready) in ready.into_iter().enumerate() {
                let now = self.start.elapsed();
                if ready.listener
                    && let Some(port) = self.segment.ports.get_mut(number)
                    && port.poll_accept().is_err()
                {
                    // Out of descriptors, perhaps: do not spin on it.
                    std::thread::sleep(Duration::from_millis(10));
                }
                if ready.connection {
                    self.segment.poll_read(number, &mut self.device.inbox, &mut self.stats, &mut self.capture, now);
                }
            }
            self.poll_stack();
        }
    }

    fn poll_stack(&mut self) {
        let now = self.start.elapsed();
        let received_before = self.stats.tcp_received;
        let stack_now = StackInstant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        self.device.credit = WINDOW.saturating_sub(self.segment.pending());
        self.interface.poll_maintenance(stack_now);
        while self.poll_ingress(stack_now) {}
        loop {
            self.tcp.poll(&mut self.sockets, &mut self.stats);
            self.udp.poll(&mut self.sockets, &mut self.stats, now);
            let mut progress = false;
            while self.device.credit > 0
                && self.interface.poll_egress(stack_now, &mut self.device, &mut self.sockets)
                    == PollResult::SocketStateChanged
            {
                progress = true;
                self.send_fragments(stack_now);
            }
            self.segment.send_all(&mut self.device.outbox, &mut self.stats, &mut self.capture, now);
            self.segment.poll_write();
            self.choked = self.device.credit == 0;
            if self.choked || !progress {
                break;
            }
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.handle_bytes(self.stats.tcp_received.wrapping_sub(received_before), self.start + now);
        }
    }

    /// Takes in a frame, and sends all fragments of its answer; false where no frame waits.
    fn poll_ingress(&mut self, now: StackInstant) -> bool {
        use smoltcp::iface::PollIngressSingleResult::None;
        let came = self.interface.poll_ingress_single(now, &mut self.device, &mut self.sockets) != None;
        self.send_fragments(now);
        came
    }

    /// Sends what is left of a packet whose first fragment was sent: smoltcp keeps one such packet, and the next one takes its place.
    fn send_fragments(&mut self, now: StackInstant) {
        // No credit holds these back: a packet without its last fragments is of no use.
        let credit = std::mem::replace(&mut self.device.credit, usize::MAX);
        let mut sent = self.device.outbox.len();
        loop {
            // Without sockets there is nothing else that it could send.
            self.interface.poll_egress(now, &mut self.device, &mut SocketSet::new([]));
            if self.device.outbox.len() == sent {
                break;
            }
            sent = self.device.outbox.len();
        }
        self.device.credit = credit.saturating_sub(usize::MAX - self.device.credit);
    }

    /// False when it is time to stop.
    fn handle_commands(&mut self) -> bool {
        let now = self.start.elapsed();
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stats(reply)) => {
                    let mut stats = self.stats.clone();
                    stats.connects = self.segment.ports.iter().map(|port| port.connects).sum();
                    stats.dropped_out = self.segment.ports.iter().map(|port| port.dropped).sum();
                    let _ = reply.send(stats);
                }
                Ok(Command::Inject(frames)) => {
                    for frame in &frames {
                        self.stats.injected += 1;
                        self.segment.send_own(frame, &mut self.stats, &mut self.capture, now);
                    }
                    self.segment.poll_write();
                }
                Ok(Command::Capture(limit)) => {
                    self.capture.limit = limit;
                    let surplus = self.capture.frames.len().saturating_sub(limit);
                    self.capture.frames.drain(..surplus);
                }
                Ok(Command::Captured(reply)) => {
                    let _ = reply.send(self.capture.frames.drain(..).collect());
                }
                Ok(Command::Observe(observer)) => self.capture.observer = observer,
                Ok(Command::Group(on)) => self.segment.group.on = on,
                Ok(Command::StartTimeline(interval)) => self.timeline = Some(Timeline::new(self.start + now, interval)),
                Ok(Command::Timeline(reply)) => {
                    let _ = reply.send(self.timeline.as_ref().map(|timeline| timeline.until(self.start + now)));
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn sleep(&mut self) -> Duration {
        let pending = self.segment.pending();
        if self.choked && pending < WINDOW {
            return Duration::ZERO;
        }
        let now = self.start.elapsed();
        let mut sleep = LONGEST_SLEEP;
        if pending < WINDOW {
            let stack_now = StackInstant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
            if let Some(delay) = self.interface.poll_delay(stack_now, &self.sockets) {
                sleep = sleep.min(delay.into());
            }
        }
        if let Some(at) = self.udp.poll_at() {
            sleep = sleep.min(at.saturating_sub(now));
        }
        sleep
    }

    /// Sleeps until there is something to do; says what, for each port.
    fn wait(&mut self) -> Vec<Ready> {
        let sleep = TimeSpec::from_duration(self.sleep());
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        for port in &self.segment.ports {
            fds.push(PollFd::new(port.listener_fd(), PollFlags::POLLIN));
            if let Some(fd) = port.connection_fd() {
                let mut events = PollFlags::POLLIN;
                events.set(PollFlags::POLLOUT, port.pending() > 0);
                fds.push(PollFd::new(fd, events));
            }
        }
        // An interruption looks like a timeout, and does no harm.
        let _ = ppoll(&mut fds, Some(sleep), None);
        let mut fds = fds.into_iter();
        let mut is_ready = || {
            let events = fds.next().and_then(|fd| fd.revents());
            events.is_some_and(|events| !events.difference(PollFlags::POLLOUT).is_empty())
        };
        if is_ready() {
            let _ = self.wake.read();
        }
        self.segment
            .ports
            .iter()
            .map(|port| Ready { listener: is_ready(), connection: port.connection_fd().is_some() && is_ready() })
            .collect()
    }
}

/// What poll(2) said about a port.
struct Ready {
    listener: bool,
    connection: bool,
}
