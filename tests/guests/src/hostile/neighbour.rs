//! Answers of a station that is asked for its hardware address. Pure.

use crate::segment::sum;
use alloc::vec::Vec;

/// The station's addresses, within the wire's networks.
const IPV4: [u8; 4] = [10, 9, 66, 1];
const IPV6: [u8; 16] = [0xfd, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x66];

/// The answer to a question for one of the addresses, of ARP (RFC 826) or of neighbour discovery (RFC 4861).
pub(crate) fn answer(frame: &[u8], mac: [u8; 6]) -> Option<Vec<u8>> {
    let asker = frame.get(6..12)?;
    let kind = frame.get(12..14)?;
    if kind == [0x08, 0x06] && frame.get(20..22)? == [0, 1] && frame.get(38..42)? == IPV4 {
        let fixed = [0, 1, 8, 0, 6, 4, 0, 2];
        return Some([asker, &mac, kind, &fixed, &mac, &IPV4, frame.get(22..32)?].concat());
    }
    // ICMPv6, a neighbour solicitation.
    if kind == [0x86, 0xdd] && *frame.get(20)? == 58 && *frame.get(54)? == 135 && frame.get(62..78)? == IPV6 {
        let source = frame.get(22..38)?;
        // An advertisement: solicited, overriding; then the option with the target's address.
        let advertise = |checksum: [u8; 2]| [&[136, 0], &checksum[..], &[0x60, 0, 0, 0], &IPV6, &[2, 1], &mac].concat();
        let checksum = !sum(&[&IPV6, source, &[0, 0, 0, 32, 0, 0, 0, 58], &advertise([0, 0])]);
        let header = [0x60, 0, 0, 0, 0, 32, 58, 255];
        return Some([asker, &mac, kind, &header, &IPV6, source, &advertise(checksum.to_be_bytes())].concat());
    }
    None
}
