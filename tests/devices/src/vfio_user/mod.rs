//! A vfio-user server: a model as a PCI device of QEMU's `vfio-user-pci`. Host.
//!
//! | file | holds |
//! |---|---|
//! | `protocol` | messages |
//! | `connection` | the socket, replies that are waited for |
//! | `irqs` | eventfds |
//! | `requests` | what QEMU asks for |
//! | `wire` | the cable |
//!
//! Two threads. One answers QEMU: while a register access waits for its answer the virtual CPU holds QEMU's lock, so this thread never
//! waits for memory. The other asks for transfers, waits for them without holding the model, and moves frames. Memory is reached by
//! VFIO_USER_DMA_READ and _WRITE, so that QEMU does it as the device, through the emulated IOMMU.

mod connection;
mod irqs;
pub mod protocol;
mod requests;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use crate::bus::{Model, Transfer};
use connection::Connection;
use irqs::Irqs;
use protocol::{LONGEST_DATA, command, dma_data, dma_request, flag};
use wire::Wire;

/// How far a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for QEMU.
    Waiting,
    /// QEMU is there.
    Connected,
    /// QEMU has gone, or was sent away for the reason given.
    Ended(Option<String>),
}

struct Inner<M> {
    model: M,
    irqs: Irqs,
    state: State,
}

struct Shared<M> {
    inner: Mutex<Inner<M>>,
    /// Set once QEMU has connected.
    connection: OnceLock<Connection>,
    /// Wakes the thread that transfers.
    work: EventFd,
    /// Wakes the thread that waits for QEMU.
    stop: EventFd,
    stopped: AtomicBool,
    /// Most bytes of data that QEMU takes in a message.
    longest: AtomicUsize,
    started: Instant,
}

fn wake(event: &EventFd) {
    // Its counter cannot be full, and nothing is to be done if it were.
    let _ = event.write(1);
}

impl<M: Model> Shared<M> {
    /// The model, at the time that it is now.
    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.model.handle_time(self.started.elapsed());
        inner
    }

    /// How long the model can be left alone; `None` where that is for ever.
    fn until_next(&self) -> Option<TimeSpec> {
        let at = self.lock().model.poll_time()?;
        // Past the time, not short of it.
        let left = at.saturating_sub(self.started.elapsed()) + Duration::from_micros(1);
        Some(TimeSpec::from(left))
    }

    /// Delivers interrupts, and has the rest done by the other thread.
    fn settle(&self, inner: &mut Inner<M>) {
        while let Some(interrupt) = inner.model.poll_interrupt() {
            inner.irqs.trigger(interrupt);
        }
        wake(&self.work);
    }

    fn stop(&self, reason: Option<String>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(inner.state, State::Ended(_)) {
            if let Some(reason) = &reason {
                log::error!("vfio-user: {reason}");
            }
            inner.state = State::Ended(reason);
        }
        drop(inner);
        self.stopped.store(true, Ordering::Release);
        if let Some(connection) = self.connection.get() {
            connection.close();
        }
        wake(&self.work);
        wake(&self.stop);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// A device that waits for QEMU, or serves it. It stops when dropped, and its socket goes with it.
pub struct Server<M: Model + Send + 'static> {
    shared: Arc<Shared<M>>,
    threads: Vec<JoinHandle<()>>,
    socket: PathBuf,
}

impl<M: Model + Send + 'static> Server<M> {
    /// Listens at `socket`, in place of a socket that was left there, and plugs the cable into the wire that listens at `wire`. QEMU is
    /// to be started after this.
    ///
    /// # Errors
    /// The socket cannot be made, or the wire does not answer.
    pub fn start(model: M, socket: PathBuf, wire: Option<PathBuf>) -> io::Result<Self> {
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let wire = wire.as_deref().map_or_else(|| Ok(Wire::unplugged()), Wire::connect)?;
        let listener = UnixListener::bind(&socket)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let irqs = Irqs::new(model.configuration().identity().vectors);
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { model, irqs, state: State::Waiting }),
            connection: OnceLock::new(),
            work: EventFd::from_flags(flags)?,
            stop: EventFd::from_flags(flags)?,
            stopped: AtomicBool::new(false),
            longest: AtomicUsize::new(LONGEST_DATA),
            started: Instant::now(),
        });
        let mut server = Self { shared, threads: Vec::new(), socket };
        let shared = Arc::clone(&server.shared);
        server.spawn("vfio-user", move || serve(&shared, &listener))?;
        let shared = Arc::clone(&server.shared);
        server.spawn("vfio-user dma", move || work(&shared, wire))?;
        Ok(server)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(body)?);
        Ok(())
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.shared.lock().state.clone()
    }

    /// Does something with the model, such as [`Model::set_link`], and then what follows from it.
    pub fn with_model<T>(&self, act: impl FnOnce(&mut M) -> T) -> T {
        let mut inner = self.shared.lock();
        let result = act(&mut inner.model);
        self.shared.settle(&mut inner);
        result
    }

    /// The driver's offences against the datasheet.
    pub fn misuse(&self) -> Vec<String> {
        self.shared.lock().model.misuse().to_vec()
    }
}

impl<M: Model + Send + 'static> Drop for Server<M> {
    fn drop(&mut self) {
        self.shared.stop(None);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Whether the other end has gone, whatever was under way.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Waits for QEMU, then answers it until it goes.
fn serve<M: Model>(shared: &Shared<M>, listener: &UnixListener) {
    let reason = match accept(shared, listener) {
        Ok(Some(connection)) => {
            answer(shared, connection).err().filter(|error| !is_gone(error)).map(|error| error.to_string())
        }
        Ok(None) => None,
        Err(error) => Some(error.to_string()),
    };
    shared.stop(reason);
}

fn accept<'a, M: Model>(shared: &'a Shared<M>, listener: &UnixListener) -> io::Result<Option<&'a Connection>> {
    listener.set_nonblocking(true)?;
    while !shared.is_stopped() {
        let mut descriptors =
            [listener.as_fd(), shared.stop.as_fd()].map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match ppoll(&mut descriptors, None, None) {
            Err(error) if error != Errno::EINTR => return Err(error.into()),
            _ => {}
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                let connection = shared.connection.get_or_init(|| Connection::new(stream));
                shared.lock().state = State::Connected;
                return Ok(Some(connection));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn answer<M: Model>(shared: &Shared<M>, connection: &Connection) -> io::Result<()> {
    while let Some(message) = connection.receive()? {
        if shared.is_stopped() {
            break;
        }
        if message.header.is_reply() {
            if !connection.handle_reply(message) {
                log::warn!("vfio-user: a reply that nobody waits for");
            }
            continue;
        }
        let header = message.header;
        let result = requests::handle(shared, message);
        connection.reply(header, result)?;
    }
    Ok(())
}

/// Transfers and frames, until the server stops.
fn work<M: Model>(shared: &Shared<M>, mut wire: Wire) {
    while !shared.is_stopped() {
        let mut descriptors = vec![PollFd::new(shared.work.as_fd(), PollFlags::POLLIN)];
        let cable = wire.descriptor();
        if let Some((descriptor, room)) = &cable {
            let events = if *room { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            descriptors.push(PollFd::new(descriptor.as_fd(), events));
        }
        let _ = ppoll(&mut descriptors, shared.until_next(), None);
        // Empties the counter; where it is empty already there is nothing to read.
        let _ = shared.work.read();
        while round(shared, &mut wire) {}
    }
}

/// What there is to do now. False where that was nothing.
fn round<M: Model>(shared: &Shared<M>, wire: &mut Wire) -> bool {
    let mut inner = shared.lock();
    wire.poll_read(|frame| {
        inner.model.handle_frame(frame);
    });
    let mut batch = inner.model.poll_dma();
    while let Some(frame) = inner.model.poll_frame() {
        wire.send(&frame);
    }
    while let Some(interrupt) = inner.model.poll_interrupt() {
        inner.irqs.trigger(interrupt);
    }
    drop(inner);
    wire.poll_write();
    if batch.is_empty() || shared.is_stopped() {
        return false;
    }
    if let Some(connection) = shared.connection.get()
        && let Err(error) = transfer(connection, &mut batch, shared.longest.load(Ordering::Relaxed))
        && !shared.is_stopped()
    {
        shared.stop((!is_gone(&error)).then(|| format!("a transfer cannot be asked for: {error}")));
    }
    shared.lock().model.handle_dma(batch);
    true
}

/// Asks for all transfers at once, then waits for all. What QEMU refuses stays undone.
fn transfer(connection: &Connection, batch: &mut [Transfer], longest: usize) -> io::Result<()> {
    let longest = longest.max(1);
    let mut replies = Vec::with_capacity(batch.len());
    for transfer in batch.iter() {
        for (number, piece) in transfer.data.chunks(longest).enumerate() {
            let address = transfer.address.wrapping_add((number * longest) as u64);
            let (command, data) =
                if transfer.write { (command::DMA_WRITE, piece) } else { (command::DMA_READ, &[][..]) };
            replies.push(connection.request(command, &dma_request(address, piece.len(), data))?);
        }
    }
    let mut replies = replies.into_iter();
    for transfer in batch {
        transfer.done = true;
        for piece in transfer.data.chunks_mut(longest) {
            let reply = replies
                .next()
                .and_then(|reply| reply.recv().ok())
                .filter(|reply| reply.header.flags & flag::ERROR == 0);
            let done = reply.is_some_and(|reply| {
                let data = dma_data(&reply.body, piece.len()).filter(|_| !transfer.write);
                if let Some(data) = data {
                    piece.copy_from_slice(data);
                }
                transfer.write || data.is_some()
            });
            transfer.done &= done;
        }
    }
    Ok(())
}
