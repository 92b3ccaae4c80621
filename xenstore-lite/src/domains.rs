//! The domains that the store knows of, and what each takes up. Pure. Floor 1.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::AddAssign;

use xen_pv_sys::DomainId;

use crate::permissions::Caller;
use crate::quota::{Quota, Quotas, RESOURCES, Resource};
use crate::{ConnectionId, Error, Host, Map, charge};

/// A domain that is connected, or that nodes or their permissions name.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// [`Host::domain`]'s number; 0 where it is not known.
    pub(crate) unique: u64,
    /// The tree's generation when the domain came to be known: what is older does not mean this domain.
    pub(crate) born: u64,
    pub(crate) features: u32,
    pub(crate) introduced: bool,
    pub(crate) shutdown: bool,
    pub(crate) connection: Option<ConnectionId>,
    /// Whose rights it has got as well.
    pub(crate) target: Option<DomainId>,
    /// Transactions that it lost to others, one after another.
    pub(crate) losses: u32,
    now: [usize; RESOURCES],
    most: [usize; RESOURCES],
    /// Of its memory, what the privileged domain added to nodes that this one owns.
    given: usize,
    /// Devices for which it is the backend, by directories that the privileged domain made.
    devices: usize,
    /// Quotas of its own.
    quotas: BTreeMap<&'static str, (Quota, u32)>,
    beyond_soft: bool,
    /// Whether the log has been told that it met a quota or its share.
    refused: bool,
}

impl Domain {
    pub(crate) fn takes(&self, resource: Resource) -> usize {
        at(&self.now, resource)
    }

    pub(crate) fn most(&self, resource: Resource) -> usize {
        at(&self.most, resource)
    }

    /// Bytes that it took by itself, but for what its devices allow it: by that hoarders are known.
    pub(crate) fn hoards(&self) -> usize {
        self.would_hoard(0)
    }

    /// The same with `more` bytes.
    fn would_hoard(&self, more: usize) -> usize {
        (self.takes(Resource::Memory).saturating_add(more).saturating_sub(self.given))
            .saturating_sub(self.devices.saturating_mul(MEMORY_A_DEVICE))
    }

    /// Bytes of its nodes that the privileged domain gave it, and devices for which it is the backend.
    pub(crate) fn gifts(&self) -> (usize, usize) {
        (self.given, self.devices)
    }

    /// Its own quotas, by name.
    pub(crate) fn own_quotas(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.quotas.iter().map(|(name, (_, value))| (*name, *value))
    }
}

fn at(values: &[usize; RESOURCES], resource: Resource) -> usize {
    values.get(resource as usize).copied().unwrap_or_default()
}

fn raise(values: &mut [usize; RESOURCES], resource: Resource, value: usize) {
    if let Some(most) = values.get_mut(resource as usize) {
        *most = value.max(*most);
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Domains {
    known: Map<DomainId, Domain>,
    pub(crate) privileged: DomainId,
    pub(crate) features: u32,
    pub(crate) quotas: Quotas,
    /// The most that any unprivileged domain took.
    most: [usize; RESOURCES],
    /// Bytes that all may take together; 0 is no bound.
    memory: usize,
    /// What all take.
    all: [usize; RESOURCES],
}

/// What a node counts for its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Bytes.
    pub(crate) memory: usize,
    /// Of those, what the privileged domain gave.
    pub(crate) given: usize,
    /// 1 where it is the directory of a device that the privileged domain gave to its owner.
    pub(crate) devices: usize,
}

impl AddAssign for Counted {
    fn add_assign(&mut self, more: Self) {
        self.memory += more.memory;
        self.given += more.given;
        self.devices += more.devices;
    }
}

/// Of the memory that is free, a domain may have this part beside what the privileged domain gave it. So there is always some left for
/// those that come: `n` domains that take all that they can get leave a share like their own four times.
const SHARE: usize = 4;
/// What a backend may have more for each of its devices: nodes, of which a vif and a vbd take some 21,
const NODES_A_DEVICE: usize = 64;
/// watches,
const WATCHES_A_DEVICE: usize = 4;
/// and bytes of what it makes itself.
const MEMORY_A_DEVICE: usize = 8192;

impl Domains {
    pub(crate) fn new(privileged: DomainId, features: u32, quotas: Quotas, memory: usize) -> Self {
        Self { known: Map::default(), privileged, features, quotas, most: [0; RESOURCES], memory, all: [0; RESOURCES] }
    }

    pub(crate) fn get(&self, id: DomainId) -> Option<&Domain> {
        self.known.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: DomainId) -> Option<&mut Domain> {
        self.known.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (DomainId, &Domain)> {
        self.known.iter().map(|(id, domain)| (*id, domain))
    }

    pub(crate) fn remove(&mut self, id: DomainId) -> Option<Domain> {
        let targeting = self.known.iter().filter(|(_, domain)| domain.target == Some(id)).map(|(own, _)| *own);
        for own in targeting.collect::<Vec<_>>() {
            if let Some(domain) = self.known.get_mut(&own) {
                domain.target = None;
            }
        }
        let removed = self.known.remove(&id);
        for (all, own) in self.all.iter_mut().zip(removed.iter().flat_map(|domain| domain.now)) {
            *all = all.saturating_sub(own);
        }
        removed
    }

    /// The domain, made known where it is not.
    pub(crate) fn ensure(&mut self, id: DomainId, unique: u64, generation: u64) -> Option<&mut Domain> {
        let features = self.features;
        self.known.get_or_insert_with(id, || Domain {
            unique,
            born: generation,
            features,
            introduced: false,
            shutdown: false,
            connection: None,
            target: None,
            losses: 0,
            now: [0; RESOURCES],
            most: [0; RESOURCES],
            given: 0,
            devices: 0,
            quotas: BTreeMap::new(),
            beyond_soft: false,
            refused: false,
        })
    }

    /// The domain, made known where the machine has it.
    pub(crate) fn ensure_existing(
        &mut self,
        id: DomainId,
        generation: u64,
        host: &mut dyn Host,
    ) -> Option<&mut Domain> {
        if !self.known.contains_key(&id) {
            let unique = host.domain(id)?;
            self.ensure(id, unique, generation);
        }
        self.known.get_mut(&id)
    }

    /// Whether an entry for `id` that is as old as `generation` means the domain of that id that there is now.
    pub(crate) fn means(&self, id: DomainId, generation: u64) -> bool {
        self.known.get(&id).is_some_and(|domain| domain.born <= generation)
    }

    /// `id` as one who asks.
    pub(crate) fn caller(&self, id: DomainId) -> Caller {
        let target = self.known.get(&id).and_then(|domain| domain.target);
        Caller { domain: id, privileged: id == self.privileged, target }
    }

    /// The quota that holds for `id`.
    pub(crate) fn quota(&self, id: DomainId, quota: Quota) -> u32 {
        let common = self.quotas.get(quota);
        let Some(domain) = self.known.get(&id) else {
            return common;
        };
        match domain.quotas.values().find(|(own, _)| *own == quota) {
            Some((_, value)) => *value,
            None if domain.devices == 0 || common == 0 => common,
            // A backend has room for each device that the privileged domain gave it.
            None => {
                let a_device = match quota {
                    Quota::Hard(Resource::Nodes) => NODES_A_DEVICE,
                    Quota::Hard(Resource::Watches) => WATCHES_A_DEVICE,
                    Quota::Hard(Resource::Memory) | Quota::SoftMemory => MEMORY_A_DEVICE,
                    Quota::Hard(_) => 0,
                };
                common.saturating_add(u32::try_from(domain.devices.saturating_mul(a_device)).unwrap_or(u32::MAX))
            }
        }
    }

    /// Gives `id` a quota of its own.
    pub(crate) fn set_quota(&mut self, id: DomainId, quota: Quota, value: u32) {
        let name = Quota::all().find(|(known, _)| *known == quota).map(|(_, name)| name);
        if let (Some(domain), Some(name)) = (self.known.get_mut(&id), name) {
            domain.quotas.insert(name, (quota, value));
        }
    }

    /// Whether `value` is more than `id` may have.
    pub(crate) fn exceeds(&self, id: DomainId, resource: Resource, value: usize) -> bool {
        let limit = self.quota(id, Quota::Hard(resource));
        id != self.privileged && limit != 0 && value > limit as usize
    }

    /// Whether `more` is more than `id` may have beside what it takes up.
    pub(crate) fn exceeds_with(&self, id: DomainId, resource: Resource, more: usize) -> bool {
        self.exceeds(id, resource, self.takes(id, resource) + more)
            || (resource == Resource::Memory && self.exceeds_share(id, more))
    }

    /// Whether nodes that count `now` are more than `id` may have in place of those that counted `before`.
    pub(crate) fn exceeds_instead(&self, id: DomainId, before: Counted, now: Counted) -> bool {
        let own = |counted: Counted| counted.memory.saturating_sub(counted.given);
        let more = now.memory.saturating_sub(before.memory);
        let more_own = own(now).saturating_sub(own(before));
        (more > 0 && self.exceeds(id, Resource::Memory, self.takes(id, Resource::Memory) + more))
            || (more_own > 0 && self.exceeds_share(id, more_own))
    }

    /// What all take.
    pub(crate) fn all(&self, resource: Resource) -> usize {
        at(&self.all, resource)
    }

    /// Bytes that count because objects lie in the heap, and that the state which is kept of them does not take.
    pub(crate) fn not_kept(&self) -> usize {
        charge::not_kept(self.all(Resource::Nodes), self.all(Resource::Watches))
    }

    /// Bytes that are left: whatever all take has to fit twice, in the heap and as it is kept for the next life.
    pub(crate) fn free(&self) -> usize {
        (2 * self.memory + self.not_kept()).saturating_sub(2 * self.all(Resource::Memory)) / 2
    }

    /// Bytes that all may take together; 0 is no bound.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Whether `more` bytes are more than `id` may have while the others take what they do.
    pub(crate) fn exceeds_share(&self, id: DomainId, more: usize) -> bool {
        let would = self.known.get(&id).map_or(more, |domain| domain.would_hoard(more));
        id != self.privileged && self.memory != 0 && would > self.free() / SHARE
    }

    pub(crate) fn takes(&self, id: DomainId, resource: Resource) -> usize {
        self.known.get(&id).map_or(0, |domain| domain.takes(resource))
    }

    /// Counts `more` of what `id` takes up.
    pub(crate) fn add(&mut self, id: DomainId, resource: Resource, more: usize) {
        let value = self.takes(id, resource) + more;
        self.put(id, resource, value);
        self.note_most(id, resource, value);
    }

    /// Counts so many nodes that `id` owns.
    pub(crate) fn add_nodes(&mut self, id: DomainId, nodes: usize, counted: Counted) {
        if let Some(domain) = self.known.get_mut(&id) {
            domain.given += counted.given;
            domain.devices += counted.devices;
        }
        self.add(id, Resource::Nodes, nodes);
        self.add(id, Resource::Memory, counted.memory);
    }

    /// Counts a node no longer.
    pub(crate) fn take_off_node(&mut self, id: DomainId, counted: Counted) {
        if let Some(domain) = self.known.get_mut(&id) {
            domain.given = domain.given.saturating_sub(counted.given);
            domain.devices = domain.devices.saturating_sub(counted.devices);
        }
        self.take_off(id, Resource::Nodes, 1);
        self.take_off(id, Resource::Memory, counted.memory);
    }

    /// Counts `fewer`.
    pub(crate) fn take_off(&mut self, id: DomainId, resource: Resource, fewer: usize) {
        let value = self.takes(id, resource).saturating_sub(fewer);
        self.put(id, resource, value);
    }

    fn put(&mut self, id: DomainId, resource: Resource, value: usize) {
        let soft = self.quota(id, Quota::SoftMemory);
        let privileged = id == self.privileged;
        let Some(domain) = self.known.get_mut(&id) else {
            return;
        };
        if let Some(place) = domain.now.get_mut(resource as usize) {
            let before = core::mem::replace(place, value);
            if let Some(all) = self.all.get_mut(resource as usize) {
                *all = (*all + value).saturating_sub(before);
            }
        }
        if resource == Resource::Memory && !privileged && soft != 0 {
            let beyond = value > soft as usize;
            if beyond && !domain.beyond_soft {
                log::warn!("domain {} takes up {value} bytes, more than its soft quota of {soft}", id.0);
            }
            domain.beyond_soft = beyond;
        }
    }

    /// Tells the log, once a domain, that it may have no more: its kernel is the only one that hears of it otherwise.
    pub(crate) fn note_refusal(&mut self, id: DomainId, error: Error) {
        let (free, memory) = (self.free(), self.memory);
        let Some(domain) = self.known.get_mut(&id).filter(|_| id != self.privileged) else {
            return;
        };
        if !core::mem::replace(&mut domain.refused, true) {
            log::warn!(
                "domain {} is refused a request by {}: it has {} nodes, {} watches and {} bytes, {} of them of its own making; {free} of {memory} \
                 bytes are free. This is said once of a domain",
                id.0,
                error.name(),
                domain.takes(Resource::Nodes),
                domain.takes(Resource::Watches),
                domain.takes(Resource::Memory),
                domain.hoards(),
            );
        }
    }

    /// Notes that `id` had `value` of something.
    pub(crate) fn note_most(&mut self, id: DomainId, resource: Resource, value: usize) {
        if let Some(domain) = self.known.get_mut(&id) {
            raise(&mut domain.most, resource, value);
        }
        if id != self.privileged {
            raise(&mut self.most, resource, value);
        }
    }

    /// The most that any unprivileged domain took.
    pub(crate) fn most(&self, resource: Resource) -> usize {
        at(&self.most, resource)
    }

    /// Forgets what was, beyond what is.
    pub(crate) fn reset_most(&mut self) {
        self.most = [0; RESOURCES];
        for id in self.known.keys().copied().collect::<Vec<_>>() {
            if let Some(domain) = self.known.get_mut(&id) {
                domain.most = domain.now;
            }
        }
    }
}
