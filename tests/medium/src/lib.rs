//! The medium behind an emulated drive: a block server for QEMU, which forgets what was not flushed when its power is cut, and fails
//! where it is told to. Host.
//!
//! QEMU is started with a drive `file.driver=nbd,file.server.type=unix,file.server.path=PATH` after [`Medium::start`], which listens at
//! `PATH`. What it flushed is in the image file; what it wrote since is in memory alone, until [`Medium::cut_power`].
#![forbid(unsafe_code)]

mod cache;
mod faults;
mod nbd;
pub mod torture;

use std::fs::File;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use cache::{Loss, SECTOR};
pub use faults::{Fault, Kind, Request};

use cache::Cache;
use faults::Faults;

/// What requests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads.
    pub reads: u64,
    /// Writes, those of zeroes included.
    pub writes: u64,
    /// Flushes, writes that were to be durable at once included.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Requests that a fault was injected into.
    pub faults: u64,
}

/// What the server's threads share.
struct Shared {
    cache: Mutex<Cache>,
    faults: Mutex<Faults>,
    counters: Mutex<Counters>,
    /// How long each request takes at least, in microseconds.
    latency: AtomicU32,
    /// What [`Kind::Silence`] struck.
    unanswered: Mutex<Vec<nbd::Unanswered>>,
    /// The power is off: nothing is answered any more.
    off: AtomicBool,
    connections: Mutex<Vec<UnixStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A medium with its server; dropping it ends the server.
pub struct Medium {
    shared: Arc<Shared>,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Medium {
    /// Serves the image at a socket. The image's length is the drive's.
    ///
    /// # Errors
    /// What of the two cannot be opened.
    pub fn start(image: &Path, socket: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(image)?;
        let cache = Cache::new(file)?;
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared {
            cache: Mutex::new(cache),
            faults: Mutex::default(),
            counters: Mutex::default(),
            latency: AtomicU32::new(0),
            unanswered: Mutex::default(),
            off: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("medium".into()).spawn(move || serve(&listener, &serving))?;
        Ok(Self { shared, socket: socket.to_owned(), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        *lock(&self.shared.counters)
    }

    /// Sectors written and not flushed.
    pub fn unflushed(&self) -> usize {
        lock(&self.shared.cache).unflushed()
    }

    /// From now on, requests that touch these sectors fail as it says.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).add(fault);
    }

    /// From now on, each request takes so many microseconds at least, one after the other.
    pub fn slow_down(&self, microseconds: u32) {
        self.shared.latency.store(microseconds, Ordering::SeqCst);
    }

    /// Takes all faults back, and fails what was not answered.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
        self.fail_unanswered();
    }

    /// Fails what was not answered: QEMU does not reset its drive before.
    pub fn fail_unanswered(&self) {
        lock(&self.shared.unanswered).drain(..).for_each(|request| request.fail());
    }

    /// The power fails: no request is answered any more, and of what was not flushed a random part is lost, decided by `seed`.
    ///
    /// # Errors
    /// What the image's file refuses.
    pub fn cut_power(&self, seed: u64) -> io::Result<Loss> {
        self.shared.off.store(true, Ordering::SeqCst);
        for connection in lock(&self.shared.connections).drain(..) {
            connection.shutdown(std::net::Shutdown::Both).ok();
        }
        lock(&self.shared.cache).cut_power(seed)
    }

    /// The power is back.
    pub fn restore_power(&self) {
        self.shared.off.store(false, Ordering::SeqCst);
    }

    /// Makes all durable, as an orderly end of the machine would.
    ///
    /// # Errors
    /// What the image's file refuses.
    pub fn flush(&self) -> io::Result<()> {
        lock(&self.shared.cache).flush()
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        self.shared.off.store(true, Ordering::SeqCst);
        for connection in lock(&self.shared.connections).drain(..) {
            connection.shutdown(std::net::Shutdown::Both).ok();
        }
        // Wakes the listener, which then sees the end.
        lock(&self.shared.faults).end();
        UnixStream::connect(&self.socket).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        std::fs::remove_file(&self.socket).ok();
    }
}

/// Takes connections until the end; each has a thread.
fn serve(listener: &UnixListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if lock(&shared.faults).ended() {
            return;
        }
        let Ok(connection) = connection else {
            continue;
        };
        if shared.off.load(Ordering::SeqCst) {
            continue;
        }
        if let Ok(copy) = connection.try_clone() {
            lock(&shared.connections).push(copy);
        }
        let shared = Arc::clone(shared);
        // A client that goes, or talks nonsense, ends its connection alone.
        std::thread::spawn(move || nbd::talk(connection, &shared).ok());
    }
}
