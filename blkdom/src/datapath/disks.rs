//! The disks' side of the data path: rounds with their drivers, and what they complete. Floor 3.

use super::operation::Owner;
use super::statistics::{Failure, Statistics};
use super::{DataPath, READER};
use crate::disk::{Completion, Disk, Event, Geometry, UnitId};
use crate::volume::UnitRef;
use alloc::boxed::Box;
use alloc::vec::Vec;
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;
use split_driver::memory::Quiesced;
use split_driver::time::Instant;

/// A controller.
pub(crate) struct DiskSlot {
    pub(crate) disk: Box<dyn Disk>,
    /// Commands that it has.
    pub(crate) in_flight: u32,
    /// It was given commands that it was not told of.
    pub(crate) quiet: bool,
    /// It was taken away; its commands come back.
    removed: bool,
    /// Of its units, by number.
    pub(crate) statistics: Vec<Statistics>,
}

impl DiskSlot {
    /// What a unit can do; `None` where there is none.
    pub(crate) fn geometry(&self, unit: UnitId) -> Option<&Geometry> {
        self.disk.units().iter().find(|known| known.id == unit).map(|unit| &unit.geometry)
    }

    pub(crate) fn count(&mut self, unit: u16, counted: impl FnOnce(&mut Statistics)) {
        let place = usize::from(unit);
        if self.statistics.len() <= place {
            self.statistics.resize(place + 1, Statistics::default());
        }
        if let Some(statistics) = self.statistics.get_mut(place) {
            counted(statistics);
        }
    }
}

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// Takes a controller in; gives its number, which no other one ever has.
    ///
    /// # Panics
    /// Never: after 65,536 controllers the last number is given again, and names nothing.
    pub fn add_disk(&mut self, disk: Box<dyn Disk>) -> u16 {
        let number = u16::try_from(self.disks.len()).unwrap_or(u16::MAX);
        let slot = DiskSlot { disk, in_flight: 0, quiet: false, removed: false, statistics: Vec::new() };
        self.disks.push(Some(slot));
        number
    }

    /// The controller no longer reaches memory: what it was to do fails in the next round, after which its driver is dropped.
    pub fn remove_disk(&mut self, controller: u16, proof: Quiesced) {
        if let Some(Some(slot)) = self.disks.get_mut(usize::from(controller)) {
            slot.disk.remove(proof);
            slot.removed = true;
        }
    }

    /// A controller's driver, for what is not on the path of requests.
    pub fn disk(&mut self, controller: u16) -> Option<&mut (dyn Disk + 'static)> {
        let slot = self.disks.get_mut(usize::from(controller))?.as_mut()?;
        (!slot.removed).then_some(&mut *slot.disk)
    }

    /// The numbers of all controllers.
    pub fn controllers(&self) -> impl Iterator<Item = u16> {
        let slots = self.disks.iter().zip(0..);
        slots.filter_map(|(slot, number)| slot.as_ref().is_some_and(|slot| !slot.removed).then_some(number))
    }

    /// A controller raised its interrupt. The next [`Self::poll`] looks for completions.
    pub fn handle_interrupt(&mut self, controller: u16, vector: usize) {
        if let Some(Some(slot)) = self.disks.get_mut(usize::from(controller)) {
            slot.disk.handle_interrupt(vector);
        }
    }

    /// Something that happened to a controller or its units.
    pub fn poll_disk_event(&mut self) -> Option<(u16, Event)> {
        let slots = self.disks.iter_mut().zip(0..);
        slots.filter_map(|(slot, number)| Some((number, slot.as_mut()?.disk.poll_event()?))).next()
    }

    /// The counters of a unit: its commands.
    pub fn unit_statistics(&self, unit: UnitRef) -> Option<Statistics> {
        let slot = self.disks.get(usize::from(unit.controller))?.as_ref()?;
        slot.geometry(unit.unit)?;
        Some(slot.statistics.get(usize::from(unit.unit.0)).copied().unwrap_or_default())
    }

    /// A unit counts on from what it counted in earlier lives.
    pub fn restore_unit(&mut self, unit: UnitRef, counted: Statistics) {
        if let Some(Some(slot)) = self.disks.get_mut(usize::from(unit.controller))
            && slot.geometry(unit.unit).is_some()
        {
            slot.count(unit.unit.0, |statistics| *statistics += counted);
        }
    }

    /// Collects what the disks completed.
    pub(super) fn poll_disks(&mut self) {
        for number in 0..self.disks.len() {
            if let Ok(number) = u16::try_from(number) {
                self.poll_disk(number);
            }
        }
    }

    fn poll_disk(&mut self, controller: u16) {
        let mut completions = core::mem::take(&mut self.round.completions);
        completions.clear();
        let Some(place) = self.disks.get_mut(usize::from(controller)) else {
            return;
        };
        if let Some(slot) = place {
            slot.disk.poll(self.now, &mut completions);
            slot.in_flight = slot.in_flight.saturating_sub(u32::try_from(completions.len()).unwrap_or(u32::MAX));
            if slot.removed && slot.in_flight == 0 {
                *place = None;
            }
        }
        for completion in completions.drain(..) {
            self.handle_completion(controller, completion);
        }
        self.round.completions = completions;
    }

    fn handle_completion(&mut self, controller: u16, completion: Completion) {
        let owner = Owner::of(completion.tag);
        let failure = completion.result.err().map(Failure::from);
        if let (Some(failure), Some(Some(slot))) = (failure, self.disks.get_mut(usize::from(controller))) {
            slot.count(owner.unit, |statistics| statistics.fail(failure));
        }
        if owner.vbd == READER {
            self.reader.handle_completion(owner, completion.result);
            return;
        }
        let Some(Some(vbd)) = self.vbds.get_mut(usize::from(owner.vbd)) else {
            return;
        };
        let Some(operation) = vbd.operations.owner(owner) else {
            debug_assert!(false, "a completion of nothing that is at work");
            return;
        };
        debug_assert!(operation.parts > 0, "more completions than commands");
        operation.parts = operation.parts.saturating_sub(1);
        vbd.commands = vbd.commands.saturating_sub(1);
        if matches!(operation.kind, super::operation::Kind::Discard { .. }) {
            vbd.discards = vbd.discards.saturating_sub(1);
        }
        if let Some(failure) = failure {
            operation.fail(failure);
        }
        if operation.parts == 0 && !operation.queued {
            self.go_on(owner.vbd, owner.operation);
        }
    }

    /// Tells the disks of what they were given.
    pub(super) fn ring_disks(&mut self) {
        for slot in self.disks.iter_mut().flatten() {
            if core::mem::take(&mut slot.quiet) {
                slot.disk.ring();
            }
        }
    }

    /// Enables the disks' interrupts. True where one has completions already.
    pub(super) fn enable_interrupts(&mut self) -> bool {
        self.disks.iter_mut().flatten().fold(false, |there, slot| slot.disk.enable_interrupts() | there)
    }

    /// When a disk is to be polled even if nothing happens.
    pub(super) fn disk_deadline(&self) -> Option<Instant> {
        self.disks.iter().flatten().filter_map(|slot| slot.disk.deadline()).min()
    }
}
