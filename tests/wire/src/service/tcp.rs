//! TCP services: transfers, echo, discard, chargen. As many connections as come, each with a socket of its own. Host.

use std::time::Instant as Clock;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Duration;

use super::socket_address;
use crate::config::{Config, Congestion};
use crate::protocol::{
    CHARGEN_PORT, DISCARD_PORT, Digest, ECHO_PORT, Header, Pattern, TRANSFER_PORT, Trailer, UNBOUNDED,
};
use crate::stats::{Stats, Transfer};

/// Sockets that wait for a client on each port. A SYN that finds none is refused.
const IDLE: usize = 4;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

const PORTS: [u16; 4] = [TRANSFER_PORT, ECHO_PORT, DISCARD_PORT, CHARGEN_PORT];

pub(crate) struct TcpServices {
    connections: Vec<Connection>,
    buffer: usize,
    congestion: CongestionControl,
    timeout: Duration,
}

struct Connection {
    handle: SocketHandle,
    port: u16,
    session: Session,
}

enum Session {
    Listening,
    Header(Vec<u8>),
    Transfer(Box<Running>),
    Trailer(Vec<u8>),
    Echo,
    Discard,
    Chargen,
    Over,
}

struct Running {
    header: Header,
    since: Clock,
    receive_left: u64,
    received: u64,
    received_digest: Digest,
    send_left: u64,
    sent: u64,
    sent_digest: Digest,
    pattern: Pattern,
}

impl TcpServices {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            connections: Vec::new(),
            buffer: config.tcp_buffer,
            timeout: config.tcp_timeout.into(),
            congestion: match config.congestion {
                Congestion::None => CongestionControl::None,
                Congestion::Reno => CongestionControl::Reno,
                Congestion::Cubic => CongestionControl::Cubic,
            },
        }
    }

    /// Moves every connection on as far as its socket lets it.
    pub(crate) fn poll(&mut self, sockets: &mut SocketSet<'_>, stats: &mut Stats) {
        self.connections.retain_mut(|connection| {
            let socket = sockets.get_mut::<Socket<'_>>(connection.handle);
            let keep = connection.poll(socket, stats);
            if !keep {
                sockets.remove(connection.handle);
            }
            keep
        });
        for port in PORTS {
            let idle = self
                .connections
                .iter()
                .filter(|connection| connection.port == port && matches!(connection.session, Session::Listening))
                .count();
            for _ in idle..IDLE {
                self.listen(port, sockets);
            }
        }
    }

    fn listen(&mut self, port: u16, sockets: &mut SocketSet<'_>) {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(self.congestion);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(self.timeout));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        if socket.listen(port).is_ok() {
            self.connections.push(Connection { handle: sockets.add(socket), port, session: Session::Listening });
        }
    }
}

impl Connection {
    /// False when the connection is over and its socket can go.
    fn poll(&mut self, socket: &mut Socket<'_>, stats: &mut Stats) -> bool {
        if matches!(self.session, Session::Listening) {
            if !socket.may_recv() {
                // A handshake that was broken off leaves a socket that listens again, or a closed one.
                return socket.state() != State::Closed;
            }
            stats.tcp_accepted += 1;
            self.session = match self.port {
                ECHO_PORT => Session::Echo,
                DISCARD_PORT => Session::Discard,
                CHARGEN_PORT => Session::Chargen,
                _ => Session::Header(Vec::new()),
            };
        }
        if matches!(socket.state(), State::Closed | State::TimeWait) {
            if let Session::Transfer(running) = &self.session {
                stats.push_transfer(running.transfer(socket, false));
            }
            // What TimeWait still has to acknowledge goes out before the next poll.
            return socket.state() == State::TimeWait && !matches!(self.session, Session::Over) && {
                self.session = Session::Over;
                true
            };
        }
        match &mut self.session {
            Session::Echo => poll_echo(socket, stats),
            Session::Discard => poll_discard(socket, stats),
            Session::Chargen => poll_chargen(socket, stats),
            Session::Header(_) | Session::Transfer(_) | Session::Trailer(_) => self.poll_transfer(socket, stats),
            Session::Listening | Session::Over => {}
        }
        true
    }

    fn poll_transfer(&mut self, socket: &mut Socket<'_>, stats: &mut Stats) {
        if let Session::Header(bytes) = &mut self.session {
            let missing = Header::LENGTH.saturating_sub(bytes.len());
            let _ = socket.recv(|data| {
                let piece = data.get(..missing).unwrap_or(data);
                bytes.extend_from_slice(piece);
                (piece.len(), ())
            });
            if bytes.len() >= Header::LENGTH {
                match Header::decode(bytes) {
                    Ok(header) => self.session = Session::Transfer(Box::new(Running::new(header))),
                    Err(_) => return self.end(socket),
                }
            } else if !socket.may_recv() {
                return self.end(socket);
            }
        }
        if let Session::Transfer(running) = &mut self.session {
            running.poll_receive(socket, stats);
            running.poll_send(socket, stats);
            if running.receive_left > 0 || running.send_left > 0 {
                return;
            }
            let transfer = running.transfer(socket, true);
            let trailer = Trailer {
                sent: transfer.sent,
                sent_digest: transfer.sent_digest,
                received: transfer.received,
                received_digest: transfer.received_digest,
                nanoseconds: transfer.nanoseconds,
            };
            stats.push_transfer(transfer);
            self.session = Session::Trailer(trailer.encode().to_vec());
        }
        if let Session::Trailer(bytes) = &mut self.session {
            let Ok(sent) = socket.send_slice(bytes) else {
                return self.end(socket);
            };
            bytes.drain(..sent);
            if bytes.is_empty() {
                self.end(socket);
            }
        }
    }

    fn end(&mut self, socket: &mut Socket<'_>) {
        socket.close();
        self.session = Session::Discard;
    }
}

impl Running {
    fn new(header: Header) -> Self {
        let has = |flows: bool| if flows { header.bytes } else { 0 };
        Self {
            since: Clock::now(),
            receive_left: has(header.operation.server_receives()),
            received: 0,
            received_digest: Digest::new(header.check && header.operation.server_receives()),
            send_left: has(header.operation.server_sends()),
            sent: 0,
            sent_digest: Digest::new(header.check && header.operation.server_sends()),
            pattern: Pattern::new(header.random.then_some(header.server_seed())),
            header,
        }
    }

    fn poll_receive(&mut self, socket: &mut Socket<'_>, stats: &mut Stats) {
        while self.receive_left > 0 && socket.can_recv() {
            let most = usize::try_from(self.receive_left).unwrap_or(usize::MAX);
            let taken = socket.recv(|data| {
                let piece = data.get(..most).unwrap_or(data);
                self.received_digest.update(piece);
                (piece.len(), piece.len() as u64)
            });
            let Ok(taken) = taken else { break };
            self.received += taken;
            stats.tcp_received += taken;
            if self.header.bytes != UNBOUNDED {
                self.receive_left -= taken;
            }
        }
        if !socket.may_recv() {
            self.receive_left = 0;
            if self.header.bytes == UNBOUNDED {
                self.send_left = 0;
            }
        }
    }

    fn poll_send(&mut self, socket: &mut Socket<'_>, stats: &mut Stats) {
        while self.send_left > 0 && socket.can_send() {
            let most = usize::try_from(self.send_left).unwrap_or(usize::MAX);
            let given = socket.send(|room| {
                let length = room.len().min(most);
                let piece = room.get_mut(..length).unwrap_or_default();
                self.pattern.fill(piece);
                self.sent_digest.update(piece);
                (length, length as u64)
            });
            let Ok(given) = given else { break };
            self.sent += given;
            stats.tcp_sent += given;
            if self.header.bytes != UNBOUNDED {
                self.send_left -= given;
            }
        }
    }

    fn transfer(&self, socket: &Socket<'_>, complete: bool) -> Transfer {
        Transfer {
            peer: socket.remote_endpoint().map_or_else(|| ([0, 0, 0, 0], 0).into(), socket_address),
            received: self.received,
            received_digest: self.received_digest.value(),
            sent: self.sent,
            sent_digest: self.sent_digest.value(),
            nanoseconds: u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
            complete,
        }
    }
}

fn poll_echo(socket: &mut Socket<'_>, stats: &mut Stats) {
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let piece = socket.recv(|data| {
            let piece = data.get(..room).unwrap_or(data).to_vec();
            (piece.len(), piece)
        });
        let Ok(piece) = piece else { break };
        stats.tcp_received += piece.len() as u64;
        stats.tcp_sent += socket.send_slice(&piece).unwrap_or(0) as u64;
    }
    if !socket.may_recv() {
        socket.close();
    }
}

fn poll_discard(socket: &mut Socket<'_>, stats: &mut Stats) {
    while socket.can_recv() {
        let taken = socket.recv(|data| (data.len(), data.len()));
        stats.tcp_received += taken.unwrap_or(0) as u64;
    }
    if !socket.may_recv() {
        socket.close();
    }
}

fn poll_chargen(socket: &mut Socket<'_>, stats: &mut Stats) {
    poll_discard(socket, stats);
    while socket.can_send() {
        let given = socket.send(|room| {
            room.fill(0);
            (room.len(), room.len())
        });
        stats.tcp_sent += given.unwrap_or(0) as u64;
    }
}
