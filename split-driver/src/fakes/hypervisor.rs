//! A hypervisor in a test: domains with pages, grants and event channels, and Xen's checks of what crosses between them. Floor 1.

mod held;
mod life;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use xen_pv_sys::grant_table::{
    CopyEnd, GNTST_BAD_COPY_ARG, GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_BAD_PAGE, GNTST_GENERAL_ERROR,
    GNTST_PERMISSION_DENIED, GrantCopy,
};
use xen_pv_sys::{DomainId, GrantRef, Mfn, PAGE_SIZE, Port};

use super::peer::{Peer, Place, Step};
use super::region::{PAGE_WORDS, Region, copy_bytes, read_bytes, write_bytes};
use crate::atomic::AtomicU32;
use crate::hypervisor::{Adopt, DeviceMap, DeviceMapping, DevicePage, Hypervisor, XenError};
pub use held::{FakeChannel, FakeRing};
pub use life::FakeKeptPage;
use life::Lives;

/// `EINVAL`.
const EINVAL: u16 = 22;

/// What only a driver's own fault brings about, whatever its peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A grant copy named a local frame that is not the domain's.
    CopyToForeignFrame(u64),
    /// The device reached for an address that is not memory given to it (any more).
    DeviceAddress(u64),
    /// The device wrote a page that was mapped for reading.
    DeviceWrite(u64),
    /// A page was unmapped that was not mapped.
    Unmap(u32),
    /// A grant copy had an end that is neither a grant nor local.
    CopyWithoutGrant(DomainId),
}

/// What is held at the moment: where a test ends, or a device is gone, all should be as before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Foreign pages mapped.
    pub mapped_pages: usize,
    /// Event channels bound.
    pub channels: usize,
    /// Runs of local pages and DMA memory.
    pub local_regions: usize,
    /// Pages kept for the next life, those of the last one that nobody took over among them.
    pub kept_pages: usize,
}

#[derive(Debug)]
pub(super) struct Grant {
    pub(super) region: Region,
    pub(super) page: usize,
    pub(super) writable: bool,
    pub(super) maps: usize,
}

#[derive(Debug, Default)]
pub(super) struct DomainState {
    pub(super) grants: Vec<Option<Grant>>,
    /// Ports the domain allocated for us, with the local port once bound.
    pub(super) ports: BTreeMap<u32, Option<Port>>,
    pub(super) next_port: u32,
    /// Notifications that arrived, by the domain's port.
    pub(super) notified: BTreeMap<u32, u64>,
}

#[derive(Debug)]
struct DeviceGrant {
    domain: DomainId,
    reference: GrantRef,
    region: Region,
    page: usize,
    read_only: bool,
}

#[derive(Debug)]
struct ChannelState {
    remote: (DomainId, Port),
    masked: bool,
    pending: bool,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) domains: RefCell<BTreeMap<DomainId, DomainState>>,
    channels: RefCell<BTreeMap<u32, ChannelState>>,
    events: RefCell<VecDeque<Port>>,
    local: RefCell<BTreeMap<u64, Region>>,
    next_frame: Cell<u64>,
    next_port: Cell<u32>,
    violations: RefCell<Vec<Violation>>,
    copies: Cell<u64>,
    copy_calls: Cell<u64>,
    /// Pages mapped for a device, by the frame that the device reaches them at.
    device_pages: RefCell<BTreeMap<u64, DeviceGrant>>,
    map_calls: Cell<u64>,
    mapped_pages: Cell<usize>,
    fail_map: Cell<Option<XenError>>,
    fail_bind: Cell<Option<XenError>>,
    fail_copy: Cell<Option<(u64, i16)>>,
    dma_credit: Cell<Option<usize>>,
    pub(super) peer: Place,
    lives: Lives,
}

/// The hypervisor. Clones are the same one.
#[derive(Clone, Debug)]
pub struct FakeXen(pub(super) Rc<World>);

impl Default for FakeXen {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeXen {
    /// A hypervisor with the local domain only.
    pub fn new() -> Self {
        let world = World::default();
        world.next_frame.set(0x10_0000);
        world.next_port.set(1);
        Self(Rc::new(world))
    }

    /// The next port whose event was delivered to us. The port stays masked until its channel is unmasked.
    #[inline(never)]
    pub fn next_event(&self) -> Option<Port> {
        self.0.events.borrow_mut().pop_front()
    }

    /// What is held.
    pub fn live(&self) -> Live {
        Live {
            mapped_pages: self.0.mapped_pages.get(),
            channels: self.0.channels.borrow().len(),
            local_regions: self.0.local.borrow().len(),
            kept_pages: self.0.lives.kept(),
        }
    }

    /// Faults of the driver, oldest first; forgotten when told.
    pub fn take_violations(&self) -> Vec<Violation> {
        self.0.violations.take()
    }

    /// Grant copies done (whatever their status), and calls that they came in.
    pub fn copy_count(&self) -> (u64, u64) {
        (self.0.copies.get(), self.0.copy_calls.get())
    }

    /// Calls that mapped or unmapped pages for a device.
    pub fn device_map_calls(&self) -> u64 {
        self.0.map_calls.get()
    }

    /// The next mapping, of a ring or for a device, fails.
    pub fn fail_next_map(&self, error: XenError) {
        self.0.fail_map.set(Some(error));
    }

    /// The next binding fails.
    pub fn fail_next_bind(&self, error: XenError) {
        self.0.fail_bind.set(Some(error));
    }

    /// The copy after `skip` more fails with `status`.
    pub fn fail_copy(&self, skip: u64, status: i16) {
        self.0.fail_copy.set(Some((skip, status)));
    }

    /// Has a peer act before each look at a mapped ring or at DMA memory and before each grant copy, or no longer.
    pub fn set_peer(&self, peer: Option<Peer>) {
        self.0.peer.set(peer);
    }

    /// DMA memory can be had `times` more.
    pub fn limit_dma(&self, times: usize) {
        self.0.dma_credit.set(Some(times));
    }

    pub(super) fn take_dma_credit(&self) -> bool {
        match self.0.dma_credit.get() {
            Some(0) => false,
            Some(left) => {
                self.0.dma_credit.set(Some(left - 1));
                true
            }
            None => true,
        }
    }

    /// The device reads memory at a device address: local pages, DMA memory, or pages mapped for it. False, and noted, where it is
    /// neither.
    pub fn device_read(&self, address: u64, destination: &mut [u8]) -> bool {
        self.device_access(address, false, |words, offset| read_bytes(words, offset, destination))
    }

    /// The device writes memory at a device address. False, and noted, where there is no memory that it may write.
    pub fn device_write(&self, address: u64, source: &[u8]) -> bool {
        self.device_access(address, true, |words, offset| write_bytes(words, offset, source))
    }

    fn device_access(&self, address: u64, write: bool, access: impl FnOnce(&[AtomicU32], usize) -> bool) -> bool {
        let frame = address / PAGE_SIZE as u64;
        let found = self.local_words(frame).or_else(|| {
            let pages = self.0.device_pages.borrow();
            let grant = pages.get(&frame)?;
            if write && grant.read_only {
                self.note(Violation::DeviceWrite(address));
            }
            (!write || !grant.read_only).then(|| (grant.region.clone(), grant.page))
        });
        let done = found.is_some_and(|(region, page)| {
            let offset = page * PAGE_SIZE + (address % PAGE_SIZE as u64) as usize;
            access(&region, offset)
        });
        if !done {
            self.note(Violation::DeviceAddress(address));
        }
        done
    }

    fn note(&self, violation: Violation) {
        self.0.violations.borrow_mut().push(violation);
    }

    /// Gives local pages frames. A frame that is nobody's lies between two regions.
    pub(super) fn add_local(&self, region: &Region) -> Mfn {
        let first = self.0.next_frame.get();
        let frames = (region.len() / PAGE_WORDS) as u64;
        self.0.next_frame.set(first + frames + 1);
        self.0.local.borrow_mut().insert(first, region.clone());
        Mfn(first)
    }

    pub(super) fn remove_local(&self, first: Mfn) {
        self.0.local.borrow_mut().remove(&first.0);
    }

    /// The region that holds a local frame, and the page in it.
    fn local_words(&self, frame: u64) -> Option<(Region, usize)> {
        let local = self.0.local.borrow();
        let (first, region) = local.range(..=frame).next_back()?;
        let page = usize::try_from(frame - first).ok()?;
        (page < region.len() / PAGE_WORDS).then(|| (region.clone(), page))
    }

    /// One end of a copy, checked as Xen's `gnttab_copy_claim_buf` does.
    fn copy_end(&self, end: &CopyEnd, is_grant: bool, write: bool) -> Result<(Region, usize), i16> {
        if !is_grant {
            if end.domain != DomainId::SELF {
                self.note(Violation::CopyWithoutGrant(end.domain));
                return Err(GNTST_PERMISSION_DENIED);
            }
            return self.local_words(end.reference_or_frame).ok_or_else(|| {
                self.note(Violation::CopyToForeignFrame(end.reference_or_frame));
                GNTST_BAD_PAGE
            });
        }
        let domains = self.0.domains.borrow();
        let domain = domains.get(&end.domain).ok_or(GNTST_BAD_DOMAIN)?;
        // Xen takes the low half of the union as the reference.
        let reference = (end.reference_or_frame & 0xffff_ffff) as usize;
        let grant = domain.grants.get(reference).ok_or(GNTST_BAD_GNTREF)?;
        let grant = grant.as_ref().ok_or(GNTST_GENERAL_ERROR)?;
        if write && !grant.writable {
            return Err(GNTST_GENERAL_ERROR);
        }
        Ok((grant.region.clone(), grant.page))
    }

    fn copy_one(&self, copy: &GrantCopy) -> Result<(), i16> {
        self.0.copies.set(self.0.copies.get() + 1);
        if let Some((skip, status)) = self.0.fail_copy.get() {
            self.0.fail_copy.set(skip.checked_sub(1).map(|skip| (skip, status)));
            if skip == 0 {
                return Err(status);
            }
        }
        let source_grant = copy.flags & GrantCopy::SOURCE_GRANT != 0;
        let destination_grant = copy.flags & GrantCopy::DESTINATION_GRANT != 0;
        let (source, source_page) = self.copy_end(&copy.source, source_grant, false)?;
        let (destination, destination_page) = self.copy_end(&copy.destination, destination_grant, true)?;
        let length = usize::from(copy.length);
        let from = usize::from(copy.source.offset);
        let to = usize::from(copy.destination.offset);
        if from + length > PAGE_SIZE || to + length > PAGE_SIZE {
            return Err(GNTST_BAD_COPY_ARG);
        }
        let from = source_page * PAGE_SIZE + from;
        let to = destination_page * PAGE_SIZE + to;
        copy_bytes(&source, from, &destination, to, length);
        Ok(())
    }

    /// An event for the local `port` arrives.
    pub(super) fn deliver(&self, port: Port) {
        if let Some(channel) = self.0.channels.borrow_mut().get_mut(&port.0) {
            if channel.masked {
                channel.pending = true;
            } else {
                channel.masked = true;
                self.0.events.borrow_mut().push_back(port);
            }
        }
    }
}

impl Hypervisor for FakeXen {
    type Ring = FakeRing;
    type Channel = FakeChannel;

    fn map_ring(&self, domain: DomainId, references: &[GrantRef]) -> Result<FakeRing, XenError> {
        self.call();
        if let Some(error) = self.0.fail_map.take() {
            return Err(error);
        }
        let mut domains = self.0.domains.borrow_mut();
        let state = domains.get_mut(&domain).ok_or(XenError::Grant(GNTST_BAD_DOMAIN))?;
        let mut found: Option<(Region, usize)> = None;
        for (index, reference) in references.iter().enumerate() {
            let grant = state.grants.get(reference.0 as usize).ok_or(XenError::Grant(GNTST_BAD_GNTREF))?;
            let grant = grant.as_ref().filter(|grant| grant.writable).ok_or(XenError::Grant(GNTST_GENERAL_ERROR))?;
            let (region, first) = found.get_or_insert_with(|| (grant.region.clone(), grant.page));
            // The fake's one limit: pages of a ring must lie in one run of the guest's memory, in order.
            if !Rc::ptr_eq(region, &grant.region) || *first + index != grant.page {
                return Err(XenError::Exhausted);
            }
        }
        let (region, first) = found.ok_or(XenError::Errno(EINVAL))?;
        for reference in references {
            if let Some(Some(grant)) = state.grants.get_mut(reference.0 as usize) {
                grant.maps += 1;
            }
        }
        let pages = references.len();
        self.0.mapped_pages.set(self.0.mapped_pages.get() + pages);
        Ok(FakeRing { xen: self.clone(), domain, references: references.into(), region, first })
    }

    fn bind_interdomain(&self, domain: DomainId, remote: Port) -> Result<FakeChannel, XenError> {
        self.call();
        if let Some(error) = self.0.fail_bind.take() {
            return Err(error);
        }
        let mut domains = self.0.domains.borrow_mut();
        let bound = domains
            .get_mut(&domain)
            .and_then(|state| state.ports.get_mut(&remote.0))
            .filter(|bound| bound.is_none())
            .ok_or(XenError::Errno(EINVAL))?;
        let port = Port(self.0.next_port.get());
        self.0.next_port.set(port.0 + 1);
        *bound = Some(port);
        let channel = ChannelState { remote: (domain, remote), masked: false, pending: false };
        self.0.channels.borrow_mut().insert(port.0, channel);
        Ok(FakeChannel { xen: self.clone(), port })
    }

    #[inline(never)]
    fn grant_copy(&self, batch: &mut [GrantCopy]) {
        self.0.copy_calls.set(self.0.copy_calls.get() + 1);
        for copy in batch {
            self.call();
            self.0.peer.before(Step::Copy);
            copy.status = match self.copy_one(copy) {
                Ok(()) => 0,
                Err(status) => status,
            };
        }
    }
}

/// A place names the page's first reference and its domain; a life's end is played by forgetting what it had.
impl Adopt for FakeXen {
    fn place(&self, ring: &FakeRing) -> [u32; 2] {
        [ring.references.first().map_or(0, |reference| reference.0), u32::from(ring.domain.0)]
    }

    fn adopt_ring(&self, [reference, domain]: [u32; 2]) -> Option<FakeRing> {
        let domain = DomainId(domain as u16);
        let domains = self.0.domains.borrow();
        let grant = domains.get(&domain)?.grants.get(reference as usize)?.as_ref().filter(|grant| grant.maps > 0)?;
        let (region, first) = (grant.region.clone(), grant.page);
        Some(FakeRing { xen: self.clone(), domain, references: alloc::vec![GrantRef(reference)], region, first })
    }

    fn adopt_channel(&self, port: Port) -> FakeChannel {
        FakeChannel { xen: self.clone(), port }
    }
}

impl FakeXen {
    fn map_one(&self, domain: DomainId, element: &DeviceMap) -> Result<DevicePage, XenError> {
        self.call();
        if let Some(error) = self.0.fail_map.take() {
            return Err(error);
        }
        let mut domains = self.0.domains.borrow_mut();
        let state = domains.get_mut(&domain).ok_or(XenError::Grant(GNTST_BAD_DOMAIN))?;
        let grant = state.grants.get_mut(element.reference.0 as usize).ok_or(XenError::Grant(GNTST_BAD_GNTREF))?;
        let grant = grant.as_mut().filter(|grant| grant.writable || element.read_only);
        let grant = grant.ok_or(XenError::Grant(GNTST_GENERAL_ERROR))?;
        grant.maps += 1;
        // Frames of grants lie in a world of their own, with a hole after each.
        let frame = self.0.next_frame.get();
        self.0.next_frame.set(frame + 2);
        let (reference, read_only) = (element.reference, element.read_only);
        let mapped = DeviceGrant { domain, reference, region: grant.region.clone(), page: grant.page, read_only };
        self.0.device_pages.borrow_mut().insert(frame, mapped);
        self.0.mapped_pages.set(self.0.mapped_pages.get() + 1);
        Ok(DevicePage::new(frame as u32, frame * PAGE_SIZE as u64, read_only))
    }

    fn unmap_one(&self, page: &DevicePage) {
        let Some(mapped) = self.0.device_pages.borrow_mut().remove(&page.address.frame().0) else {
            return self.note(Violation::Unmap(page.handle));
        };
        self.0.mapped_pages.set(self.0.mapped_pages.get() - 1);
        if let Some(state) = self.0.domains.borrow_mut().get_mut(&mapped.domain)
            && let Some(Some(grant)) = state.grants.get_mut(mapped.reference.0 as usize)
        {
            grant.maps -= 1;
        }
    }
}

impl DeviceMapping for FakeXen {
    fn map_for_device(&self, domain: DomainId, batch: &mut [DeviceMap]) {
        self.0.map_calls.set(self.0.map_calls.get() + 1);
        for element in batch {
            element.result = self.map_one(domain, element);
        }
    }

    fn unmap_for_device(&self, pages: &mut Vec<DevicePage>) {
        self.0.map_calls.set(self.0.map_calls.get() + 1);
        for page in pages.drain(..) {
            self.unmap_one(&page);
        }
    }
}
