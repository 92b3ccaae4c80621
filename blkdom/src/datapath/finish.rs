//! Last step of a round, and what becomes of requests whose commands are done: responses, and queues that go to sleep. Floor 3.

use super::backing::Direction;
use super::operation::{Kind, Movement, Stage};
use super::round::Copied;
use super::statistics::Failure;
use super::vbd::{Place, Standing};
use super::{DataPath, Stop};
use crate::blkback::violation::Violation;
use split_driver::hypervisor::{DeviceMapping, EventChannel, Hypervisor};
use split_driver::kept::Keep;

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// A request has no command in flight and none to be submitted: on to its next stage, or to its response.
    pub(super) fn go_on(&mut self, index: u16, number: u16) {
        let Self { vbds, pages, round, .. } = self;
        let Some(Some(vbd)) = vbds.get_mut(usize::from(index)) else {
            return;
        };
        let serving = vbd.is_served();
        let Some(operation) = vbd.operations.get_mut(number) else {
            return;
        };
        if operation.failure.is_none() && vbd.standing != Standing::Draining {
            let next = match (operation.kind, operation.stage) {
                (Kind::Barrier, Stage::FlushBefore) if operation.sectors > 0 => Some(Stage::Data),
                (Kind::Barrier, Stage::Data) if operation.no_durable_write => Some(Stage::FlushAfter),
                _ => None,
            };
            if let Some(stage) = next {
                operation.patience = None;
                operation.enter(stage);
                return self.queue(index, number);
            }
            if operation.kind == Kind::Read && operation.movement == Movement::Copied && serving {
                let first = round.outward.len() as u32;
                vbd.plan_copies(number, pages, Direction::Outward, &mut round.outward);
                let end = round.outward.len() as u32;
                return round.reads.push(Copied { vbd: index, operation: number, first, end });
            }
        }
        if serving && self.handle_failed_flush(index, number) {
            return;
        }
        self.finish(index, number);
    }

    /// Answers a request and lets go of it.
    pub(super) fn finish(&mut self, index: u16, number: u16) {
        let Self { vbds, pages, round, .. } = self;
        let Some(Some(vbd)) = vbds.get_mut(usize::from(index)) else {
            return;
        };
        let Some(operation) = vbd.release(index, number, pages, round) else {
            return;
        };
        self.ended_late = true;
        let place = Place { vbd: index, queue: operation.queue };
        vbd.respond(place, &operation.outcome(), round);
        if vbd.standing == Standing::Draining {
            self.settle_drained(index);
        }
    }

    /// Drops what a vbd whose frontend is gone has not given to a disk.
    pub(super) fn drop_idle(&mut self, index: u16) {
        let Self { vbds, pages, round, retries, .. } = self;
        retries.forget(index);
        let Some(Some(vbd)) = vbds.get_mut(usize::from(index)) else {
            return;
        };
        vbd.waiting.clear();
        vbd.submit.clear();
        for number in 0..vbd.operations.limit() {
            let Some(operation) = vbd.operations.get_mut(number) else {
                continue;
            };
            operation.queued = false;
            if operation.parts == 0 {
                operation.fail(Failure::Gone);
                let _ = vbd.release(index, number, pages, round);
            }
        }
        self.settle_drained(index);
    }

    /// Forgets a vbd that is gone and has nothing in flight.
    fn settle_drained(&mut self, index: u16) {
        let Some(place) = self.vbds.get_mut(usize::from(index)) else {
            return;
        };
        let Some(vbd) = place.as_mut().filter(|vbd| vbd.operations.len() == 0) else {
            return;
        };
        for queue in &mut vbd.queues {
            queue.persistent.clear(&mut self.round.unmap);
        }
        vbd.return_steps(&mut self.room);
        debug_assert_eq!(vbd.steps, 0, "steps were lost");
        self.room.leave();
        debug_assert_eq!((vbd.commands, vbd.pages), (0, 0), "something is in use still");
        *place = None;
        self.hungry.retain(|other| *other != index);
        self.submitting.retain(|other| *other != index);
        self.stuck.retain(|other| *other != index);
        self.round.relieved.retain(|other| *other != index);
        self.unmap();
    }

    /// Has queues served again whose vbd has room for their requests.
    pub(super) fn relieve(&mut self) {
        while let Some(index) = self.round.relieved.pop() {
            let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
                continue;
            };
            vbd.relieved = false;
            if vbd.standing != Standing::Served {
                continue;
            }
            for (queue, number) in vbd.queues.iter_mut().zip(0..) {
                if core::mem::take(&mut queue.blocked) && !core::mem::replace(&mut queue.ready, true) {
                    self.ready.push_back((index, number));
                }
            }
        }
    }

    /// Publishes the responses placed, and notifies where that is waited for.
    pub(super) fn publish(&mut self) {
        for index in 0..self.round.touched.len() {
            let Some(&(index, number)) = self.round.touched.get(index) else {
                return;
            };
            let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
                continue;
            };
            let Some(queue) = vbd.queue(number) else {
                continue;
            };
            queue.touched = false;
            if let Some(connection) = &mut queue.connection
                && connection.publish()
            {
                connection.channel.notify();
            }
        }
    }

    /// After queues were served: served again, or asleep until their next event.
    pub(super) fn settle(&mut self) {
        for index in 0..self.round.served.len() {
            if let Some(&(index, number, stop)) = self.round.served.get(index) {
                self.settle_queue(index, number, stop);
            }
        }
        self.relieve();
    }

    fn settle_queue(&mut self, index: u16, number: u16, stop: Stop) {
        let now = self.now;
        let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
            return;
        };
        if vbd.standing != Standing::Served {
            return;
        }
        let Some(queue) = vbd.queue(number) else {
            return;
        };
        if core::mem::take(&mut queue.event) {
            queue.throttle.handle_served(queue.progress, now);
        }
        queue.progress = false;
        match stop {
            Stop::Budget => return self.mark_ready(index, number),
            // The channel stays masked: there is work, and the end of what is at work brings it on.
            Stop::Busy => {
                queue.blocked = true;
                return;
            }
            Stop::Empty => {}
        }
        let Some(connection) = &queue.connection else {
            return;
        };
        match connection.ring.final_check_for_requests() {
            Ok(0) => {}
            Ok(_) => return self.mark_ready(index, number),
            Err(error) => return self.fail(index, Violation::overrun(number, error)),
        }
        match queue.throttle.poll_delay(now) {
            Some(until) => {
                queue.wake = Some(until);
                self.wake_at(until);
            }
            None => queue.unmask(),
        }
    }
}
