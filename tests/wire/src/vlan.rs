//! 802.1Q at the peer: it answers each station with the tag that the station used last. Host.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::dhcp::Mac;

/// Bytes of both addresses, which the tag follows.
const ADDRESSES: usize = 12;
/// Bytes of a tag, its `EtherType` among them.
const TAG: usize = 4;
/// `EtherType` of an 802.1Q tag.
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];

/// The tag of each station that used one.
#[derive(Default)]
pub(crate) struct Tags(HashMap<Mac, [u8; TAG]>);

impl Tags {
    /// Takes the tag off a frame to the peer, and remembers it.
    pub(crate) fn take<'a>(&mut self, frame: &'a [u8]) -> Cow<'a, [u8]> {
        let Some((addresses, rest)) = frame.split_first_chunk::<ADDRESSES>() else {
            return Cow::Borrowed(frame);
        };
        let [.., a, b, c, d, e, f] = *addresses;
        let station = [a, b, c, d, e, f];
        match rest.split_first_chunk::<TAG>() {
            Some((tag, rest)) if tag.starts_with(&ETHERTYPE_VLAN) => {
                self.0.insert(station, *tag);
                Cow::Owned([addresses.as_slice(), rest].concat())
            }
            _ => {
                self.0.remove(&station);
                Cow::Borrowed(frame)
            }
        }
    }

    /// Puts the station's tag on a frame of the peer.
    pub(crate) fn put<'a>(&self, frame: &'a [u8]) -> Cow<'a, [u8]> {
        let tag = frame.first_chunk::<6>().and_then(|station| self.0.get(station));
        match (tag, frame.split_at_checked(ADDRESSES)) {
            (Some(tag), Some((addresses, rest))) => Cow::Owned([addresses, tag.as_slice(), rest].concat()),
            _ => Cow::Borrowed(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_answered_as_it_spoke() {
        let (peer, station) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let plain = [&peer[..], &station, &[0x08, 0x00, 1, 2, 3]].concat();
        let tagged = [&peer[..], &station, &[0x81, 0x00, 0, 5, 0x08, 0x00, 1, 2, 3]].concat();
        let answer = [&station[..], &peer, &[0x08, 0x00, 9]].concat();
        let mut tags = Tags::default();
        assert_eq!(tags.put(&answer), answer);
        assert_eq!(tags.take(&tagged), plain);
        assert_eq!(tags.put(&answer).as_ref(), [&station[..], &peer, &[0x81, 0x00, 0, 5, 0x08, 0x00, 9]].concat());
        assert_eq!(tags.take(&plain), plain);
        assert_eq!(tags.put(&answer), answer);
        for length in 0..16 {
            assert!(tags.take(&tagged[..length]).len() <= length);
        }
    }
}
