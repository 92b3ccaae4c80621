//! The lab's end of its channel to dom0: many requests at a time over one virtio-serial port. Host.

use std::collections::HashMap;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab_agent::frame::{Frame, Kind};

type Waiting = Arc<Mutex<HashMap<u32, Sender<Frame>>>>;

/// The channel.
pub struct Channel {
    output: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU32,
    ready: Receiver<Frame>,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The command's exit status; 128 and more for a signal.
    pub status: i32,
    /// What it wrote, both streams in their order.
    pub output: Vec<u8>,
}

impl Channel {
    /// Connects to QEMU's socket, which appears soon after QEMU has started.
    pub fn connect(path: &Path) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error).context("QEMU did not open the lab's channel"),
            }
        };
        let waiting = Waiting::default();
        let (sender, ready) = channel();
        lock(&waiting).insert(0, sender);
        let mut input = BufReader::new(stream.try_clone()?);
        let receivers = Arc::clone(&waiting);
        thread::spawn(move || {
            while let Ok(frame) = Frame::read(&mut input) {
                if let Some(sender) = lock(&receivers).get(&frame.id) {
                    sender.send(frame).ok();
                }
            }
            // Hanging up on those who wait tells them.
            lock(&receivers).clear();
        });
        Ok(Self { output: Mutex::new(stream), waiting, next: AtomicU32::new(1), ready })
    }

    /// Waits a while for the agent to say that the toolstack is up; gives dom0's uptime then, in seconds.
    pub fn poll_ready(&self, wait: Duration) -> Result<Option<f64>> {
        match self.ready.recv_timeout(wait) {
            Ok(frame) => {
                let text = String::from_utf8_lossy(&frame.payload).into_owned();
                Ok(text.split(' ').next().and_then(|uptime| uptime.parse().ok()))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the channel to dom0 ended"),
        }
    }

    /// Sends a request and waits for its answer, showing output as it comes to `watch`.
    pub fn ask(&self, kind: Kind, payload: Vec<u8>, timeout: Duration, mut watch: impl FnMut(&[u8])) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        lock(&self.waiting).insert(id, sender);
        Frame::new(kind, id, payload).write(&mut *lock(&self.output)).context("the channel to dom0 is gone")?;
        let deadline = Instant::now() + timeout;
        let mut output = Vec::new();
        let result = loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(frame) if frame.kind == Kind::Output => {
                    watch(&frame.payload);
                    output.extend_from_slice(&frame.payload);
                }
                Ok(Frame { kind: Kind::Exit, payload, .. }) => {
                    let status = payload.try_into().map_or(-1, i32::from_le_bytes);
                    break Ok(Answer { status, output });
                }
                Ok(frame) => {
                    break Err(anyhow::anyhow!("the agent in dom0: {}", String::from_utf8_lossy(&frame.payload)));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(anyhow::anyhow!("dom0 or QEMU ended meanwhile"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    Frame::new(Kind::Kill, id, []).write(&mut *lock(&self.output)).ok();
                    let said = String::from_utf8_lossy(&output);
                    break Err(anyhow::anyhow!("no end within {timeout:?}; it had written:\n{said}"));
                }
            }
        };
        lock(&self.waiting).remove(&id);
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
