//! Frames to send.

use crate::nic::MacAddress;
use alloc::vec::Vec;

/// A frame of no protocol, `payload` bytes behind its header, each byte telling its place.
pub(crate) fn ethernet(destination: MacAddress, source: MacAddress, payload: usize) -> Vec<u8> {
    let mut frame = Vec::from(destination);
    frame.extend(source);
    frame.extend([0x88, 0xb5]);
    frame.extend((0..payload).map(|place| (place % 251) as u8));
    frame
}
