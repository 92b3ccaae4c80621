//! Messages: requests out of bytes, answers into bytes. Pure. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire as abi;
use xen_pv_sys::io::xs_wire::MessageHeader;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = size_of::<MessageHeader>();
/// Bytes of a payload, at most.
pub(crate) const PAYLOAD_MAX: usize = abi::XENSTORE_PAYLOAD_MAX;

/// A message longer than the protocol allows: what follows cannot be told from its payload any more, the connection is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// Its length.
    pub length: u32,
}

impl core::fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "a message of {} bytes is longer than the protocol allows", self.length)
    }
}

impl core::error::Error for ProtocolError {}

/// A whole message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) header: MessageHeader,
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message at the beginning of `bytes`; `None` where more are needed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let Ok((header, rest)) = MessageHeader::read_from_prefix(bytes) else {
            return Ok(None);
        };
        let length = usize::try_from(header.len).ok().filter(|length| *length <= PAYLOAD_MAX);
        let length = length.ok_or(ProtocolError { length: header.len })?;
        Ok(rest.get(..length).map(|payload| Self { header, payload }))
    }

    /// Its bytes, with the header.
    pub(crate) fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

/// The bytes that a message still lacks, given those at its beginning.
pub(crate) fn lacking(bytes: &[u8]) -> usize {
    let payload = MessageHeader::read_from_prefix(bytes).map_or(0, |(header, _)| header.len as usize);
    (HEADER_BYTES + payload).saturating_sub(bytes.len())
}

/// A message, whose payload, in parts, the caller has found to fit.
pub(crate) fn message(kind: u32, request: &MessageHeader, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(length).unwrap_or(u32::MAX);
    let header = MessageHeader { kind, req_id: request.req_id, tx_id: request.tx_id, len };
    let mut message = Vec::with_capacity(HEADER_BYTES + length);
    message.extend_from_slice(header.as_bytes());
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message
}
