//! The domains that the store knows of, and what each takes up. Pure. Floor 1.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use xen_pv_sys::DomainId;

use crate::permissions::Caller;
use crate::quota::{Quota, Quotas, RESOURCES, Resource};
use crate::{ConnectionId, Host, Map};

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
    /// Quotas of its own.
    quotas: BTreeMap<&'static str, (Quota, u32)>,
    beyond_soft: bool,
}

impl Domain {
    pub(crate) fn takes(&self, resource: Resource) -> usize {
        at(&self.now, resource)
    }

    pub(crate) fn most(&self, resource: Resource) -> usize {
        at(&self.most, resource)
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
    /// Bytes that all take.
    taken: usize,
}

/// Of the memory that is free, a guest may have this part. So there is always some left for those that come: `n` guests that take all
/// that they can get leave a share like their own four times.
const SHARE: usize = 4;

impl Domains {
    pub(crate) fn new(privileged: DomainId, features: u32, quotas: Quotas, memory: usize) -> Self {
        Self { known: Map::default(), privileged, features, quotas, most: [0; RESOURCES], memory, taken: 0 }
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
        let memory = removed.as_ref().map_or(0, |domain| domain.takes(Resource::Memory));
        self.taken = self.taken.saturating_sub(memory);
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
            quotas: BTreeMap::new(),
            beyond_soft: false,
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
        let own = self.known.get(&id).and_then(|domain| domain.quotas.values().find(|(own, _)| *own == quota));
        own.map_or_else(|| self.quotas.get(quota), |(_, value)| *value)
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

    /// Bytes that all take.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Bytes that all may take together; 0 is no bound.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Whether `more` bytes are more than `id` may have while the others take what they do.
    pub(crate) fn exceeds_share(&self, id: DomainId, more: usize) -> bool {
        let free = self.memory.saturating_sub(self.taken);
        let own = self.takes(id, Resource::Memory);
        id != self.privileged && self.memory != 0 && own + more > free / SHARE
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
            if resource == Resource::Memory {
                self.taken = (self.taken + value).saturating_sub(before);
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
