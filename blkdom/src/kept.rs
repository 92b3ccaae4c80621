//! What the domain's next life has to know beside its vbds' nodes and journals, written down while all is well. Pure. Floor 3.
//!
//! A life may end in the midst of a round, when nothing of the data path can be read. So this is written once a second, and counters are up to a
//! second old when a life begins. What is not there yet in a life stays as it was written: a life that ends while it takes over leaves as much
//! as the one before.

use crate::datapath::statistics::Statistics;
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};
use split_driver::time::Duration;
use split_driver::xenbus::{DeviceId, DomainId};

/// How often it is written down.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Counters in CBOR (RFC 8949). A field that a later version adds has a number of its own and may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// By frontend's domain and handle.
    #[n(0)]
    vbds: Vec<(u16, u32, Vec<u64>)>,
    /// By their names, such as `nvme0n1`.
    #[n(1)]
    units: Vec<(String, Vec<u64>)>,
    /// Controllers in the order of their numbers: whether it is one of NVMe, and the host's address.
    #[n(2)]
    controllers: Vec<(bool, HostAddress)>,
}

/// Where the host has a device: segment, bus, device, function.
pub type HostAddress = (u16, u8, u8, u8);

impl Kept {
    /// What the last life wrote; nothing where it makes no sense.
    pub fn parse(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default()
    }

    /// Of all vbds, units and controllers, with those of the last life that are not there yet.
    pub fn new(
        vbds: impl IntoIterator<Item = (DeviceId, Statistics)>,
        units: impl IntoIterator<Item = (String, Statistics)>,
        controllers: Vec<(bool, HostAddress)>,
        inherited: &Self,
    ) -> Self {
        let vbd = |(id, statistics): (DeviceId, Statistics)| (id.frontend.0, id.handle, statistics.to_words());
        let vbds = vbds.into_iter().map(vbd).chain(inherited.vbds.iter().cloned()).collect();
        let unit = |(name, statistics): (String, Statistics)| (name, statistics.to_words());
        let units = units.into_iter().map(unit).chain(inherited.units.iter().cloned()).collect();
        Self { vbds, units, controllers }
    }

    /// In CBOR (RFC 8949).
    pub fn to_bytes(&self) -> Vec<u8> {
        // Writing to a vector does not fail.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// What a vbd had counted, once.
    pub fn take_vbd(&mut self, id: DeviceId) -> Option<Statistics> {
        let is = |domain, handle| DeviceId { frontend: DomainId(domain), handle } == id;
        let place = self.vbds.iter().position(|(domain, handle, _)| is(*domain, *handle))?;
        Some(Statistics::from_words(&self.vbds.swap_remove(place).2))
    }

    /// What a unit had counted, once.
    pub fn take_unit(&mut self, name: &str) -> Option<Statistics> {
        let place = self.units.iter().position(|(known, _)| known == name)?;
        Some(Statistics::from_words(&self.units.swap_remove(place).1))
    }

    /// The controllers, in the order of their numbers.
    pub fn controllers(&self) -> &[(bool, HostAddress)] {
        &self.controllers
    }

    /// All of the last life that are still there were taken up.
    pub fn forget(&mut self) {
        self.vbds.clear();
        self.units.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// What the next version writes.
    #[derive(Encode, Decode)]
    struct Next {
        #[n(0)]
        vbds: Vec<(u16, u32, Vec<u64>)>,
        #[n(1)]
        units: Vec<(String, Vec<u64>)>,
        #[n(2)]
        controllers: Vec<(bool, HostAddress)>,
        #[n(5)]
        more: String,
    }

    fn counted(reads: u64, gone: u64) -> Statistics {
        let mut statistics = Statistics { reads, sectors_discarded: 7, ..Statistics::default() };
        statistics.failures[3] = gone;
        statistics
    }

    fn id(domain: u16) -> DeviceId {
        DeviceId { frontend: DomainId(domain), handle: 51712 }
    }

    #[test]
    fn a_life_begins_with_what_the_last_one_counted() {
        let controllers = vec![(true, (0, 4, 0, 0)), (false, (1, 0x3a, 31, 7))];
        let vbds = [(id(3), counted(1, 2)), (id(4), counted(u64::MAX, 0))];
        let units = [("nvme0n1".into(), counted(5, 0)), ("sda".into(), counted(6, 1))];
        let kept = Kept::new(vbds, units, controllers.clone(), &Kept::default());
        let bytes = kept.to_bytes();
        let mut read = Kept::parse(Some(&bytes));
        assert_eq!((&read, read.controllers()), (&kept, controllers.as_slice()));
        assert_eq!((read.take_vbd(id(4)), read.take_vbd(id(4))), (Some(counted(u64::MAX, 0)), None));
        assert_eq!((read.take_unit("sda"), read.take_unit("sdb")), (Some(counted(6, 1)), None));
        // A life that ends before the others are there leaves them to the next.
        let vbds = [(id(4), counted(9, 0))];
        let mut next = Kept::parse(Some(&Kept::new(vbds, [], controllers, &read).to_bytes()));
        assert_eq!((next.take_vbd(id(3)), next.take_vbd(id(4))), (Some(counted(1, 2)), Some(counted(9, 0))));
        assert_eq!((next.take_unit("nvme0n1"), next.take_unit("sda")), (Some(counted(5, 0)), None));
        read.forget();
        assert_eq!((read.take_vbd(id(3)), read.take_unit("nvme0n1"), read.controllers().len()), (None, None, 2));
    }

    #[test]
    fn other_versions_are_read_as_far_as_they_are_understood() {
        let mut words = counted(1, 2).to_words();
        words.push(77);
        let next = Next {
            vbds: vec![(3, 51712, words), (4, 51712, vec![8])],
            units: vec![],
            controllers: vec![],
            more: "what this version does not know".into(),
        };
        let mut read = Kept::parse(Some(&minicbor::to_vec(next).unwrap()));
        assert_eq!(read.take_vbd(id(3)), Some(counted(1, 2)));
        assert_eq!(read.take_vbd(id(4)), Some(Statistics { reads: 8, ..Statistics::default() }));
        assert_eq!(Kept::parse(None), Kept::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut read = Kept::parse(Some(&bytes));
            read.take_vbd(id(3));
            read.take_unit("sda");
        }
    }
}
