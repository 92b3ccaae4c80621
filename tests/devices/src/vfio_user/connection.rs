//! The socket to QEMU: messages in with their file descriptors, messages out, and requests of ours that wait for their replies. Host.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSliceMut, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::protocol::{HEADER, Header, LONGEST, MOST_DESCRIPTORS, flag};

/// A message as it came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Requests without a reply. A message's id has 16 bits.
#[derive(Default)]
struct Waiting {
    next: u16,
    replies: HashMap<u16, Sender<Message>>,
    closed: bool,
}

/// A file descriptor that was received just now.
#[expect(unsafe_code, reason = "nix gives received descriptors as numbers")]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel opened it for this process with the message, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// The connection; several threads may send, one receives.
pub(super) struct Connection {
    stream: UnixStream,
    sending: Mutex<()>,
    waiting: Mutex<Waiting>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, sending: Mutex::default(), waiting: Mutex::default() }
    }

    /// Ends it for all threads.
    pub(super) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.closed = true;
        waiting.replies.clear();
    }

    /// The next message; `None` where the other end has gone.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        let mut descriptors = Vec::new();
        let mut head = [0; HEADER];
        if !self.fill(&mut head, &mut descriptors)? {
            return Ok(None);
        }
        let header = Header::parse(head);
        let length = usize::try_from(header.size).ok().and_then(|size| size.checked_sub(HEADER));
        let Some(length) = length.filter(|length| *length <= LONGEST) else {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a message of {} bytes", header.size)));
        };
        let mut body = vec![0; length];
        if !self.fill(&mut body, &mut descriptors)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Message { header, body, descriptors }))
    }

    /// Reads all of `bytes`, and the file descriptors on the way. False where the stream ended before the first.
    fn fill(&self, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let mut space = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
            let mut parts = [IoSliceMut::new(rest)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let received = match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => continue,
                received => received?,
            };
            for message in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(rights) = message {
                    descriptors.extend(rights.into_iter().map(own));
                }
            }
            match received.bytes {
                0 if filled == 0 => return Ok(false),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => filled += length,
            }
        }
        Ok(true)
    }

    /// Sends a message in one piece: QEMU wants each header whole in one read.
    fn send(&self, header: Header, body: &[u8]) -> io::Result<()> {
        let message = header.message(body);
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(&message)
    }

    /// Replies to `request`, unless it wants no reply.
    pub(super) fn reply(&self, request: Header, result: Result<Vec<u8>, u32>) -> io::Result<()> {
        let header = |flags, error| Header { flags, error, ..request };
        match result {
            _ if request.flags & flag::NO_REPLY != 0 => Ok(()),
            Ok(body) => self.send(header(flag::REPLY, 0), &body),
            Err(error) => self.send(header(flag::REPLY | flag::ERROR, error), &[]),
        }
    }

    /// Sends a request of ours. Its reply comes by what is returned, or never where the connection ends.
    pub(super) fn request(&self, command: u16, body: &[u8]) -> io::Result<Receiver<Message>> {
        let (sender, receiver) = channel();
        let id = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.closed || waiting.replies.len() > usize::from(u16::MAX) / 2 {
                return Err(ErrorKind::NotConnected.into());
            }
            while waiting.replies.contains_key(&waiting.next) {
                waiting.next = waiting.next.wrapping_add(1);
            }
            let id = waiting.next;
            waiting.next = id.wrapping_add(1);
            waiting.replies.insert(id, sender);
            id
        };
        self.send(Header { id, command, ..Header::default() }, body)?;
        Ok(receiver)
    }

    /// A reply came. False where nobody waits for it.
    pub(super) fn handle_reply(&self, message: Message) -> bool {
        let sender = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).replies.remove(&message.header.id);
        sender.is_some_and(|sender| sender.send(message).is_ok())
    }
}
