//! When guests are served: the list of those that are ready, and their timers. Floor 3.

use super::backlog;
use super::guest::GuestPort;
use super::ports::Ports;
use super::queue::Queue;
use super::{DRAIN_WITHOUT_NOTIFY, EXPIRY, QueueId, STALL};
use crate::statistics::{DropCause, PortStatistics};
use crate::switch::PortId;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

impl<H: Hypervisor> Ports<H> {
    /// Has a queue served in the next round.
    pub(super) fn mark_ready(&mut self, id: QueueId) {
        if let Some(guest) = self.guest_mut(id.port) {
            guest.ready |= 1_u8.checked_shl(id.queue.into()).unwrap_or(0);
            self.list(id.port);
        }
    }

    /// Puts a guest on the list of those to be served.
    pub(super) fn list(&mut self, port: PortId) {
        if let Some(guest) = self.guest_mut(port).filter(|guest| !guest.listed && !guest.broken) {
            guest.listed = true;
            self.ready.push_back(port);
        }
    }

    /// Has a guest's timers looked at then.
    pub(super) fn wake_guest_at(&mut self, port: PortId, at: Instant) {
        if let Some(guest) = self.guest_mut(port) {
            guest.wake = earlier(guest.wake, Some(at));
        }
        self.wake_at(at);
    }

    /// Has all timers looked at then.
    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = earlier(self.wake, Some(at));
    }

    /// Does what became due: queues to be served again, channels to be unmasked, packets that waited too long.
    pub(super) fn look_at_timers(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        self.wake = None;
        for port in (0..self.places()).map(PortId) {
            let Some(guest) = self.guest_mut(port).filter(|guest| !guest.broken) else {
                continue;
            };
            if guest.wake.is_some_and(|wake| wake <= now) {
                let (due, released, next) = look_at_queues(guest, now);
                (guest.ready, guest.wake) = (guest.ready | due, next);
                let control = guest.control.as_ref().is_some_and(|control| control.ready);
                self.held_pages = self.held_pages.saturating_sub(released);
                if due != 0 || control {
                    self.list(port);
                }
            }
            let wake = self.guest(port).and_then(|guest| guest.wake);
            self.wake = earlier(self.wake, wake);
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Looks at what became due in a guest: the queues to be served, pages that its backlogs no longer hold, and when to look again.
fn look_at_queues<H: Hypervisor>(guest: &mut GuestPort<H>, now: Instant) -> (u8, usize, Option<Instant>) {
    let (mut due, mut released, mut next) = (0, 0, None);
    for (number, queue) in guest.queues.iter_mut().enumerate() {
        let pages = queue.backlog.pages();
        expire(queue, guest.vif.config.features.receive_notify, &mut guest.statistics, now);
        released += pages.saturating_sub(queue.backlog.pages());
        if queue.wake.is_some_and(|wake| wake <= now) {
            queue.wake = None;
            due |= 1 << number;
        }
        let expiry = (!queue.backlog.is_empty()).then(|| now + EXPIRY);
        next = earlier(next, earlier(queue.wake, expiry));
    }
    if let Some(control) = &mut guest.control {
        if control.wake.is_some_and(|wake| wake <= now) {
            (control.wake, control.ready) = (None, true);
        }
        next = earlier(next, control.wake);
    }
    guest.held_pages = guest.held_pages.saturating_sub(released);
    (due, released, next)
}

/// Drops what waited too long; all, where the guest seems to want no packets at all.
fn expire<H: Hypervisor>(queue: &mut Queue<H>, receive_notify: bool, statistics: &mut PortStatistics, now: Instant) {
    let (lifetime, stall) = match receive_notify {
        true => (backlog::LIFETIME, STALL),
        false => (DRAIN_WITHOUT_NOTIFY, DRAIN_WITHOUT_NOTIFY),
    };
    let stalled = queue.starving.is_some_and(|since| now.since(since) >= stall);
    while let Some(queued) = queue.backlog.front_since() {
        let cause = if stalled {
            DropCause::Stalled
        } else if now.since(queued) >= lifetime {
            DropCause::Expired
        } else {
            return;
        };
        queue.backlog.discard();
        statistics.drop(cause);
    }
}
