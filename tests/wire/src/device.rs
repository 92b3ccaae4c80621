//! smoltcp's network device: frames in memory, in and out. Pure: no socket.

use std::collections::VecDeque;
use std::ops::Range;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// A queue of frames, held back to back.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    frames: VecDeque<Range<usize>>,
}

impl Frames {
    pub(crate) fn push(&mut self, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push_back(start..self.bytes.len());
    }

    /// Calls `visit` for each frame, then forgets them.
    pub(crate) fn drain(&mut self, mut visit: impl FnMut(&[u8])) {
        for range in self.frames.drain(..) {
            visit(self.bytes.get(range).unwrap_or_default());
        }
        self.bytes.clear();
    }

    fn pop(&mut self) -> Option<Range<usize>> {
        let range = self.frames.pop_front();
        if range.is_none() {
            self.bytes.clear();
        }
        range
    }
}

/// Frames for the stack and frames from it.
pub(crate) struct MemoryDevice {
    /// For the stack.
    pub(crate) inbox: Frames,
    /// From the stack.
    pub(crate) outbox: Frames,
    /// How many more bytes the stack may send of its own accord; answers to what comes in are always taken.
    pub(crate) credit: usize,
    mtu: usize,
}

impl MemoryDevice {
    pub(crate) fn new(mtu: usize) -> Self {
        Self { inbox: Frames::default(), outbox: Frames::default(), credit: 0, mtu }
    }
}

impl Device for MemoryDevice {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let range = self.inbox.pop()?;
        let Self { inbox, outbox, credit, .. } = self;
        Some((Received(inbox.bytes.get(range).unwrap_or_default()), Transmit { outbox, credit }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Transmit<'_>> {
        let Self { outbox, credit, .. } = self;
        (*credit > 0).then_some(Transmit { outbox, credit })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        capabilities
    }
}

/// A frame for the stack.
pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame from the stack.
pub(crate) struct Transmit<'a> {
    outbox: &'a mut Frames,
    credit: &'a mut usize,
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let start = self.outbox.bytes.len();
        self.outbox.bytes.resize(start + length, 0);
        let result = f(self.outbox.bytes.get_mut(start..).unwrap_or_default());
        self.outbox.frames.push_back(start..start + length);
        *self.credit = self.credit.saturating_sub(length);
        result
    }
}
