//! UDP flows: flood, pace, receive, sink; many datagrams a system call. Linux user space.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt};
use serde_json::{Value, json};
use wire::protocol::{Datagram, DatagramKind, FLOW_PORT, FlowCounter, FlowReport, FlowRequest};

use crate::arguments::{Arguments, End};
use crate::{Failure, print_line};

/// Datagrams in one system call.
const BATCH: usize = 64;
/// Bytes of a datagram that are looked at; its length is known all the same.
const ROOM: usize = 2048;
/// How often a question is asked again when no answer comes.
const TRIES: u32 = 20;
const TRY: Duration = Duration::from_millis(250);
/// How long the end of a flow from the wire may take.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// What the kernel may hold for us.
const BUFFER: usize = 4 << 20;

/// Sends a flow (`udp-flood`, `udp-pace`), then asks the sink what came of it.
pub(crate) fn send(arguments: &Arguments) -> Result<Value, Failure> {
    let to = arguments.host(FLOW_PORT)?;
    let paced = arguments.command == "udp-pace";
    let number = u32::try_from(arguments.number(1)?)?;
    let (size, pace) = if paced {
        (usize::from(arguments.size.unwrap_or(64)), Some(number))
    } else {
        (usize::try_from(number)?, arguments.pace)
    };
    let length = arguments.duration(2)?;
    let socket = connect(to)?;
    let flow = flow_number();
    let start = Instant::now();
    let (sent, refused) = match pace {
        Some(pace) => send_paced(&socket, flow, size, f64::from(pace.max(1)), length, &arguments.end(None))?,
        None => send_flood(&socket, flow, size, &arguments.end(Some(length)))?,
    };
    let elapsed = start.elapsed();
    let report = query(&socket, flow)?;
    let lost = sent.saturating_sub(report.received);
    Ok(json!({
        "command": arguments.command,
        "sent": sent,
        "refused": refused,
        "seconds": elapsed.as_secs_f64(),
        "sent_per_second": per_second(sent, elapsed),
        "received": report.received,
        "received_per_second": per_second(report.received, Duration::from_nanos(report.nanoseconds)),
        "lost": lost,
        "reordered": report.reordered,
        "longest_gap_ms": report.longest_gap_nanoseconds as f64 / 1e6,
        "ok": report.received > 0,
    }))
}

fn connect(to: SocketAddr) -> Result<UdpSocket, Failure> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    enlarge(&socket);
    Ok(socket)
}

/// Root may go beyond the kernel's limit, which holds only some 270 short datagrams by default.
pub(crate) fn enlarge(socket: &impl AsFd) {
    if setsockopt(socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &BUFFER);
    }
}

fn flow_number() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos()) ^ std::process::id().rotate_left(16)
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

fn data(flow: u32, sequence: u64) -> [u8; Datagram::LENGTH] {
    let datagram = Datagram { kind: DatagramKind::Data, flow, value: sequence };
    datagram.encode()
}

/// Sends as fast as the kernel takes them; how many were sent, and how often the kernel had no room.
fn send_flood(socket: &UdpSocket, flow: u32, size: usize, end: &End) -> Result<(u64, u64), Failure> {
    let padding = vec![0; size.saturating_sub(Datagram::LENGTH)];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let nowhere = [None::<SockaddrStorage>; BATCH];
    let (mut sent, mut refused) = (0, 0);
    while !end.is_here() {
        let heads: [_; BATCH] = std::array::from_fn(|index| data(flow, sent + index as u64));
        let slices = heads.each_ref().map(|head| [IoSlice::new(head), IoSlice::new(&padding)]);
        let flags = MsgFlags::empty();
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nowhere, [], flags) {
            Ok(results) => sent += results.count() as u64,
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((sent, refused))
}

/// Sends what is due by the pace within `length`, late or not, or until `end`; how many were sent, and how many of them the kernel refused.
fn send_paced(
    socket: &UdpSocket,
    flow: u32,
    size: usize,
    pace: f64,
    length: Duration,
    end: &End,
) -> Result<(u64, u64), Failure> {
    let mut packet = vec![0; size.max(Datagram::LENGTH)];
    let (mut sent, mut refused) = (0u64, 0);
    let start = Instant::now();
    loop {
        let due = Duration::from_secs_f64(sent as f64 / pace);
        if due >= length || end.is_here() {
            return Ok((sent, refused));
        }
        let wait = due.saturating_sub(start.elapsed());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        for (to, from) in packet.iter_mut().zip(data(flow, sent)) {
            *to = from;
        }
        // What the kernel refuses is as lost as what the network drops: it keeps its sequence number.
        refused += u64::from(socket.send(&packet).is_err());
        sent += 1;
    }
}

/// Asks the sink for its report on `flow`, until it stands still.
fn query(socket: &UdpSocket, flow: u32) -> Result<FlowReport, Failure> {
    socket.set_read_timeout(Some(TRY))?;
    let question = Datagram { kind: DatagramKind::Query, flow, value: 0 };
    let mut last = None;
    let mut buffer = [0; ROOM];
    for _ in 0..TRIES {
        let _ = socket.send(&question.encode());
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let Ok((datagram, body)) = Datagram::decode(buffer.get(..length).unwrap_or_default()) else {
            continue;
        };
        if datagram.kind != DatagramKind::Report || datagram.flow != flow {
            continue;
        }
        let report = FlowReport::decode(body)?;
        // Datagrams may still be on their way when the first question overtakes none but waits behind few.
        if last == Some(report) {
            return Ok(report);
        }
        last = Some(report);
        std::thread::sleep(Duration::from_millis(50));
    }
    last.ok_or_else(|| "the sink does not answer".into())
}

/// Asks the wire for a flow and counts it.
pub(crate) fn receive(arguments: &Arguments) -> Result<Value, Failure> {
    let to = arguments.host(FLOW_PORT)?;
    let length = arguments.duration(2)?;
    let request = FlowRequest {
        size: u16::try_from(arguments.number(1)?)?,
        per_second: arguments.pace.unwrap_or(0),
        milliseconds: u32::try_from(length.as_millis())?,
        window: arguments.window,
    };
    let socket = connect(to)?;
    let flow = flow_number();
    let ask = Datagram { kind: DatagramKind::Generate, flow, value: 0 };
    let message = [ask.encode().as_slice(), request.encode().as_slice()].concat();
    let mut receiver = Receiver::new(socket, TRY)?;
    let mut counter = FlowCounter::default();
    let (mut sent, mut told) = (None, 0);
    let start = Instant::now();
    // The generator knows the length; a file that ends it is ours to tell of.
    let asked = arguments.end(None);
    let mut end = start + length + LAST_WAIT.min(arguments.timeout);
    let mut stopped = false;
    while sent.is_none() && Instant::now() < end {
        if asked.is_here() {
            if !stopped {
                (stopped, end) = (true, Instant::now() + LAST_WAIT.min(arguments.timeout));
            }
            let stop = Datagram { kind: DatagramKind::Stop, flow, value: 0 };
            let _ = receiver.socket.send(&stop.encode());
        } else if counter.report().received == 0 {
            let _ = receiver.socket.send(&message);
        }
        receiver.receive(|_, bytes, size| {
            let Ok((datagram, _)) = Datagram::decode(bytes) else {
                return;
            };
            match datagram.kind {
                DatagramKind::Data if datagram.flow == flow => {
                    counter.handle_datagram(datagram.value, size, nanoseconds(start.elapsed()));
                }
                DatagramKind::Finished if datagram.flow == flow => sent = Some(datagram.value),
                _ => {}
            }
        })?;
        // Told four times a window, so that the generator never waits for it.
        if arguments.pace.is_none() && counter.next() >= told + u64::from(arguments.window.div_ceil(4)) {
            told = counter.next();
            let progress = Datagram { kind: DatagramKind::Progress, flow, value: told };
            let _ = receiver.socket.send(&progress.encode());
        }
    }
    let report = counter.report();
    Ok(json!({
        "command": "udp-receive",
        "sent": sent,
        "received": report.received,
        "received_per_second": per_second(report.received, Duration::from_nanos(report.nanoseconds)),
        "lost": sent.unwrap_or(report.received + report.missing).saturating_sub(report.received),
        "reordered": report.reordered,
        "longest_gap_ms": report.longest_gap_nanoseconds as f64 / 1e6,
        "seconds": report.nanoseconds as f64 / 1e9,
        "ok": report.received > 0,
    }))
}

/// Counts whatever flows come to a port, and answers questions about them.
pub(crate) fn sink(arguments: &Arguments) -> Result<Value, Failure> {
    let port = match arguments.operand(0) {
        Some(port) => port.parse()?,
        None => arguments.port.unwrap_or(FLOW_PORT),
    };
    let length = arguments.operand(1).map_or(Ok(Duration::ZERO), |_| arguments.duration(1))?;
    let socket = UdpSocket::bind((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
        .or_else(|_| UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)))?;
    enlarge(&socket);
    let answers = socket.try_clone()?;
    let mut receiver = Receiver::new(socket, TRY)?;
    print_line(&json!({ "command": "udp-sink", "port": port, "ready": true }));
    let mut flows = BTreeMap::<(SocketAddr, u32), FlowCounter>::new();
    let start = Instant::now();
    while length.is_zero() || start.elapsed() < length {
        let now = nanoseconds(start.elapsed());
        receiver.receive(|from, bytes, size| {
            let Ok((datagram, _)) = Datagram::decode(bytes) else {
                return;
            };
            let Some(from) = from else { return };
            let key = (from, datagram.flow);
            match datagram.kind {
                DatagramKind::Data => flows.entry(key).or_default().handle_datagram(
                    datagram.value,
                    size,
                    nanoseconds(start.elapsed()).max(now),
                ),
                DatagramKind::Query => {
                    let report = flows.get(&key).map_or(FlowReport::default(), FlowCounter::report);
                    let head = Datagram { kind: DatagramKind::Report, ..datagram };
                    let answer = [head.encode().as_slice(), report.encode().as_slice()].concat();
                    let _ = answers.send_to(&answer, from);
                }
                _ => {}
            }
        })?;
    }
    let seen: Vec<Value> = flows.iter().map(|((from, _), counter)| describe(*from, counter)).collect();
    Ok(json!({ "command": "udp-sink", "flows": seen, "ok": true }))
}

fn describe(from: SocketAddr, counter: &FlowCounter) -> Value {
    let report = counter.report();
    json!({
        "from": from.to_string(),
        "received": report.received,
        "missing": report.missing,
        "reordered": report.reordered,
        "received_per_second": per_second(report.received, Duration::from_nanos(report.nanoseconds)),
        "longest_gap_ms": report.longest_gap_nanoseconds as f64 / 1e6,
        "seconds": report.nanoseconds as f64 / 1e9,
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Receives many datagrams at once.
struct Receiver {
    socket: UdpSocket,
    buffer: Vec<u8>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Receiver {
    fn new(socket: UdpSocket, wait: Duration) -> std::io::Result<Self> {
        socket.set_read_timeout(Some(wait))?;
        Ok(Self { socket, buffer: vec![0; BATCH * ROOM], headers: MultiHeaders::preallocate(BATCH, None) })
    }

    /// Waits for datagrams and calls `handle` with the sender, the first bytes and the length of each.
    fn receive(&mut self, mut handle: impl FnMut(Option<SocketAddr>, &[u8], usize)) -> Result<(), Failure> {
        let mut slices: Vec<_> = self.buffer.chunks_mut(ROOM).map(|room| [IoSliceMut::new(room)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let results = match recvmmsg(self.socket.as_raw_fd(), &mut self.headers, &mut slices, flags, None) {
            Ok(results) => results.map(|result| (result.bytes, result.address)).collect::<Vec<_>>(),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(()),
            Err(error) if std::io::Error::from(error).kind() == ErrorKind::HostUnreachable => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for ((length, from), room) in results.into_iter().zip(self.buffer.chunks(ROOM)) {
            handle(from.and_then(address), room.get(..length).unwrap_or(room), length);
        }
        Ok(())
    }
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}
