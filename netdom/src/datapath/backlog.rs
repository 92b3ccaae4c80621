//! Packets held in local memory until a guest has receive slots for them. Pure. Floor 3.
//!
//! They are as the guest takes them: no head goes with them, as nothing is left to decide.

use super::held::{Held, Share};
use super::round::Chunk;
use crate::packet::{Fragment, Offload, Packet};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use split_driver::time::{Duration, Instant};
use xen_pv_sys::io::netif::ExtraHash;

/// Bytes held for one queue at most (as much as Linux' netback: half a receive ring of pages).
pub(crate) const BACKLOG_BYTES: usize = 512 * 1024;
/// Pages held for one queue at most.
pub(crate) const BACKLOG_PAGES: usize = 512;
/// How long a packet is held.
pub(crate) const LIFETIME: Duration = Duration::from_secs(10);

struct Entry {
    fragments: u8,
    length: u32,
    offload: Offload,
    hash: Option<ExtraHash>,
    queued: Instant,
}

/// What waits for the receive slots of a queue, bounded in bytes and pages.
pub(crate) struct Backlog {
    entries: VecDeque<Entry>,
    fragments: VecDeque<Fragment>,
    bytes: usize,
    share: Share,
}

/// The packet that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// Bytes.
    pub(crate) length: u32,
    /// What is left to do.
    pub(crate) offload: Offload,
    /// The hash that the guest is told.
    pub(crate) hash: Option<ExtraHash>,
}

impl Backlog {
    /// Nothing; what will wait is counted in `held`.
    pub(crate) fn new(held: &Held) -> Self {
        Self { entries: VecDeque::new(), fragments: VecDeque::new(), bytes: 0, share: Share::new(held) }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Pages held.
    pub(crate) fn pages(&self) -> usize {
        self.fragments.len()
    }

    /// Adds a packet. False where there is no room.
    pub(crate) fn push(&mut self, packet: &Packet, hash: Option<ExtraHash>, now: Instant) -> bool {
        let length = packet.len();
        let (Ok(fragments), Ok(length32)) = (u8::try_from(packet.fragments.len()), u32::try_from(length)) else {
            return false;
        };
        if self.bytes + length > BACKLOG_BYTES || self.fragments.len() + packet.fragments.len() > BACKLOG_PAGES {
            return false;
        }
        self.bytes += length;
        self.fragments.extend(packet.fragments.iter().cloned());
        let offload = packet.offload;
        self.entries.push_back(Entry { fragments, length: length32, offload, hash, queued: now });
        self.share.set(self.entries.len());
        true
    }

    /// The packet that is next.
    pub(crate) fn front(&self) -> Option<Front> {
        self.entries.front().map(|entry| Front { length: entry.length, offload: entry.offload, hash: entry.hash })
    }

    /// When it was queued.
    pub(crate) fn front_since(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.queued)
    }

    /// Takes it: `chunks` are its bytes then, and its pages go to `held`, to be kept until the copy is done.
    pub(crate) fn take(&mut self, chunks: &mut Vec<Chunk>, held: &mut Vec<Fragment>) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        self.share.set(self.entries.len());
        self.bytes = self.bytes.saturating_sub(entry.length as usize);
        chunks.clear();
        for _ in 0..entry.fragments {
            if let Some(fragment) = self.fragments.pop_front() {
                chunks.push(Chunk::local(&fragment));
                held.push(fragment);
            }
        }
    }

    /// Drops it. False where there is none.
    pub(crate) fn discard(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else {
            return false;
        };
        self.share.set(self.entries.len());
        self.bytes = self.bytes.saturating_sub(entry.length as usize);
        self.fragments.drain(..usize::from(entry.fragments).min(self.fragments.len()));
        true
    }
}
