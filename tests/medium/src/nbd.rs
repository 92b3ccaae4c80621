//! The network block device protocol, server side, as far as QEMU speaks it: fixed newstyle negotiation, simple replies. Host.
//!
//! Numbers are those of the NBD project's `doc/proto.md`.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cache::SECTOR;
use crate::faults::{Kind, Request};
use crate::{Shared, lock};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// `NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`.
const HANDSHAKE_FLAGS: u16 = 1 | 2;
/// `NBD_FLAG_HAS_FLAGS`, `_SEND_FLUSH`, `_SEND_FUA`, `_SEND_TRIM`, `_SEND_WRITE_ZEROES`.
const TRANSMISSION_FLAGS: u16 = 1 | 4 | 8 | 32 | 64;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_TRIM: u16 = 4;
const CMD_WRITE_ZEROES: u16 = 6;
const CMD_FLAG_FUA: u16 = 1;

const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// Bytes of an option's data, or of a request's, at most.
const MAX_OPTION: u32 = 64 << 10;
const MAX_REQUEST: u32 = 32 << 20;

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16_from(from: &mut impl Read) -> io::Result<u16> {
    array(from).map(u16::from_be_bytes)
}

fn u32_from(from: &mut impl Read) -> io::Result<u32> {
    array(from).map(u32::from_be_bytes)
}

fn u64_from(from: &mut impl Read) -> io::Result<u64> {
    array(from).map(u64::from_be_bytes)
}

fn bytes_from(from: &mut impl Read, length: u32, limit: u32) -> io::Result<Vec<u8>> {
    if length > limit {
        return Err(bad("too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Serves one client until it goes.
pub(crate) fn talk(connection: UnixStream, shared: &Shared) -> io::Result<()> {
    let to = Arc::new(Mutex::new(connection.try_clone()?));
    let mut from = BufReader::new(connection);
    negotiate(&mut from, &mut *lock(&to), lock(&shared.cache).bytes())?;
    while request(&mut from, &to, shared)? {}
    Ok(())
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    to: Arc<Mutex<UnixStream>>,
    handle: u64,
}

impl Unanswered {
    /// Answers it with an error after all. Nobody minds if the client has gone.
    pub(crate) fn fail(&self) {
        answer(&self.to, self.handle, EIO, &[]).ok();
    }
}

fn answer(to: &Mutex<UnixStream>, handle: u64, error: u32, data: &[u8]) -> io::Result<()> {
    let head = [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &handle.to_be_bytes()].concat();
    let mut to = lock(to);
    to.write_all(&head)?;
    to.write_all(data)
}

/// From the greeting to the transmission phase.
fn negotiate(from: &mut impl Read, to: &mut impl Write, bytes: u64) -> io::Result<()> {
    to.write_all(&[&NBDMAGIC.to_be_bytes()[..], &IHAVEOPT.to_be_bytes(), &HANDSHAKE_FLAGS.to_be_bytes()].concat())?;
    let no_zeroes = u32_from(from)? & 2 != 0;
    loop {
        if u64_from(from)? != IHAVEOPT {
            return Err(bad("no option"));
        }
        let option = u32_from(from)?;
        let length = u32_from(from)?;
        bytes_from(from, length, MAX_OPTION)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let head = [&REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()].concat();
            to.write_all(&[&head, &(data.len() as u32).to_be_bytes()[..], data].concat())
        };
        match option {
            OPT_EXPORT_NAME => {
                let zeroes = if no_zeroes { 0 } else { 124 };
                let head = [&bytes.to_be_bytes()[..], &TRANSMISSION_FLAGS.to_be_bytes()].concat();
                return to.write_all(&[head, vec![0; zeroes]].concat());
            }
            OPT_ABORT => {
                reply(REP_ACK, &[])?;
                return Err(bad("aborted"));
            }
            OPT_INFO | OPT_GO => {
                let export = [&INFO_EXPORT.to_be_bytes()[..], &bytes.to_be_bytes(), &TRANSMISSION_FLAGS.to_be_bytes()];
                reply(REP_INFO, &export.concat())?;
                let sizes = [SECTOR as u32, 4096, MAX_REQUEST].map(u32::to_be_bytes).concat();
                reply(REP_INFO, &[&INFO_BLOCK_SIZE.to_be_bytes()[..], &sizes].concat())?;
                reply(REP_ACK, &[])?;
                if option == OPT_GO {
                    return Ok(());
                }
            }
            _ => reply(REP_ERR_UNSUP, &[])?,
        }
    }
}

/// One request; false where the client says goodbye.
fn request(from: &mut impl Read, to: &Arc<Mutex<UnixStream>>, shared: &Shared) -> io::Result<bool> {
    if u32_from(from)? != REQUEST_MAGIC {
        return Err(bad("no request"));
    }
    let (flags, command) = (u16_from(from)?, u16_from(from)?);
    let (handle, offset, length) = (u64_from(from)?, u64_from(from)?, u32_from(from)?);
    let data = match command {
        CMD_DISC => return Ok(false),
        CMD_WRITE => bytes_from(from, length, MAX_REQUEST)?,
        CMD_READ if length > MAX_REQUEST => return Err(bad("too long")),
        _ => Vec::new(),
    };
    let latency = shared.latency.load(Ordering::SeqCst);
    if latency > 0 {
        std::thread::sleep(Duration::from_micros(latency.into()));
    }
    let Some((error, data)) = obey(shared, flags, command, offset, length, &data) else {
        lock(&shared.unanswered).push(Unanswered { to: Arc::clone(to), handle });
        return Ok(true);
    };
    if shared.off.load(Ordering::SeqCst) {
        return Ok(false);
    }
    answer(to, handle, error, &data)?;
    Ok(true)
}

/// Does it: an error number (0 for none) and what was read; `None` where no answer is to be given.
fn obey(shared: &Shared, flags: u16, command: u16, offset: u64, length: u32, data: &[u8]) -> Option<(u32, Vec<u8>)> {
    let kind = match command {
        CMD_READ => Request::Read,
        CMD_WRITE | CMD_WRITE_ZEROES => Request::Write,
        CMD_FLUSH => Request::Flush,
        CMD_TRIM => Request::Discard,
        _ => return Some((EINVAL, Vec::new())),
    };
    let durable = flags & CMD_FLAG_FUA != 0;
    let fault = lock(&shared.faults).strike(kind, offset, length.into());
    count(shared, kind, durable, fault.is_some());
    match fault {
        Some(Kind::Error) => return Some((EIO, Vec::new())),
        Some(Kind::Silence) => return None,
        None => {}
    }
    let mut cache = lock(&shared.cache);
    // The cache's lock orders this with the power cut: what comes after it changes nothing any more.
    if shared.off.load(Ordering::SeqCst) {
        return None;
    }
    if command != CMD_FLUSH && !cache.holds(offset, length.into()) {
        return Some((EINVAL, Vec::new()));
    }
    let mut answer = Vec::new();
    let result = match command {
        CMD_READ => {
            answer = vec![0; length as usize];
            cache.read(offset, &mut answer)
        }
        CMD_FLUSH => cache.flush(),
        // What is discarded reads as zeroes, as a drive with deterministic trim has it.
        CMD_TRIM | CMD_WRITE_ZEROES => cache.zero(offset, length.into()),
        _ => {
            cache.write(offset, data);
            Ok(())
        }
    };
    let result = result.and_then(|()| if durable { cache.flush_range(offset, length.into()) } else { Ok(()) });
    Some(match result {
        Ok(()) => (0, answer),
        Err(_) => (EIO, Vec::new()),
    })
}

fn count(shared: &Shared, kind: Request, durable: bool, fault: bool) {
    let mut counters = lock(&shared.counters);
    match kind {
        Request::Read => counters.reads += 1,
        Request::Write => counters.writes += 1,
        Request::Flush => counters.flushes += 1,
        Request::Discard => counters.discards += 1,
    }
    counters.flushes += u64::from(durable);
    counters.faults += u64::from(fault);
}
