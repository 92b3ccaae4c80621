//! The corpus of disks that real tools wrote: forms made in dom0 by fdisk, sfdisk, sgdisk, parted, lvm2 and mdadm, each with Linux' words
//! of its partitions and logical volumes, and the tools'. `cargo xtask corpus` makes the file, a test of this crate holds blkdom's volumes
//! against it. Host.
//!
//! The file is gzip over lines of text:
//!
//! ```text
//! form NAME                                   what follows is its own
//! unit BLOCK SECTORS                          a disk, with bytes of a logical block; those behind the last with contents are left out
//! sector NUMBER HEX                           of the disk before it; what is not there is zeroes, at the end of a sector too
//! sectors NUMBER COUNT HEX                    COUNT sectors of the same bytes
//! partition UNIT NUMBER START SECTORS UUID LABEL
//! said TOOL UNIT NUMBER START SECTORS LABEL    a partition as a tool prints it; parted prints extended ones whole
//! table UNIT KIND                             a disk's partition table as parted calls it
//! member UNIT NUMBER FORMAT                   a leg as mdadm examines it: a partition, or with the number 0 a disk
//! volume GROUP/NAME rw|ro                     a logical volume
//! other TARGET                                a target of the volume before it that is neither of those below
//! linear START SECTORS UNIT SECTOR            of the volume before it
//! striped START SECTORS CHUNK UNIT:SECTOR ...
//! ```
//!
//! Sectors are of 512 bytes. A partition is what Linux has in `/sys/block`, a volume what lvm2 tells device-mapper.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use lab::more::more;
use lab::scratch::Scratch;
use lab::{ControllerKind, Disk, DiskController, DiskMedium, Equipment, Lab, LabConfig, Row, Tree, cache};

mod forms;

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Logical blocks of the disks, and bytes of each disk.
const DISKS: [(u32, u64); 5] = [(512, 24 << 20), (512, 24 << 20), (4096, 24 << 20), (512, 80 << 20), (512, 80 << 20)];
/// The tools that not every lab has, and what arrays and volumes need of the kernel.
const PACKAGES: [&str; 4] = ["fdisk", "gdisk", "parted", "mdadm"];
const PROGRAMS: [&str; 5] =
    ["usr/sbin/fdisk", "usr/sbin/sgdisk", "usr/sbin/parted", "usr/sbin/mdadm", "usr/sbin/mdmon"];
const MODULES: [&str; 14] = [
    "crc32c_generic",
    "md-mod",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "dm-raid",
    "dm-mirror",
    "dm-snapshot",
    "dm-thin-pool",
    "dm-cache",
    "dm-cache-smq",
    "dm-writecache",
    "dm-zero",
];

/// Where the file is.
pub fn file() -> PathBuf {
    cache::workspace().join("tests/e2e/corpus/volumes.gz")
}

/// A disk as a form leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Bytes of a logical block.
    pub block: u32,
    /// Its sectors.
    pub sectors: usize,
    /// What the sectors hold that are not zeroes, without the zeroes at a sector's end.
    pub written: BTreeMap<usize, Vec<u8>>,
}

impl Unit {
    fn new(block: u32, bytes: &[u8]) -> Self {
        let sectors = bytes.chunks(SECTOR).enumerate();
        let written = sectors.filter(|(_, sector)| **sector != [0; SECTOR]).map(|(number, sector)| {
            let end = sector.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (number, sector.iter().take(end).copied().collect())
        });
        Self { block, sectors: bytes.len() / SECTOR, written: written.collect() }
    }

    /// All its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.sectors * SECTOR];
        for (number, held) in &self.written {
            if let Some(place) = bytes.get_mut(number * SECTOR..).and_then(|rest| rest.get_mut(..held.len())) {
                place.copy_from_slice(held);
            }
        }
        bytes
    }
}

/// A partition as Linux has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its disk.
    pub unit: usize,
    /// Its number.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// Its sectors.
    pub sectors: u64,
    /// Its GUID, or the MBR's signature and its number.
    pub uuid: String,
    /// Its name; empty where it has none.
    pub label: String,
}

/// What a tool prints of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which tool.
    pub tool: String,
    /// What it says; it prints no UUID.
    pub partition: Partition,
}

/// A run of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first sector in the volume.
    pub start: u64,
    /// Its sectors.
    pub sectors: u64,
    /// Sectors that go to one stripe before the next one's turn; all where it is linear.
    pub chunk: u64,
    /// Disk and first sector of each stripe.
    pub stripes: Vec<(usize, u64)>,
}

/// A logical volume as lvm2 activates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// `group/volume`.
    pub name: String,
    /// It may be written.
    pub writable: bool,
    /// Its runs.
    pub spans: Vec<Span>,
    /// Targets that it has besides, or what it lies on in place of a disk.
    pub others: Vec<String>,
}

/// What a few commands made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// What it is called.
    pub name: String,
    /// The disks.
    pub units: Vec<Unit>,
    /// Partitions of all disks.
    pub partitions: Vec<Partition>,
    /// What the tools say of them.
    pub said: Vec<Said>,
    /// Disks' tables as parted calls them.
    pub tables: Vec<(usize, String)>,
    /// Legs as mdadm examines them: disk, partition or 0, and format.
    pub members: Vec<(usize, u32, String)>,
    /// Volumes of all groups that lvm2 activates.
    pub volumes: Vec<Volume>,
}

/// Reads the corpus.
///
/// # Errors
/// Where the file is not there or not as it is described above.
pub fn read(path: &Path) -> Result<Vec<Form>> {
    let mut text = String::new();
    let file =
        File::open(path).with_context(|| format!("opening {}; `cargo xtask corpus` makes it", path.display()))?;
    GzDecoder::new(file).read_to_string(&mut text)?;
    let mut forms: Vec<Form> = Vec::new();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        if kind == "form" {
            forms.push(Form { name: rest.to_owned(), ..Form::default() });
            continue;
        }
        let form = forms.last_mut().context("a line before the first form")?;
        form.read_line(kind, rest).with_context(|| format!("{}: {line:.80}", form.name))?;
    }
    Ok(forms)
}

/// Writes the corpus.
fn write(path: &Path, forms: &[Form]) -> Result<()> {
    let mut text = String::new();
    for form in forms {
        form.write(&mut text)?;
    }
    let mut gzip = GzEncoder::new(File::create(path)?, Compression::best());
    gzip.write_all(text.as_bytes())?;
    gzip.finish()?;
    Ok(())
}

impl Form {
    fn read_line(&mut self, kind: &str, rest: &str) -> Result<()> {
        let words: Vec<&str> = rest.split(' ').collect();
        match (kind, words.as_slice()) {
            ("unit", [block, sectors]) => {
                self.units.push(Unit { block: block.parse()?, sectors: sectors.parse()?, written: BTreeMap::new() });
            }
            ("sector", [number, hex]) => self.read_sectors(number.parse()?, 1, hex)?,
            ("sectors", [number, count, hex]) => self.read_sectors(number.parse()?, count.parse()?, hex)?,
            ("partition", [unit, number, start, sectors, uuid, label @ ..]) => {
                self.partitions.push(partition([unit, number, start, sectors], uuid, label)?);
            }
            ("said", [tool, unit, number, start, sectors, label @ ..]) => {
                let partition = partition([unit, number, start, sectors], "", label)?;
                self.said.push(Said { tool: (*tool).to_owned(), partition });
            }
            ("volume", [name, mode]) => {
                self.volumes.push(Volume {
                    name: (*name).to_owned(),
                    writable: *mode == "rw",
                    spans: Vec::new(),
                    others: Vec::new(),
                });
            }
            ("table", [unit, kind]) => self.tables.push((unit.parse()?, (*kind).to_owned())),
            ("member", [unit, number, format]) => {
                self.members.push((unit.parse()?, number.parse()?, (*format).to_owned()));
            }
            ("other", [target]) => self.volumes.last_mut().context("no volume")?.others.push((*target).to_owned()),
            ("striped", [start, sectors, chunk, stripes @ ..]) => {
                let stripes = stripes.iter().map(|stripe| {
                    let (unit, sector) = stripe.split_once(':').context("a stripe")?;
                    Ok((unit.parse()?, sector.parse()?))
                });
                let span = Span {
                    start: start.parse()?,
                    sectors: sectors.parse()?,
                    chunk: chunk.parse()?,
                    stripes: stripes.collect::<Result<_>>()?,
                };
                self.volumes.last_mut().context("no volume")?.spans.push(span);
            }
            ("linear", [start, sectors, unit, sector]) => {
                let sectors = sectors.parse()?;
                let stripes = vec![(unit.parse()?, sector.parse()?)];
                let span = Span { start: start.parse()?, sectors, chunk: sectors, stripes };
                self.volumes.last_mut().context("no volume")?.spans.push(span);
            }
            _ => bail!("no such line"),
        }
        Ok(())
    }

    fn read_sectors(&mut self, number: usize, count: usize, hex: &str) -> Result<()> {
        let unit = self.units.last_mut().context("no disk")?;
        let end = number.checked_add(count).filter(|end| *end <= unit.sectors);
        ensure!(hex.len() <= 2 * SECTOR, "beyond the sector");
        let byte = |pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
        let held: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect::<Result<_>>()?;
        unit.written.extend((number..end.context("beyond the disk")?).map(|number| (number, held.clone())));
        Ok(())
    }

    fn write(&self, text: &mut String) -> Result<()> {
        writeln!(text, "form {}", self.name)?;
        for unit in &self.units {
            writeln!(text, "unit {} {}", unit.block, unit.sectors)?;
            let sectors: Vec<_> = unit.written.iter().collect();
            for run in sectors.chunk_by(|(number, held), (next, more)| *next - *number == 1 && held == more) {
                let Some((number, held)) = run.first() else { continue };
                match run.len() {
                    1 => write!(text, "sector {number} ")?,
                    count => write!(text, "sectors {number} {count} ")?,
                }
                for byte in *held {
                    write!(text, "{byte:02x}")?;
                }
                text.push('\n');
            }
        }
        for Partition { unit, number, start, sectors, uuid, label } in &self.partitions {
            writeln!(text, "partition {unit} {number} {start} {sectors} {uuid} {label}")?;
        }
        for Said { tool, partition: Partition { unit, number, start, sectors, label, .. } } in &self.said {
            writeln!(text, "said {tool} {unit} {number} {start} {sectors} {label}")?;
        }
        for (unit, kind) in &self.tables {
            writeln!(text, "table {unit} {kind}")?;
        }
        for (unit, number, format) in &self.members {
            writeln!(text, "member {unit} {number} {format}")?;
        }
        for volume in &self.volumes {
            writeln!(text, "volume {} {}", volume.name, if volume.writable { "rw" } else { "ro" })?;
            for target in &volume.others {
                writeln!(text, "other {target}")?;
            }
            for Span { start, sectors, chunk, stripes } in &volume.spans {
                if let [(unit, sector)] = stripes.as_slice() {
                    writeln!(text, "linear {start} {sectors} {unit} {sector}")?;
                    continue;
                }
                let stripes: Vec<String> = stripes.iter().map(|(unit, sector)| format!("{unit}:{sector}")).collect();
                writeln!(text, "striped {start} {sectors} {chunk} {}", stripes.join(" "))?;
            }
        }
        Ok(())
    }
}

/// A partition of these words.
fn partition([unit, number, start, sectors]: [&str; 4], uuid: &str, label: &[&str]) -> Result<Partition> {
    Ok(Partition {
        unit: unit.parse()?,
        number: number.parse()?,
        start: start.parse()?,
        sectors: sectors.parse()?,
        uuid: uuid.to_lowercase(),
        label: label.join(" "),
    })
}

/// Makes the corpus anew in a dom0 of `row`: the forms whose names hold one of `only`, while the others stay. Returns how many forms it has.
///
/// # Errors
/// The command of a form that failed, or what the lab lacks.
pub fn generate(row: Row, only: &[String]) -> Result<usize> {
    let before = if only.is_empty() { Vec::new() } else { read(&file())? };
    let scratch = Scratch::new()?;
    let images: Vec<PathBuf> = (0..DISKS.len()).map(|index| scratch.path().join(format!("d{index}"))).collect();
    let mut disks = Vec::new();
    for (image, (block, bytes)) in images.iter().zip(DISKS) {
        File::create(image)?.set_len(bytes)?;
        disks.push(Disk { medium: DiskMedium::Image(image.clone()), logical_block: block });
    }
    let mut config = LabConfig::new(row);
    config.equipment = Equipment::Disks;
    config.controllers = vec![DiskController { kind: ControllerKind::Nvme, slot: 4, disks }];
    config.files.extend(more(&Tree::prepare(row.release)?, &PACKAGES, &PROGRAMS, &MODULES)?);
    let lab = Lab::boot(&config)?;
    lab.must(forms::PREPARATION)?;
    let (mut made, mut failed) = (Vec::new(), Vec::new());
    for (name, commands) in forms::ALL {
        if !only.is_empty() && !only.iter().any(|part| name.contains(part)) {
            made.extend(before.iter().find(|form| form.name == *name).cloned());
            continue;
        }
        println!("{name}");
        match make(&lab, commands) {
            Ok(mut form) => {
                form.name = (*name).to_owned();
                for (image, (block, _)) in images.iter().zip(DISKS) {
                    form.units.push(Unit::new(block, &fs::read(image)?));
                }
                while form.units.last().is_some_and(|unit| unit.written.is_empty()) {
                    form.units.pop();
                }
                made.push(form);
            }
            Err(error) => {
                println!("{name}: {error:#}");
                failed.push(*name);
            }
        }
    }
    write(&file(), &made)?;
    ensure!(failed.is_empty(), "the corpus is without {}", failed.join(", "));
    Ok(made.len())
}

/// Makes a form on the disks, and asks what it is.
fn make(lab: &Lab, commands: &str) -> Result<Form> {
    lab.must(forms::CLEAN)?;
    lab.must(&format!("{}\n{commands}", forms::BEGINNING))?;
    let said = lab.must(forms::ANSWERS)?;
    answers(&said).context(said)
}

/// Takes apart what [`forms::ANSWERS`] prints.
fn answers(said: &str) -> Result<Form> {
    let mut form = Form::default();
    // Device number of a disk or partition: its disk, and its first sector there.
    let mut places: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut modes: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["disk", unit, device] => {
                places.insert(device, (unit.parse()?, 0));
            }
            ["partition", unit, device, number, start, sectors, uuid, label @ ..] => {
                let found = partition([unit, number, start, sectors], uuid, label)?;
                places.insert(device, (found.unit, found.start));
                form.partitions.push(found);
            }
            ["said" | "table" | "member", ..] => {
                let (kind, rest) = line.split_once(' ').context("a word")?;
                form.read_line(kind, rest)?;
            }
            ["volume", mapped, name, attributes] => {
                modes.insert(mapped, (name, attributes.get(1..2) == Some("w")));
            }
            ["mapped", mapped, start, sectors, kind, more @ ..] => {
                let Some((name, writable)) = modes.get(mapped.trim_end_matches(':')) else {
                    continue;
                };
                if form.volumes.last().is_none_or(|volume| volume.name != *name) {
                    let (spans, others) = Default::default();
                    form.volumes.push(Volume { name: (*name).to_owned(), writable: *writable, spans, others });
                }
                let volume = form.volumes.last_mut().context("a volume")?;
                match span(start.parse()?, sectors.parse()?, kind, more, &places)? {
                    Some(span) => volume.spans.push(span),
                    None => volume.others.push((*kind).to_owned()),
                }
            }
            [] => {}
            _ => bail!("a line '{line}'"),
        }
    }
    form.partitions.sort_by_key(|partition| (partition.unit, partition.number));
    Ok(form)
}

/// A line of a table of device-mapper's; nothing where its target is another than these two, or lies on another mapped device.
fn span(
    start: u64,
    sectors: u64,
    kind: &str,
    more: &[&str],
    places: &BTreeMap<&str, (usize, u64)>,
) -> Result<Option<Span>> {
    let (chunk, places_of) = match (kind, more) {
        ("linear", places) => (sectors, places),
        ("striped", [_, chunk, places @ ..]) => (chunk.parse()?, places),
        _ => return Ok(None),
    };
    let mut stripes = Vec::new();
    for pair in places_of.chunks(2) {
        let [device, offset] = pair else { bail!("half a place") };
        let Some((unit, first)) = places.get(device) else {
            return Ok(None);
        };
        stripes.push((*unit, first + offset.parse::<u64>()?));
    }
    Ok(Some(Span { start, sectors, chunk, stripes }))
}
