//! Frames as they are, well-formed or not, through a packet socket (`packet(7)`). Linux user space, root.

use std::os::fd::AsRawFd;

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
    for frame in &frames {
        send(packets.as_raw_fd(), frame, MsgFlags::empty())?;
    }
    Ok(json!({ "command": "frames", "sent": frames.len(), "ok": true }))
}

/// The bytes of hexadecimal digits.
fn bytes(text: &str) -> Result<Vec<u8>, Failure> {
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2).ok_or("half a byte"));
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}
