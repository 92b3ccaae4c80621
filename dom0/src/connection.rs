//! A connection to the xenstore from dom0, and the loop that moves its bytes while a future waits. Host.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use split_driver::time::{Instant, Timer};
use split_driver::xenstore_client::Client;
use split_driver::xs_wire::MESSAGE_MAX;

/// Where a xenstored in dom0 listens; the kernel's device knows a store in a domain as well.
const SOCKET: &str = "/run/xenstored/socket";
const DEVICE: &str = "/dev/xen/xenbus";

/// A connection.
pub(crate) struct Connection {
    file: File,
    client: Client,
    clock: HostClock,
}

impl Connection {
    /// Connects as Xen's own library does: by the socket of a xenstored where there is one, else by the kernel.
    ///
    /// # Errors
    /// Where neither can be had.
    pub(crate) fn open() -> Result<Self> {
        let clock = HostClock::default();
        if let Ok(socket) = UnixStream::connect(SOCKET) {
            return Ok(Self { file: File::from(OwnedFd::from(socket)), client: Client::new(|| ()), clock });
        }
        let file = OpenOptions::new().read(true).write(true).open(DEVICE).with_context(|| {
            format!("no xenstore: neither {SOCKET} nor {DEVICE} can be opened; run this as root in dom0, under Xen")
        })?;
        // Linux keeps one message for each who has the device open, and a second request overwrites the first
        // (`struct xenbus_file_priv` in drivers/xen/xenbus/xenbus_dev_frontend.c).
        Ok(Self { file, client: Client::one_at_a_time(|| ()), clock })
    }

    /// The store.
    pub(crate) fn store(&self) -> &Client {
        &self.client
    }

    /// The clock on which a future given to [`Connection::run`] sleeps.
    pub(crate) fn clock(&self) -> HostClock {
        self.clock.clone()
    }

    /// Runs a future to its end, and moves the connection's bytes meanwhile.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        let mut future = pin!(future);
        loop {
            self.clock.0.earliest.set(None);
            let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            self.send().context("the connection to the xenstore broke")?;
            if let Poll::Ready(value) = polled {
                return Ok(value);
            }
            self.receive().context("the connection to the xenstore broke")?;
        }
    }

    fn send(&self) -> std::io::Result<()> {
        let mut message = [0; MESSAGE_MAX];
        loop {
            match self.client.take_message(&mut message) {
                0 => return Ok(()),
                length => (&self.file).write_all(message.get(..length).unwrap_or_default())?,
            }
        }
    }

    /// Waits for bytes of the store, or for the earliest time that somebody sleeps until.
    fn receive(&self) -> std::io::Result<()> {
        let now = self.clock.now();
        let timeout = match self.clock.0.earliest.get() {
            None => PollTimeout::NONE,
            // Rounded up, so that the time has come.
            Some(until) => {
                let milliseconds = until.0.saturating_sub(now.0).div_ceil(1_000_000);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut files = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut files, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; MESSAGE_MAX];
        match (&self.file).read(&mut bytes)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.client.handle_bytes(bytes.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// The host's monotonic clock.
#[derive(Clone)]
pub(crate) struct HostClock(Rc<Inner>);

struct Inner {
    start: std::time::Instant,
    /// The earliest time that a sleeper of this round waits for.
    earliest: Cell<Option<Instant>>,
}

impl Default for HostClock {
    fn default() -> Self {
        Self(Rc::new(Inner { start: std::time::Instant::now(), earliest: Cell::new(None) }))
    }
}

impl Timer for HostClock {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.0.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        std::future::poll_fn(|_| {
            if self.now() >= until {
                return Poll::Ready(());
            }
            let earliest = self.0.earliest.get().map_or(until, |earliest| earliest.min(until));
            self.0.earliest.set(Some(earliest));
            Poll::Pending
        })
        .await;
    }
}
