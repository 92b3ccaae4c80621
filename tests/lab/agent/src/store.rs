//! A small xenstore client on the kernel's `/dev/xen/xenbus`, for dom0 and for guests. Linux.
//!
//! One connection per thread: the device gives each opener its own watches. Messages are those of Xen's `io/xs_wire.h`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Where xenstored listens in dom0.
pub(crate) const SOCKET: &str = "/run/xenstored/socket";

pub(crate) const DIRECTORY: u32 = 1;
pub(crate) const READ: u32 = 2;
pub(crate) const GET_PERMS: u32 = 3;
pub(crate) const WATCH: u32 = 4;
pub(crate) const TRANSACTION_START: u32 = 6;
pub(crate) const TRANSACTION_END: u32 = 7;
pub(crate) const WRITE: u32 = 11;
pub(crate) const RM: u32 = 13;
const SET_PERMS: u32 = 14;
pub(crate) const WATCH_EVENT: u32 = 15;
pub(crate) const ERROR: u32 = 16;

/// Whether an answer is this error.
pub(crate) fn is_error((kind, payload): &(u32, Vec<u8>), name: &str) -> bool {
    *kind == ERROR && payload.strip_suffix(&[0]) == Some(name.as_bytes())
}

/// A connection.
pub(crate) struct Store {
    device: File,
    events: VecDeque<Vec<u8>>,
}

impl Store {
    pub(crate) fn open() -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus")?;
        Ok(Self { device, events: VecDeque::new() })
    }

    /// As Xen's library does it: by xenstored's socket where there is one.
    pub(crate) fn open_as_library() -> io::Result<Self> {
        match UnixStream::connect(SOCKET) {
            Ok(socket) => Ok(Self { device: File::from(OwnedFd::from(socket)), events: VecDeque::new() }),
            Err(_) => Self::open(),
        }
    }

    pub(crate) fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.read_in(0, path)
    }

    pub(crate) fn read_in(&mut self, transaction: u32, path: &str) -> io::Result<Vec<u8>> {
        self.request(READ, transaction, &[path.as_bytes(), b"\0"])
    }

    pub(crate) fn write(&mut self, path: &str, value: &[u8]) -> io::Result<()> {
        self.write_in(0, path, value)
    }

    pub(crate) fn write_in(&mut self, transaction: u32, path: &str, value: &[u8]) -> io::Result<()> {
        self.request(WRITE, transaction, &[path.as_bytes(), b"\0", value]).map(drop)
    }

    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.request(RM, 0, &[path.as_bytes(), b"\0"]).map(drop)
    }

    pub(crate) fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let names = self.request(DIRECTORY, 0, &[path.as_bytes(), b"\0"])?;
        Ok(names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect())
    }

    pub(crate) fn watch(&mut self, path: &str) -> io::Result<()> {
        self.request(WATCH, 0, &[path.as_bytes(), b"\0lab\0"]).map(drop)
    }

    /// Starts a transaction; gives its number.
    pub(crate) fn start(&mut self) -> io::Result<u32> {
        let answer = self.request(TRANSACTION_START, 0, &[b"\0"])?;
        let number = std::str::from_utf8(&answer).ok().and_then(|text| text.trim_end_matches('\0').parse().ok());
        number.ok_or_else(|| io::Error::other("the store gave no number of a transaction"))
    }

    /// Commits it.
    pub(crate) fn commit(&mut self, transaction: u32) -> io::Result<()> {
        self.request(TRANSACTION_END, transaction, &[b"T\0"]).map(drop)
    }

    /// Asks for a write; the answer is left for [`Self::answer`].
    pub(crate) fn send_write(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.send(WRITE, 0, &[path.as_bytes(), b"\0", value.as_bytes()])
    }

    /// Asks for permissions, such as `n0 r1`; the answer is left for [`Self::answer`].
    pub(crate) fn send_permissions(&mut self, path: &str, entries: &str) -> io::Result<()> {
        let entries = entries.replace(' ', "\0");
        self.send(SET_PERMS, 0, &[path.as_bytes(), b"\0", entries.as_bytes(), b"\0"])
    }

    /// Blocks until a watch fires, and forgets all that fired meanwhile.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.next_event()?;
        self.events.clear();
        Ok(())
    }

    /// The next event of a watch: its path and token. Blocks.
    pub(crate) fn next_event(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let (WATCH_EVENT, event) = self.receive()? {
                self.events.push_back(event);
            }
        }
    }

    /// A request in a transaction, and its answer, whichever that is.
    pub(crate) fn ask(&mut self, kind: u32, transaction: u32, payload: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        self.send(kind, transaction, &[payload])?;
        self.any_answer()
    }

    fn request(&mut self, kind: u32, transaction: u32, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        self.send(kind, transaction, parts)?;
        self.answer()
    }

    fn send(&mut self, kind: u32, transaction: u32, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut message = Vec::with_capacity(16 + length);
        for word in [kind, 0, transaction, length as u32] {
            message.extend_from_slice(&word.to_le_bytes());
        }
        parts.iter().for_each(|part| message.extend_from_slice(part));
        self.device.write_all(&message)
    }

    /// The answer to what was asked last, which must be no error.
    pub(crate) fn answer(&mut self) -> io::Result<Vec<u8>> {
        match self.any_answer()? {
            (ERROR, name) => {
                let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
                Err(io::Error::other(format!("xenstore says {name}")))
            }
            (_, payload) => Ok(payload),
        }
    }

    fn any_answer(&mut self) -> io::Result<(u32, Vec<u8>)> {
        loop {
            match self.receive()? {
                (WATCH_EVENT, event) => self.events.push_back(event),
                answer => return Ok(answer),
            }
        }
    }

    fn receive(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let mut header = [0_u8; 16];
        self.device.read_exact(&mut header)?;
        let [k0, k1, k2, k3, .., l0, l1, l2, l3] = header;
        let mut payload = vec![0; u32::from_le_bytes([l0, l1, l2, l3]) as usize];
        self.device.read_exact(&mut payload)?;
        Ok((u32::from_le_bytes([k0, k1, k2, k3]), payload))
    }
}
