//! Looks at units for what they hold: partition tables, then physical volumes of LVM. Pure: asynchronous over [`Sectors`]. Floor 3.
//!
//! What a guest may write is not looked at: it would tell us where other guests' sectors lie. So sectors claimed for writing are not
//! read at all ([`Region::read`]), and a logical volume's or a foreign partition's contents are never searched for LVM. A unit or a
//! partition of LVM's type that a guest had as a whole and no longer has *is* looked at: it is the administrator's to wipe it first.
//!
//! What was read is remembered ([`Glance`]): once a guest that could write it has it no longer, or a header holds something else, what
//! the scan found counts no longer ([`Catalogue::grounds`]).

use super::catalogue::Catalogue;
use super::entry::Entry;
use super::fault::{Unusable, Unwritable};
use super::lvm;
use super::mbr::{self, Mbr};
use super::member;
use super::partition::{self, Partition, Table};
use super::region::{Eye, ReadError, Region, Sectors, Source};
use super::{Piece, Volume, foreign, gpt};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

/// Partitions of other types of a unit that are looked at for a label, so that it can be said, at most.
const PEEKS: usize = 16;

/// What a scan has found so far.
struct Scan<'a, S> {
    eye: &'a Eye<'a, S>,
    catalogue: Catalogue,
    volumes: lvm::Found,
}

/// Looks at `units` for all that a target may name. What guests may write ([`super::Claims::begin_scan`]) is left out.
pub async fn scan<S: Sectors>(reader: &S, units: &[Source], written: &[Piece]) -> Catalogue {
    let eye = Eye { reader, written, glances: RefCell::default() };
    let mut scan = Scan { eye: &eye, catalogue: Catalogue::new(units), volumes: lvm::Found::default() };
    for source in units {
        scan.unit(source).await;
    }
    scan.volumes.measure(&eye, units).await;
    let Scan { mut catalogue, volumes, .. } = scan;
    for group in volumes.assemble() {
        for note in group.notes {
            if group.volumes.is_empty() {
                catalogue.hint(note.clone());
            }
            catalogue.note(note);
        }
        for entry in group.volumes {
            catalogue.add(entry);
        }
    }
    catalogue.remember(eye.glances.take());
    catalogue.finish();
    catalogue
}

impl<'a, S: Sectors> Scan<'a, S> {
    async fn unit(&mut self, source: &'a Source) {
        let sectors = source.geometry.sectors;
        let whole = Volume::linear(source.unit, 0, sectors);
        let what = if whole.sectors() == 0 { Err(Unusable::Empty) } else { Ok((whole, None)) };
        let names = core::iter::once(&source.name).chain(&source.aliases).cloned().collect();
        self.catalogue.add(Entry { names, what, listed: true, grounds: Vec::new() });
        let region = Region { eye: self.eye, source, start: 0, sectors };
        let table = match region.read(0, mbr::BYTES).await {
            Ok(bytes) => match mbr::parse(&bytes) {
                found @ Some(Mbr::Protective | Mbr::Foreign { .. }) => found,
                _ if mbr::is_aix(&region, &bytes).await => {
                    Some(Mbr::Foreign { name: "an AIX volume group", beside_mbr: mbr::has_signature(&bytes) })
                }
                None if !mbr::has_signature(&bytes) && foreign::is_amiga(&region).await => {
                    Some(Mbr::Foreign { name: "an Amiga rigid disk block", beside_mbr: false })
                }
                found => found,
            },
            Err(error) => return self.unreadable(&source.name, &error),
        };
        let table = match table {
            None => return self.physical_volume(&source.name, &region, None).await,
            Some(Mbr::Protective) => gpt::read(&region).await.map_err(|errors| {
                let [primary, backup] = &errors;
                format!("no GPT is to be believed: the primary: {primary}; the backup: {backup}")
            }),
            Some(Mbr::Ambiguous) => Err(String::from(
                "there is no partition table: an entry of type ee (GPT) does not begin at block 1, so that Linux takes neither the \
                 GPT nor the MBR",
            )),
            Some(Mbr::Foreign { name, beside_mbr }) => {
                let text = format!("{name} is not read: only the disk as a whole can be had");
                self.catalogue.hint_of(&source.name, text.clone());
                if !beside_mbr {
                    self.physical_volume(&source.name, &region, None).await;
                }
                Err(text)
            }
            Some(Mbr::Table(table)) => Ok(mbr::read_logical(&region, table).await),
        };
        match table {
            Ok(table) => self.partitions(&region, table).await,
            Err(error) => self.catalogue.note(format!("{}: {error}", source.name)),
        }
    }

    /// Notes why something is not looked at.
    fn unreadable(&mut self, name: &str, error: &ReadError) {
        if *error == ReadError::Claimed {
            self.catalogue.leave_out(name);
        } else if *error != ReadError::Outside {
            self.catalogue.note(format!("{name}: not looked into: {error}"));
        }
    }

    async fn partitions(&mut self, whole: &Region<'a, S>, table: Table) {
        let source = whole.source;
        let mut inner: Vec<Piece> = table
            .partitions
            .iter()
            .map(|partition| Piece { unit: source.unit, sector: partition.start, sectors: partition.sectors })
            .collect();
        // A mark in the gap before the first partition was left by an earlier use of the disk: where such a mark counts, the table lies
        // behind it. So was one in what the table says is its own: the table of a leg is as large as the array, and ends before its mark.
        let first = inner.iter().map(|partition| partition.sector).min().unwrap_or_default();
        inner.push(Piece { unit: source.unit, sector: 0, sectors: first.max(table.covers) });
        let member::Marks { member, unread } = member::find(whole, &inner).await;
        let unread = unread.map(|(offset, error)| Unwritable::Unread { name: source.name.clone(), offset, error });
        if let Some(unread) = &unread {
            self.catalogue.note(format!("{unread}: what lies in it cannot be written"));
        }
        for text in table.unknown {
            self.catalogue.hint_of(&source.name, text.clone());
            self.catalogue.note(format!("{}: {text}", source.name));
        }
        for note in table.notes {
            self.catalogue.note(format!("{}: {note}", source.name));
        }
        let mut peeks = 0;
        for partition in table.partitions {
            let Partition { number, start, sectors, label, uuid, is_lvm, fault } = partition;
            let name = partition::name(&source.name, number);
            let inside = start.checked_add(sectors).is_some_and(|end| end <= source.geometry.sectors);
            let fault = fault.or((!inside || sectors == 0).then_some(Unusable::BeyondUnit));
            let fault = member.map(|member| Unusable::Within(source.name.clone(), member)).or(fault);
            let mut names = vec![name.clone()];
            names.extend(source.aliases.iter().map(|alias| format!("{alias}-part{number}")));
            names.extend(label.map(|label| format!("PARTLABEL={label}")));
            names.extend(uuid.map(|uuid| format!("PARTUUID={uuid}")));
            let sound = fault.is_none();
            let volume = (Volume::linear(source.unit, start, sectors), unread.clone());
            let what = fault.map_or_else(|| Ok(volume), Err);
            self.catalogue.add(Entry { names, what, listed: true, grounds: vec![source.unit] });
            let region = Region { eye: self.eye, source, start, sectors };
            if is_lvm && sound {
                self.physical_volume(&name, &region, unread.as_ref()).await;
            } else if sound && peeks < PEEKS {
                peeks += 1;
                if !lvm::is_labelled(&region).await {
                    continue;
                }
                self.catalogue.hint(format!(
                    "the physical volume on {name}, because the partition's type is not LVM's: sfdisk --part-type {} {number} lvm",
                    source.name
                ));
            }
        }
    }

    /// Looks for a physical volume in what lies in something that may not be written, if so.
    async fn physical_volume(&mut self, name: &str, region: &Region<'a, S>, around: Option<&Unwritable>) {
        if let Err(error) = self.volumes.look(name, region, around).await {
            self.unreadable(name, &error);
        }
    }
}
