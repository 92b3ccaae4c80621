//! Frames from the NICs: where each goes, and those of one flow joined for guests that take super-frames. Floor 3.

use super::prepare::offload_layout;
use super::round::{Chunk, Chunks, Source};
use super::route::Passing;
use super::{DataPath, NIC_FRAMES};
use crate::ethernet::MacAddress;
use crate::offload::headers::{self, Layout};
use crate::packet::{Checksum, Packet};
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Bytes of a frame that are looked at: the longest headers that are joined.
const HEAD: usize = 128;

impl<H: Hypervisor> DataPath<H> {
    /// Takes frames from the NICs, plans their copies, and gives the NICs new buffers.
    pub(super) fn receive_frames(&mut self, now: Instant) {
        let mut budget = NIC_FRAMES;
        for from in self.nics.take_turns() {
            budget -= self.receive_from(from, budget, now);
        }
        self.round.frames_left = budget == 0;
    }

    /// Takes up to `budget` frames from a NIC; returns their number.
    fn receive_from(&mut self, from: u16, budget: usize, now: Instant) -> usize {
        let mut taken = 0;
        while taken < budget
            && let Some(port) = self.nics.get_mut(from)
            && let Some(frame) = port.receive()
        {
            port.statistics.from_port.count(u32::try_from(frame.len()).unwrap_or(u32::MAX));
            self.receive_frame(from, frame, now);
            taken += 1;
        }
        if taken > 0 {
            let Self { coalescer, round, .. } = self;
            coalescer.flush(&mut |to, packet| round.joined.push((to, packet)));
            self.pass_joined();
        }
        if let Some(port) = self.nics.get_mut(from) {
            // Also where there were no frames: the pool may have had nothing to give the last time.
            port.next_queue();
            port.refill(&self.pool);
        }
        taken
    }

    fn receive_frame(&mut self, from: u16, frame: Packet, now: Instant) {
        let Some((destination, source)) = Self::addresses(&frame) else {
            return;
        };
        self.choose(from, destination, source, now);
        let mut bytes = [0; HEAD];
        if let [to] = *self.round.destinations.as_slice()
            && !destination.is_group()
            && let Some((head, layout)) = self.joinable(to, &frame, &mut bytes)
        {
            let Self { coalescer, round, .. } = self;
            coalescer.push(to, frame, head, Some(&layout), &mut |to, packet| round.joined.push((to, packet)));
            self.pass_joined();
        } else {
            self.pass_frame(frame, destination);
        }
    }

    /// The headers of a frame that may be joined with others for this port.
    fn joinable<'a>(&self, to: u16, frame: &Packet, bytes: &'a mut [u8; HEAD]) -> Option<(&'a [u8], Layout)> {
        if frame.offload.checksum != Checksum::Verified {
            return None;
        }
        let vif = &self.vifs.get(usize::from(to))?.as_ref()?.vif;
        if !vif.ability.any_gso() {
            return None;
        }
        let first = frame.fragments.first()?;
        let head = bytes.get_mut(..usize::from(first.length).min(HEAD))?;
        if !first.buffer.read(first.offset.into(), head) {
            return None;
        }
        // The guest must take the super-frame as it is: cut again here, it would have been joined in vain.
        let layout = headers::parse(head).ok().filter(|layout| vif.ability.gso(layout))?;
        Some((head, layout))
    }

    /// Passes on what cannot be joined any further.
    fn pass_joined(&mut self) {
        for index in 0..self.round.joined.len() {
            let Some((to, packet)) = self.round.joined.get_mut(index) else {
                break;
            };
            let (to, packet) = (*to, core::mem::take(packet));
            let Some((destination, _)) = Self::addresses(&packet) else {
                continue;
            };
            self.round.destinations.clear();
            self.round.destinations.push(to);
            self.pass_frame(packet, destination);
        }
        self.round.joined.clear();
    }

    /// Plans the copies of a frame to the ports chosen.
    fn pass_frame(&mut self, frame: Packet, destination: MacAddress) {
        let index = self.round.frames.len();
        let chunks: Chunks = frame.fragments.iter().map(Chunk::local).collect();
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let offload = frame.offload;
        let layout = offload_layout(&frame, offload);
        self.round.frames.push(frame);
        let source = Source::Wire(index as u32);
        self.pass_on(&Passing { source, destination, layout, length, offload, chunks: &chunks });
    }
}
