//! The handshake of pcifront with pciback, at boot, when a device is attached, detached, and when all go. Safe code. Floor 2.
//!
//! `device/pci/0` holds our side. pciback's states: Initialised(3) until it mapped our page, Connected(4) in use, Reconfiguring(7) while
//! the toolstack adds or takes devices (`state-N` is 5 for those to go), Reconfigured(8) when pciback did its part.

use super::device::Device;
use super::error::PciError;
use super::kept;
use super::operation::Bus;
use super::states::{self as state, Whereabouts, whereabouts};
use super::tenure::{self, Holdings, Unfinished};
use crate::events;
use crate::grants;
use crate::memory::{self, Page};
use crate::record::record;
use crate::select::select;
use crate::time::{self, Duration};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::mem;
use core::str::FromStr;
use futures_util::future::{join, join3, join4};
use pci_types::PciAddress;
use split_driver::memory::BusMaster;
use split_driver::store::{Store, StoreError, Transaction, Watch};
use xen_pv_sys::io::pciif::XEN_PCI_MAGIC;
use xen_pv_sys::{DomainId, GrantRef, Port};

/// Our side.
const FRONTEND: &str = "device/pci/0";
/// Where pciback has its side. The toolstack writes it whenever it makes our directory.
const BACKEND: &str = "device/pci/0/backend";
/// pciback has 32 slots of 8 functions on its virtual bus.
const MAX_DEVICES: u32 = 256;
/// [`state::INITIALISED`] as it stands in the store.
const INITIALISED_TEXT: &str = "3";
/// How long to wait before a store that refused is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked at whether pciback has taken back what the last life let go.
const LOOK: Duration = Duration::from_millis(5);

/// A device that pciback lists.
struct Listed {
    /// Where this domain finds it.
    address: PciAddress,
    /// Where the host has it, by the toolstack's word.
    host: PciAddress,
    /// Its `state-N`.
    state: u32,
}

/// What came of pciback.
#[derive(Debug)]
pub enum Event {
    /// A device is there, at boot or attached later.
    Added(Device),
    /// The toolstack takes the device away. Its driver stops and [`Device::close`] is called before the next
    /// [`Frontend::next_event`], which lets go of it. Its registers may answer all ones already: `xl` resets it first.
    Removed(PciAddress),
    /// This life goes on without a device of an earlier one: pciback does not know it, and the toolstack did not take it away. By the host's address.
    Lost(PciAddress),
    /// Something failed; the frontend waits for what the toolstack does next.
    Failed(PciError),
}

/// The connection to one pciback device directory.
struct Link<W> {
    backend: String,
    /// None until the store was asked, where the link is the last life's.
    watch: Option<W>,
    bus: Rc<Bus>,
    /// What our `state` is; written, unless `unsaid`.
    state: u32,
    /// Our `state` is still to be written: the devices that were found go out first, so that nobody waits for a turn of the store.
    unsaid: bool,
    /// pciback had not answered our state when the watch was set: there is nothing to look at until it fires.
    waits: Cell<bool>,
    devices: Holdings,
}

/// Finds devices, and follows the toolstack adding and taking them.
pub struct Frontend<S: Store> {
    store: S,
    /// Of [`BACKEND`]: fires when the toolstack makes or removes our directory, and not with each node that we write there. None until the
    /// store was asked.
    watch: Option<S::Watch>,
    link: Option<Link<S::Watch>>,
    queue: VecDeque<Event>,
    /// Devices of the last life that may still write to memory, and whether the toolstack takes them away.
    inherited: Vec<(Device, bool)>,
    /// They are those that the last life wrote down.
    resumed: bool,
}

/// What a node says, `None` where it is not there (or no longer ours to read).
async fn read<T: FromStr>(store: &impl Store, path: &str) -> Result<Option<T>, StoreError> {
    match store.read_parsed(Transaction::NONE, path).await {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NotFound | StoreError::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where pciback has its side for us, and in which domain it runs; `None` where nothing is passed to this domain.
async fn read_backend(store: &impl Store) -> Result<Option<(String, DomainId)>, StoreError> {
    let id_path = format!("{FRONTEND}/backend-id");
    let (backend, domain) = join(read(store, BACKEND), read(store, &id_path)).await;
    let Some(backend) = backend? else {
        return Ok(None);
    };
    let domain = domain?.map(DomainId).ok_or(StoreError::Malformed)?;
    Ok(Some((backend, domain)))
}

/// Parses `dddd:bb:ss.ff`, hexadecimal, as pciback writes it.
fn parse_address(text: &str) -> Option<PciAddress> {
    let (segment, rest) = text.trim().split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let slot = u8::from_str_radix(slot, 16).ok().filter(|&s| s < 32)?;
    let function = u8::from_str_radix(function, 16).ok().filter(|&f| f < 8)?;
    Some(PciAddress::new(u16::from_str_radix(segment, 16).ok()?, u8::from_str_radix(bus, 16).ok()?, slot, function))
}

impl<S: Store> Frontend<S> {
    /// Watches for what the toolstack passes to this domain, and begins the handshake where it passed something at the domain's
    /// creation. Does not wait for pciback.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn new(store: S) -> Result<Self, PciError> {
        // Requests that do not depend on each other go out together: each costs a turn of the store's domain.
        let (watch, backend) = join(store.watch(BACKEND), read_backend(&store)).await;
        let mut watch = watch?;
        let (queue, inherited) = Default::default();
        let mut frontend = Self { store, watch: None, link: None, queue, inherited, resumed: false };
        if let Some((backend, domain)) = backend? {
            frontend.open(backend, domain).await?;
            // Its first event told of what is open now.
            watch.next().await;
        }
        frontend.watch = Some(watch);
        Ok(frontend)
    }

    /// Goes on with the connection and the devices that the last life wrote down; nothing is asked. `None` where they make no sense: the store
    /// tells.
    pub(crate) fn resume(store: S, bytes: &[u8]) -> Option<Self> {
        let connection = kept::parse(bytes)?;
        let channel = events::adopt_inherited(Port(connection.port))?;
        let grant = grants::adopt(GrantRef(connection.reference))?;
        // The last life may have asked something and not got to saying so.
        channel.notify();
        let bus = Rc::new(Bus::new(grant, channel));
        let mut devices = Holdings::default();
        let inherit = |kept: &kept::Device| Some((Device::inherit(Rc::clone(&bus), kept)?, kept.leaving));
        let inherited: Vec<_> = connection.devices.iter().filter_map(inherit).collect();
        for (device, _) in &inherited {
            devices.add(device.address(), Rc::clone(device.tenure()));
        }
        let backend = connection.backend.clone();
        let lost = connection.lost.iter().flatten().filter_map(|host| host.address());
        let queue = lost.map(Event::Lost).collect();
        kept::set(Some(connection));
        let (state, unsaid, waits) = (state::CONNECTED, false, Cell::new(false));
        let link = Some(Link { backend, watch: None, bus, state, unsaid, waits, devices });
        Some(Self { store, watch: None, link, queue, inherited, resumed: true })
    }

    /// Whether the toolstack passed anything to this domain by now.
    pub fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it goes on with the connection of the last life, and its devices.
    pub(crate) fn has_resumed(&self) -> bool {
        self.resumed
    }

    /// Takes access to memory from the devices that the last life had. There are events for those that stay. What the last life had begun to give
    /// back is let go of in the end, or is pciback's already. A device that pciback does not know is given up: there is an event for it as well,
    /// and what it may write is never used again. To be called before any event is taken, and before any device has memory of this life.
    pub async fn stop_inherited(&mut self) {
        if !self.resumed {
            events::close_inherited_interrupts(|_| true);
        }
        for (device, leaving) in mem::take(&mut self.inherited) {
            let (address, resumed) = (device.address(), self.resumed);
            let attempt = async || match device.stop(resumed && !leaving).await {
                Err(Unfinished::Later | Unfinished::Forgotten) if self.has_returned(address).await => {
                    device.tenure().has_returned();
                    device.tenure().quiesced().ok_or(Unfinished::Later)
                }
                attempt => attempt,
            };
            let pause = async |pause| time::sleep(pause).await;
            let Some(proof) = tenure::persist(tenure::FORGOTTEN, attempt, pause).await else {
                self.give_up(device);
                continue;
            };
            // Its memory is free again with that of all others, in one go.
            drop(proof);
            if leaving || !device.tenure().is_ours() {
                log::info!("pci {address}: taken away as the last life ended");
                self.forget(address);
                continue;
            }
            match device.identify().await {
                Ok(device) => self.queue.push_back(Event::Added(device)),
                Err(error) => {
                    log::warn!("pci {address}: no answer: {error}");
                    self.forget(address);
                    self.queue.push_back(Event::Failed(error));
                }
            }
        }
    }

    /// This life goes on without a device.
    fn give_up(&mut self, device: Device) {
        let (address, host) = (device.address(), device.host_address());
        let frames = memory::lose_device_frames();
        log::error!(
            "pci {host}: pciback does not know it, and nobody took it away by xl: {frames} pages that it may write are lost"
        );
        device.give_up();
        self.forget(address);
        self.queue.push_back(Event::Lost(host));
    }

    /// Whether pciback took a device of the last life back, and has reset it; waits while pciback is about to.
    async fn has_returned(&self, address: PciAddress) -> bool {
        let Some(link) = &self.link else {
            return false;
        };
        let (own, theirs) = (format!("{FRONTEND}/state"), format!("{}/state", link.backend));
        loop {
            // The device first: what pciback says later than that counts.
            let Ok(listed) = self.listed(link).await else {
                return false;
            };
            let Ok(theirs) = read(&self.store, &theirs).await else {
                return false;
            };
            let Ok(own) = read(&self.store, &own).await else {
                return false;
            };
            let device = listed.iter().find(|device| device.address == address);
            match whereabouts(own, theirs, device.map(|device| device.state)) {
                Whereabouts::UnderWay => time::sleep(LOOK).await,
                Whereabouts::Returned => return true,
                Whereabouts::Unknown => return false,
            }
        }
    }

    /// A device of the last life is no longer this domain's.
    fn forget(&mut self, address: PciAddress) {
        if let Some(link) = &mut self.link {
            link.devices.forget(address);
        }
        kept::remove(address);
    }

    /// What [`Self::next_event`] would return at once: the other devices, where several were found together.
    pub fn found(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    /// The next thing that happens. Dropping the future loses nothing.
    pub async fn next_event(&mut self) -> Event {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            match self.advance().await {
                Ok(true) => {}
                Ok(false) => self.changed().await,
                Err(error) => {
                    // The error itself goes out first; what follows waits for a change, so that nothing spins.
                    time::sleep(RETRY).await;
                    return Event::Failed(error);
                }
            }
        }
    }

    /// Waits for a change of the backend's state, or of our directory other than by ourselves.
    async fn changed(&mut self) {
        let own = async |watch: &mut Option<S::Watch>| match watch {
            Some(watch) => drop(watch.next().await),
            // Nothing to be heard: `follow` has set it, or its error went out.
            None => core::future::pending().await,
        };
        match &mut self.link {
            Some(link) => {
                select(own(&mut self.watch), own(&mut link.watch)).await;
            }
            None => own(&mut self.watch).await,
        }
    }

    /// Sets the watches of a connection of the last life, and learns how its states stand.
    async fn follow(&mut self) -> Result<(), PciError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let (own, theirs) = (format!("{FRONTEND}/state"), format!("{}/state", link.backend));
        let (own, top, theirs) =
            join3(read::<u32>(&self.store, &own), self.store.watch(BACKEND), self.store.watch(&theirs)).await;
        (link.state, link.watch, self.watch) = (own?.unwrap_or(link.state), Some(theirs?), Some(top?));
        Ok(())
    }

    /// Takes one step. True where something was done, false where there is nothing to do until the store changes.
    async fn advance(&mut self) -> Result<bool, PciError> {
        if self.watch.is_none() {
            self.follow().await?;
            return Ok(true);
        }
        let Some(link) = &self.link else {
            return match read_backend(&self.store).await? {
                Some((backend, domain)) => self.open(backend, domain).await.map(|()| true),
                None => Ok(false),
            };
        };
        if link.unsaid {
            let state = link.state;
            self.set_state(state).await?;
            return Ok(true);
        }
        if link.waits.take() {
            return Ok(false);
        }
        let state_path = format!("{}/state", link.backend);
        // What the state most often leads to is asked for with it.
        let (backend, theirs, listed) =
            join3(read::<String>(&self.store, BACKEND), read::<u32>(&self.store, &state_path), self.listed(link)).await;
        let (backend, theirs) = (backend?, theirs?);
        let gone = backend.as_deref() != Some(link.backend.as_str()) || theirs.is_none();
        if gone {
            // First the devices, whose events go out before this is called again; then the link itself.
            if !self.announce_all_removed() {
                self.drop_link();
            }
            return Ok(true);
        }
        let (theirs, ours) = (theirs.unwrap_or(0), link.state);
        log::debug!("pcifront: pciback is in state {theirs}, we in {ours}");
        self.answer(theirs, ours, listed?).await
    }

    /// Takes the step that pciback's state asks for. True where there was one.
    async fn answer(&mut self, theirs: u32, ours: u32, listed: Vec<Listed>) -> Result<bool, PciError> {
        match (theirs, ours) {
            (state::CONNECTED, state::INITIALISED) | (state::RECONFIGURED, state::RECONFIGURING) => {
                if let Some(link) = &mut self.link {
                    link.devices.returned().into_iter().for_each(kept::remove);
                }
                self.scan(listed).await;
                if let Some(link) = &mut self.link {
                    (link.state, link.unsaid) = (state::CONNECTED, true);
                }
                Ok(true)
            }
            (state::RECONFIGURING, state::CONNECTED) => {
                if !self.announce_closing(listed) {
                    self.let_go().await;
                    self.set_state(state::RECONFIGURING).await?;
                }
                Ok(true)
            }
            // Connected was skipped: the toolstack was faster than we.
            (state::RECONFIGURING, state::INITIALISED) => {
                self.set_state(state::RECONFIGURING).await?;
                Ok(true)
            }
            (state::CLOSING | state::CLOSED, ours) if ours != state::CLOSED => {
                if !self.announce_all_removed() {
                    if let Some(link) = &mut self.link {
                        link.devices.lose();
                    }
                    self.set_state(state::CLOSED).await?;
                }
                Ok(true)
            }
            (_, state::CLOSED) => {
                // The toolstack made our directory anew: its state is the one of a start.
                let ours: Option<u32> = read(&self.store, &format!("{FRONTEND}/state")).await?;
                if ours == Some(state::INITIALISING) {
                    self.drop_link();
                    return Ok(true);
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Takes over the page and the channel that the last life published, and finds the devices that it had. Gives false where there are none.
    ///
    /// # Errors
    /// What the store answers; [`PciError::NotInherited`] where the nodes name a page or a channel that the last life did not have.
    async fn adopt(&mut self, backend: &str) -> Result<bool, PciError> {
        let [reference, port, state] =
            ["pci-op-ref", "event-channel", "state"].map(|node| format!("{FRONTEND}/{node}"));
        let (store, theirs) = (&self.store, format!("{backend}/state"));
        let published = join3(read::<u32>(store, &reference), read::<u32>(store, &port), read::<u32>(store, &state));
        let ((reference, port, ours), watch) = join(published, store.watch(&theirs)).await;
        let (Some(reference), Some(port), Some(state)) = (reference?, port?, ours?) else {
            return Ok(false);
        };
        if !matches!(state, state::INITIALISED | state::CONNECTED | state::RECONFIGURING) {
            return Ok(false);
        }
        let (Some(grant), Some(channel)) = (grants::adopt(GrantRef(reference)), events::adopt_inherited(Port(port)))
        else {
            return Err(PciError::NotInherited);
        };
        let mut watch = watch?;
        watch.next().await;
        // The last life may have asked something and not got to saying so.
        channel.notify();
        let bus = Rc::new(Bus::new(grant, channel));
        let (unsaid, waits, devices) = (false, Cell::new(false), Holdings::default());
        let mut link = Link { backend: backend.into(), watch: Some(watch), bus, state, unsaid, waits, devices };
        let (theirs, listed) = join(read::<u32>(store, &theirs), self.listed(&link)).await;
        let listed = listed?;
        // pciback gives devices out once it is connected, and each when it has left its first state.
        if theirs?.is_some_and(|theirs| theirs > state::INITIALISED) {
            for Listed { address, host, state } in
                listed.into_iter().filter(|device| device.state > state::INITIALISING)
            {
                let device = Device::left(Rc::clone(&link.bus), address, host);
                link.devices.add(address, Rc::clone(device.tenure()));
                self.inherited.push((device, state == state::CLOSING));
            }
        }
        self.set_link(link);
        Ok(true)
    }

    /// Publishes a page and a channel.
    async fn open(&mut self, backend: String, domain: DomainId) -> Result<(), PciError> {
        if record().is_again() && self.adopt(&backend).await? {
            return Ok(());
        }
        let path = format!("{backend}/state");
        let page = Rc::new(Page::new()?);
        let grant = grants::grant_access(domain, page, false)?;
        let bus = Rc::new(Bus::new(grant, events::alloc_unbound(domain)?));
        let (reference, port) = bus.published();
        // The store takes a connection's requests in their order, so the state is the last of ours. What follows can wait: pciback
        // has begun by then.
        let (reference, port) = (reference.to_string(), port.to_string());
        let published = join4(
            self.write("pci-op-ref", &reference),
            self.write("event-channel", &port),
            self.write("magic", XEN_PCI_MAGIC),
            self.write("state", INITIALISED_TEXT),
        );
        let ((reference, port, magic, state), watch) = join(published, self.store.watch(&path)).await;
        reference.and(port).and(magic).and(state)?;
        let mut watch = watch?;
        // The watch fires once when it is set. The state is read behind that, as later events may be folded into one that waits.
        watch.next().await;
        let theirs: Option<u32> = read(&self.store, &path).await?;
        let waits = theirs.is_some_and(|theirs| theirs <= state::INITIALISED);
        self.set_link(Link {
            backend,
            watch: Some(watch),
            bus,
            state: state::INITIALISED,
            unsaid: false,
            waits: Cell::new(waits),
            devices: Holdings::default(),
        });
        Ok(())
    }

    fn set_link(&mut self, link: Link<S::Watch>) {
        let (reference, port) = link.bus.published();
        let (backend, devices) = (link.backend.clone(), Vec::new());
        kept::set(Some(kept::Connection { backend, reference, port, devices, lost: None }));
        self.link = Some(link);
    }

    fn drop_link(&mut self) {
        kept::set(None);
        self.link = None;
    }

    /// Writes a node of our directory.
    async fn write(&self, node: &str, value: &str) -> Result<(), StoreError> {
        let path = format!("{FRONTEND}/{node}");
        self.store.write(Transaction::NONE, &path, value.as_bytes()).await
    }

    async fn set_state(&mut self, state: u32) -> Result<(), PciError> {
        self.write("state", &state.to_string()).await?;
        if let Some(link) = &mut self.link {
            (link.state, link.unsaid) = (state, false);
        }
        Ok(())
    }

    /// The devices that pciback lists.
    async fn listed(&self, link: &Link<S::Watch>) -> Result<Vec<Listed>, PciError> {
        let backend = &link.backend;
        let number_path = format!("{backend}/num_devs");
        // Most domains have one device: it is asked for together with their number.
        let (count, first) = join(read::<u32>(&self.store, &number_path), self.listed_at(backend, 0)).await;
        let count = count?.unwrap_or(0).min(MAX_DEVICES);
        let mut listed = Vec::new();
        if count > 0 {
            listed.extend(first?);
        }
        for index in 1..count {
            listed.extend(self.listed_at(backend, index).await?);
        }
        Ok(listed)
    }

    /// The device that pciback lists under a number; `None` where it has not taken one up there.
    async fn listed_at(&self, backend: &str, index: u32) -> Result<Option<Listed>, PciError> {
        let (path, state_path) = (format!("{backend}/vdev-{index}"), format!("{backend}/state-{index}"));
        let host_path = format!("{backend}/dev-{index}");
        let (text, state, host) = join3(
            read::<String>(&self.store, &path),
            read(&self.store, &state_path),
            read::<String>(&self.store, &host_path),
        )
        .await;
        let Some(text) = text? else {
            return Ok(None);
        };
        let Some(address) = parse_address(&text) else {
            log::warn!("pcifront: {path} is not an address: {text:?}");
            return Ok(None);
        };
        let host = host.ok().flatten().and_then(|text| parse_address(&text));
        Ok(Some(Listed { address, host: host.unwrap_or(address), state: state?.unwrap_or(0) }))
    }

    /// Queues an event for each device that is new, and forgets those that are no longer listed.
    async fn scan(&mut self, listed: Vec<Listed>) {
        let Some(link) = &mut self.link else {
            return;
        };
        link.devices.keep(|known| listed.iter().any(|device| device.address == known));
        for Listed { address, host, state } in listed {
            if link.devices.has(address) || state == state::CLOSING {
                continue;
            }
            match Device::found(Rc::clone(&link.bus), address, host).identify().await {
                Ok(device) => {
                    link.devices.add(address, Rc::clone(device.tenure()));
                    self.queue.push_back(Event::Added(device));
                }
                Err(error) => {
                    log::warn!("pci {address}: no answer: {error}");
                    self.queue.push_back(Event::Failed(error));
                }
            }
        }
    }

    /// Queues an event for each device that the toolstack takes away. False where there is none (left).
    fn announce_closing(&mut self, listed: Vec<Listed>) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let before = self.queue.len();
        for Listed { address, state, .. } in listed {
            if state == state::CLOSING && link.devices.take_away(address) {
                kept::with(address, |device| device.leaving = true);
                self.queue.push_back(Event::Removed(address));
            }
        }
        self.queue.len() > before
    }

    /// pciback is about to be told that it may take the devices that leave: nothing more is asked for them, as others may stand at their
    /// addresses from then on.
    async fn let_go(&self) {
        if let Some(link) = &self.link {
            link.devices.let_go();
            link.bus.rest().await;
        }
    }

    /// Queues an event for every device. False where there is none (left).
    fn announce_all_removed(&mut self) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let before = self.queue.len();
        let all = link.devices.take_away_all();
        for address in &all {
            kept::with(*address, |device| device.leaving = true);
        }
        self.queue.extend(all.into_iter().map(Event::Removed));
        self.queue.len() > before
    }

    /// Lets go of everything: for the domain's end. Devices must have been closed.
    pub async fn close(mut self) {
        if self.link.is_some()
            && let Err(error) = self.set_state(state::CLOSED).await
        {
            log::debug!("pcifront: not closed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_pciback_writes_them() {
        assert_eq!(parse_address("0000:00:1f.02"), Some(PciAddress::new(0, 0, 31, 2)));
        assert_eq!(parse_address("0001:03:00.0\n"), Some(PciAddress::new(1, 3, 0, 0)));
        for bad in ["", "0000:00:20.0", "0000:00:00.8", "00:00.0", "x:0:0.0"] {
            assert_eq!(parse_address(bad), None, "{bad:?}");
        }
    }
}
