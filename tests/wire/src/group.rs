//! Ports that are one group, as a switch's with LACP are (IEEE 802.1AX-2008): each frame of LACP is answered, in step. Pure.

use crate::dhcp::Mac;

/// Where LACP's frames go, and their type and subtype.
const GROUP: Mac = [0x01, 0x80, 0xc2, 0, 0, 2];
const LACP: [u8; 3] = [0x88, 0x09, 1];
/// Where a frame has what its sender says of itself, but for the state, which is the last of its bytes; and of the other end.
const ACTOR: usize = 18;
const PARTNER: usize = 38;
const INFO: usize = 15;
/// Bits of a state: the end sends of itself and can be one of several; it is in step; it takes frames, and sends them.
const CAPABLE: u8 = 1 | 4;
const SYNC: u8 = 8;
const BOTH: u8 = 16 | 32;

/// What the wire makes of its ports.
#[derive(Default)]
pub(crate) struct Group {
    /// They are one.
    pub(crate) on: bool,
    /// The port to which frames for all stations, and for unknown ones, go: the last one that others' came from.
    pub(crate) last: Option<usize>,
}

impl Group {
    /// The answer to a frame of LACP from a port; none where it is another frame, or the ports are no group.
    pub(crate) fn answer(&self, port: usize, mac: Mac, frame: &[u8]) -> Option<Vec<u8>> {
        if !self.on || !frame.starts_with(&GROUP) || frame.get(12..15) != Some(&LACP) {
            return None;
        }
        let theirs = frame.get(ACTOR..ACTOR + INFO)?;
        let state = CAPABLE | SYNC | if theirs.last()? & SYNC != 0 { BOTH } else { 0 };
        let mut answer =
            [&GROUP[..], &mac, &LACP, &[1, 1, 20, 0x80, 0], &mac, &[0, 1, 0x80, 0, 0, port as u8 + 1]].concat();
        answer.push(state);
        answer.resize(PARTNER - 2, 0);
        answer.extend([2, 20]);
        answer.extend(theirs);
        answer.extend([0, 0, 0, 3, 16]);
        answer.resize(124, 0);
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_lacp_are_answered_in_step() {
        let mut frame = vec![1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x88, 9, 1, 1, 1, 20];
        frame.extend([0xff, 0xff, 2, 0, 0, 0, 0, 9, 3, 0xe8, 0, 0xff, 0, 1, 5]);
        frame.resize(124, 0);
        let mac = [2, 0, 0, 0, 0, 1];
        assert_eq!(Group::default().answer(0, mac, &frame), None);
        let group = Group { on: true, last: None };
        let answer = group.answer(1, mac, &frame).unwrap();
        assert_eq!((answer.len(), &answer[6..12], answer[ACTOR + INFO - 1]), (124, &mac[..], 13));
        assert_eq!(answer[ACTOR..ACTOR + 14], [0x80, 0, 2, 0, 0, 0, 0, 1, 0, 1, 0x80, 0, 0, 2]);
        assert_eq!((&answer[36..38], &answer[PARTNER..PARTNER + INFO]), (&[2, 20][..], &frame[ACTOR..ACTOR + INFO]));
        frame[ACTOR + INFO - 1] |= SYNC;
        assert_eq!(group.answer(1, mac, &frame).unwrap()[ACTOR + INFO - 1], 61);
        frame[14] = 2;
        assert_eq!(group.answer(1, mac, &frame), None);
    }
}
