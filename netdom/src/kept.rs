//! What the domain's next life has to know of its ports, written down while all is well. Pure. Floor 3.
//!
//! A life may end in the midst of a round, when nothing of the data path can be read. So the state is written once a second, and soon after a guest
//! changed what it will not say again (its groups, its hash), into one of two places ([`split_driver::kept::Written`]).
//! Addresses learnt, and counters, are up to a second old therefore. A life begins with what the last one wrote, and a port that is not there yet
//! stays as it was written: a life that ends while it takes over leaves as much as the one before.

use crate::backend::Netback;
use crate::blame::{Blame, Suspect};
use crate::datapath::Held;
use crate::datapath::kept::{KeptBond, KeptLeases, KeptPort};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::encode::write::Cursor;
use minicbor::{Decode, Encode};
use split_driver::hypervisor::Hypervisor;
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::{DeviceId, DomainId};

/// How often it is written down at least.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written down at most.
pub const PAUSE: Duration = Duration::from_millis(20);

/// All ports. A field that a later version adds has a number of its own and may be absent: what an image does not know is dropped, and not
/// written by it again.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Kept {
    /// By frontend's domain and handle.
    #[n(0)]
    vifs: Vec<(u16, u32, KeptPort)>,
    /// By the host's address.
    #[n(1)]
    nics: Vec<(String, KeptPort)>,
    /// Vifs that were served when lives ended.
    #[n(2)]
    blame: Blame,
    /// Bridges that have or had a NIC, and whether they have a carrier.
    #[n(3)]
    carriers: Option<Vec<(String, bool)>>,
    /// Packets that were lost with the lives before.
    #[n(4)]
    lost: Option<u64>,
    /// The bonds.
    #[n(8)]
    bonds: Option<Vec<KeptBond>>,
    /// Leases.
    #[n(9)]
    leases: Option<Vec<KeptLeases>>,
    /// Of the image for tests alone: a field that a later version adds.
    #[cfg(feature = "faults")]
    #[n(15)]
    added: Option<u64>,
}

impl Kept {
    /// What the last life wrote; nothing where it makes no sense.
    pub fn parse(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default()
    }

    /// The vifs of `netback` and those NICs, by the host's address, with the NICs of the last life that are not there yet; and how many packets
    /// were lost with lives.
    pub fn new<H: Hypervisor>(
        netback: &Netback<H>,
        nics: impl IntoIterator<Item = (String, KeptPort)>,
        inherited: &Self,
        lost: u64,
    ) -> Self {
        let vif = |(id, kept): (DeviceId, KeptPort)| (id.frontend.0, id.handle, kept);
        let vifs = netback.keep().into_iter().map(vif).collect();
        let mut nics: Vec<_> = nics.into_iter().collect();
        nics.extend(inherited.nics.iter().cloned());
        Self {
            vifs,
            nics,
            blame: netback.blame(),
            carriers: Some(netback.carriers()),
            lost: Some(lost),
            bonds: None,
            leases: None,
            #[cfg(feature = "faults")]
            added: Some(u64::MAX),
        }
    }

    /// The same with these bonds.
    pub fn with_bonds(self, bonds: Vec<KeptBond>) -> Self {
        Self { bonds: Some(bonds).filter(|bonds| !bonds.is_empty()), ..self }
    }

    /// The same with these leases.
    pub fn with_leases(self, leases: Vec<KeptLeases>) -> Self {
        Self { leases: Some(leases).filter(|leases| !leases.is_empty()), ..self }
    }

    /// The leases, once.
    pub fn take_leases(&mut self) -> Vec<KeptLeases> {
        self.leases.take().unwrap_or_default()
    }

    /// The bonds, once.
    pub fn take_bonds(&mut self) -> Vec<KeptBond> {
        self.bonds.take().unwrap_or_default()
    }

    /// In CBOR (RFC 8949).
    pub fn to_bytes(&self) -> Vec<u8> {
        // Writing to a vector does not fail.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// The vifs, once.
    pub fn take_vifs(&mut self) -> Vec<(DeviceId, KeptPort)> {
        let id = |domain, handle| DeviceId { frontend: DomainId(domain), handle };
        let vifs = core::mem::take(&mut self.vifs).into_iter();
        vifs.map(|(domain, handle, kept)| (id(domain, handle), kept)).collect()
    }

    /// The bridges' carriers.
    pub fn take_carriers(&mut self) -> Vec<(String, bool)> {
        self.carriers.take().unwrap_or_default()
    }

    /// Packets that were lost with lives, those that waited when the last one ended among them: `waiting`, as [`write_waiting`] wrote it.
    pub fn lost(&self, waiting: Option<&[u8]>) -> u64 {
        let last: u32 = waiting.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        self.lost.unwrap_or_default().saturating_add(last.into())
    }

    /// What earlier lives ended with, with the last one: it served `suspect`, as [`write_suspect`] wrote it.
    pub fn take_blame(&mut self, suspect: Option<&[u8]>, now: Instant) -> Blame {
        if let Some((domain, handle)) = suspect.and_then(|bytes| minicbor::decode(bytes).ok()) {
            let id = DeviceId { frontend: DomainId(domain), handle };
            log::warn!("the last life ended while it served vif {id}");
            self.blame.note(id, now);
        }
        self.blame.clone()
    }

    /// All NICs of the last life that are still there were taken up.
    pub fn forget_nics(&mut self) {
        self.nics.clear();
    }

    /// A NIC, once, which is on a bridge now; and the bridge that it was on, where it has left that, and so have all others.
    pub fn take_nic(&mut self, host: &str, bridge: &str) -> Option<(KeptPort, Option<String>)> {
        let place = self.nics.iter().position(|(address, _)| address == host)?;
        let (_, kept) = self.nics.swap_remove(place);
        let left = kept.bridge().filter(|before| *before != bridge);
        let left = left.filter(|before| self.nics.iter().all(|(_, other)| other.bridge() != Some(*before)));
        let left = left.map(String::from);
        Some((kept, left))
    }
}

/// Gives the vif that is served now to `out`, without allocating; false where there is none.
pub fn write_suspect<H: Hypervisor>(netback: &Netback<H>, suspect: &Suspect, out: &mut dyn FnMut(&[u8])) -> bool {
    let Some(DeviceId { frontend: DomainId(domain), handle }) = suspect.get().and_then(|port| netback.vif_at(port))
    else {
        return false;
    };
    write_short((domain, handle), out)
}

/// Gives the number of packets that wait now to `out`, without allocating.
pub fn write_waiting(held: &Held, out: &mut dyn FnMut(&[u8])) -> bool {
    write_short(held.get(), out)
}

fn write_short(value: impl Encode<()>, out: &mut dyn FnMut(&[u8])) -> bool {
    let mut bytes = [0; 16];
    let mut cursor = Cursor::new(bytes.as_mut_slice());
    let written = minicbor::encode(value, &mut cursor).is_ok();
    let length = cursor.position();
    out(bytes.get(..length).unwrap_or_default());
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::DataPath;
    use crate::fakes::FakeNic;
    use crate::netback::bridges::Bridges;
    use crate::nic::Capabilities;
    use crate::packet::Pool;
    use alloc::boxed::Box;
    use alloc::rc::Rc;
    use core::cell::RefCell;
    use minicbor::bytes::ByteArray;
    use split_driver::fakes::{FakePages, FakeXen};
    use split_driver::kept::Written;

    /// What the next version writes.
    #[derive(Encode, Decode)]
    struct Later {
        #[n(0)]
        vifs: Vec<(u16, u32, LaterPort)>,
        #[n(1)]
        nics: Vec<(String, LaterPort)>,
        #[n(2)]
        blame: Blame,
        #[n(6)]
        added: Option<Vec<String>>,
    }

    #[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
    struct LaterPort {
        #[n(0)]
        counters: Vec<u64>,
        #[n(1)]
        learnt: Vec<(u16, ByteArray<6>)>,
        #[n(2)]
        groups: Vec<ByteArray<6>>,
        #[n(7)]
        added: Option<(u32, String)>,
    }

    /// Neither version minds what it does not know, or what the other does not write, in the state or in a port of it.
    #[cfg(not(feature = "faults"))]
    #[test]
    fn two_versions_read_each_other() {
        let id = DeviceId { frontend: DomainId(3), handle: 1 };
        let mut blame = Blame::default();
        blame.note(id, Instant(7));
        let address = ByteArray::from([0, 0x16, 0x3e, 0, 0, 9]);
        let port = |added| LaterPort {
            counters: [1, 2, 3, 4].into(),
            learnt: [(5, address)].into(),
            groups: [address].into(),
            added,
        };
        let text = || Some((9, String::from("of a later version")));
        let later = Later {
            vifs: [(3, 1, port(text()))].into(),
            nics: [("nic".into(), port(None))].into(),
            blame: blame.clone(),
            added: Some([String::from("too")].into()),
        };
        let mut known = Kept::parse(Some(&minicbor::to_vec(&later).unwrap()));
        assert_eq!(known.take_blame(None, Instant(8)), blame);
        // It writes what it knows, and the later version reads that without the rest.
        let back: Later = minicbor::decode(&known.to_bytes()).unwrap();
        assert_eq!((back.vifs, back.nics), ([(3, 1, port(None))].into(), [("nic".into(), port(None))].into()));
        assert!(back.blame == blame && back.added.is_none());
        assert_eq!((known.take_vifs().len(), known.take_nic("nic", "xenbr0").is_some()), (1, true));
    }

    /// A life that ends before it has taken over leaves to the next one what it was left.
    #[test]
    fn what_is_not_there_yet_stays_as_it_was_written() {
        let id = DeviceId { frontend: DomainId(3), handle: 1 };
        let mut blame = Blame::default();
        blame.note(id, Instant(7));
        let (vifs, nics) = (
            Vec::from([(3, 1, KeptPort::default())]),
            Vec::from([(String::from("0000:03:00.0"), KeptPort::default())]),
        );
        let carriers = [("xenbr0", false)];
        let bytes = minicbor::to_vec((vifs, nics, &blame, carriers, 3)).unwrap();

        let xen = FakeXen::new();
        let path = DataPath::new(xen.clone(), Pool::new(Box::new(FakePages::new(&xen, 1))), 1);
        let mut inherited = Kept::parse(Some(&bytes));
        let netback = Netback::new(Rc::new(RefCell::new(path)), Bridges::new(["xenbr0"], &[]), Rc::new(|| ()));
        let netback = netback.with_inherited(inherited.take_vifs(), inherited.take_carriers(), blame);
        let written = Written::new(Some(&bytes));
        let mut read = Vec::new();
        assert!(written.write(&mut |bytes| read.extend_from_slice(bytes)));
        assert_eq!((read, written.length()), (bytes.clone(), bytes.len()));
        assert_eq!(Kept::new(&netback, [], &inherited, inherited.lost(None)).to_bytes(), bytes);
        // All are there that will be.
        netback.forget_inherited();
        assert!(inherited.take_nic("0000:03:00.0", "xenbr0").is_some());
        let mut left = Kept::new(&netback, [], &inherited, 0);
        assert!(left.take_vifs().is_empty() && left.nics.is_empty());
    }

    /// A bridge is left where the last of its NICs is on another one.
    #[test]
    fn a_bridge_is_left_by_all_of_its_nics() {
        let xen = FakeXen::new();
        let mut path = DataPath::new(xen.clone(), Pool::new(Box::new(FakePages::new(&xen, 8))), 1);
        let nics = ["a", "b", "c", "d"].map(|host| {
            let (nic, _wire) = FakeNic::new(Capabilities { max_frame: 1518, ..Capabilities::default() }, 16);
            let bridge = if host == "d" { "other" } else { "old" };
            let id = path.add_nic(Box::new(nic), bridge).ok().unwrap();
            (String::from(host), path.keep_nic(id).unwrap())
        });
        let kept = Kept { nics: nics.into(), ..Kept::default() };
        let mut kept = Kept::parse(Some(&kept.to_bytes()));
        let mut left = |host, bridge| kept.take_nic(host, bridge).unwrap().1;
        assert_eq!(left("a", "new"), None);
        assert_eq!(left("d", "other"), None);
        assert_eq!(left("b", "new"), None, "one is not there yet");
        assert_eq!(left("c", "new").as_deref(), Some("old"));
        assert!(kept.take_nic("c", "new").is_none());
    }
}
