//! Power cuts under a verifying load: nothing that a guest's disk acknowledged and flushed may be lost, nothing torn may pass for whole. Host.
//!
//! A round boots the lab with a drive whose cache is volatile (a [`Medium`], which outlives QEMU) and a second one, the ledger's, which
//! loses nothing: an image file, where what QEMU wrote stays. blkdom serves both to a Linux guest, which writes stamped sectors to the one
//! and notes after each flush on the other what must be there from then on. At a moment that the seed decides, QEMU is killed and the
//! medium's power is cut; then each sector is held against the ledger. In some settings blkdom begins new lives right before that, so that the
//! cut falls into one that ends, into the next one's beginning, or behind it.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lab::scratch::Scratch;
use lab::{ControllerKind, Disk, DiskController, Equipment, Guest, GuestConfig, Row};
use medium::torture::{Checked, ENTRY, Load, SECTOR};
use medium::{Counters, Loss, Medium};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

/// Bytes of the drive: few, so that the load comes back to the same sectors, and the check is quick.
const DRIVE: u64 = 32 << 20;
/// Lanes of the load: requests that are under way at a time.
const LANES: u64 = 4;
/// The kill comes after so many operations at most that the ledger knows to be durable.
const OPERATIONS: u64 = 1500;
/// And so much later at most: anywhere between two flushes.
const LATER: Duration = Duration::from_millis(500);
/// Lives of blkdom that end before the kill, at most: fewer than may in a row. And the pause before each end, at most.
const LIVES: u32 = 4;
const APART: Duration = Duration::from_millis(1500);
/// How long the ledger may stand still before the load counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slots of the two controllers.
const SLOTS: [u8; 2] = [4, 5];

/// What is killed at the end of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Victim {
    /// The machine: QEMU.
    #[default]
    Machine,
    /// blkdom by `xl destroy`, and then the machine.
    Domain,
}

impl FromStr for Victim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "machine" => Ok(Self::Machine),
            "domain" => Ok(Self::Domain),
            _ => Err(format!("'{text}' is neither 'machine' nor 'domain'")),
        }
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
struct End {
    /// So long after the one before has begun to end.
    after: Duration,
    /// By an NMI; else on request.
    is_failure: bool,
}

/// What a round has under the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    kind: ControllerKind,
    logical_block: u32,
    persistent: bool,
    /// blkdom begins new lives before the kill.
    lives: bool,
}

/// Rounds take them in turn.
const SETTINGS: [Setting; 4] = [
    Setting { kind: ControllerKind::Nvme, logical_block: 512, persistent: true, lives: true },
    Setting { kind: ControllerKind::Nvme, logical_block: 4096, persistent: false, lives: false },
    Setting { kind: ControllerKind::Ahci, logical_block: 512, persistent: true, lives: true },
    Setting { kind: ControllerKind::Nvme, logical_block: 512, persistent: false, lives: true },
];

impl Setting {
    /// That of the `index`th round.
    pub fn of_round(index: u64) -> Self {
        let [first, ..] = SETTINGS;
        SETTINGS.get((index % SETTINGS.len() as u64) as usize).copied().unwrap_or(first)
    }

    /// How lives end before the kill.
    fn ends(self, random: &mut StdRng) -> Vec<End> {
        let count = if self.lives { random.random_range(1..=LIVES) } else { 0 };
        let end = |_| End { after: APART.mul_f64(random.random()), is_failure: random.random() };
        (0..count).map(end).collect()
    }

    /// What blkdom calls the drive and the ledger's.
    fn targets(self) -> [&'static str; 2] {
        match self.kind {
            ControllerKind::Nvme => ["nvme0n1", "nvme1n1"],
            ControllerKind::Ahci => ["sda", "nvme0n1"],
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ControllerKind::Nvme => "NVMe",
            ControllerKind::Ahci => "AHCI",
        };
        let grants = if self.persistent { "persistent" } else { "passing" };
        let lives = if self.lives { ", around new lives" } else { "" };
        write!(f, "{kind}, blocks of {}, {grants} grants{lives}", self.logical_block)
    }
}

/// How a round went that found nothing wrong.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// What the check went through.
    pub checked: Checked,
    /// What the power cut did.
    pub loss: Loss,
    /// What reached the drive before.
    pub counters: Counters,
    /// Lives of blkdom that were told to end before.
    pub lives: u32,
    /// From the first to the last of it.
    pub took: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked: Checked { operations, sectors }, loss: Loss { lost, kept }, counters, lives, took } = self;
        let Counters { writes, flushes, discards, .. } = counters;
        write!(
            f,
            "{operations} operations durable, {sectors} stamped sectors right; the cut lost {lost} unflushed sectors and kept {kept}; \
             the drive saw {writes} writes, {flushes} flushes, {discards} discards; {lives} lives ended before ({:.0} s)",
            took.as_secs_f64()
        )
    }
}

/// One boot, one load, one kill, one check.
///
/// # Errors
/// What was lost or torn, with what `seed` was; or what did not come up.
pub fn round(row: Row, images: &Images, setting: Setting, victim: Victim, seed: u64) -> Result<Round> {
    let start = Instant::now();
    let directory = Scratch::new()?;
    let [drive, ledger] = ["drive.img", "ledger.img"].map(|name| directory.path().join(name));
    // Both begin as zeroes.
    File::create(&drive)?.set_len(DRIVE)?;
    File::create(&ledger)?.set_len(1 << 20)?;
    let medium = Medium::start(&drive, &directory.path().join("drive"))?;
    let mut random = StdRng::seed_from_u64(seed);
    let load = Load::new(seed, LANES, DRIVE / SECTOR as u64);
    let run = Run { row, images, setting, victim, load, medium: &medium, ledger: &ledger };
    let ends = setting.ends(&mut random);
    run.until_killed(random.random_range(1..=OPERATIONS), &ends, LATER.mul_f64(random.random()))?;
    let counters = medium.counters();
    let loss = medium.cut_power(random.random())?;
    let checked = load.check(&fs::read(&drive)?, &fs::read(&ledger)?).map_err(|violation| {
        anyhow!("{violation}; {setting}, seed {seed}; the cut lost {} sectors and kept {}", loss.lost, loss.kept)
    })?;
    let lives = u32::try_from(ends.len())?;
    Ok(Round { checked, loss, counters, lives, took: start.elapsed() })
}

/// A round's parts until the kill.
struct Run<'a> {
    row: Row,
    images: &'a Images,
    setting: Setting,
    victim: Victim,
    load: Load,
    medium: &'a Medium,
    ledger: &'a Path,
}

impl Run<'_> {
    /// Starts everything; when the ledger has come to so many operations, ends some lives, and kills it a little later.
    fn until_killed(&self, operations: u64, ends: &[End], later: Duration) -> Result<()> {
        let stage = self.boot()?;
        let lab = &stage.lab;
        let mut config = DriverDomainConfig::blkdom("blkdom");
        for controller in lab.controllers() {
            config = config.pci(&lab.hide(&controller.bdf())?);
        }
        let blkdom = DriverDomain::create(lab, &config)?;
        let explain = || format!("blkdom's console:\n{}", blkdom.console().unwrap_or_default());
        let guest = self.guest(&stage).with_context(explain)?;
        self.wait_for(operations, &guest).with_context(explain)?;
        for end in ends {
            thread::sleep(end.after);
            // Nobody waits for the next life.
            let command = match end.is_failure || self.images.tool.is_none() {
                true => "xl trigger blkdom nmi",
                false => "oxidom restart blkdom >/dev/null 2>&1 &",
            };
            lab.must(command).with_context(explain)?;
        }
        thread::sleep(later);
        if self.victim == Victim::Domain {
            lab.must("xl destroy blkdom")?;
        }
        // The end of the stage is QEMU's, by SIGKILL.
        Ok(())
    }

    fn boot(&self) -> Result<Stage> {
        let drive = Disk { logical_block: self.setting.logical_block, ..Disk::served(self.medium.socket()) };
        let controller = |kind, slot, disk| DiskController { kind, slot, disks: vec![disk] };
        let [first, second] = SLOTS;
        Stage::boot_with(self.row, self.images, Vec::new(), |config| {
            config.memory = 1024;
            config.dom0_memory = 576;
            config.equipment = Equipment::Disks;
            config.controllers = vec![
                controller(self.setting.kind, first, drive),
                controller(ControllerKind::Nvme, second, Disk::image(self.ledger)),
            ];
        })
    }

    /// The guest, with the load begun.
    fn guest<'s>(&self, stage: &'s Stage) -> Result<Guest<'s>> {
        let mut config = GuestConfig { memory: 192, ..GuestConfig::new("guest") };
        for (vdev, target) in ["xvda", "xvdb"].iter().zip(self.setting.targets()) {
            config = config
                .disk(&format!("format=raw,vdev={vdev},access=rw,backend=blkdom,backendtype=phy,target={target}"));
        }
        if !self.setting.persistent {
            config.arguments = "xen_blkfront.feature_persistent=N".to_owned();
        }
        let guest = stage.lab.create(&config)?;
        guest.sh("for disk in /dev/xvda /dev/xvdb; do while ! test -b $disk; do usleep 10000; done; done")?;
        let Load { seed, lanes, .. } = self.load;
        guest.start("torture", &format!("blocks torture /dev/xvda /dev/xvdb --seed {seed} --lanes {lanes}"))?;
        Ok(guest)
    }

    /// Waits until so many operations are durable by the ledger.
    fn wait_for(&self, operations: u64, guest: &Guest<'_>) -> Result<()> {
        let ledger = File::open(self.ledger)?;
        let mut entries = vec![0; LANES as usize * ENTRY];
        let (mut before, mut since) = (0, Instant::now());
        loop {
            // A lane may be writing its entry just now; then it is read again.
            ledger.read_exact_at(&mut entries, 0)?;
            let durable = self.load.all_durable(&entries).unwrap_or(before);
            if durable >= operations {
                return Ok(());
            }
            if durable > before {
                (before, since) = (durable, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let said = guest.sh("cat /tmp/torture.out").unwrap_or_else(|error| format!("{error:#}"));
                bail!("the load stopped after {durable} durable operations: {said}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
