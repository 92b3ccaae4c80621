//! The device's cable: frames over a unix stream socket, as QEMU's `-netdev stream` has them (net/stream.c). Host.
//!
//! The length of each frame stands before it, four bytes, big-endian.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

const PREFIX: usize = 4;
/// Longest frame, `NET_BUFSIZE` of QEMU's net/net.h.
const LONGEST: usize = 4096 + 65536;
/// Bytes taken at once. The device reaches memory by messages, which is slower than its packet memory fills: what it has not got round to waits
/// in the socket, as a real wire is no faster than the bus behind it.
const READ: usize = 8 << 10;
/// Bytes that may wait for the other end; frames beyond are lost, as on a cable.
const MOST_WAITING: usize = 4 << 20;

/// One end of the cable.
pub(super) struct Wire {
    stream: Option<UnixStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

impl Wire {
    /// A cable that leads nowhere.
    pub(super) const fn unplugged() -> Self {
        Self { stream: None, input: Vec::new(), output: Vec::new(), written: 0 }
    }

    /// Connects to the socket at `path`.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)
            .map_err(|error| io::Error::new(error.kind(), format!("the wire {}: {error}", path.display())))?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream: Some(stream), ..Self::unplugged() })
    }

    /// To poll for frames, and whether for room too.
    pub(super) fn descriptor(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.stream.as_ref().map(|stream| (stream.as_fd(), self.written < self.output.len()))
    }

    /// Hands over each frame that has come.
    pub(super) fn poll_read(&mut self, mut handle_frame: impl FnMut(&[u8])) {
        let Some(mut stream) = self.stream.as_ref() else { return };
        let filled = self.input.len();
        self.input.resize(filled + READ, 0);
        let read = stream.read(self.input.get_mut(filled..).unwrap_or_default());
        self.input.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.stream = None,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => self.stream = None,
            _ => {}
        }
        let mut rest = self.input.as_slice();
        while let Some((prefix, bytes)) = rest.split_first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > LONGEST {
                self.stream = None;
                self.input.clear();
                return;
            }
            let Some((frame, bytes)) = bytes.split_at_checked(length) else { break };
            handle_frame(frame);
            rest = bytes;
        }
        let used = self.input.len() - rest.len();
        self.input.drain(..used);
    }

    /// Queues a frame.
    pub(super) fn send(&mut self, frame: &[u8]) {
        if self.stream.is_some() && self.output.len() - self.written < MOST_WAITING {
            self.output.extend((frame.len() as u32).to_be_bytes());
            self.output.extend_from_slice(frame);
        }
    }

    /// Writes as much as the other end takes now.
    pub(super) fn poll_write(&mut self) {
        while let Some(mut stream) = self.stream.as_ref()
            && let Some(waiting) = self.output.get(self.written..).filter(|waiting| !waiting.is_empty())
        {
            match stream.write(waiting) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.stream = None,
            }
        }
        if self.stream.is_none() || self.written * 2 >= self.output.len() {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }
}
