//! A name server (RFC 1035) that has one answer: each name has one IPv4 address, and nothing else. Pure: no socket, no clock.

use std::net::Ipv4Addr;

/// UDP port of the server.
pub(crate) const PORT: u16 = 53;
/// The address of all names.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

const HEADER: usize = 12;
/// Type and class of an IPv4 address.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// The answer to a message that asks one question.
pub(crate) fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let &[a, b, flags, _, 0, 1, ..] = message else {
        return None;
    };
    // No answer, and a plain question.
    if flags & 0xf8 != 0 {
        return None;
    }
    let mut end = HEADER;
    loop {
        match *message.get(end)? {
            0 => break,
            length @ 1..64 => end += 1 + usize::from(length),
            _ => return None,
        }
    }
    let question = message.get(HEADER..end + 5)?;
    let known = question.ends_with(&A_IN);
    let mut reply = vec![a, b, 0x84 | flags & 1, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0];
    reply.extend(question);
    if known {
        // The name of the question, for a minute.
        reply.extend([0xc0, HEADER as u8]);
        reply.extend(A_IN);
        reply.extend([0, 0, 0, 60, 0, 4]);
        reply.extend(ADDRESS.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: u8) -> Vec<u8> {
        [&[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4][..], b"name", &[3], b"lab", &[0, 0, kind, 0, 1]].concat()
    }

    #[test]
    fn each_name_has_the_address() {
        let reply = answer(&question(1)).expect("an answer");
        assert_eq!(reply[..8], [7, 8, 0x85, 0x80, 0, 1, 0, 1]);
        assert!(reply.ends_with(&ADDRESS.octets()) && reply.len() == question(1).len() + 16);
        assert_eq!(answer(&question(28)).map(|reply| (reply[7], reply.len())), Some((0, question(28).len())));
        assert_eq!(answer(&reply), None);
        for length in 0..question(1).len() {
            assert_eq!(answer(&question(1)[..length]), None, "{length}");
        }
    }
}
