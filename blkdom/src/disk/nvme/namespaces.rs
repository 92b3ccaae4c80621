//! Namespaces as units: what a scan found is set against what there was. Pure. Floor 3.

use super::command::Status;
use super::identify::{Controller, Format, active_namespaces, uuid};
use super::slots::Slots;
use crate::disk::{Event, Unit, UnitId, UnitKind};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use split_driver::memory::DmaMemory;

/// Namespaces looked at, at most.
const MOST: usize = 256;

/// What I/O must know of a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namespace {
    /// Its number (NSID).
    pub(super) number: u32,
    pub(super) format: Format,
}

/// What a scan found of a namespace.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// A namespace that can be used.
    Usable(Format),
    /// None, or none that can be used.
    Nothing,
    /// It was not to be learned.
    Unknown,
}

/// All namespaces.
#[derive(Default)]
pub(super) struct Namespaces {
    /// In ascending order of their ids; `namespaces` has the same order.
    units: Vec<Unit>,
    namespaces: Vec<Namespace>,
    next: u16,
    listed: Vec<u32>,
    found: Vec<Found>,
    /// Units that are gone, whose commands are still in flight.
    leaving: Vec<UnitId>,
    /// A log page that an event named.
    pub(super) pending_log: Option<u8>,
}

impl Namespaces {
    pub(super) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// The namespace of a unit.
    pub(super) fn get(&self, id: UnitId) -> Option<&Namespace> {
        let guess = usize::from(id.0);
        let place = match self.units.get(guess) {
            Some(unit) if unit.id == id => guess,
            _ => self.units.binary_search_by_key(&id, |unit| unit.id).ok()?,
        };
        self.namespaces.get(place)
    }

    /// A list of active namespaces arrived, or none: then all numbers up to `highest` may be namespaces, as before 1.1.
    pub(super) fn begin_scan(&mut self, list: Option<&Vec<u8>>, highest: u32) {
        self.found.clear();
        self.listed.clear();
        match list {
            Some(bytes) => self.listed.extend(active_namespaces(bytes).take(MOST + 1)),
            None => self.listed.extend((1..=highest).take(MOST + 1)),
        }
        if self.listed.len() > MOST {
            log::warn!("nvme: namespaces beyond the first {MOST} are left alone");
            self.listed.truncate(MOST);
        }
    }

    /// The namespace at a place in the list.
    pub(super) fn listed(&self, place: usize) -> Option<u32> {
        self.listed.get(place).copied()
    }

    /// What Identify gave for the namespace at `place`.
    pub(super) fn found(&mut self, place: usize, answer: Result<&Vec<u8>, u16>, controller: &Controller) {
        let number = self.listed(place).unwrap_or(0);
        let found = match answer.map(|bytes| Format::parse(bytes, controller)) {
            Ok(Ok(format)) => Found::Usable(format),
            Ok(Err(why)) => {
                log::info!("nvme: namespace {number} is left alone: {why}");
                Found::Nothing
            }
            Err(Status::INVALID_NAMESPACE | Status::INVALID_FIELD) => Found::Nothing,
            Err(status) => {
                log::warn!("nvme: namespace {number} does not tell what it is: status {status:#x}");
                Found::Unknown
            }
        };
        self.found.push(found);
    }

    /// Whether the namespace at `place` can be used, so that it is asked for its descriptors.
    pub(super) fn is_usable(&self, place: usize) -> bool {
        matches!(self.found.get(place), Some(Found::Usable(_)))
    }

    /// What Identify gave for the descriptors of the namespace at `place`.
    pub(super) fn described(&mut self, place: usize, answer: Result<&Vec<u8>, u16>) {
        if let Some(Found::Usable(format)) = self.found.get_mut(place) {
            format.uuid = match answer {
                Ok(bytes) => Some(uuid(bytes)),
                Err(Status::INVALID_FIELD) => Some([0; 16]),
                Err(status) => {
                    log::warn!("nvme: a namespace does not tell its UUID: status {status:#x}");
                    None
                }
            };
        }
    }

    /// All listed namespaces were looked at. `tell` where units were known before.
    pub(super) fn finish_scan(&mut self, controller: &Controller, tell: bool, events: &mut VecDeque<Event>) {
        let seen: Vec<(u32, Found)> = self.listed.drain(..).zip(self.found.drain(..)).collect();
        let find = |number: u32| seen.iter().find(|(seen, _)| *seen == number).map(|(_, found)| *found);
        let mut kept = Vec::new();
        let mut place = 0;
        while let (Some(unit), Some(namespace)) = (self.units.get_mut(place), self.namespaces.get_mut(place)) {
            let stays = match find(namespace.number) {
                Some(Found::Unknown) => true,
                Some(Found::Usable(format)) if namespace.format.is_of_same(&format) => {
                    if unit.geometry != format.geometry {
                        unit.geometry = format.geometry;
                        namespace.format = Format { uuid: format.uuid.or(namespace.format.uuid), ..format };
                        events.push_back(Event::Changed(unit.id));
                    }
                    true
                }
                Some(Found::Usable(_) | Found::Nothing) | None => false,
            };
            if stays {
                kept.push(namespace.number);
                place += 1;
            } else {
                self.leaving.push(unit.id);
                self.units.remove(place);
                self.namespaces.remove(place);
            }
        }
        for (number, found) in seen {
            if let Found::Usable(format) = found
                && !kept.contains(&number)
                && let Some(id) = self.add(number, format, controller)
                && tell
            {
                events.push_back(Event::Added(id));
            }
        }
    }

    fn add(&mut self, number: u32, format: Format, controller: &Controller) -> Option<UnitId> {
        let id = UnitId(self.next);
        self.next = self.next.checked_add(1)?;
        self.units.push(Unit {
            id,
            kind: UnitKind::Namespace(number),
            model: controller.model.clone(),
            serial: controller.serial.clone(),
            wwn: format.wwn(),
            geometry: format.geometry,
        });
        self.namespaces.push(Namespace { number, format });
        Some(id)
    }

    /// Tells of units that are gone, once the device has let go of their commands.
    pub(super) fn see_off<D: DmaMemory>(&mut self, slots: &Slots<D>, events: &mut VecDeque<Event>) {
        if self.leaving.is_empty() {
            return;
        }
        self.leaving.retain(|unit| {
            let stays = slots.any_of(*unit);
            if !stays {
                events.push_back(Event::Removed(*unit));
            }
            stays
        });
    }

    /// Forgets all units.
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.namespaces.clear();
        self.leaving.clear();
    }
}
