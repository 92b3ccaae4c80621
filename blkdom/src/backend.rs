//! blkback as xenbus sees it: what a vbd offers, who may have which volume, and the way to and from the data path. Floor 3.
//!
//! ```text
//! prepare: disks are up, volumes looked for   probe: name -> volume, claim   connect: rings -> data path
//!                                               │                              disconnect: no more requests
//!                                               └── until ─────────────────── settled: no command in flight, claim given back
//! ```
//!
//! In a domain that lived before, a vbd that was connected is prepared and then adopted: claim, and rings with what they were not answered.

use crate::blkback::config::{
    ConfigError, FRONTEND_NODES, Frontend, Identity, VbdConfig, frontend, further_nodes, identity, offers, properties,
};
use crate::blkback::journal::{NOWHERE, Whereabouts, journal_bytes, journal_room};
use crate::blkback::nodes::{QDISK, READ};
use crate::blkback::request::SLOTS_PER_PAGE;
use crate::blkback::violation::AttachError;
use crate::datapath::{DataPath, Inherited, VbdId, bytes_for};
use crate::disk::Geometry;
use crate::kept::Kept;
use crate::volume::{Access, Claim, ClaimError, Claims, NameError, Resolved, Unwritable, Volume};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;
use split_driver::xenbus::{
    Backend, DeviceHandle, DeviceId, DeviceMemory, Directory, Excerpt, Nodes, Promise, TooLittleMemory,
};

/// What there is to be served.
#[expect(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub trait Inventory {
    /// Waits until the disks that the domain began with are up, or given up, and were looked at.
    async fn ready(&self);
    /// Looks at the disks for volumes again.
    async fn rescan(&self);
    /// Whether what [`resolve`](Self::resolve) says of a target is still what its disks say.
    async fn is_current(&self, target: &str) -> bool;
    /// What a target means, as the disks were when they were looked at last.
    ///
    /// # Errors
    /// Why nothing, with what there is; [`NameError::Changing`] where guests wrote since what it follows from.
    fn resolve(&self, target: &str) -> Result<Resolved, NameError>;
    /// Where the first sectors of a volume lie, in a word that other places have not, from life to life ([`Volume::whereabouts`]).
    fn whereabouts(&self, volume: &Volume, sectors: u64) -> Option<u64>;
    /// Who has what.
    fn claims(&self) -> &Claims;
}

/// Looks at the disks for one vbd, at most: guests that come and go while they are looked at make them worthless.
const LOOKS: usize = 4;
/// The same for a disk that the last life served.
const LOOKS_IN_USE: usize = 64;

/// Why a vbd is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VbdError {
    /// Its nodes make no vbd.
    Config(ConfigError),
    /// It is to be served by QEMU: `params`.
    Image(String),
    /// Its target names nothing that can be had.
    Name(NameError),
    /// Somebody else has its volume.
    Claim(ClaimError),
    /// It shall be written, and cannot be; why, where that is not the device's own doing.
    ReadOnly(String, Option<Unwritable>),
    /// It is to be connected and was not probed: a fault of ours.
    Unprobed,
    /// Its rings or channels could not be had.
    Attach(AttachError),
    /// There is no memory for it.
    Memory(TooLittleMemory),
}

/// What a vbd takes beside the memory for its requests, in bytes: its nodes, its name, its queues.
pub(super) const VBD_BYTES: usize = 4 << 10;

impl From<ConfigError> for VbdError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<NameError> for VbdError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<ClaimError> for VbdError {
    fn from(error: ClaimError) -> Self {
        Self::Claim(error)
    }
}

impl From<AttachError> for VbdError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl From<TooLittleMemory> for VbdError {
    fn from(error: TooLittleMemory) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for VbdError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(formatter),
            Self::Image(params) => write!(
                formatter,
                "\"{}\" is for QEMU to serve (format=, backendtype=qdisk); blkdom serves disks and volumes as they are: say \
                 format=raw,backendtype=phy",
                Excerpt(params)
            ),
            Self::Name(error) => error.fmt(formatter),
            Self::Claim(error) => error.fmt(formatter),
            Self::ReadOnly(name, None) => write!(formatter, "{name} cannot be written; say access=ro"),
            Self::ReadOnly(name, Some(why)) => write!(formatter, "{name} cannot be written: {why}; say access=ro"),
            Self::Unprobed => write!(formatter, "no volume was claimed"),
            Self::Attach(error) => error.fmt(formatter),
            Self::Memory(error) => error.fmt(formatter),
        }
    }
}

impl core::error::Error for VbdError {}

/// A vbd from probe on until it is settled.
struct Served {
    identity: Identity,
    volume: Resolved,
    /// Not where its disk was gone when this life took it over.
    claim: Option<Claim>,
    access: Access,
    /// While its frontend is connected.
    connected: Option<(VbdId, DeviceHandle)>,
    /// How it was connected last, for the log.
    description: String,
    /// From connection on, until nothing works on it any longer.
    memory: Option<Promise>,
}

impl Served {
    fn new(identity: Identity, volume: Resolved, claim: Option<Claim>, access: Access) -> Self {
        Self { identity, volume, claim, access, connected: None, description: String::new(), memory: None }
    }

    fn read_only(&self) -> bool {
        !self.access.writes()
    }

    /// What the frontend is offered of what the volume can do.
    fn geometry(&self) -> Geometry {
        let geometry = self.volume.geometry;
        let discards = self.identity.discard && !self.read_only();
        Geometry { discard: geometry.discard.filter(|_| discards), sectors: self.volume.volume.sectors(), ..geometry }
    }
}

/// The vbds of one data path. Hand a clone to `xenbus::Bus::new`, keep one to [`report`](Self::report) after each round and to tell of
/// other [volumes](Self::handle_rescan).
pub struct Blkback<H: Hypervisor + DeviceMapping + Keep, I> {
    /// The directory of its devices below `backend/`.
    kind: &'static str,
    path: Rc<RefCell<DataPath<H>>>,
    inventory: Rc<I>,
    served: Rc<RefCell<BTreeMap<DeviceId, Served>>>,
    /// What the last life counted, until each is there again.
    inherited: Rc<RefCell<Kept>>,
    /// Vbds of the last life whose journals are of no use, and why: the first look at a journal is the last.
    unrecovered: Rc<RefCell<Vec<(DeviceId, AttachError)>>>,
    /// Those who wait for a vbd to be settled.
    unsettled: Rc<RefCell<Vec<(DeviceId, Waker)>>>,
    memory: DeviceMemory,
    /// Called where the data path has something new to do.
    wake: Rc<dyn Fn()>,
}

impl<H: Hypervisor + DeviceMapping + Keep, I> Clone for Blkback<H, I> {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            path: Rc::clone(&self.path),
            inventory: Rc::clone(&self.inventory),
            served: Rc::clone(&self.served),
            inherited: Rc::clone(&self.inherited),
            unrecovered: Rc::clone(&self.unrecovered),
            unsettled: Rc::clone(&self.unsettled),
            memory: self.memory.clone(),
            wake: Rc::clone(&self.wake),
        }
    }
}

impl<H: Hypervisor + DeviceMapping + Keep, I: Inventory> Blkback<H, I> {
    /// The vbds of `path`; `wake` has it polled soon.
    pub fn new(path: Rc<RefCell<DataPath<H>>>, inventory: Rc<I>, wake: Rc<dyn Fn()>) -> Self {
        let (served, inherited, unrecovered, unsettled) = Default::default();
        let memory = DeviceMemory::unbounded();
        Self { kind: "vbd", path, inventory, served, inherited, unrecovered, unsettled, memory, wake }
    }

    /// The same, with bounded memory for its vbds.
    pub fn with_memory(self, memory: DeviceMemory) -> Self {
        Self { memory, ..self }
    }

    /// The same, with what the last life counted.
    pub fn with_inherited(self, inherited: Rc<RefCell<Kept>>) -> Self {
        Self { inherited, ..self }
    }

    /// For a bus of its own: refuses the disks that are for QEMU to serve, as nobody else in this domain would say that they cannot be.
    pub fn refusing_images(&self) -> Self {
        Self { kind: QDISK, ..self.clone() }
    }

    /// Tells the bus what the last rounds brought: vbds that broke the protocol, and those that nothing works on any more. Costs next to
    /// nothing where there is nothing to tell.
    pub fn report(&self) {
        loop {
            // The borrow must not outlive this line: `fail` wakes the bus.
            let failure = self.path.borrow_mut().poll_failed();
            let Some((id, violation)) = failure else {
                break;
            };
            for served in self.served.borrow().values() {
                if let Some((connected, handle)) = &served.connected
                    && *connected == id
                {
                    // The bus says why, in the log and in the device's nodes.
                    handle.fail(violation);
                }
            }
        }
        if !self.unsettled.borrow().is_empty() {
            let path = self.path.borrow();
            self.unsettled.borrow_mut().retain(|(id, waker)| {
                let settled = path.is_settled(*id);
                if settled {
                    waker.wake_by_ref();
                }
                !settled
            });
        }
    }

    /// The volumes were looked for again: those that have another size now are told so, while their guests go on.
    pub fn handle_rescan(&self) {
        for (id, served) in self.served.borrow_mut().iter_mut() {
            let Ok(found) = self.inventory.resolve(&served.identity.target) else {
                // Its disk is gone: requests fail.
                continue;
            };
            if found.volume == served.volume.volume {
                continue;
            }
            let units = found.volume.units();
            if served.volume.volume.units().iter().any(|unit| !units.contains(unit)) {
                // What the old one's cache held may be lost, and no flush of the new one would say so.
                if let Some((connected, _)) = &served.connected {
                    self.path.borrow_mut().lose_disk(*connected);
                }
                log::warn!("vbd {id}: {} is on a disk that was taken away and came back: attach it anew", found.name);
                continue;
            }
            if let Some(Err(error)) = served.claim.as_ref().map(|claim| claim.update(&found)) {
                log::warn!("vbd {id}: keeps its old size: {error}");
                continue;
            }
            let (old, new) = (served.volume.volume.sectors(), found.volume.sectors());
            log::info!("vbd {id}: {} has {new} sectors now, {old} before", found.name);
            if let Some((connected, handle)) = &served.connected {
                let whereabouts = self.whereabouts(&found.volume, found.volume.sectors());
                self.path.borrow_mut().resize(*connected, found.volume.clone(), whereabouts);
                handle.write_node("sectors", new);
            }
            served.volume = found;
        }
    }

    /// The vbds that are connected, with their names on the data path.
    pub fn vbds(&self) -> Vec<(DeviceId, VbdId)> {
        let served = self.served.borrow();
        served.iter().filter_map(|(id, served)| Some((*id, served.connected.as_ref()?.0))).collect()
    }

    /// Vbds that are connected.
    pub fn connected(&self) -> usize {
        self.served.borrow().values().filter(|served| served.connected.is_some()).count()
    }

    /// Finds and claims the volume that a vbd is to have.
    fn claim(&self, id: DeviceId, nodes: &Nodes) -> Result<(), VbdError> {
        let mut vbds = self.served.borrow_mut();
        // Its own old claim does not stand in its way.
        drop(vbds.remove(&id));
        let identity = identity(id, &nodes.backend)?;
        let volume = self.inventory.resolve(&identity.target)?;
        let access = identity.access(volume.shared);
        if access.writes() && volume.geometry.read_only {
            return Err(VbdError::ReadOnly(volume.name, volume.unwritable));
        }
        let claim = Some(self.inventory.claims().claim(identity.holder(id), &volume, access)?);
        vbds.insert(id, Served::new(identity, volume, claim, access));
        Ok(())
    }

    /// The last life served a vbd, and its volume cannot be had.
    fn serve_without_disk(&self, id: DeviceId, nodes: &Nodes, error: &VbdError) -> Result<(), VbdError> {
        let identity = identity(id, &nodes.backend)?;
        log::error!("vbd {id}: its disk is no longer to be had, and its requests fail: {error}");
        let (name, geometry) = (identity.target.clone(), Geometry::default());
        let (lasting, unwritable, shared) = (None, None, false);
        let volume = Resolved { name, lasting, volume: Volume::gone(), geometry, unwritable, shared };
        let access = identity.access(false);
        self.served.borrow_mut().insert(id, Served::new(identity, volume, None, access));
        Ok(())
    }

    /// Takes the rings of a vbd up, anew or where the last life left them.
    fn take_up(&self, handle: &DeviceHandle, nodes: &Nodes, inherits: bool) -> Result<DeviceId, VbdError> {
        let id = handle.id();
        let Frontend { abi, persistent, queues } = frontend(&nodes.frontend)?;
        let mut vbds = self.served.borrow_mut();
        let served = vbds.get_mut(&id).ok_or(VbdError::Unprobed)?;
        let (geometry, read_only) = (served.geometry(), served.read_only());
        let mut description = format!(
            "to {}{}{}, {abi}, {} queue(s) of {} page(s){}",
            served.volume.name,
            served.volume.lasting.as_ref().map(|name| format!(" ({name})")).unwrap_or_default(),
            if read_only { " for reading" } else { "" },
            queues.len(),
            queues.first().map_or(0, |queue| queue.ring.len()),
            if persistent { ", persistent grants" } else { "" },
        );
        let slots = queues.iter().map(|queue| queue.ring.len() * SLOTS_PER_PAGE);
        let journals = slots.clone().map(|slots| journal_bytes(journal_room(slots as u32, queues.len())));
        let memory = VBD_BYTES + journals.sum::<usize>() + bytes_for(slots.sum());
        let memory = if inherits { self.memory.promise_again(memory) } else { self.memory.promise(memory)? };
        let volume = served.volume.volume.clone();
        let config = VbdConfig {
            domain: id.frontend,
            handle: id.handle,
            abi,
            persistent,
            queues,
            whereabouts: self.whereabouts(&volume, volume.sectors()),
            volume,
            geometry,
            read_only,
        };
        let (connected, same_disk) = if inherits {
            self.adopt_rings(config, served.claim.is_some())?
        } else {
            (self.path.borrow_mut().attach(config)?, true)
        };
        let unanswered = self.path.borrow_mut().inherited(connected);
        if unanswered != Inherited::default() {
            description = format!("{description}; {unanswered}");
        }
        if same_disk {
            for (name, value) in properties(&served.identity, &geometry, read_only) {
                handle.write_node(name, value);
            }
        } else {
            if served.claim.take().is_some() {
                let name = &served.volume.name;
                log::error!(
                    "vbd {id}: {name} is not on the disk that it was on, and its requests fail: attach it anew"
                );
            }
            served.volume.volume = Volume::gone();
        }
        if let Some(counted) = self.inherited.borrow_mut().take_vbd(id).filter(|_| inherits) {
            self.path.borrow_mut().restore_vbd(connected, counted);
        }
        served.connected = Some((connected, handle.clone()));
        served.description = description;
        served.memory = Some(memory);
        (self.wake)();
        Ok(id)
    }

    /// Where the first sectors of a volume lie; nowhere that a volume can lie, where one of its disks is not there.
    fn whereabouts(&self, volume: &Volume, sectors: u64) -> Whereabouts {
        Whereabouts { sectors, digest: self.inventory.whereabouts(volume, sectors).unwrap_or(NOWHERE) }
    }

    /// Takes up the rings that the last life had. Gives whether the volume, if it `has_volume`, lies where it lay then; else the disk is given
    /// up, as another one must not be written in its place.
    fn adopt_rings(&self, config: VbdConfig, has_volume: bool) -> Result<(VbdId, bool), VbdError> {
        let volume = config.volume.clone();
        let (id, lay) = self.path.borrow_mut().adopt(config)?;
        let lies = lay.map(|lay| self.whereabouts(&volume, lay.sectors)).filter(|lies| lies.digest != NOWHERE);
        let same = has_volume && lies.is_some() && lies == lay;
        if same {
            // It may have grown.
            let whereabouts = self.whereabouts(&volume, volume.sectors());
            self.path.borrow_mut().resize(id, volume, whereabouts);
        } else {
            self.path.borrow_mut().lose_disk(id);
        }
        Ok((id, same))
    }

    /// Vbds that have a volume, and its name: connected or not.
    pub fn volumes(&self) -> Vec<(DeviceId, String)> {
        self.served.borrow().iter().map(|(id, served)| (*id, served.volume.name.clone())).collect()
    }
}

impl<H: Hypervisor + DeviceMapping + Keep, I: Inventory> Backend for Blkback<H, I> {
    type Device = DeviceId;
    type Error = VbdError;

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn backend_nodes(&self) -> &[&str] {
        READ
    }

    fn frontend_nodes(&self) -> &[&str] {
        FRONTEND_NODES
    }

    fn further_frontend_nodes(&self, frontend: &Directory) -> Vec<String> {
        further_nodes(frontend)
    }

    async fn prepare(&self, id: DeviceId, nodes: &Nodes) {
        if self.kind == QDISK {
            return;
        }
        self.inventory.ready().await;
        let Ok(identity) = identity(id, &nodes.backend) else {
            return;
        };
        // A disk that a guest uses is looked for longer than a new one. The bus has read no nodes of the frontend for a new one.
        let looks = if nodes.frontend == Directory::default() { LOOKS } else { LOOKS_IN_USE };
        for look in 0..looks {
            match self.inventory.resolve(&identity.target) {
                Ok(_) if self.inventory.is_current(&identity.target).await => return,
                Ok(_) | Err(NameError::Changing(_)) => {}
                // What is there and cannot be had may be mended by now, as well: that is worth one look.
                Err(error) if look > 0 || matches!(error, NameError::Target(_)) => return,
                Err(_) => {}
            }
            self.inventory.rescan().await;
        }
    }

    fn is_violation(&self, error: &VbdError) -> bool {
        match error {
            VbdError::Config(_) => true,
            VbdError::Attach(AttachError::Map { error, .. } | AttachError::Bind { error, .. }) => !error.is_shortage(),
            VbdError::Attach(AttachError::Ring { .. }) => true,
            // `Unprobed` is a fault here, and all else is the toolstack's.
            VbdError::Image(_)
            | VbdError::Name(_)
            | VbdError::Claim(_)
            | VbdError::ReadOnly(..)
            | VbdError::Unprobed
            | VbdError::Attach(AttachError::NoPlace | AttachError::NoMemory | AttachError::Journal { .. })
            | VbdError::Memory(_) => false,
        }
    }

    /// Here, not when it connects: whoever attaches a disk shall see at once that it cannot be.
    fn probe(&self, id: DeviceId, nodes: &Nodes) -> Result<Vec<(String, String)>, VbdError> {
        if self.kind == QDISK {
            let params = nodes.backend.get("params").unwrap_or_default();
            return Err(VbdError::Image(String::from_utf8_lossy(params).into()));
        }
        self.claim(id, nodes)?;
        Ok(offers())
    }

    fn connect(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<DeviceId, VbdError> {
        self.take_up(handle, nodes, false)
    }

    fn adopt(&self, handle: &DeviceHandle, nodes: &Nodes) -> Result<DeviceId, VbdError> {
        let id = handle.id();
        if let Some((_, error)) = self.unrecovered.borrow().iter().find(|(known, _)| *known == id) {
            return Err((*error).into());
        }
        match self.claim(id, nodes) {
            // It fails what is asked of it, as where its disk goes while it is connected.
            Err(error @ (VbdError::Name(_) | VbdError::ReadOnly(..) | VbdError::Claim(_))) => {
                self.serve_without_disk(id, nodes, &error)?;
            }
            claimed => claimed?,
        }
        let taken = self.take_up(handle, nodes, true);
        if let Err(VbdError::Attach(error @ AttachError::Journal { .. })) = &taken {
            self.unrecovered.borrow_mut().push((id, *error));
        }
        taken
    }

    fn describe(&self, device: &DeviceId) -> String {
        self.served.borrow().get(device).map(|served| served.description.clone()).unwrap_or_default()
    }

    fn changed(&self, device: &mut DeviceId, nodes: &Nodes) -> Result<(), VbdError> {
        if let Some(served) = self.served.borrow().get(device)
            && identity(*device, &nodes.backend).as_ref() != Ok(&served.identity)
        {
            log::warn!("vbd {device}: its nodes were changed; that counts when it is attached anew");
        }
        Ok(())
    }

    fn disconnect(&self, device: DeviceId) {
        if let Some(served) = self.served.borrow_mut().get_mut(&device)
            && let Some((connected, _)) = served.connected.take()
        {
            self.path.borrow_mut().detach(connected);
            (self.wake)();
        }
    }

    async fn settled(&self, id: DeviceId) {
        if self.kind == QDISK {
            return;
        }
        poll_fn(|context| {
            let mut unsettled = self.unsettled.borrow_mut();
            unsettled.retain(|(waiting, _)| *waiting != id);
            if self.path.borrow().is_settled(id) {
                return Poll::Ready(());
            }
            unsettled.push((id, context.waker().clone()));
            Poll::Pending
        })
        .await;
        self.unrecovered.borrow_mut().retain(|(known, _)| *known != id);
        // Whoever gets the volume next writes after all that was in flight.
        drop(self.served.borrow_mut().remove(&id));
    }
}

#[cfg(test)]
mod tests;
