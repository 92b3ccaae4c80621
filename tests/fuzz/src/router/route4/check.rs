//! What a router made of a frame, and what it says, against what the model says of both. Host.

use super::guard;
use super::model::Model;
use super::packet::{ICMP, Ip, START, Upper, about, same, sum, word};
use super::terms::{Fate, Said, Sums, UPLINK, mac_of};
use netdom::ethernet::MacAddress;
use netdom::router::Frame;
use netdom::router::config::Protocol;
use netdom::switch::PortId;
use smoltcp::wire::{DhcpPacket, DhcpRepr, IpProtocol, Ipv4Packet, UdpPacket};
use std::net::Ipv4Addr;

impl Fate {
    /// A number of its own, by what is behind the port.
    pub(super) fn number(self, kind_of: impl Fn(PortId) -> u8) -> u8 {
        match self {
            Self::Taken => 0,
            Self::Waits => 1,
            Self::Goes(port) => 2 + kind_of(port),
            Self::Lost(cause) => 32 + cause as u8,
        }
    }
}

impl Said {
    /// The same.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Asks { .. } => 1,
            Self::Has { .. } => 2,
            Self::Dhcp { .. } => 3,
            Self::Refuses { kind, .. } => 4 + kind.0 + kind.1,
        }
    }
}

/// Whether all of a packet is there, so that it may go on.
pub(super) fn is_whole(bytes: &[u8], told: Frame) -> bool {
    Ip::read(bytes, START).is_some_and(|ip| ip.end() <= told.length) && word(bytes, 12) == Some(0x0800)
}

/// A frame that goes on is the model's, but for its checksums; and these are what they have to be.
pub(super) fn check_frame(model: &Model, told: Frame, before: &[u8], after: &[u8]) {
    let old = Ip::read(before, START).expect("a packet that goes on");
    let new = Ip::read(after, START).expect("a packet whose checksum is right");
    // Where checksums are, which are looked at one by one.
    let mut fields = [START + 10; 4];
    if model.sums == Sums::Whole {
        let upper = Upper::read(before, &old, false).expect("what was translated has ports");
        fields[1] = upper.field();
        check_sum(upper.protocol, told.blank, upper.field(), [(before, old), (after, new)]);
    }
    if model.sums == Sums::Error {
        let (inner, upper) = about(before, &old).expect("an error");
        let made = Ip::read(after, inner.at).expect("the packet in it, with its checksum");
        (fields[1], fields[2]) = (old.behind() + 2, inner.at + 10);
        check_sum(Protocol::Echo, false, old.behind() + 2, [(before, old), (after, new)]);
        // TCP's is mostly not there.
        if upper.protocol != Protocol::Tcp {
            fields[3] = upper.field();
            let inner = Ip { total: inner.total.min(old.end() - inner.at), ..inner };
            check_sum(
                upper.protocol,
                false,
                upper.field(),
                [(before, inner), (after, Ip { total: inner.total, ..made })],
            );
        }
    }
    for (place, (expected, byte)) in model.frame.iter().zip(after).enumerate() {
        let is_sum = fields.iter().any(|field| place == *field || place == field + 1);
        assert!(is_sum || expected == byte, "byte {place}: {after:02x?} in place of {:02x?}", model.frame);
    }
    assert_eq!(after.len(), model.frame.len());
}

/// A checksum that was right is right, made anew over the whole packet, and one that was wrong is as wrong as it was.
fn check_sum(protocol: Protocol, blank: bool, field: usize, frames: [(&[u8], Ip); 2]) {
    let [was, is] = frames.map(|(frame, _)| word(frame, field).expect("a checksum"));
    if protocol == Protocol::Udp && !blank {
        assert_eq!(was == 0, is == 0, "none was made, or there is one");
        if was == 0 {
            return;
        }
    }
    let [was, is] = frames.map(|(frame, ip)| {
        let pseudo = if protocol == Protocol::Echo { 0 } else { ip.pseudo() };
        if blank {
            // It is the pseudo-header's alone.
            return sum(&[&(!pseudo).to_be_bytes(), &frame[field..field + 2]]);
        }
        sum(&[&pseudo.to_be_bytes(), &frame[ip.behind()..ip.end().min(frame.len())]])
    });
    assert!(same(was, is), "a sum of {is:04x}, not {was:04x}: {:02x?}", frames[1].0);
}

/// What the router says is what the model says.
pub(super) fn check_said(model: &Model, said: Said, sent: &[u8], answer: Option<(PortId, &[u8])>) {
    let Some((port, bytes)) = answer else {
        let may_be_silent = matches!(said, Said::Dhcp { .. }) && sent.get(14 + 28 + 242) != Some(&1);
        return assert!(said == Said::Nothing || may_be_silent, "no {said:?} to {sent:02x?}");
    };
    let own = model.own_at(port).expect("a port that is there");
    let stations = |to: MacAddress| [to.0, mac_of(own).0].concat();
    match said {
        Said::Nothing => panic!("{bytes:02x?}, to {sent:02x?}"),
        Said::Asks { target } => {
            assert_eq!((port, bytes.len()), (UPLINK, 60));
            assert_eq!(bytes[..12], stations(MacAddress::BROADCAST));
            let asker = (mac_of(own), own);
            assert_eq!(guard::arp(bytes), Some((true, asker, target)));
        }
        Said::Has { port: from, target, asker } => {
            assert_eq!((port, bytes.len()), (from, 60));
            assert_eq!((&bytes[..12], word(bytes, 12)), (&stations(asker.0)[..], Some(0x0806)));
            assert_eq!(guard::arp(bytes), Some((false, (mac_of(own), target), asker.1)));
            assert_eq!(bytes[32..38], asker.0.0);
        }
        Said::Refuses { port: from, kind, fits } => {
            assert_eq!(port, from);
            assert_eq!(bytes[..12], [&sent[6..12], &mac_of(own).0].concat());
            check_refusal(own, kind, fits, sent, bytes);
        }
        Said::Dhcp { port: from } => {
            assert_eq!((port, &bytes[6..12]), (from, &mac_of(own).0[..]));
            let packet = Ipv4Packet::new_checked(&bytes[START..]).expect("a packet");
            assert!(packet.verify_checksum() && packet.src_addr() == own);
            let udp = UdpPacket::new_checked(packet.payload()).expect("a datagram");
            assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
            let message = DhcpPacket::new_checked(udp.payload()).expect("a message");
            let message = DhcpRepr::parse(&message).expect("it is sound");
            if let Some(guest) = model.guest(port) {
                assert!([guest.addresses[0], Ipv4Addr::UNSPECIFIED].contains(&message.your_ip));
                assert_eq!(message.client_hardware_address.0, guest.mac.0);
            }
        }
    }
}

/// An ICMP error (RFC 792, RFC 1191) quotes the packet as it was sent: its header and 8 bytes at least, and at most what fits into 576.
fn check_refusal(own: Ipv4Addr, kind: (u8, u8), fits: u16, sent: &[u8], bytes: &[u8]) {
    assert_eq!(word(bytes, 12), Some(0x0800));
    let packet = Ipv4Packet::new_checked(&bytes[START..]).expect("a packet");
    let old = Ip::read(sent, START).expect("an error is about a packet");
    assert!(packet.verify_checksum() && packet.hop_limit() == 64 && packet.next_header() == IpProtocol::Icmp);
    assert_eq!((packet.src_addr(), packet.dst_addr()), (own, old.source));
    assert_eq!(usize::from(packet.total_len()) + START, bytes.len());
    let message = packet.payload();
    assert_eq!((message[0], message[1], sum(&[message])), (kind.0, kind.1, 0xffff));
    assert_eq!((word(message, 4), word(message, 6)), (Some(0), Some(fits)));
    let quoted = &message[8..];
    let least = (old.header + 8).min(old.total).min(sent.len() - START);
    assert!(quoted.len() >= least && packet.total_len() <= 576 && sent[START..].starts_with(quoted));
    assert!(old.protocol != ICMP || old.is_later() || !matches!(sent[old.behind()], 3 | 4 | 5 | 11 | 12));
}
