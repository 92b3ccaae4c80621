//! TCP transfers, or the same over SCTP (RFC 9260), as a client and as a server, over plain blocking sockets. Linux user space.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect as connect_socket,
    listen as listen_socket, socket,
};
use serde_json::{Value, json};
use wire::protocol::{Digest, Header, Operation, Pattern, TRANSFER_PORT, Trailer, UNBOUNDED};

use crate::arguments::{Arguments, End};
use crate::{Failure, print_line};

const PIECE: usize = 128 * 1024;

/// Bytes that went one way, and their digest.
#[derive(Clone, Copy, Default)]
struct Flow {
    bytes: u64,
    digest: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let to = arguments.host(TRANSFER_PORT)?;
    let verify = arguments.command == "tcp-verify";
    let check = verify || !arguments.plain;
    let header = |operation| -> Result<Header, Failure> {
        Ok(Header {
            operation,
            random: check,
            check,
            bytes: if arguments.seconds.is_some() || arguments.until.is_some() {
                UNBOUNDED
            } else {
                arguments.number(1)?
            },
            seed: arguments.seed,
        })
    };
    match arguments.command.as_str() {
        "tcp-send" => transfer(arguments, to, header(Operation::Send)?),
        "tcp-receive" => transfer(arguments, to, header(Operation::Receive)?),
        "tcp-both" => transfer(arguments, to, header(Operation::Both)?),
        _ => {
            let sent = transfer(arguments, to, header(Operation::Send)?)?;
            let received = transfer(arguments, to, header(Operation::Receive)?)?;
            let ok = sent["ok"] == json!(true) && received["ok"] == json!(true);
            Ok(json!({ "command": "tcp-verify", "send": sent, "receive": received, "ok": ok }))
        }
    }
}

fn connect(arguments: &Arguments, to: SocketAddr) -> Result<TcpStream, Failure> {
    if arguments.sctp {
        let socket = sctp(to)?;
        connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        // A one-to-one SCTP socket reads, writes and ends as a TCP one does (RFC 6458, 4).
        let stream = TcpStream::from(socket);
        limit(&stream, arguments.timeout)?;
        return Ok(stream);
    }
    let stream = TcpStream::connect_timeout(&to, arguments.timeout)?;
    stream.set_nodelay(true)?;
    limit(&stream, arguments.timeout)?;
    Ok(stream)
}

/// An SCTP socket for addresses of that family.
fn sctp(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?)
}

fn limit(stream: &TcpStream, timeout: Duration) -> std::io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

/// Runs one transfer as the client, and compares what the two sides say.
fn transfer(arguments: &Arguments, to: SocketAddr, header: Header) -> Result<Value, Failure> {
    let stream = connect(arguments, to)?;
    (&stream).write_all(&header.encode())?;
    let start = Instant::now();
    let end = arguments.end(arguments.seconds);
    let (sent, received) = exchange(
        &stream,
        header.operation.server_receives().then_some(header.seed),
        header.operation.server_sends().then_some(header.server_seed()),
        &header,
        &end,
    )?;
    // Who stops before its end ends the stream; what a server sends without end has no trailer that could be found.
    let bounded = header.bytes != UNBOUNDED;
    let mut trailer = None;
    if bounded || header.operation == Operation::Send {
        if !bounded {
            stream.shutdown(Shutdown::Write)?;
        }
        let mut bytes = [0; Trailer::LENGTH];
        (&stream).read_exact(&mut bytes)?;
        trailer = Some(Trailer::decode(&bytes)?);
    }
    let elapsed = start.elapsed();
    let ok = trailer.is_none_or(|trailer| {
        let there = (trailer.received, trailer.received_digest, trailer.sent, trailer.sent_digest);
        there == (sent.bytes, sent.digest, received.bytes, received.digest)
    });
    Ok(json!({
        "command": arguments.command,
        "sent": sent.bytes,
        "sent_digest": format!("{:016x}", sent.digest),
        "received": received.bytes,
        "received_digest": format!("{:016x}", received.digest),
        "checked": header.check && trailer.is_some(),
        "seconds": elapsed.as_secs_f64(),
        "mbit_per_second": rate(sent.bytes + received.bytes, elapsed),
        "ok": ok,
    }))
}

fn rate(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 * 8.0 / elapsed.as_secs_f64().max(1e-9) / 1e6
}

/// Sends and receives at the same time, each if there is a seed for it.
fn exchange(
    stream: &TcpStream,
    send: Option<u64>,
    receive: Option<u64>,
    header: &Header,
    end: &End,
) -> Result<(Flow, Flow), Failure> {
    std::thread::scope(|scope| {
        let sender = send.map(|seed| {
            let job = move || send_data(stream, seed, header, end).map_err(|error| error.to_string());
            // A thread only where both directions need one.
            if receive.is_some() { Ok(scope.spawn(job)) } else { Err(job()) }
        });
        let received = match receive {
            Some(_) => receive_data(stream, header, end)?,
            None => Flow::default(),
        };
        let sent = match sender {
            Some(Ok(thread)) => thread.join().map_err(|_| "the sender died")??,
            Some(Err(result)) => result?,
            None => Flow::default(),
        };
        Ok((sent, received))
    })
}

fn send_data(stream: &TcpStream, seed: u64, header: &Header, end: &End) -> std::io::Result<Flow> {
    let mut stream = stream;
    let mut pattern = Pattern::new(header.random.then_some(seed));
    let mut digest = Digest::new(header.check);
    let mut buffer = vec![0; PIECE];
    let mut bytes = 0;
    while bytes < header.bytes && !end.is_here() {
        let length = usize::try_from(header.bytes - bytes).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..length).unwrap_or_default();
        if header.random {
            pattern.fill(piece);
        }
        digest.update(piece);
        stream.write_all(piece)?;
        bytes += length as u64;
    }
    Ok(Flow { bytes, digest: digest.value() })
}

/// Receives what `header` says, or until `end` or the end of the stream.
fn receive_data(stream: &TcpStream, header: &Header, end: &End) -> std::io::Result<Flow> {
    let mut stream = stream;
    let mut digest = Digest::new(header.check);
    let mut buffer = vec![0; PIECE];
    let mut bytes = 0;
    while bytes < header.bytes && !end.is_here() {
        let most = usize::try_from(header.bytes - bytes).unwrap_or(PIECE).min(PIECE);
        match stream.read(buffer.get_mut(..most).unwrap_or_default()) {
            Ok(0) => break,
            Ok(length) => {
                digest.update(buffer.get(..length).unwrap_or_default());
                bytes += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Flow { bytes, digest: digest.value() })
}

/// Serves transfers until killed, each in a thread of its own.
pub(crate) fn serve(arguments: &Arguments) -> Result<Value, Failure> {
    let port = match arguments.operand(0) {
        Some(port) => port.parse()?,
        None => arguments.port.unwrap_or(TRANSFER_PORT),
    };
    let listener = if arguments.sctp { listen_sctp(port)? } else { listen(port)? };
    print_line(&json!({ "command": "tcp-serve", "port": port, "ready": true }));
    let timeout = arguments.timeout;
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !arguments.sctp {
            stream.set_nodelay(true)?;
        }
        std::thread::spawn(move || match serve_one(&stream, timeout) {
            Ok(trailer) => print_line(&json!({
                "peer": peer.to_string(), "received": trailer.received, "sent": trailer.sent,
                "seconds": trailer.nanoseconds as f64 / 1e9, "ok": true,
            })),
            Err(error) => print_line(&json!({ "peer": peer.to_string(), "error": error.to_string(), "ok": false })),
        });
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    // The unspecified IPv6 address takes IPv4 too; a kernel without IPv6 gets the other.
    TcpListener::bind((IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
        .or_else(|_| TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)))
}

fn listen_sctp(port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let socket = sctp(address)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen_socket(&socket, Backlog::new(8)?)?;
    Ok(TcpListener::from(socket))
}

fn serve_one(stream: &TcpStream, timeout: Duration) -> Result<Trailer, Failure> {
    limit(stream, timeout)?;
    let mut bytes = [0; Header::LENGTH];
    let mut input = stream;
    input.read_exact(&mut bytes)?;
    let start = Instant::now();
    let header = Header::decode(&bytes)?;
    let (sent, received) = exchange(
        stream,
        header.operation.server_sends().then_some(header.server_seed()),
        header.operation.server_receives().then_some(header.seed),
        &header,
        &End::NEVER,
    )?;
    let trailer = Trailer {
        sent: sent.bytes,
        sent_digest: sent.digest,
        received: received.bytes,
        received_digest: received.digest,
        nanoseconds: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
    };
    input.write_all(&trailer.encode())?;
    Ok(trailer)
}
