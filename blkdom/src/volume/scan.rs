//! Looks at units for what they hold: partition tables, then physical volumes of LVM. Pure: asynchronous over [`Sectors`]. Floor 3.
//!
//! What a guest may write is not looked at: it would tell us where other guests' sectors lie. So sectors claimed for writing are not
//! read at all ([`Region::read`]), and a logical volume's or a foreign partition's contents are never searched for LVM. A unit or a
//! partition of LVM's type that a guest had as a whole and no longer has *is* looked at: it is the administrator's to wipe it first.
//!
//! What was read is remembered ([`Glance`]): once a guest that could write it has it no longer, or a header holds something else, what
//! the scan found counts no longer ([`Catalogue::grounds`]).

use super::catalogue::{Catalogue, Entry, Unusable};
use super::lvm;
use super::mbr::{self, Mbr};
use super::member;
use super::partition::{self, Partition, Table};
use super::{Piece, UnitRef, Volume, gpt};
use crate::disk::{Geometry, IoError, SECTOR_BYTES};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc};

/// Sectors of one read, at most.
const READ_SECTORS: u64 = 256;

/// Partitions of other types of a unit that are looked at for a label, so that it can be said, at most.
const PEEKS: usize = 16;

/// Reads units, for the control plane.
#[expect(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub trait Sectors {
    /// The bytes of whole logical blocks. At most 128 KiB are asked for at once.
    async fn read(&self, unit: UnitRef, sector: u64, sectors: u32) -> Result<Vec<u8>, IoError>;
}

/// A unit to look at.
#[derive(Clone, Debug)]
pub struct Source {
    /// Which.
    pub unit: UnitRef,
    /// Its name: `nvme0n1`, `sda`.
    pub name: String,
    /// Its other names ([`super::places::aliases`]).
    pub aliases: Vec<String>,
    /// Its size and abilities.
    pub geometry: Geometry,
}

/// Why bytes were not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The device.
    Io(IoError),
    /// They are not in the region.
    Outside,
    /// A guest may write them.
    Claimed,
    /// The reader gave so many bytes.
    Short(usize),
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(formatter, "{error}"),
            Self::Outside => formatter.write_str("it points outside"),
            Self::Claimed => formatter.write_str("a guest may write there"),
            Self::Short(bytes) => write!(formatter, "a read gave {bytes} bytes"),
        }
    }
}

/// Sectors of a read that are remembered by their CRC, at most: headers, which change with all that they lead to. The largest is that
/// of a block of 4,096 bytes.
const HEAD_SECTORS: u64 = 8;
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Sectors that a scan read, or would have read if no guest could write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Which.
    pub piece: Piece,
    /// The CRC of what they held, where they are a header.
    head: Option<u32>,
}

/// Whether the headers among `glances` hold what they held. Those that a guest may write are not looked at.
pub async fn is_unchanged<S: Sectors>(reader: &S, glances: &[Glance], written: &[Piece]) -> bool {
    for Glance { piece, head } in glances {
        let Some(head) = head else {
            continue;
        };
        if written.iter().any(|written| written.overlaps(piece)) {
            continue;
        }
        let Ok(count) = u32::try_from(piece.sectors) else {
            return false;
        };
        match reader.read(piece.unit, piece.sector, count).await {
            Ok(bytes) if CRC.checksum(&bytes) == *head => {}
            _ => return false,
        }
    }
    true
}

/// What all reads of a scan have in common.
struct Eye<'a, S> {
    reader: &'a S,
    written: &'a [Piece],
    glances: RefCell<Vec<Glance>>,
}

/// A run of sectors of a unit, to read bytes from: nothing outside it, and nothing that a guest may write.
pub(super) struct Region<'a, S> {
    eye: &'a Eye<'a, S>,
    source: &'a Source,
    pub(super) start: u64,
    pub(super) sectors: u64,
}

impl<'a, S: Sectors> Region<'a, S> {
    pub(super) fn logical_block(&self) -> u32 {
        self.source.geometry.logical_block
    }

    pub(super) fn bytes_long(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES.into())
    }

    pub(super) fn unit(&self) -> UnitRef {
        self.source.unit
    }

    /// The `length` bytes at `offset`, of which nothing follows but what is said to the administrator.
    pub(super) async fn peek(&self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let eye = Eye { reader: self.eye.reader, written: self.eye.written, glances: RefCell::default() };
        Region { eye: &eye, ..*self }.read(offset, length).await
    }

    /// The `length` bytes at `offset`.
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let sector_bytes = u64::from(SECTOR_BYTES);
        let long = u64::try_from(length).map_err(|_| ReadError::Outside)?;
        let end = offset.checked_add(long).filter(|end| *end <= self.bytes_long()).ok_or(ReadError::Outside)?;
        let begin = self.start.checked_add(offset / sector_bytes).ok_or(ReadError::Outside)?;
        let end = self.start.checked_add(end.div_ceil(sector_bytes)).ok_or(ReadError::Outside)?;
        // Whole logical blocks, which may reach beyond the region where that is not made of them.
        let block = u64::from(self.logical_block() / SECTOR_BYTES).max(1);
        let first = begin - begin % block;
        let end = end.checked_next_multiple_of(block).ok_or(ReadError::Outside)?;
        if end > self.source.geometry.sectors {
            return Err(ReadError::Outside);
        }
        let asked = Piece { unit: self.unit(), sector: first, sectors: end.saturating_sub(first) };
        if self.eye.written.iter().any(|written| written.overlaps(&asked)) {
            self.eye.glances.borrow_mut().push(Glance { piece: asked, head: None });
            return Err(ReadError::Claimed);
        }
        let skip = (begin - first) * sector_bytes + offset % sector_bytes;
        let skip = usize::try_from(skip).map_err(|_| ReadError::Outside)?;
        let mut bytes = Vec::with_capacity(length.saturating_add(skip));
        let mut sector = first;
        while sector < end {
            let sectors = READ_SECTORS.min(end - sector);
            let count = u32::try_from(sectors).map_err(|_| ReadError::Outside)?;
            let read = self.eye.reader.read(self.unit(), sector, count).await.map_err(ReadError::Io)?;
            if u64::try_from(read.len()) != Ok(sectors * sector_bytes) {
                return Err(ReadError::Short(read.len()));
            }
            bytes.extend_from_slice(&read);
            sector += sectors;
        }
        let head = (asked.sectors <= HEAD_SECTORS).then(|| CRC.checksum(&bytes));
        self.eye.glances.borrow_mut().push(Glance { piece: asked, head });
        bytes.drain(..skip.min(bytes.len()));
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// What a scan has found so far.
struct Scan<'a, S> {
    eye: &'a Eye<'a, S>,
    catalogue: Catalogue,
    volumes: lvm::Found,
}

impl Catalogue {
    /// Looks at `units` for all that a target may name. What guests may write ([`super::Claims::begin_scan`]) is left out.
    pub async fn scan<S: Sectors>(reader: &S, units: &[Source], written: &[Piece]) -> Self {
        let eye = Eye { reader, written, glances: RefCell::default() };
        let mut scan = Scan { eye: &eye, catalogue: Self::new(units), volumes: lvm::Found::default() };
        for source in units {
            scan.unit(source).await;
        }
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
}

impl<'a, S: Sectors> Scan<'a, S> {
    async fn unit(&mut self, source: &'a Source) {
        let sectors = source.geometry.sectors;
        let whole = Volume::linear(source.unit, 0, sectors);
        let what = if whole.sectors() == 0 { Err(Unusable::Empty) } else { Ok((whole, false)) };
        let names = core::iter::once(&source.name).chain(&source.aliases).cloned().collect();
        self.catalogue.add(Entry { names, what, listed: true, grounds: Vec::new() });
        let region = Region { eye: self.eye, source, start: 0, sectors };
        let table = match region.read(0, mbr::BYTES).await {
            Ok(bytes) => mbr::parse(&bytes),
            Err(error) => return self.unreadable(&source.name, &error),
        };
        let table = match table {
            None => return self.physical_volume(&source.name, &region).await,
            Some(Mbr::Protective) => gpt::read(&region).await.map_err(|errors| {
                let [primary, backup] = &errors;
                format!("no GPT is to be believed: the primary: {primary}; the backup: {backup}")
            }),
            Some(Mbr::Ambiguous) => Err(String::from(
                "there is no partition table: an entry of type ee (GPT) does not begin at block 1, so that Linux takes neither the \
                 GPT nor the MBR",
            )),
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
        if let Some((offset, error)) = unread {
            let what = "whether it is a part of something larger is not known";
            self.catalogue.note(format!("{}: {what}: byte {offset}: {error}", source.name));
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
            let what = fault.map_or_else(|| Ok((Volume::linear(source.unit, start, sectors), false)), Err);
            self.catalogue.add(Entry { names, what, listed: true, grounds: vec![source.unit] });
            let region = Region { eye: self.eye, source, start, sectors };
            if is_lvm && sound {
                self.physical_volume(&name, &region).await;
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

    async fn physical_volume(&mut self, name: &str, region: &Region<'a, S>) {
        if let Err(error) = self.volumes.look(name, region).await {
            self.unreadable(name, &error);
        }
    }
}
