//! One QEMU NIC's end of the wire: a unix stream socket with framed Ethernet. Host.
//!
//! QEMU's `-netdev stream` (net/stream.c, since 7.2) puts the length of each frame before it, as four bytes, big-endian.
//! We listen and QEMU connects; when it goes away we wait for the next one.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

/// Bytes of the length before each frame.
pub(crate) const PREFIX: usize = 4;
/// Longest frame that QEMU passes on: `NET_BUFSIZE` of its net/net.h.
pub(crate) const LONGEST_FRAME: usize = 4096 + 65536;

/// A port that takes nothing for so long is dead: its NIC was taken away.
const DEAD: Duration = Duration::from_millis(500);

const READ: usize = 256 * 1024;
/// What the kernel may hold on the way to QEMU. More would only add latency, since all of it queues.
const SOCKET_BUFFER: usize = 512 * 1024;

/// A listening socket and, once QEMU has connected, the connection.
pub(crate) struct Port {
    path: PathBuf,
    listener: UnixListener,
    connection: Option<UnixStream>,
    /// Bytes read that are not a whole frame yet, at the start of `input`.
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    /// Since when QEMU took nothing of what waits.
    stuck: Option<Instant>,
    /// Frames thrown away because QEMU did not read.
    pub(crate) dropped: u64,
    /// How often QEMU has connected.
    pub(crate) connects: u64,
}

impl Port {
    /// Listens at `path`, in place of whatever socket was left there.
    pub(crate) fn listen(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            path,
            listener,
            connection: None,
            input: vec![0; READ + PREFIX + LONGEST_FRAME],
            filled: 0,
            output: Vec::new(),
            written: 0,
            stuck: None,
            dropped: 0,
            connects: 0,
        })
    }

    /// What to poll for new connections.
    pub(crate) fn listener_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// What to poll for frames, while QEMU is there.
    pub(crate) fn connection_fd(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Accepts QEMU if it waits; a new connection replaces the old one.
    pub(crate) fn poll_accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    let _ = setsockopt(&stream, sockopt::SndBuf, &SOCKET_BUFFER);
                    let _ = setsockopt(&stream, sockopt::RcvBuf, &SOCKET_BUFFER);
                    self.disconnect();
                    self.connection = Some(stream);
                    self.connects += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
        self.filled = 0;
        self.output.clear();
        self.written = 0;
        self.stuck = None;
    }

    /// Reads once and hands each whole frame to `handle_frame`. A length that no QEMU sends ends the connection.
    pub(crate) fn poll_read(&mut self, mut handle_frame: impl FnMut(&[u8])) {
        let Some(mut stream) = self.connection.as_ref() else {
            return;
        };
        let space = self.input.get_mut(self.filled..).unwrap_or_default();
        match stream.read(space) {
            Ok(0) => return self.disconnect(),
            Ok(length) => self.filled += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return;
            }
            Err(_) => return self.disconnect(),
        }
        let mut rest = self.input.get(..self.filled).unwrap_or_default();
        while let Some((prefix, bytes)) = rest.split_first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > LONGEST_FRAME {
                return self.disconnect();
            }
            let Some((frame, bytes)) = bytes.split_at_checked(length) else {
                break;
            };
            handle_frame(frame);
            rest = bytes;
        }
        let left = rest.len();
        self.input.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
    }

    /// Queues a frame for QEMU; without QEMU it goes nowhere, as on a cable that is not plugged in.
    pub(crate) fn send(&mut self, frame: &[u8], limit: usize) {
        if self.connection.is_none() {
            return;
        }
        if self.pending() > limit {
            self.dropped += 1;
            return;
        }
        self.output.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.output.extend_from_slice(frame);
    }

    /// Bytes that wait to be written.
    pub(crate) fn pending(&self) -> usize {
        self.output.len() - self.written
    }

    /// Whether QEMU has taken nothing for long of what waits.
    pub(crate) fn is_dead(&self) -> bool {
        self.stuck.is_some_and(|since| since.elapsed() >= DEAD)
    }

    /// Writes what QEMU takes now.
    pub(crate) fn poll_write(&mut self) {
        let before = self.pending();
        self.write();
        self.stuck = match self.pending() {
            0 => None,
            left if left < before => None,
            _ => self.stuck.or_else(|| Some(Instant::now())),
        };
    }

    fn write(&mut self) {
        while let Some(mut stream) = self.connection.as_ref() {
            let waiting = self.output.get(self.written..).unwrap_or_default();
            if waiting.is_empty() {
                break;
            }
            match stream.write(waiting) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.disconnect(),
            }
        }
        if self.written * 2 >= self.output.len() {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    /// QEMU reads nothing for a NIC that was taken away.
    #[test]
    fn a_port_that_takes_nothing_is_dead_until_it_does_and_holds_back_no_other() {
        let path = |name: &str| std::env::temp_dir().join(format!("oxidom-port-{}-{name}", std::process::id()));
        let mut port = Port::listen(path("dead")).expect("a socket");
        let mut qemu = UnixStream::connect(path("dead")).expect("a connection");
        port.poll_accept().expect("a connection");
        let frame = [0; 60_000];
        while port.pending() < SOCKET_BUFFER {
            port.send(&frame, usize::MAX);
            port.poll_write();
        }
        let other = Port::listen(path("other")).expect("a socket");
        let mut segment = Segment::new(vec![port, other], [2; 6]);
        segment.poll_write();
        assert!(segment.pending() > 0 && !segment.ports[0].is_dead());
        std::thread::sleep(DEAD);
        segment.poll_write();
        assert!(segment.ports[0].is_dead() && segment.pending() == 0);
        qemu.read_exact(&mut vec![0; 4 * frame.len()]).expect("frames");
        segment.poll_write();
        assert!(!segment.ports[0].is_dead());
    }
}
