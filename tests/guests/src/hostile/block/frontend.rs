//! A blkfront: a proper one first, whose rings, grants and channels are then open to any misuse.

use super::ring::Ring;
use crate::device::{Device, PATIENCE};
use crate::error::{Error, Result};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use runtime::events::{self, Channel};
use runtime::grants::{Grant, grant_access};
use runtime::memory::Page;
use runtime::time::timeout;
use split_driver::store::{Store, Transaction};
use split_driver::xenstore_client::Client;
use xen_pv_sys::io::blkif::{
    BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_RSP_OKAY, Request, RequestIndirect, RequestSegment,
    Response, VDISK_READONLY,
};
use xen_pv_sys::io::xenbus::XenbusState;
use xen_pv_sys::{GrantRef, PAGE_SIZE};
use zerocopy::{FromZeros, IntoBytes};

/// Sectors of a page.
pub(crate) const PAGE_SECTORS: u64 = 8;
/// Grants of a page that is in many segments.
pub(crate) const SHARES: usize = 32;

/// What a frontend says of itself before it connects.
#[derive(Clone, Copy)]
pub(crate) struct Manners {
    /// Queues, each with a ring.
    pub(crate) queues: u32,
    /// Pages of a ring: a power of two.
    pub(crate) pages: u32,
    /// It lays its rings out as a 32-bit guest does.
    pub(crate) narrow: bool,
    /// It uses its grants again.
    pub(crate) persistent: bool,
    /// The backend may not write the rings.
    pub(crate) read_only: bool,
    /// The backend is Linux': it halts a ring that cannot be believed and says so nowhere in the store, and it unregisters for good a device
    /// whose frontend writes a value that is no xenbus state.
    pub(crate) linux: bool,
    /// Nodes with another value than the true one, or left out.
    pub(crate) lies: &'static [(&'static str, Option<&'static str>)],
}

/// A queue: its ring and its channel.
pub(crate) struct Queue {
    pub(crate) ring: Ring,
    pub(crate) channel: Channel,
}

/// A frontend, connected or about to be.
pub(crate) struct Frontend {
    pub(crate) device: Device,
    pub(crate) manners: Manners,
    /// The disk's end, in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Sectors of a logical block.
    pub(crate) block: u64,
    pub(crate) writable: bool,
    pub(crate) queues: Vec<Queue>,
    grants: Vec<Grant>,
    /// The page of many segments, by all its grants.
    shared: Vec<GrantRef>,
}

/// The first vbd of ours.
pub(crate) async fn find(store: &Client) -> Result<Device> {
    let handles = store.directory(Transaction::NONE, "device/vbd").await?;
    let handle = handles.first().ok_or(Error::Wrong("there is no vbd"))?;
    Device::find(store, format!("device/vbd/{handle}")).await
}

impl Frontend {
    /// The whole handshake, as Linux' blkfront does it.
    pub(crate) async fn connect(device: Device, manners: Manners) -> Result<Self> {
        let mut frontend = Self::offer(device, manners).await?;
        let device = &frontend.device;
        device.wait_for(&[XenbusState::Connected]).await?;
        frontend.sectors = device.backend_number("sectors").await?;
        frontend.block = device.backend_number::<u64>("sector-size").await?.max(512) / 512;
        frontend.writable = device.backend_number::<u32>("info").await? & VDISK_READONLY == 0;
        device.set_state(XenbusState::Connected).await?;
        Ok(frontend)
    }

    /// Makes rings, and tells the backend of them.
    pub(crate) async fn offer(device: Device, manners: Manners) -> Result<Self> {
        device.wait_for(&[XenbusState::InitWait, XenbusState::Connected]).await?;
        let mut frontend = Self {
            device,
            manners,
            sectors: 0,
            block: 1,
            writable: false,
            queues: Vec::new(),
            grants: Vec::new(),
            shared: Vec::new(),
        };
        // An attack may have left one, and a ring of one page has none (note 6 of `io/blkif.h`).
        frontend.device.remove("ring-page-order").await?;
        let mut nodes = frontend.make_queues()?;
        nodes.push(("protocol".into(), if manners.narrow { "x86_32-abi" } else { "x86_64-abi" }.into()));
        nodes.push(("feature-persistent".into(), u32::from(manners.persistent).to_string()));
        for (name, value) in manners.lies {
            nodes.retain(|(node, _)| node != name);
            nodes.extend(value.map(|value| ((*name).into(), value.into())));
        }
        frontend.device.write_with_state(&nodes, XenbusState::Initialised).await?;
        Ok(frontend)
    }

    /// The rings, granted, and the nodes that name them.
    fn make_queues(&mut self) -> Result<Vec<(String, String)>> {
        let Manners { queues, pages, narrow, read_only, .. } = self.manners;
        let mut nodes = Vec::new();
        let mut node = |name: String, value: u32| nodes.push((name, value.to_string()));
        // Also where Linux says nothing: something else may be there from an attack.
        node("multi-queue-num-queues".into(), queues);
        if pages > 1 {
            node("ring-page-order".into(), pages.ilog2());
        }
        for index in 0..queues {
            let directory = if queues > 1 { format!("queue-{index}/") } else { String::new() };
            let (ring, channel) = (Ring::new(pages as usize, narrow)?, events::alloc_unbound(self.device.domain)?);
            for (index, page) in ring.pages.iter().enumerate() {
                let number = if pages > 1 { index.to_string() } else { String::new() };
                node(format!("{directory}ring-ref{number}"), self.lend(Rc::clone(page), read_only)?.0);
            }
            node(format!("{directory}event-channel"), channel.port().0);
            self.queues.push(Queue { ring, channel });
        }
        Ok(nodes)
    }

    /// Grants a page to the backend for as long as this frontend lives.
    pub(crate) fn lend(&mut self, page: Rc<Page>, read_only: bool) -> Result<GrantRef> {
        let grant = grant_access(self.device.domain, page, read_only)?;
        let reference = grant.reference();
        self.grants.push(grant);
        Ok(reference)
    }

    /// A page full of `byte`, granted for reading and writing.
    pub(crate) fn lend_filled(&mut self, byte: u8) -> Result<(Rc<Page>, GrantRef)> {
        let page = Rc::new(Page::new()?);
        page.write(0, &[byte; PAGE_SIZE]);
        let reference = self.lend(Rc::clone(&page), false)?;
        Ok((page, reference))
    }

    /// One page of zeros for many segments, by as many grants as these take: Xen has a grant mapped no more than 128 times at once.
    pub(crate) fn share(&mut self) -> Result<[GrantRef; SHARES]> {
        if self.shared.is_empty() {
            let page = Rc::new(Page::new()?);
            for _ in 0..SHARES {
                let reference = self.lend(Rc::clone(&page), false)?;
                self.shared.push(reference);
            }
        }
        self.shared.as_slice().try_into().map_err(|_| Error::Memory)
    }

    /// The first queue.
    pub(crate) fn queue(&mut self) -> Result<&mut Queue> {
        self.queues.first_mut().ok_or(Error::Wrong("there is no queue"))
    }

    /// Asks for one thing on the first queue; gives the status it is answered with.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<i16> {
        let queue = self.queue()?;
        let index = queue.ring.push(request)?;
        queue.publish();
        let response = queue.answer().await?;
        if response.id != u64::from(index) {
            return Err(Error::Wrong("another request was answered"));
        }
        Ok(response.status)
    }

    /// What must be refused; `what` is for the console where it is not.
    pub(crate) async fn refused(&mut self, what: &str, request: &[u8]) -> Result<()> {
        match self.ask(request).await? {
            BLKIF_RSP_OKAY => {
                log::error!("{what}: done");
                Err(Error::Wrong("what cannot be was done"))
            }
            _ => Ok(()),
        }
    }

    /// Does as any frontend would: writes and reads back where it may, or reads.
    pub(crate) async fn works(&mut self) -> Result<()> {
        let (page, reference) = self.lend_filled(0xa5)?;
        for operation in [BLKIF_OP_WRITE, BLKIF_OP_READ] {
            if operation == BLKIF_OP_READ {
                page.write(0, &[0; PAGE_SIZE]);
            } else if !self.writable {
                continue;
            }
            let status = self.ask(transfer(operation, 0, &[whole(reference)]).as_bytes()).await?;
            if status != BLKIF_RSP_OKAY {
                return Err(Error::Answer(status));
            }
        }
        if self.writable && !is_filled(&page, 0xa5) {
            return Err(Error::Wrong("what was read is not what was written"));
        }
        Ok(())
    }
}

impl Queue {
    /// Publishes what was placed, and says so.
    pub(crate) fn publish(&self) {
        self.ring.publish();
        self.channel.notify();
    }

    /// The next response.
    pub(crate) async fn answer(&mut self) -> Result<Response> {
        loop {
            match self.ring.take()? {
                Some(response) => return Ok(response),
                None => timeout(PATIENCE, self.channel.wait()).await?,
            }
        }
    }

    /// Takes all that is still to be answered; gives how much of it was refused.
    pub(crate) async fn drain(&mut self) -> Result<u32> {
        let mut refused = 0;
        while self.ring.consumed != self.ring.produced {
            refused += u32::from(self.answer().await?.status != BLKIF_RSP_OKAY);
        }
        Ok(refused)
    }
}

/// Whether each byte of the page is this one.
pub(crate) fn is_filled(page: &Page, byte: u8) -> bool {
    let mut bytes = [0; PAGE_SIZE];
    page.read(0, &mut bytes) && bytes.iter().all(|each| *each == byte)
}

/// A part of a page.
pub(crate) const fn segment(gref: GrantRef, first_sect: u8, last_sect: u8) -> RequestSegment {
    RequestSegment { gref, first_sect, last_sect, padding: [0; 2] }
}

/// A whole page.
pub(crate) const fn whole(gref: GrantRef) -> RequestSegment {
    segment(gref, 0, 7)
}

/// So many sectors, all in the same page.
pub(crate) fn span(gref: GrantRef, sectors: u64) -> Vec<RequestSegment> {
    let full = (0..sectors / PAGE_SECTORS).map(|_| whole(gref));
    let rest = (sectors % PAGE_SECTORS).checked_sub(1).map(|last| segment(gref, 0, last as u8));
    full.chain(rest).collect()
}

/// A read, a write or a barrier, of as many segments as there are.
pub(crate) fn transfer(operation: u8, sector: u64, segments: &[RequestSegment]) -> Request {
    let mut request = Request::new_zeroed();
    request.operation = operation;
    request.nr_segments = segments.len() as u8;
    request.sector_number = sector;
    request.seg.iter_mut().zip(segments).for_each(|(slot, segment)| *slot = *segment);
    request
}

/// A read or a write of segments that one page describes.
pub(crate) fn indirect(indirect_op: u8, sector: u64, nr_segments: u16, page: GrantRef) -> RequestIndirect {
    let mut request = RequestIndirect::new_zeroed();
    request.operation = BLKIF_OP_INDIRECT;
    request.indirect_op = indirect_op;
    request.nr_segments = nr_segments;
    request.sector_number = sector;
    request.indirect_grefs = [page; 8];
    request
}
