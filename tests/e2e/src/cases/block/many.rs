//! 100 disks of one blkdom of 16 MiB: all of them written and read at once, and guests with many that are destroyed. On request, as it
//! takes minutes. Host.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{ControllerKind, DiskController, Equipment, Guest, GuestConfig, Lab, Row};

use super::{MEBIBYTE, appear, disk};
use crate::cases::{Case, Family, Play, Rows};
use crate::driver_domain::{DriverDomain, DriverDomainConfig, Resources};
use crate::media::Media;
use crate::stage::{Images, Stage, raise_quotas};
use crate::traffic::Shell;

/// Disks of each guest, and its CPUs, which are the queues of each disk. Linux keeps 4 MiB of pages for a queue. libxl gives up a guest's
/// disks that are not connected after ten seconds, so the guest with most comes first.
const GUESTS: [(&str, usize, u32); 8] =
    [("a", 21, 1), ("b", 12, 1), ("c", 12, 1), ("d", 12, 1), ("e", 12, 1), ("f", 12, 1), ("g", 12, 1), ("h", 7, 4)];
const DISKS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(300);

/// A blkdom, and a machine with a disk of 100 partitions.
pub struct ManyDisks;

/// The machine, and what its disk is made of.
pub struct ManyStage {
    stage: Stage,
    /// After the machine, whose disks are on it.
    _media: Media,
}

/// The guests.
pub struct ManyScene<'s> {
    lab: &'s Lab,
    blkdom: DriverDomain<'s>,
    guests: Vec<Guest<'s>>,
    /// How long it took until all had their disks.
    took: Duration,
}

impl Play for ManyDisks {
    const UP: &'static str = "on request: 100 disks of a blkdom of 16 MiB are attached to eight guests";
    const FAMILIES: &'static [Family<Self>] = &[Family { rows: Rows::All, cases: CASES }];
    type Stage = ManyStage;
    type Scene<'s> = ManyScene<'s>;

    fn boot(row: Row, images: &Images) -> Result<ManyStage> {
        let media = Media::new(&[120 * MEBIBYTE])?;
        let disks = vec![media.disk(0, 512)?];
        let stage = Stage::boot_with(row, images, Vec::new(), |config| {
            config.equipment = Equipment::Disks;
            config.memory = 3584;
            config.controllers = vec![DiskController { kind: ControllerKind::Nvme, slot: 4, disks }];
        })?;
        let mut table = String::from("label: gpt\n");
        for _ in 0..DISKS {
            table.push_str("size=1MiB\n");
        }
        let prepare = "modprobe nvme; for i in $(seq 1000); do test -b /dev/nvme0n1 && break; usleep 10000; done; \
             sfdisk -q /dev/nvme0n1";
        stage.lab.must(&format!("{prepare} <<END\n{table}END"))?;
        Ok(ManyStage { stage, _media: media })
    }

    fn set(stage: &ManyStage) -> Result<ManyScene<'_>> {
        let lab = &stage.stage.lab;
        raise_quotas(lab)?;
        let controller = lab.controllers().first().context("the machine has no controller")?.bdf();
        let config = DriverDomainConfig::blkdom("blkdom").memory(16).pci(&lab.hide(&controller)?);
        let blkdom = DriverDomain::create(lab, &config)?;
        let start = Instant::now();
        let result = (|| {
            let mut guests = Vec::new();
            let mut partition = 1;
            for (name, count, vcpus) in GUESTS {
                let mut config = GuestConfig { memory: 320, vcpus, ..GuestConfig::new(name) };
                for device in devices(count) {
                    config = config.disk(&disk(&device, &format!("nvme0n1p{partition}"), "rw"));
                    partition += 1;
                }
                let guest = lab.create(&config)?;
                for device in devices(count) {
                    appear(&guest, &device)?;
                }
                guests.push(guest);
            }
            Ok(guests)
        })();
        let guests = lab.with_console(&blkdom.name, result)?;
        Ok(ManyScene { lab, blkdom, guests, took: start.elapsed() })
    }

    fn witness<'a>(scene: &'a ManyScene<'_>) -> (&'a Lab, &'a str) {
        (scene.lab, &scene.blkdom.name)
    }
}

const CASES: &[Case<ManyDisks>] = &[
    Case { name: "on request: 100 disks of a blkdom of 16 MiB are written and read at once", run: at_work },
    Case { name: "on request: 100 disks: xl destroy of a guest with 21 complains of nothing", run: destroy },
];

/// The names of a guest's disks.
fn devices(count: usize) -> impl Iterator<Item = String> {
    (b'a'..=b'z').take(count).map(|letter| format!("xvd{}", char::from(letter)))
}

/// Has all disks of all guests written, read and compared at once; gives the operations.
fn verify(scene: &ManyScene<'_>, seconds: u32) -> Result<u64> {
    let all = || scene.guests.iter().zip(GUESTS);
    for (guest, (_, count, _)) in all() {
        let mut script = String::new();
        for device in devices(count) {
            write!(
                script,
                "blocks verify /dev/{device} --lanes 1 --seconds {seconds} >/tmp/{device}.out 2>&1 || echo {device} failed >>/tmp/{device}.out & "
            )?;
        }
        guest.start("verify", &format!("sh -c '{script} wait'"))?;
    }
    let mut operations = 0;
    for (guest, (name, count, _)) in all() {
        guest.finish("verify")?;
        for device in devices(count) {
            let said = guest.sh(&format!("cat /tmp/{device}.out"))?;
            let done = said.split_once("\"operations\":").map(|(_, rest)| rest.trim_start());
            let digits: String = done.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
            let done: u64 = digits.parse().with_context(|| format!("{device} of {name} said '{said}'"))?;
            ensure!(done > 0 && !said.contains("failed"), "{device} of {name} said '{said}'");
            operations += done;
        }
    }
    Ok(operations)
}

fn at_work(scene: &ManyScene<'_>) -> Result<String> {
    let before = scene.blkdom.resources()?;
    let operations = verify(scene, 60)?;
    let busy = scene.blkdom.resources()?;
    let heap = |resources: &Resources| resources.0.get("heap-bytes").copied().unwrap_or_default() / 1024;
    Ok(format!(
        "attached in {:.0} s; {operations} operations in 60 s; {} KiB of heap before, {} KiB after",
        scene.took.as_secs_f64(),
        heap(&before),
        heap(&busy)
    ))
}

fn destroy(scene: &ManyScene<'_>) -> Result<String> {
    let mut seconds = [0.0; 2];
    for (name, seconds) in ["b", "a"].into_iter().zip(&mut seconds) {
        let start = Instant::now();
        let said = scene.lab.run_for(&format!("xl destroy {name}"), PATIENCE)?;
        ensure!(said.status == 0 && said.stdout.trim().is_empty(), "xl destroy {name}: {}", said.stdout.trim());
        *seconds = start.elapsed().as_secs_f64();
    }
    let [of_12, of_21] = seconds;
    Ok(format!("{of_12:.1} s with 12, {of_21:.1} s with 21"))
}
