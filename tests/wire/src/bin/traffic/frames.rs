//! Frames as they are, well-formed or not, through a packet socket (`packet(7)`). Linux user space, root.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, bind, send, socket};
use serde_json::{Value, json};

use crate::Failure;
use crate::arguments::Arguments;

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let interface = arguments.required(0)?;
    let frames: Vec<_> = arguments.others().iter().map(|text| bytes(text)).collect::<Result<_, _>>()?;
    let of_link = |address: &nix::ifaddrs::InterfaceAddress| {
        let link = address.address.filter(|address| address.family() == Some(AddressFamily::Packet));
        link.filter(|_| address.interface_name == interface)
    };
    let link = getifaddrs()?.find_map(|address| of_link(&address)).ok_or("no such interface")?;
    // Without a protocol: it sends, and receives nothing.
    let packets = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(packets.as_raw_fd(), &link)?;
    let (mut sent, end) = (0_u64, arguments.end(arguments.seconds));
    loop {
        for frame in &frames {
            let frame = varied(frame, &arguments.vary, sent);
            match send(packets.as_raw_fd(), &frame, MsgFlags::empty()) {
                Ok(_) => sent += 1,
                // The interface's queue is full.
                Err(Errno::ENOBUFS) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        if end.is_here() || !end.is_to_come() {
            return Ok(json!({ "command": "frames", "sent": sent, "ok": true }));
        }
    }
}

/// A frame with bytes of its own at the places that vary, which are those of a number, mixed; and with the checksums that go with them.
fn varied(frame: &[u8], places: &[(usize, usize)], number: u64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if places.is_empty() {
        return frame;
    }
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    for (at, length) in places {
        frame.iter_mut().skip(*at).take(*length).zip(mixed).for_each(|(byte, new)| *byte = new);
    }
    if frame.get(12..15) == Some(&[0x08, 0x00, 0x45]) {
        set_checksum(&mut frame, 14, 34, 24);
        if frame.get(23) == Some(&IGMP) {
            let end = frame.len();
            set_checksum(&mut frame, 34, end, 36);
        }
    }
    frame
}

/// IGMP's number as a protocol of IP (RFC 2236).
const IGMP: u8 = 2;

/// Makes the checksum (RFC 1071) of the bytes from `first` to `end`, at its place among them.
fn set_checksum(frame: &mut [u8], first: usize, end: usize, place: usize) {
    let Some(field) = frame.get_mut(place..place + 2) else {
        return;
    };
    field.fill(0);
    let words = frame.get(first..end).unwrap_or_default().chunks(2);
    let sum: u32 =
        words.map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (2 - word.len()))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !(((sum >> 16) + sum) as u16);
    if let Some(field) = frame.get_mut(place..place + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The bytes of hexadecimal digits.
fn bytes(text: &str) -> Result<Vec<u8>, Failure> {
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2).ok_or("half a byte"));
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_vary_alike_and_checksums_are_right() {
        let mut frame = vec![0; 46];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[23] = IGMP;
        let [one, other] = [1, 2].map(|number| varied(&frame, &[(31, 3), (39, 3)], number));
        assert!(one != other && one[31..34] == one[39..42]);
        let sum =
            |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum() };
        for part in [&one[14..34], &one[34..]] {
            assert_eq!(sum(part) % 0xffff, 0);
        }
        assert_eq!(varied(&frame, &[], 7), frame);
    }
}
