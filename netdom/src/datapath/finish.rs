//! Last step of a round: answers, what goes on by way of local memory, and one notify a guest. Floor 3.

use super::blame::any_failed;
use super::nics::is_nic;
use super::prepare::{Ability, offload_layout, prepare};
use super::round::{Bounce, ReceivedKind, Source};
use super::vif::{Acceptance, Vif};
use super::{DataPath, QueueId, Stop, queue_mut};
use crate::netback::request::Wish;
use crate::netback::steering::Steer;
use crate::netback::violation::{RingName, Violation};
use crate::offload::headers::Layout;
use crate::packet::Packet;
use crate::statistics::DropCause;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::io::netif::{NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, RxResponse, TxResponse};

impl<H: Hypervisor> DataPath<H> {
    /// Answers and passes on what the round copied.
    pub(super) fn finish(&mut self, now: Instant) {
        if self.round.copies.iter().any(|copy| copy.status != 0) {
            self.blame();
        }
        self.answer_receivers();
        self.answer_senders();
        self.publish();
        self.pass_bounced(now);
        for port in self.nics.iter_mut() {
            port.flush();
        }
        for index in 0..self.round.served.len() {
            if let Some(&(id, stop)) = self.round.served.get(index) {
                self.settle(id, stop, now);
            }
        }
    }

    /// Places the responses of all receive slots filled.
    fn answer_receivers(&mut self) {
        for received in &self.round.received {
            let Some(queue) = queue_mut(&mut self.vifs, received.to) else {
                continue;
            };
            let ring = &mut queue.receive;
            match received.kind {
                ReceivedKind::Data { id, offset, length, flags, .. } => ring.push(&RxResponse {
                    id,
                    offset,
                    flags,
                    status: match received.failed {
                        true => NETIF_RSP_ERROR,
                        // At most a page.
                        false => length.cast_signed(),
                    },
                }),
                ReceivedKind::Extra(extra) => ring.push_as(&extra),
            }
        }
    }

    /// Places the responses of all packets taken, each slot's its own.
    fn answer_senders(&mut self) {
        for sent in &self.round.sent {
            if sent.undone {
                continue;
            }
            let Some(Some(slot)) = self.vifs.get_mut(usize::from(sent.from.port)) else {
                continue;
            };
            let Vif { queues, statistics, .. } = &mut slot.vif;
            let Some(queue) = queues.get_mut(usize::from(sent.from.queue)) else {
                continue;
            };
            if sent.request.wish == Wish::Refuse {
                statistics.drop(DropCause::Malformed);
            }
            let status = match sent.failed {
                true => NETIF_RSP_ERROR,
                false => NETIF_RSP_OKAY,
            };
            let mut extras = sent.request.extras;
            for data in sent.slots(&self.round.slots) {
                queue.transmit.push(&TxResponse { id: data.id, status });
                for _ in 0..core::mem::take(&mut extras) {
                    queue.transmit.push(&TxResponse { id: 0, status: NETIF_RSP_NULL });
                }
            }
            if !queue.touched {
                queue.touched = true;
                self.round.touched.push(sent.from);
            }
        }
    }

    /// Publishes the responses, and wakes each frontend that asked for it, once a queue.
    fn publish(&mut self) {
        for &id in &self.round.touched {
            let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port)) else {
                continue;
            };
            let Vif { queues, broken, .. } = &mut slot.vif;
            let Some(queue) = queues.get_mut(usize::from(id.queue)) else {
                continue;
            };
            queue.touched = false;
            if !*broken {
                queue.publish();
            }
        }
    }

    /// Hands on what came into local memory.
    fn pass_bounced(&mut self, now: Instant) {
        for index in 0..self.round.bounces.len() {
            let Some(&Bounce { source, port: to, steer }) = self.round.bounces.get(index) else {
                return;
            };
            if let Some(queue) = queue_mut(&mut self.vifs, QueueId { port: to, queue: steer.queue }) {
                queue.bouncing = false;
            }
            let last = self.round.bounces.get(index + 1).is_none_or(|next| next.source != source);
            let Some(packet) = self.take_bounced(source, last) else {
                continue;
            };
            if packet.is_empty() {
                self.count_drop(to, DropCause::CopyFailed);
            } else if is_nic(to) {
                self.send_to_nic(to, source, packet);
            } else {
                self.enqueue(to, steer, packet, now);
            }
        }
    }

    /// The packet of a bounce; empty where it could not be copied. The last bounce gets the pages for its own.
    fn take_bounced(&mut self, source: Source, last: bool) -> Option<Packet> {
        let (packet, offload) = match source {
            Source::Guest(index) => {
                let sent = self.round.sent.get_mut(index as usize)?;
                if sent.failed || any_failed(&self.round.copies, sent.gathered) {
                    return Some(Packet::default());
                }
                (&mut sent.local, sent.offload)
            }
            Source::Wire(index) => {
                let frame = self.round.frames.get_mut(index as usize)?;
                let offload = frame.offload;
                (frame, offload)
            }
        };
        let mut packet = match last {
            true => core::mem::take(packet),
            false => packet.clone(),
        };
        packet.offload = offload;
        Some(packet)
    }

    fn send_to_nic(&mut self, to: u16, source: Source, packet: Packet) {
        let from = match source {
            Source::Guest(index) => self.round.sent.get(index as usize).map(|sent| sent.from),
            // In one queue, as they came.
            Source::Wire(_) => Some(QueueId { port: 0, queue: 0 }),
        };
        let (Some(port), Some(from)) = (self.nics.get_mut(to), from) else {
            return;
        };
        if !port.up {
            port.statistics.drop(DropCause::NoLink);
            return;
        }
        if matches!(source, Source::Wire(_)) && !port.has_room_for_wire(from) {
            port.statistics.drop(DropCause::NicFull);
            return;
        }
        let ability = Ability::of_nic(&port.nic.capabilities());
        let prepared = prepare(packet, &ability, &self.pool, &mut |packet, layout| {
            port.send(from, packet, layout);
        });
        if let Err(cause) = prepared {
            port.statistics.drop(cause);
        }
    }

    /// Holds a packet for a queue of a guest, made fit for it.
    fn enqueue(&mut self, to: u16, steer: Steer, packet: Packet, now: Instant) {
        let share = self.pool.capacity() / 2;
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(to)) else {
            return;
        };
        let vif = &mut slot.vif;
        if vif.broken {
            return;
        }
        let layout = offload_layout(&packet, packet.offload);
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let acceptance = vif.accepts(length, packet.offload, layout.as_ref());
        let others = self.held_pages.saturating_sub(vif.held_pages);
        let Vif { queues, statistics, ability, held_pages, .. } = vif;
        let Some(backlog) = queues.get_mut(usize::from(steer.queue)).map(|queue| &mut queue.backlog) else {
            return;
        };
        let elsewhere = held_pages.saturating_sub(backlog.pages());
        let mut push = |packet: Packet, _: Option<&Layout>| {
            // A vif never has more than what is left to all: guests that take nothing leave room for those that do.
            let held = elsewhere + backlog.pages();
            let room = held + packet.fragments.len() <= share.saturating_sub(others + held);
            if !room || !backlog.push(&packet, steer.hash, now) {
                statistics.drop(DropCause::QueueFull);
            }
        };
        let prepared = match acceptance {
            Acceptance::AsIs => {
                push(packet, None);
                Ok(())
            }
            Acceptance::Prepared => prepare(packet, ability, &self.pool, &mut push),
            Acceptance::Never => Err(DropCause::Unsuitable),
        };
        if let Err(cause) = prepared {
            statistics.drop(cause);
        }
        *held_pages = elsewhere + backlog.pages();
        self.held_pages = others + *held_pages;
        if !backlog.is_empty() {
            self.wake_vif_at(to, now + super::EXPIRY);
            self.mark_ready(QueueId { port: to, queue: steer.queue });
        }
    }

    /// After a queue was served: served again, or asleep until its next event.
    fn settle(&mut self, id: QueueId, stop: Stop, now: Instant) {
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port)) else {
            return;
        };
        let Vif { queues, broken, .. } = &mut slot.vif;
        let Some(queue) = queues.get_mut(usize::from(id.queue)).filter(|_| !*broken) else {
            return;
        };
        if core::mem::take(&mut queue.event) {
            queue.throttle.handle_served(queue.progress, now);
        }
        queue.progress = false;
        let mut wake = None;
        match stop {
            Stop::Budget => {
                self.mark_ready(id);
                return;
            }
            Stop::Empty => match queue.transmit.final_check_for_requests() {
                Ok(0) => {}
                Ok(_) => {
                    self.mark_ready(id);
                    return;
                }
                Err(error) => {
                    self.fail(id.port, Violation::from((RingName::Transmit, error)));
                    return;
                }
            },
            Stop::Until(at) => wake = Some(at),
        }
        match queue.throttle.poll_delay(now) {
            Some(until) => wake = Some(wake.map_or(until, |at| at.min(until))),
            None => queue.unmask(),
        }
        if let Some(at) = wake {
            queue.wake = Some(at);
            self.wake_vif_at(id.port, at);
        }
    }
}
