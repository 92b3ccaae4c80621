//! A small xenstore client on the kernel's `/dev/xen/xenbus`, for dom0 and for guests. Linux.
//!
//! One connection per thread: the device gives each opener its own watches. Messages are those of Xen's `io/xs_wire.h`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WATCH: u32 = 4;
const TRANSACTION_START: u32 = 6;
const TRANSACTION_END: u32 = 7;
const WRITE: u32 = 11;
const MKDIR: u32 = 12;
const RM: u32 = 13;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// A connection.
pub(crate) struct Store {
    device: File,
    /// Events that came, as `path` and `token` with a zero byte after each.
    events: VecDeque<Vec<u8>>,
    /// Of the requests that follow; 0 for none.
    transaction: u32,
}

impl Store {
    pub(crate) fn open() -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus")?;
        Ok(Self { device, events: VecDeque::new(), transaction: 0 })
    }

    pub(crate) fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.request(READ, &[path.as_bytes(), b"\0"])
    }

    pub(crate) fn write(&mut self, path: &str, value: &[u8]) -> io::Result<()> {
        self.request(WRITE, &[path.as_bytes(), b"\0", value]).map(drop)
    }

    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.request(RM, &[path.as_bytes(), b"\0"]).map(drop)
    }

    pub(crate) fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let names = self.request(DIRECTORY, &[path.as_bytes(), b"\0"])?;
        Ok(names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect())
    }

    pub(crate) fn watch(&mut self, path: &str) -> io::Result<()> {
        self.request(WATCH, &[path.as_bytes(), b"\0lab\0"]).map(drop)
    }

    /// Makes a node if there is none.
    pub(crate) fn make(&mut self, path: &str) -> io::Result<()> {
        self.request(MKDIR, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Begins a transaction, which the requests belong to until it is ended.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        let number = self.request(TRANSACTION_START, &[b"\0"])?;
        let number = String::from_utf8_lossy(&number).trim_end_matches('\0').parse();
        self.transaction = number.map_err(|_| io::Error::other("no number of a transaction"))?;
        Ok(())
    }

    /// Ends it; whether it was committed, where it was to be.
    pub(crate) fn end(&mut self, commit: bool) -> io::Result<bool> {
        let result = self.request(TRANSACTION_END, &[if commit { b"T\0" } else { b"F\0" }]);
        self.transaction = 0;
        match result {
            Ok(_) => Ok(commit),
            Err(error) if error.to_string().contains("EAGAIN") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Blocks until a watch fires.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.event()?;
        self.events.clear();
        Ok(())
    }

    /// The next event's path; blocks until there is one.
    pub(crate) fn event(&mut self) -> io::Result<String> {
        loop {
            if let Some(event) = self.events.pop_front() {
                let path = event.split(|byte| *byte == 0).next().unwrap_or_default();
                return Ok(String::from_utf8_lossy(path).into_owned());
            }
            if let (WATCH_EVENT, event) = self.receive()? {
                self.events.push_back(event);
            }
        }
    }

    /// Events that have come.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn request(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut message = Vec::with_capacity(16 + length);
        let timeless = matches!(kind, WATCH | TRANSACTION_START);
        let transaction = if timeless { 0 } else { self.transaction };
        for word in [kind, 0, transaction, length as u32] {
            message.extend_from_slice(&word.to_le_bytes());
        }
        parts.iter().for_each(|part| message.extend_from_slice(part));
        self.device.write_all(&message)?;
        loop {
            match self.receive()? {
                (WATCH_EVENT, event) => self.events.push_back(event),
                (ERROR, name) => {
                    let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
                    return Err(io::Error::other(format!("xenstore says {name}")));
                }
                (_, payload) => return Ok(payload),
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
