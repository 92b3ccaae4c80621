//! Which frames a guest may send, as docs/NETWORKING.md has it for a vif with `ip=`; and messages of ARP and DHCP. Host.

use super::packet::{ICMP, IGMP, START, UDP, address, word};
use super::terms::Guest;
use netdom::ethernet::MacAddress;
use std::net::Ipv4Addr;

/// A message of ARP: whether it asks, the sender, and the address that it is about.
pub(super) fn arp(bytes: &[u8]) -> Option<(bool, (MacAddress, Ipv4Addr), Ipv4Addr)> {
    let message = bytes.get(START..START + 28)?;
    let asks = match message[..8] {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return None,
    };
    let mac = MacAddress(*message[8..].first_chunk()?);
    Some((asks, (mac, address(message, 14)), address(message, 24)))
}

/// Whether a message of DHCP is a client's (RFC 2131, 2), for its sender's Ethernet address, and came by no relay.
pub(super) fn is_own_message(message: &[u8], sender: &[u8]) -> bool {
    message.len() >= 240
        && message[..3] == [1, 1, 6]
        && message[24..28] == [0; 4]
        && message[28..34] == *sender
        && message[236..240] == [99, 130, 83, 99]
}

/// Whether the guest may use an address.
fn may_use(guest: &Guest, address: Ipv4Addr) -> bool {
    let within = |(first, length): (Ipv4Addr, u8)| (first.to_bits() ^ address.to_bits()) >> (32 - length) == 0;
    guest.addresses.contains(&address) || guest.prefix.is_some_and(within)
}

/// Whether a guest may send a frame.
pub(super) fn permits(guest: &Guest, bytes: &[u8]) -> bool {
    if bytes[6..12] != guest.mac.0 {
        return false;
    }
    match word(bytes, 12) {
        Some(0x0800) => permits_ipv4(guest, bytes),
        // An operation that is none harms nobody.
        Some(0x0806) if bytes.len() >= START + 28 && bytes[START..START + 6] == [0, 1, 8, 0, 6, 4] => {
            let (sender, target) = (address(bytes, START + 14), address(bytes, START + 24));
            let claimed = if sender.is_unspecified() { target } else { sender };
            bytes[START + 8..START + 14] == guest.mac.0 && may_use(guest, claimed)
        }
        _ => false,
    }
}

fn permits_ipv4(guest: &Guest, bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(START..START + 20) else {
        return false;
    };
    let at = START + usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || at < START + 20 {
        return false;
    }
    let source = address(header, 12);
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    let (kind, is_first) = (bytes.get(at).copied(), fragment & 0x1fff == 0);
    match header[9] {
        // Redirects and advertisements are routers'.
        ICMP if is_first && matches!(kind, None | Some(5 | 9)) => return false,
        // Questions, too.
        IGMP if is_first && matches!(kind, None | Some(0x11)) => return false,
        UDP if is_first => match (word(bytes, at), word(bytes, at + 2)) {
            (Some(67), _) | (None, _) | (_, None) => return false,
            (Some(from), Some(67)) => {
                let message = bytes.get(at + 8..).unwrap_or_default();
                let is_own = message.get(..3) == Some(&[1, 1, 6]) && message.get(28..34) == Some(&guest.mac.0);
                if fragment != 0 || !is_own {
                    return false;
                }
                if from == 68 && source.is_unspecified() {
                    return true;
                }
            }
            _ => {}
        },
        _ => {}
    }
    may_use(guest, source)
}
