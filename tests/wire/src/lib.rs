//! The far end of the lab's wire: a peer with services at the other end of an emulated NIC's cable. Host.
//!
//! QEMU is started with `-netdev stream,id=n0,server=off,addr.type=unix,addr.path=PATH` after [`Wire::start`], which
//! listens at `PATH`. The peer answers ARP, neighbour discovery and pings, leases addresses by DHCP, answers
//! questions for names, and has the services
//! of [`protocol`] on IPv4 and IPv6. Tests can watch each frame, and put frames of their own on the wire.
#![forbid(unsafe_code)]

mod config;
mod device;
mod dhcp;
mod gather;
mod group;
mod names;
mod port;
pub mod protocol;
mod segment;
mod service;
mod stack;
mod stats;
mod timeline;
mod vlan;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

pub use config::{Config, Congestion};
pub use dhcp::{DhcpConfig, Mac};
pub use names::ADDRESS as NAMED;
pub use segment::{Captured, Direction, Observer};
pub use stats::{Stats, Transfer};
pub use timeline::Timeline;

use stack::{Command, Stack};

/// A running wire; it stops when dropped, and its sockets go with it.
pub struct Wire {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    config: Config,
}

impl Wire {
    /// Listens on the sockets of `config` and serves them from a thread of its own.
    pub fn start(config: Config) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (commands, receiver) = channel();
        let mut stack = Stack::new(&config, receiver, Arc::clone(&wake))?;
        let thread = std::thread::Builder::new().name("wire".into()).spawn(move || stack.run())?;
        Ok(Self { commands, wake, thread: Some(thread), config })
    }

    /// What the wire was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        let (reply, answer) = channel();
        self.command(Command::Stats(reply));
        answer.recv().unwrap_or_default()
    }

    /// Puts frames on the wire as they are, well-formed or not, towards the NICs.
    pub fn inject(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.command(Command::Inject(frames.into_iter().collect()));
    }

    /// The same for one frame at a time, from any thread, an observer's too.
    pub fn injector(&self) -> impl Fn(&[u8]) + Send + 'static {
        let (commands, wake) = (self.commands.clone(), Arc::clone(&self.wake));
        move |frame| {
            // As in `command`.
            let _ = commands.send(Command::Inject(vec![frame.to_vec()]));
            let _ = wake.write(1);
        }
    }

    /// Takes the frames captured so far (see [`Config::capture`] and [`Wire::set_capture`]), oldest first.
    pub fn captured(&self) -> Vec<Captured> {
        let (reply, answer) = channel();
        self.command(Command::Captured(reply));
        answer.recv().unwrap_or_default()
    }

    /// From now on remembers the last `frames` frames; 0 forgets all and stops.
    pub fn set_capture(&self, frames: usize) {
        self.command(Command::Capture(frames));
    }

    /// From now on shows each frame to `observer`, or to nobody.
    pub fn observe(&self, observer: Option<Observer>) {
        self.command(Command::Observe(observer));
    }

    /// From now on its ports are one group by LACP: no frame goes from one to another, and one towards the NICs goes to the port that its
    /// station was last heard on. Or they are apart again.
    pub fn set_group(&self, on: bool) {
        self.command(Command::Group(on));
    }

    /// From now on counts the bytes of TCP payload that services receive by such intervals; one that ran begins anew.
    pub fn start_timeline(&self, interval: Duration) {
        self.command(Command::StartTimeline(interval));
    }

    /// What was counted since then; none where that was never asked for.
    pub fn timeline(&self) -> Option<Timeline> {
        let (reply, answer) = channel();
        self.command(Command::Timeline(reply));
        answer.recv().ok()?
    }

    fn command(&self, command: Command) {
        // Both fail only when the thread has died, which the caller sees by empty answers.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
