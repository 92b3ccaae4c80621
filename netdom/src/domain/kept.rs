//! What the domain's next life has to know of its ports, written down while all is well. Floor 3.
//!
//! A life may end in the midst of a round, when nothing of the data path can be read. So the state is written once a second, and soon after a guest
//! changed what it will not say again (its groups, its hash), into one of two places, and the other one is what counts until it is complete.
//! Addresses learnt, and counters, are up to a second old therefore.

use super::Domain;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;
use minicbor::encode::write::Cursor;
use minicbor::{Decode, Encode};
use netdom::blame::Blame;
use netdom::datapath::kept::KeptPort;
use runtime::select::select;
use runtime::time;
use split_driver::xenbus::{DeviceId, DomainId};

/// How often it is written down at least, and at most.
const INTERVAL: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// All ports.
#[derive(Debug, Default, Encode, Decode)]
pub(super) struct Kept {
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
}

impl Kept {
    /// What the last life wrote; nothing where it makes no sense.
    pub(super) fn parse(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default()
    }

    /// The vifs.
    pub(super) fn take_vifs(&mut self) -> Vec<(DeviceId, KeptPort)> {
        let id = |domain, handle| DeviceId { frontend: DomainId(domain), handle };
        let vifs = core::mem::take(&mut self.vifs).into_iter();
        vifs.map(|(domain, handle, kept)| (id(domain, handle), kept)).collect()
    }

    /// Packets that were lost with lives, those that waited when the last one ended among them: `waiting`, as [`write_waiting`] wrote it.
    pub(super) fn lost(&self, waiting: Option<&[u8]>) -> u64 {
        let last: u32 = waiting.and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
        self.lost.unwrap_or_default().saturating_add(last.into())
    }

    /// The bridges' carriers.
    pub(super) fn take_carriers(&mut self) -> Vec<(String, bool)> {
        self.carriers.take().unwrap_or_default()
    }

    /// What earlier lives ended with, with the last one: it served `suspect`, as [`write_suspect`] wrote it.
    pub(super) fn take_blame(&mut self, suspect: Option<&[u8]>) -> Blame {
        if let Some((domain, handle)) = suspect.and_then(|bytes| minicbor::decode(bytes).ok()) {
            let id = DeviceId { frontend: DomainId(domain), handle };
            log::warn!("the last life ended while it served vif {id}");
            self.blame.note(id, time::now());
        }
        self.blame.clone()
    }

    /// A NIC, once.
    pub(super) fn take_nic(&mut self, host: &str) -> Option<KeptPort> {
        let place = self.nics.iter().position(|(address, _)| address == host)?;
        Some(self.nics.swap_remove(place).1)
    }
}

/// The two places, and which of them counts.
#[derive(Debug, Default)]
pub(super) struct Written {
    places: [RefCell<Vec<u8>>; 2],
    current: Cell<bool>,
}

impl Written {
    fn current(&self) -> &RefCell<Vec<u8>> {
        let [first, second] = &self.places;
        if self.current.get() { second } else { first }
    }

    fn set(&self, bytes: Vec<u8>) {
        let [first, second] = &self.places;
        let other = if self.current.get() { first } else { second };
        *other.borrow_mut() = bytes;
        self.current.set(!self.current.get());
    }

    /// Bytes that [`Written::write`] gives.
    pub(super) fn length(&self) -> usize {
        self.current().borrow().len()
    }

    /// Gives them to `out`, without allocating.
    pub(super) fn write(&self, out: &mut dyn FnMut(&[u8])) -> bool {
        self.current().try_borrow().map(|bytes| out(&bytes)).is_ok()
    }
}

/// Gives the vif that is served now to `out`, without allocating; false where there is none.
pub(super) fn write_suspect(domain: &Domain, out: &mut dyn FnMut(&[u8])) -> bool {
    let vif = domain.suspect.get().and_then(|port| domain.bus.backend().vif_at(port));
    let Some(DeviceId { frontend: DomainId(domain), handle }) = vif else {
        return false;
    };
    let mut bytes = [0; 16];
    let mut cursor = Cursor::new(bytes.as_mut_slice());
    let written = minicbor::encode((domain, handle), &mut cursor).is_ok();
    let length = cursor.position();
    out(bytes.get(..length).unwrap_or_default());
    written
}

/// Gives the number of packets that wait now to `out`, without allocating.
pub(super) fn write_waiting(domain: &Domain, out: &mut dyn FnMut(&[u8])) -> bool {
    let mut bytes = [0; 8];
    let mut cursor = Cursor::new(bytes.as_mut_slice());
    let written = minicbor::encode(domain.waiting.get(), &mut cursor).is_ok();
    let length = cursor.position();
    out(bytes.get(..length).unwrap_or_default());
    written
}

/// Writes the state down for good.
pub(super) async fn run(domain: Rc<Domain>) {
    loop {
        write(&domain);
        time::sleep(PAUSE).await;
        select(time::sleep(INTERVAL), domain.changed.wait()).await;
    }
}

/// Writes the state down now.
fn write(domain: &Domain) {
    let path = domain.path.borrow();
    let vif = |(device, id): (DeviceId, _)| Some((device.frontend.0, device.handle, path.keep_vif(id)?));
    let vifs = domain.bus.backend().vifs().into_iter().filter_map(vif).collect();
    let nics = domain.nics.borrow();
    let nics = nics.active().iter().filter_map(|nic| Some((nic.address().to_string(), path.keep_nic(nic.id())?)));
    let netback = domain.bus.backend();
    let (carriers, lost) = (Some(netback.carriers()), Some(domain.lost));
    let kept = Kept { vifs, nics: nics.collect(), blame: netback.blame(), carriers, lost };
    drop(path);
    domain.written.set(minicbor::to_vec(kept).unwrap_or_default());
}
