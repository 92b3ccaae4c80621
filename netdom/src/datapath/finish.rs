//! Last step of a round: answers, what goes on by way of local memory, and one notify a guest. Floor 3.

use super::blame::any_failed;
use super::nics::is_nic;
use super::prepare::{Ability, offload_layout, prepare};
use super::round::{Bounce, ReceivedKind, Source};
use super::vif::{Acceptance, Vif};
use super::{DataPath, Stop};
use crate::netback::request::Wish;
use crate::netback::violation::{RingName, Violation};
use crate::offload::headers::Layout;
use crate::packet::{GsoKind, Packet};
use crate::statistics::DropCause;
use split_driver::hypervisor::{EventChannel, Hypervisor};
use split_driver::time::Instant;
use xen_pv_sys::io::netif::{
    ExtraInfo, NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, RxResponse, TxResponse, XEN_NETIF_GSO_TYPE_TCPV4,
    XEN_NETIF_GSO_TYPE_TCPV6,
};

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
            if let Some(&(port, stop)) = self.round.served.get(index) {
                self.settle(port, stop, now);
            }
        }
    }

    /// Places the responses of all receive slots filled.
    fn answer_receivers(&mut self) {
        for received in &self.round.received {
            let Some(Some(slot)) = self.vifs.get_mut(usize::from(received.vif)) else {
                continue;
            };
            let ring = &mut slot.vif.receive;
            match received.kind {
                ReceivedKind::Data { id, length, flags, .. } => ring.push(&RxResponse {
                    id,
                    offset: 0,
                    flags,
                    status: match received.failed {
                        true => NETIF_RSP_ERROR,
                        // At most a page.
                        false => length.cast_signed(),
                    },
                }),
                ReceivedKind::Extra(gso) => {
                    let kind = match gso.kind {
                        GsoKind::TcpV4 => XEN_NETIF_GSO_TYPE_TCPV4,
                        GsoKind::TcpV6 => XEN_NETIF_GSO_TYPE_TCPV6,
                    };
                    ring.push_as(&ExtraInfo::new_gso(gso.size, kind));
                }
            }
        }
    }

    /// Places the responses of all packets taken, each slot's its own.
    fn answer_senders(&mut self) {
        for sent in &self.round.sent {
            let Some(Some(slot)) = self.vifs.get_mut(usize::from(sent.vif)) else {
                continue;
            };
            let vif = &mut slot.vif;
            if sent.undone {
                continue;
            }
            if sent.request.wish == Wish::Refuse {
                vif.statistics.drop(DropCause::Malformed);
            }
            let status = match sent.failed {
                true => NETIF_RSP_ERROR,
                false => NETIF_RSP_OKAY,
            };
            let mut extras = sent.request.extras;
            for data in sent.slots(&self.round.slots) {
                vif.transmit.push(&TxResponse { id: data.id, status });
                for _ in 0..core::mem::take(&mut extras) {
                    vif.transmit.push(&TxResponse { id: 0, status: NETIF_RSP_NULL });
                }
            }
            if !vif.touched {
                vif.touched = true;
                self.round.touched.push(sent.vif);
            }
        }
    }

    /// Publishes the responses, and wakes each frontend that asked for it, once.
    fn publish(&mut self) {
        for &port in &self.round.touched {
            let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
                continue;
            };
            let vif = &mut slot.vif;
            vif.touched = false;
            if vif.broken {
                continue;
            }
            let transmit = vif.transmit.unpublished() > 0 && vif.transmit.push_and_check_notify();
            let receive = vif.receive.unpublished() > 0 && vif.receive.push_and_check_notify();
            match &vif.receive_channel {
                Some(channel) if receive => channel.channel.notify(),
                _ => {}
            }
            if transmit || receive && vif.receive_channel.is_none() {
                vif.channel.channel.notify();
            }
        }
    }

    /// Hands on what came into local memory.
    fn pass_bounced(&mut self, now: Instant) {
        for index in 0..self.round.bounces.len() {
            let Some(&Bounce { source, port: to }) = self.round.bounces.get(index) else {
                return;
            };
            if let Some(Some(slot)) = self.vifs.get_mut(usize::from(to)) {
                slot.vif.bouncing = false;
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
                self.enqueue(to, packet, now);
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
            Source::Guest(index) => self.round.sent.get(index as usize).map(|sent| sent.vif),
            // In one queue, as they came.
            Source::Wire(_) => Some(0),
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

    /// Queues a packet for a guest, made fit for it.
    fn enqueue(&mut self, to: u16, packet: Packet, now: Instant) {
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
        let (queue, statistics) = (&mut vif.queue, &mut vif.statistics);
        let before = queue.pages();
        let others = self.queued_pages.saturating_sub(before);
        let mut push = |packet: Packet, _: Option<&Layout>| {
            // A queue never has more than what is left to all: guests that take nothing leave room for those that do.
            let free = share.saturating_sub(others + queue.pages());
            let room = queue.pages() + packet.fragments.len() <= free;
            if !room || !queue.push(&packet, now) {
                statistics.drop(DropCause::QueueFull);
            }
        };
        let prepared = match acceptance {
            Acceptance::AsIs => {
                push(packet, None);
                Ok(())
            }
            Acceptance::Prepared => prepare(packet, &vif.ability, &self.pool, &mut push),
            Acceptance::Never => Err(DropCause::Unsuitable),
        };
        if let Err(cause) = prepared {
            statistics.drop(cause);
        }
        self.queued_pages = others + queue.pages();
        if !queue.is_empty() {
            self.wake_at(now + super::EXPIRY);
            self.mark_ready(to);
        }
    }

    /// After a vif was served: served again, or asleep until its next event.
    fn settle(&mut self, port: u16, stop: Stop, now: Instant) {
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
            return;
        };
        let vif = &mut slot.vif;
        if vif.broken {
            return;
        }
        if core::mem::take(&mut vif.event) {
            vif.throttle.handle_served(vif.progress, now);
        }
        vif.progress = false;
        let mut wake = None;
        match stop {
            Stop::Budget => {
                self.mark_ready(port);
                return;
            }
            Stop::Empty => match vif.transmit.final_check_for_requests() {
                Ok(0) => {}
                Ok(_) => {
                    self.mark_ready(port);
                    return;
                }
                Err(error) => {
                    self.fail(port, Violation::from((RingName::Transmit, error)));
                    return;
                }
            },
            Stop::Until(at) => wake = Some(at),
        }
        match vif.throttle.poll_delay(now) {
            Some(until) => wake = Some(wake.map_or(until, |at| at.min(until))),
            None => unmask(vif),
        }
        if let Some(at) = wake {
            slot.wake = Some(at);
            self.wake_at(at);
        }
    }
}

fn unmask<H: Hypervisor>(vif: &mut Vif<H>) {
    vif.channel.unmask();
    if let Some(channel) = &mut vif.receive_channel {
        channel.unmask();
    }
}
