//! Frames of the slow protocols that a bond speaks: LACP and markers (IEEE 802.1AX-2008, 5.4.2 and 5.5). Pure. Floor 3.

use crate::ethernet::MacAddress;

/// The group that slow protocols send to (IEEE 802.3-2008, annex 57A).
pub(super) const GROUP: MacAddress = MacAddress([0x01, 0x80, 0xc2, 0x00, 0x00, 0x02]);
/// The Ethernet type of slow protocols.
const ETHERTYPE_SLOW: u16 = 0x8809;
/// Bytes of a frame, without its check sequence.
pub const FRAME: usize = 124;
/// Bytes of an [`Info`] in a frame.
pub const INFO: usize = 15;

/// Subtypes of slow protocols.
const LACP: u8 = 1;
const MARKER: u8 = 2;
/// Where the information begins: behind subtype and version, and behind the type and length of its part.
const ACTOR: usize = 18;
const PARTNER: usize = 38;
/// Type and length of each part, by place.
const PARTS: [(usize, [u8; 2]); 3] = [(16, [1, 20]), (36, [2, 20]), (56, [3, 16])];
/// Where a marker's type is; what asks, and what answers.
const MARKER_TYPE: usize = 16;
const MARKER_ASKS: [u8; 2] = [1, 16];
const MARKER_ANSWERS: u8 = 2;

/// A bit of an end's state (5.4.2.2, m).
pub mod state {
    /// The end sends without being asked.
    pub const ACTIVITY: u8 = 1;
    /// It wants frames each second, and waits for 3 s; else each 30 s, and waits for 90.
    pub const SHORT: u8 = 2;
    /// The link can be one of several.
    pub const AGGREGATION: u8 = 4;
    /// The end has put the link where it belongs.
    pub const SYNC: u8 = 8;
    /// It takes frames.
    pub const COLLECTING: u8 = 16;
    /// It sends frames.
    pub const DISTRIBUTING: u8 = 32;
    /// It heard of no other end.
    pub const DEFAULTED: u8 = 64;
    /// It has not heard of the other end for too long.
    pub const EXPIRED: u8 = 128;
}

/// One end of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The system's priority, the lower the better, and its address.
    pub system: (u16, MacAddress),
    /// Links with the same key can be one.
    pub key: u16,
    /// The port's priority and number.
    pub port: (u16, u16),
    /// Bits of [`state`].
    pub state: u8,
}

impl Info {
    /// Whether a bit is set.
    pub const fn has(&self, bit: u8) -> bool {
        self.state & bit != 0
    }

    /// Whether it is the same port of the same system, of the same group of links.
    pub fn is_same(&self, other: &Self) -> bool {
        let aggregation = |info: &Self| info.has(state::AGGREGATION);
        (self.system, self.key, self.port, aggregation(self))
            == (other.system, other.key, other.port, aggregation(other))
    }

    /// As it is in a frame.
    pub fn to_bytes(self) -> [u8; INFO] {
        let [a, b] = self.system.0.to_be_bytes();
        let [c, d, e, f, g, h] = self.system.1.0;
        let [i, j] = self.key.to_be_bytes();
        let [k, l] = self.port.0.to_be_bytes();
        let [m, n] = self.port.1.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, self.state]
    }

    /// From a frame.
    pub fn from_bytes(bytes: [u8; INFO]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, state] = bytes;
        let number = |high, low| u16::from_be_bytes([high, low]);
        Self {
            system: (number(a, b), MacAddress([c, d, e, f, g, h])),
            key: number(i, j),
            port: (number(k, l), number(m, n)),
            state,
        }
    }
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Both ends, as its sender sees them: itself, and the other.
    Ends(Info, Info),
    /// A question whether all frames before it were taken: the frame that answers it, but for its addresses.
    Marker([u8; FRAME]),
}

/// Whether a frame, given its first bytes, is of a slow protocol.
pub fn is_slow(bytes: &[u8]) -> bool {
    bytes.starts_with(&GROUP.0) && bytes.get(12..14) == Some(&ETHERTYPE_SLOW.to_be_bytes())
}

/// Reads a frame of LACP; `None` for any other, and for one that is cut.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    if !is_slow(bytes) {
        return None;
    }
    let bytes: &[u8; FRAME] = bytes.first_chunk()?;
    let info = |place: usize| Some(Info::from_bytes(*bytes.get(place..)?.first_chunk()?));
    match *bytes.get(14)? {
        // A later version has these parts, too, and others behind (5.4.2.1).
        LACP => {
            let sound = PARTS.iter().take(2).all(|(place, part)| bytes.get(*place..place + 2) == Some(part));
            Some(Message::Ends(info(ACTOR)?, info(PARTNER)?)).filter(|_| sound)
        }
        MARKER if bytes.get(MARKER_TYPE..MARKER_TYPE + 2) == Some(&MARKER_ASKS) => {
            let mut answer = *bytes;
            *answer.get_mut(MARKER_TYPE)? = MARKER_ANSWERS;
            Some(Message::Marker(answer))
        }
        _ => None,
    }
}

/// The frame that says this.
pub fn build(source: MacAddress, message: &Message) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let mut put = |place: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(place..place + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    match message {
        Message::Ends(actor, partner) => {
            put(14, &[LACP, 1]);
            PARTS.iter().for_each(|(place, part)| put(*place, part));
            put(ACTOR, &actor.to_bytes());
            put(PARTNER, &partner.to_bytes());
        }
        Message::Marker(answer) => put(0, answer),
    }
    put(0, &GROUP.0);
    put(6, &source.0);
    put(12, &ETHERTYPE_SLOW.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);

    #[test]
    fn there_and_back() {
        let end = |number: u8| Info {
            system: (0x1020, MacAddress([2, 0, 0, 0, 0, number])),
            key: 0x3040,
            port: (0x5060, number.into()),
            state: number | state::SYNC,
        };
        let message = Message::Ends(end(7), end(65));
        let frame = build(SOURCE, &message);
        assert_eq!(parse(&frame), Some(message));
        // As IEEE 802.1AX-2008, figure 5-7, draws it.
        assert_eq!(frame[..18], [1, 0x80, 0xc2, 0, 0, 2, 0, 0x16, 0x3e, 0, 0, 1, 0x88, 9, 1, 1, 1, 20]);
        assert_eq!(frame[18..36], [0x10, 0x20, 2, 0, 0, 0, 0, 7, 0x30, 0x40, 0x50, 0x60, 0, 7, 15, 0, 0, 0]);
        assert_eq!((&frame[36..38], frame[52], &frame[56..60]), (&[2, 20][..], 65 | 8, &[3, 16, 0, 0][..]));
        assert!(frame[60..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_no_message() {
        let frame = build(SOURCE, &Message::Ends(Info::default(), Info::default()));
        for place in [0, 5, 12, 13, 14, 16, 17, 36, 37] {
            let mut other = frame;
            other[place] ^= 0x40;
            assert_eq!(parse(&other), None, "byte {place}");
        }
        assert!((0..FRAME).all(|length| parse(&frame[..length]).is_none()));
        // Another version, and longer.
        let mut later = [&frame[..], &[0; 20]].concat();
        later[15] = 2;
        assert!(parse(&later).is_some());
    }

    #[test]
    fn markers_are_answered_with_what_they_hold() {
        let mut asks = build(SOURCE, &Message::Ends(Info::default(), Info::default()));
        asks[14..34].copy_from_slice(&[2, 1, 1, 16, 0, 9, 2, 0, 0, 0, 0, 5, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0]);
        let Some(answer @ Message::Marker(_)) = parse(&asks) else {
            panic!("no marker");
        };
        let answer = build(MacAddress([9; 6]), &answer);
        assert_eq!((&answer[..6], &answer[6..12], answer[16]), (&GROUP.0[..], &[9; 6][..], 2));
        assert_eq!((&answer[14..16], &answer[17..]), (&asks[14..16], &asks[17..]));
        assert_eq!(parse(&answer), None, "an answer is not answered");
    }
}
