//! Futures over the client machine: the [`Store`] that images use. Pure: no transport, no executor. Floor 1.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::machine::{Failure, Machine};
use crate::store::{Store, StoreError, Transaction, Watch};
use crate::xs_wire::{self, Kind, MESSAGE_MAX};

struct Shared {
    machine: RefCell<Machine>,
    kick: Box<dyn Fn()>,
}

/// A connection to the store, shared by all who hold a clone.
#[derive(Clone)]
pub struct Client(Rc<Shared>);

impl core::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.machine.fmt(formatter)
    }
}

impl Client {
    /// A client whose transport is told by `kick` that a message is to be sent. `kick` may call [`take_message`](Self::take_message) at once.
    pub fn new(kick: impl Fn() + 'static) -> Self {
        Self::of(Machine::default(), kick)
    }

    /// A client that sends a request when the one before was answered, be that a watch's end which nobody waits for. So the transport has to ask for
    /// messages whenever bytes of the store have come.
    pub fn one_at_a_time(kick: impl Fn() + 'static) -> Self {
        Self::of(Machine::one_at_a_time(), kick)
    }

    /// A client of a connection that another one had before, whose requests and watches had numbers below `number`: their answers and events
    /// are dropped, and its watches and transactions end.
    pub fn taking_over(number: u32, kick: impl Fn() + 'static) -> Self {
        Self::of(Machine::taking_over(number), kick)
    }

    fn of(machine: Machine, kick: impl Fn() + 'static) -> Self {
        Self(Rc::new(Shared { machine: RefCell::new(machine), kick: Box::new(kick) }))
    }

    /// Bytes that the store sent.
    pub fn handle_bytes(&self, bytes: &[u8]) {
        self.0.machine.borrow_mut().handle_bytes(bytes);
        // A reply that nobody awaits may have left something to be sent.
        if self.0.machine.borrow().has_message() {
            (self.0.kick)();
        }
    }

    /// Moves the message that is to be sent next into `buffer`; its length, 0 where there is none.
    pub fn take_message(&self, buffer: &mut [u8; MESSAGE_MAX]) -> usize {
        self.0.machine.borrow_mut().take_message(buffer)
    }

    /// The transport failed for good: every request ends with [`StoreError::Closed`].
    pub fn close(&self) {
        self.0.machine.borrow_mut().close();
    }

    /// Requests without a reply, and watches: what a leak would show in.
    pub fn live(&self) -> (usize, usize) {
        self.0.machine.borrow().live()
    }

    /// Has the store itself do something (`XS_CONTROL`), where it takes commands of this domain; its answer, without the zero that ends it.
    ///
    /// # Errors
    /// [`StoreError::Errno`] 22 (`EINVAL`) where it knows no such command, and others of the store.
    pub async fn control(&self, words: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
        let parts: Vec<&[u8]> = words.iter().flat_map(|word| [*word, b"\0"]).collect();
        let mut answer = self.request(Kind::CONTROL, Transaction::NONE, &parts).await?;
        answer.pop_if(|last| *last == 0);
        Ok(answer)
    }

    async fn request(&self, kind: Kind, transaction: Transaction, parts: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
        Ok(self.raw_request(kind, transaction, parts)?.await?)
    }

    fn raw_request(&self, kind: Kind, transaction: Transaction, parts: &[&[u8]]) -> Result<Reply<'_>, StoreError> {
        let id = self.0.machine.borrow_mut().submit(kind, transaction.0, parts)?;
        (self.0.kick)();
        Ok(Reply { client: self, id: Some(id) })
    }

    /// The names below `path`, piece by piece, from the start again where the node changed between two pieces.
    async fn directory_in_parts(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        let mut names = Vec::new();
        let mut generation = Vec::new();
        loop {
            let offset = names.len().to_string();
            let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", offset.as_bytes(), b"\0"];
            let reply = self.request(Kind::DIRECTORY_PART, transaction, &parts).await?;
            let end = reply.iter().position(|byte| *byte == 0).ok_or(StoreError::Malformed)?;
            let (seen, rest) = reply.split_at_checked(end).ok_or(StoreError::Malformed)?;
            let piece = rest.get(1..).unwrap_or_default();
            if names.is_empty() {
                generation = seen.to_vec();
            } else if generation != seen {
                names.clear();
                continue;
            }
            names.extend_from_slice(piece);
            // The last piece ends with an empty name.
            if names.len() <= 1 || names.ends_with(&[0, 0]) {
                names.pop();
                return Ok(names);
            }
            if piece.is_empty() {
                return Err(StoreError::Malformed);
            }
        }
    }
}

/// The reply to come; abandoned by `Drop`.
struct Reply<'a> {
    client: &'a Client,
    id: Option<u32>,
}

impl Future for Reply<'_> {
    type Output = Result<Vec<u8>, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else {
            return Poll::Ready(Err(Failure::Closed));
        };
        let mut machine = self.client.0.machine.borrow_mut();
        let poll = machine.poll_reply(id, context.waker());
        drop(machine);
        if poll.is_ready() {
            self.id = None;
        }
        poll
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.client.0.machine.borrow_mut().abandon(id);
            (self.client.0.kick)();
        }
    }
}

/// A watch; dropping it sends `UNWATCH` and waits for nothing.
#[derive(Debug)]
pub struct ClientWatch {
    client: Client,
    token: u32,
    registered: bool,
}

impl Watch for ClientWatch {
    async fn next(&mut self) -> String {
        poll_fn(|context| self.client.0.machine.borrow_mut().poll_event(self.token, context.waker())).await
    }
}

impl Drop for ClientWatch {
    fn drop(&mut self) {
        let mut machine = self.client.0.machine.borrow_mut();
        machine.close_watch(self.token, self.registered);
        drop(machine);
        (self.client.0.kick)();
    }
}

/// A reply's strings as text.
fn text_strings(payload: &[u8]) -> Result<Vec<String>, StoreError> {
    xs_wire::strings(payload)
        .map(|name| {
            let name = str::from_utf8(name).map_err(|_| StoreError::Malformed)?;
            Ok(name.into())
        })
        .collect()
}

impl Store for Client {
    type Watch = ClientWatch;

    async fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.request(Kind::READ, transaction, &[path.as_bytes(), b"\0"]).await
    }

    async fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        let parts: [&[u8]; 3] = [path.as_bytes(), b"\0", value];
        self.request(Kind::WRITE, transaction, &parts).await?;
        Ok(())
    }

    async fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let parts: [&[u8]; 2] = [path.as_bytes(), b"\0"];
        let names = match self.raw_request(Kind::DIRECTORY, transaction, &parts)?.await {
            Err(Failure::Errno(xs_wire::E2BIG)) => self.directory_in_parts(transaction, path).await?,
            other => other?,
        };
        text_strings(&names)
    }

    async fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.request(Kind::RM, transaction, &[path.as_bytes(), b"\0"]).await?;
        Ok(())
    }

    async fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let parts: [&[u8]; 2] = [path.as_bytes(), b"\0"];
        text_strings(&self.request(Kind::GET_PERMS, transaction, &parts).await?)
    }

    async fn set_permissions(&self, transaction: Transaction, path: &str, entries: &[&str]) -> Result<(), StoreError> {
        let mut parts: Vec<&[u8]> = [path.as_bytes(), b"\0"].into();
        for entry in entries {
            parts.extend([entry.as_bytes(), b"\0".as_slice()]);
        }
        self.request(Kind::SET_PERMS, transaction, &parts).await?;
        Ok(())
    }

    async fn start(&self) -> Result<Transaction, StoreError> {
        let reply = self.request(Kind::TRANSACTION_START, Transaction::NONE, &[b"\0"]).await?;
        let reply = reply.strip_suffix(&[0]).unwrap_or(&reply);
        let id = str::from_utf8(reply).map_err(|_| StoreError::Malformed)?;
        Ok(Transaction(id.parse().map_err(|_| StoreError::Malformed)?))
    }

    async fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let verdict: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.request(Kind::TRANSACTION_END, transaction, &[verdict]).await?;
        Ok(())
    }

    async fn watch(&self, path: &str) -> Result<Self::Watch, StoreError> {
        let (token, id) = self.0.machine.borrow_mut().open_watch(path)?;
        (self.0.kick)();
        // Dropped midway or refused, the watch ends itself; UNWATCH follows WATCH in the stream, so the order is right.
        let mut watch = ClientWatch { client: self.clone(), token, registered: true };
        let reply = Reply { client: self, id: Some(id) };
        if let Err(failure) = reply.await {
            watch.registered = false;
            return Err(match failure {
                // Too many watches (`do_watch` in xenstored_watch.c; 4.22 says ENOSPC).
                Failure::Errno(xs_wire::E2BIG) => StoreError::Quota,
                other => other.into(),
            });
        }
        Ok(watch)
    }
}
