//! The xenstore's wire format (`io/xs_wire.h`) as its client speaks it. Pure: bytes in, bytes out. Floor 1.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire as abi;
pub use xen_pv_sys::io::xs_wire::MessageHeader;
use zerocopy::IntoBytes;

use crate::store::StoreError;

mod framing;

pub use framing::Framing;

/// Bytes of a message's header.
pub const HEADER_BYTES: usize = size_of::<MessageHeader>();
/// The longest payload (`XENSTORE_PAYLOAD_MAX`); who exceeds it loses the connection.
pub const PAYLOAD_MAX: usize = abi::XENSTORE_PAYLOAD_MAX;
/// The longest message.
pub const MESSAGE_MAX: usize = HEADER_BYTES + PAYLOAD_MAX;

/// What a message is (`enum xsd_sockmsg_type`); numbers that we do not know are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u32);

impl Kind {
    /// A command for the store itself.
    pub const CONTROL: Self = Self(abi::XS_CONTROL);
    /// The names below a node.
    pub const DIRECTORY: Self = Self(abi::XS_DIRECTORY);
    /// A node's value.
    pub const READ: Self = Self(abi::XS_READ);
    /// A node's permissions.
    pub const GET_PERMS: Self = Self(abi::XS_GET_PERMS);
    /// Registers a watch.
    pub const WATCH: Self = Self(abi::XS_WATCH);
    /// Takes it back.
    pub const UNWATCH: Self = Self(abi::XS_UNWATCH);
    /// Opens a transaction.
    pub const TRANSACTION_START: Self = Self(abi::XS_TRANSACTION_START);
    /// Ends it.
    pub const TRANSACTION_END: Self = Self(abi::XS_TRANSACTION_END);
    /// Sets a node's value.
    pub const WRITE: Self = Self(abi::XS_WRITE);
    /// Makes an empty node.
    pub const MKDIR: Self = Self(abi::XS_MKDIR);
    /// Removes a node.
    pub const RM: Self = Self(abi::XS_RM);
    /// Sets a node's permissions.
    pub const SET_PERMS: Self = Self(abi::XS_SET_PERMS);
    /// From the store: a watch fired.
    pub const WATCH_EVENT: Self = Self(abi::XS_WATCH_EVENT);
    /// From the store: the request failed.
    pub const ERROR: Self = Self(abi::XS_ERROR);
    /// Takes all watches back and ends all transactions.
    pub const RESET_WATCHES: Self = Self(abi::XS_RESET_WATCHES);
    /// A directory from an offset on, for those that do not fit.
    pub const DIRECTORY_PART: Self = Self(abi::XS_DIRECTORY_PART);
}

/// The numbers of `errno.h` that the store names (`xsd_errors`; `EQUOTA` is oxenstored's, in process.ml).
const ERRORS: [(&[u8], u16); 17] = [
    (b"EINVAL", 22),
    (b"EACCES", 13),
    (b"EEXIST", 17),
    (b"EISDIR", 21),
    (b"ENOENT", 2),
    (b"ENOMEM", 12),
    (b"ENOSPC", 28),
    (b"EIO", 5),
    (b"ENOTEMPTY", 39),
    (b"ENOSYS", 38),
    (b"EROFS", 30),
    (b"EBUSY", 16),
    (b"EAGAIN", 11),
    (b"EISCONN", 106),
    (b"E2BIG", 7),
    (b"EPERM", 1),
    (b"EQUOTA", EDQUOT),
];

/// `EDQUOT`.
const EDQUOT: u16 = 122;

/// `EINVAL`, which also stands for a name that the protocol does not know.
pub const EINVAL: u16 = 22;
/// `E2BIG`: the answer does not fit into a payload; in answer to a watch, the domain has as many as it may have.
pub const E2BIG: u16 = 7;

/// The number of an `ERROR` message's name.
pub fn errno(payload: &[u8]) -> u16 {
    let name = payload.strip_suffix(&[0]).unwrap_or(payload);
    ERRORS.iter().find(|(known, _)| *known == name).map_or(EINVAL, |(_, number)| *number)
}

/// What a refusal by number means to a caller.
pub fn refusal(errno: u16) -> StoreError {
    match errno {
        2 => StoreError::NotFound,
        13 | 1 => StoreError::Denied,
        11 => StoreError::Conflict,
        28 | EDQUOT => StoreError::Quota,
        E2BIG => StoreError::TooLong,
        other => StoreError::Errno(other),
    }
}

/// A payload would exceed [`PAYLOAD_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTooLong {
    /// Its length.
    pub length: usize,
}

/// Appends a message whose payload is `parts`, one after another, to `queue`.
///
/// # Errors
/// [`PayloadTooLong`], and nothing is appended.
pub fn encode(
    queue: &mut VecDeque<u8>,
    kind: Kind,
    request: u32,
    transaction: u32,
    parts: &[&[u8]],
) -> Result<(), PayloadTooLong> {
    let length = parts.iter().map(|part| part.len()).sum();
    let fits = u32::try_from(length).ok().filter(|_| length <= PAYLOAD_MAX);
    let header = MessageHeader {
        kind: kind.0,
        req_id: request,
        tx_id: transaction,
        len: fits.ok_or(PayloadTooLong { length })?,
    };
    queue.extend(header.as_bytes());
    for part in parts {
        queue.extend(*part);
    }
    Ok(())
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its header.
    pub header: MessageHeader,
    /// What followed.
    pub payload: Vec<u8>,
}

/// Cuts a stream of bytes into messages. Holds at most one.
#[derive(Debug, Default)]
pub struct Parser {
    header: MessageHeader,
    have: usize,
    payload: Vec<u8>,
}

impl Parser {
    /// Takes bytes from the front of `input` until a message is whole; none where more are needed.
    ///
    /// # Errors
    /// [`PayloadTooLong`]: what follows cannot be told from the payload any more, the connection is lost.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, PayloadTooLong> {
        while self.have < HEADER_BYTES {
            let Some((first, rest)) = input.split_first() else {
                return Ok(None);
            };
            if let Some(slot) = self.header.as_mut_bytes().get_mut(self.have) {
                *slot = *first;
            }
            self.have += 1;
            *input = rest;
        }
        let header = self.header;
        let length = usize::try_from(header.len).unwrap_or(usize::MAX);
        if length > PAYLOAD_MAX {
            return Err(PayloadTooLong { length });
        }
        let missing = length.saturating_sub(self.payload.len()).min(input.len());
        let (now, rest) = input.split_at_checked(missing).unwrap_or_default();
        self.payload.extend_from_slice(now);
        *input = rest;
        if self.payload.len() < length {
            return Ok(None);
        }
        self.have = 0;
        let payload = core::mem::take(&mut self.payload);
        Ok(Some(Message { header, payload }))
    }
}

/// A payload's strings: each ends with a zero byte, which the last may lack.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let payload = payload.strip_suffix(&[0]).unwrap_or(payload);
    let whole = if payload.is_empty() { None } else { Some(payload) };
    whole.into_iter().flat_map(|payload| payload.split(|byte| *byte == 0))
}

#[cfg(all(test, not(loom)))]
mod tests;
