//! `oxidom exporter`: the numbers of all driver domains for Prometheus and what speaks its format. Host.
//!
//! One thread serves one connection after the other, each for a bounded time: who scrapes is a program of this host, and the answer is the
//! same for all. A picture of the store is kept for a second, so that no scraper can keep the store busy.

mod http;
mod text;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use http::{Asked, HEAD};
pub(crate) use text::text;

/// How long a connection may take, from its first byte to the last one of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a picture of the store is kept.
const KEPT: Duration = Duration::from_secs(1);

/// Where scrapers are listened to.
#[derive(Debug)]
pub(crate) enum Place {
    /// At an address.
    Address(SocketAddr),
    /// At a socket in the file system, which root and its group may use.
    Path(PathBuf),
}

/// A connection of a scraper.
trait Stream: Read + Write {
    /// What a call may take at most.
    fn set_timeout(&self, timeout: Duration) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeout(&self, timeout: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(timeout)).and_then(|()| self.set_write_timeout(Some(timeout)))
    }
}

impl Stream for UnixStream {
    fn set_timeout(&self, timeout: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(timeout)).and_then(|()| self.set_write_timeout(Some(timeout)))
    }
}

/// Serves for good. `metrics` gives the text of now.
///
/// # Errors
/// The place cannot be listened at.
pub(crate) fn serve(place: &Place, metrics: impl FnMut() -> Result<String>) -> Result<()> {
    let mut exporter = Exporter { metrics, kept: None };
    match place {
        Place::Address(address) => {
            let listener = TcpListener::bind(address).with_context(|| format!("listening at {address}"))?;
            let address = listener.local_addr()?;
            if !address.ip().is_loopback() {
                eprintln!("warning: {address} is not of this host alone, and who reaches it is not asked for a name");
            }
            eprintln!("serving http://{address}/metrics");
            exporter.accept(|| listener.accept().map(|(stream, _)| stream))
        }
        Place::Path(path) => {
            let listener = listen(path)?;
            eprintln!("serving /metrics at {}", path.display());
            exporter.accept(|| listener.accept().map(|(stream, _)| stream))
        }
    }
}

/// A socket in the file system, in place of one that another exporter left.
fn listen(path: &Path) -> Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        if UnixStream::connect(path).is_ok() {
            bail!("{} is served already: end that exporter, or name another path", path.display());
        }
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(|| format!("{}", path.display()))?;
    Ok(listener)
}

struct Exporter<M> {
    metrics: M,
    /// The last answer, and when it was of now.
    kept: Option<(Instant, String)>,
}

impl<M: FnMut() -> Result<String>> Exporter<M> {
    fn accept<S: Stream>(&mut self, mut next: impl FnMut() -> std::io::Result<S>) -> Result<()> {
        loop {
            match next() {
                // A scraper that went away, or said nothing in time, costs itself.
                Ok(stream) => self.serve(stream).unwrap_or_default(),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    eprintln!("warning: no connection was taken: {error}");
                    std::thread::sleep(KEPT);
                }
            }
        }
    }

    fn serve(&mut self, mut stream: impl Stream) -> std::io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut head = Vec::new();
        let asked = loop {
            if let Some(asked) = http::parse(&head) {
                break asked;
            }
            let mut bytes = [0; 1024];
            let room = HEAD.saturating_sub(head.len()).min(bytes.len());
            stream.set_timeout(left(deadline)?)?;
            match stream.read(bytes.get_mut(..room).unwrap_or_default())? {
                0 => return Ok(()),
                count => head.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            }
        };
        let answer = match asked {
            Asked::Nothing(status, reason) => http::failure(status, reason, "GET /metrics has the metrics"),
            Asked::Metrics { body } => match self.now() {
                Ok(text) => http::metrics(text, body),
                Err(error) => {
                    eprintln!("warning: {error:#}");
                    http::failure(503, "Service Unavailable", "the xenstore was not read: the exporter's log says why")
                }
            },
        };
        // What the scraper does not take in time is not sent.
        let deadline = Instant::now() + PATIENCE;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            stream.set_timeout(left(deadline)?)?;
            let count = stream.write(rest)?;
            rest = rest.get(count..).unwrap_or_default();
            if count == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The text of now, or of a moment ago.
    fn now(&mut self) -> Result<&str> {
        if self.kept.as_ref().is_none_or(|(since, _)| since.elapsed() >= KEPT) {
            self.kept = None;
        }
        let (_, text) = match &mut self.kept {
            Some(kept) => kept,
            none => none.insert((Instant::now(), (self.metrics)()?)),
        };
        Ok(text)
    }
}

/// The time that is left; a socket's time-out must not be zero.
fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests;
