//! A netfront: a proper one first, whose rings, grants and channels are then open to any misuse.

use crate::device::{Device, PATIENCE};
use crate::error::{Error, Result};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use runtime::events::{self, Channel};
use runtime::grants::{Grant, grant_access};
use runtime::memory::Page;
use runtime::time;
use split_driver::memory::SharedMemory;
use split_driver::ring::FrontRing;
use xen_pv_sys::GrantRef;
use xen_pv_sys::io::netif::{
    ExtraInfo, NETIF_RSP_OKAY, RxFlags, RxRequest, RxResponse, TxFlags, TxRequest, TxResponse,
};
use xen_pv_sys::io::xenbus::XenbusState;

/// Receive slots of a proper frontend.
const RECEIVE_SLOTS: u16 = 64;

/// What a frontend says of itself before it connects.
#[derive(Clone, Copy)]
pub(crate) struct Manners<'a> {
    /// Posts receive slots before it connects.
    pub(crate) posts: bool,
    /// Written as `tx-ring-ref` in place of the ring's own.
    pub(crate) ring: Option<u32>,
    /// Written as `event-channel-rx` in place of the channel's own.
    pub(crate) port: Option<u32>,
    /// Nodes that say what it can take, and what it wishes.
    pub(crate) features: &'a [(&'a str, &'a str)],
}

/// All that the protocol knows, as an attacker wants it.
const ALL: &[(&str, &str)] = &[
    ("feature-sg", "1"),
    ("feature-gso-tcpv4", "1"),
    ("feature-gso-tcpv6", "1"),
    ("feature-ipv6-csum-offload", "1"),
    ("request-multicast-control", "1"),
];

impl Manners<'_> {
    /// All as it should be.
    pub(crate) const GOOD: Self = Self { posts: true, ring: None, port: None, features: ALL };

    /// Nodes of the vif as a whole.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (String, String)> {
        let fixed = [("request-rx-copy", "1"), ("feature-rx-notify", "1")];
        let nodes = fixed.into_iter().chain(self.features.iter().copied());
        nodes.map(|(node, value)| (node.into(), value.into()))
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    Some(mac)
}

/// A connected frontend.
pub(crate) struct Frontend {
    pub(crate) vif: Device,
    pub(crate) mac: [u8; 6],
    pub(crate) transmit: FrontRing<Rc<Page>, TxRequest, TxResponse>,
    pub(crate) receive: FrontRing<Rc<Page>, RxRequest, RxResponse>,
    pub(crate) transmit_page: Rc<Page>,
    pub(crate) receive_page: Rc<Page>,
    pub(crate) transmit_channel: Channel,
    pub(crate) receive_channel: Channel,
    /// What is granted: the rings, and the pages of receive slots.
    grants: Vec<Grant>,
    /// The pages of the receive slots posted first; the `n`th has the identifier `n + 1`.
    buffers: Vec<(GrantRef, Rc<Page>)>,
    identifier: u16,
}

impl Frontend {
    /// The whole handshake with that vif's backend, as Linux' netfront does it.
    pub(crate) async fn connect(vif: Device, manners: Manners<'_>) -> Result<Self> {
        let frontend = Self::offer(vif, manners).await?;
        frontend.vif.wait_for(&[XenbusState::Connected]).await?;
        frontend.transmit_channel.notify();
        frontend.receive_channel.notify();
        Ok(frontend)
    }

    /// Makes rings, and tells the backend of them.
    pub(crate) async fn offer(vif: Device, manners: Manners<'_>) -> Result<Self> {
        vif.wait_for(&[XenbusState::InitWait, XenbusState::Connected]).await?;
        let (frontend, mut nodes) = Self::prepare(vif, manners, "").await?;
        nodes.extend(manners.nodes());
        frontend.vif.write_with_state(&nodes, XenbusState::Connected).await?;
        Ok(frontend)
    }

    /// Makes the rings of a queue, and gives the nodes that tell of them, in this directory of the frontend's (with a `/` behind).
    pub(crate) async fn prepare(
        vif: Device,
        manners: Manners<'_>,
        directory: &str,
    ) -> Result<(Self, Vec<(String, String)>)> {
        let mac = parse_mac(&vif.read("mac").await?).ok_or(Error::Text)?;
        let (transmit_page, receive_page) = (Rc::new(Page::new()?), Rc::new(Page::new()?));
        let mut frontend = Self {
            transmit: FrontRing::init(Rc::clone(&transmit_page))?,
            receive: FrontRing::init(Rc::clone(&receive_page))?,
            transmit_channel: events::alloc_unbound(vif.domain)?,
            receive_channel: events::alloc_unbound(vif.domain)?,
            transmit_page,
            receive_page,
            grants: Vec::new(),
            buffers: Vec::new(),
            identifier: 0,
            vif,
            mac,
        };
        let transmit_ring = frontend.lend(Rc::clone(&frontend.transmit_page), false)?;
        let receive_ring = frontend.lend(Rc::clone(&frontend.receive_page), false)?;
        if manners.posts {
            for _ in 0..RECEIVE_SLOTS {
                let page = Rc::new(Page::new()?);
                let slot = frontend.lend(Rc::clone(&page), false)?;
                frontend.buffers.push((slot, page));
                frontend.post(slot);
            }
            let _ = frontend.receive.push_and_check_notify();
        }
        let nodes = [
            ("tx-ring-ref", manners.ring.unwrap_or(transmit_ring.0)),
            ("rx-ring-ref", receive_ring.0),
            ("event-channel-tx", frontend.transmit_channel.port().0),
            ("event-channel-rx", manners.port.unwrap_or(frontend.receive_channel.port().0)),
        ];
        let nodes = nodes.map(|(node, value)| (format!("{directory}{node}"), value.to_string()));
        Ok((frontend, nodes.into()))
    }

    /// Grants a page to the backend for as long as this frontend lives.
    pub(crate) fn lend(&mut self, page: Rc<Page>, read_only: bool) -> Result<GrantRef> {
        let grant = grant_access(self.vif.domain, page, read_only)?;
        let reference = grant.reference();
        self.grants.push(grant);
        Ok(reference)
    }

    /// A page with these bytes at its start, granted.
    pub(crate) fn lend_bytes(&mut self, bytes: &[u8]) -> Result<GrantRef> {
        let page = Rc::new(Page::new()?);
        page.write(0, bytes);
        self.lend(page, true)
    }

    /// Places a receive slot.
    pub(crate) fn post(&mut self, gref: GrantRef) {
        self.identifier = self.identifier.wrapping_add(1);
        let _ = self.receive.push(&RxRequest { id: self.identifier, pad: 0, gref });
    }

    /// Places a transmit slot; false where the ring is full.
    pub(crate) fn slot(&mut self, gref: GrantRef, offset: u16, size: u16, flags: TxFlags) -> bool {
        self.identifier = self.identifier.wrapping_add(1);
        self.transmit.push(&TxRequest { gref, offset, flags, id: self.identifier, size })
    }

    /// Places an extra info; false where the ring is full.
    pub(crate) fn extra(&mut self, kind: u8, flags: u8, value: [u8; 6]) -> bool {
        self.transmit.push_as(&ExtraInfo { kind, flags, value })
    }

    /// Publishes what was placed on both rings, and says so.
    pub(crate) fn publish(&mut self) {
        let _ = self.transmit.push_and_check_notify();
        let _ = self.receive.push_and_check_notify();
        self.transmit_channel.notify();
        self.receive_channel.notify();
    }

    /// Takes `count` responses of the transmit ring.
    pub(crate) async fn responses(&mut self, count: usize) -> Result<Vec<i16>> {
        let mut statuses = Vec::new();
        let deadline = time::now() + PATIENCE;
        while statuses.len() < count {
            for _ in 0..self.transmit.unconsumed()? {
                statuses.push(self.transmit.take().status);
            }
            if statuses.len() < count && self.transmit.final_check_for_responses()? == 0 {
                time::timeout_at(deadline, self.transmit_channel.wait()).await?;
            }
        }
        Ok(statuses)
    }

    /// Sends one whole frame and waits until it is taken.
    pub(crate) async fn send(&mut self, frame: &[u8]) -> Result<()> {
        let reference = self.lend_bytes(frame)?;
        self.send_lent(reference, frame.len()).await
    }

    /// Sends the frame at the start of a page that is granted, and waits until it is taken.
    pub(crate) async fn send_lent(&mut self, reference: GrantRef, length: usize) -> Result<()> {
        let size = u16::try_from(length).map_err(|_| Error::Text)?;
        self.slot(reference, 0, size, TxFlags::empty());
        self.publish();
        match self.responses(1).await?.as_slice() {
            [NETIF_RSP_OKAY] => Ok(()),
            other => Err(Error::Answer(other.first().copied().unwrap_or(0))),
        }
    }

    /// Sends one whole frame behind all that was placed before it, and waits for its response. Responses to other requests are dropped.
    pub(crate) async fn send_behind(&mut self, frame: &[u8]) -> Result<()> {
        let reference = self.lend_bytes(frame)?;
        let size = u16::try_from(frame.len()).map_err(|_| Error::Text)?;
        while !self.slot(reference, 0, size, TxFlags::empty()) {
            self.responses(1).await?;
        }
        let own = self.identifier;
        self.publish();
        let deadline = time::now() + PATIENCE;
        loop {
            for _ in 0..self.transmit.unconsumed()? {
                match self.transmit.take() {
                    TxResponse { id, status: NETIF_RSP_OKAY } if id == own => return Ok(()),
                    TxResponse { id, status } if id == own => return Err(Error::Answer(status)),
                    _ => {}
                }
            }
            if self.transmit.final_check_for_responses()? == 0 {
                time::timeout_at(deadline, self.transmit_channel.wait()).await?;
            }
        }
    }

    /// Responses that wait on the receive ring.
    pub(crate) fn received(&self) -> Result<u32> {
        Ok(self.receive.unconsumed()?)
    }

    /// The next frame that came, of one slot, which is placed anew; to be published by the caller.
    pub(crate) fn take_frame(&mut self) -> Result<Option<(RxFlags, Vec<u8>)>> {
        if self.receive.unconsumed()? == 0 {
            return Ok(None);
        }
        let RxResponse { id, offset, flags, status } = self.receive.take();
        let Ok(length) = usize::try_from(status) else {
            return Err(Error::Answer(status));
        };
        let buffer = usize::from(id).checked_sub(1).and_then(|index| self.buffers.get(index));
        let (gref, page) = buffer.ok_or(Error::Wrong("a slot was answered that was not posted"))?;
        let mut frame = vec![0; length];
        if !page.read(offset.into(), &mut frame) {
            return Err(Error::Wrong("a frame is said to leave its page"));
        }
        if !self.receive.push(&RxRequest { id, pad: 0, gref: *gref }) {
            return Err(Error::Wrong("more slots were answered than posted"));
        }
        Ok(Some((flags, frame)))
    }

    /// The extra info behind a frame that was taken, whose slot is placed anew.
    pub(crate) fn take_extra(&mut self) -> Result<ExtraInfo> {
        if self.receive.unconsumed()? == 0 {
            return Err(Error::Wrong("an extra info was announced and is missing"));
        }
        // It is in the place of its request, and all requests come round in one order.
        let place = self.receive.state().consumed as usize % usize::from(RECEIVE_SLOTS);
        let extra = self.receive.take_as();
        let &(gref, _) = self.buffers.get(place).ok_or(Error::Wrong("no slot was posted"))?;
        if !self.receive.push(&RxRequest { id: place as u16 + 1, pad: 0, gref }) {
            return Err(Error::Wrong("more slots were answered than posted"));
        }
        Ok(extra)
    }

    /// Overwrites a word of the transmit ring, index or slot.
    pub(crate) fn scribble(page: &Page, word: usize, value: u32) {
        if let Some(word) = page.words().get(word) {
            word.store(value, core::sync::atomic::Ordering::SeqCst);
        }
    }
}
