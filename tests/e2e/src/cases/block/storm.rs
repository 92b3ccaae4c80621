//! blkdom fails at any place, and is replaced, under the verifying load of four guests, one of which has its root there: nobody notices. On
//! request, as it takes minutes. Host.
//!
//! The media are slow and the load is deep, so that lives end with requests at work: some on their way to a drive, some that wait for one, some
//! whose pages are just being copied or mapped. blkdom says how many each life inherits, and without any the storm has shown nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{ControllerKind, DiskController, Equipment, Guest, GuestConfig, Lab, Row};
use serde::Deserialize;

use super::{MEBIBYTE, appear, disk};
use crate::cases::storm::{median, most, tell, wait_for};
use crate::cases::{Case, Family, Play, Rows, at_rest, given_back};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::install;
use crate::media::Media;
use crate::rebuilt::rebuild;
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

/// The cases.
pub struct DiskStorm;

/// The machine.
pub struct StormStage {
    stage: Stage,
    /// After the machine, whose disks are on it.
    media: Media,
}

/// A blkdom with all disks, and the guests.
pub struct Loaded<'s> {
    storm: &'s StormStage,
    blkdom: DriverDomain<'s>,
    /// Its root is a disk of blkdom's.
    root: Guest<'s>,
    /// Those of [`GUESTS`].
    guests: Vec<Guest<'s>>,
}

/// A guest with the verifying load.
struct Verifier {
    name: &'static str,
    /// Its CPUs, which are the queues of each disk.
    vcpus: u32,
    /// Its disks, in blkdom's words: a namespace and a drive.
    disks: [&'static str; 2],
    /// For its kernel.
    arguments: &'static str,
}

/// Grants that stay mapped and two queues; data that are copied; the longest requests.
const GUESTS: [Verifier; 3] = [
    Verifier { name: "a", vcpus: 2, disks: ["nvme0n2", "sda"], arguments: "" },
    Verifier { name: "b", vcpus: 1, disks: ["nvme0n3", "sdb"], arguments: "xen_blkfront.feature_persistent=N" },
    Verifier {
        name: "c",
        vcpus: 1,
        disks: ["nvme0n4", "sdc"],
        // Linux sets pages aside for a ring full of them.
        arguments: "xen_blkfront.max_indirect_segments=256",
    },
];
const DEVICES: [&str; 2] = ["xvda", "xvdb"];
/// Writers of each disk, and more words for them: a drive takes 32 commands at a time, so that others wait for it; and each discard is a process
/// of its own, which costs much of an emulated CPU.
const LANES: [(u32, &str); 2] = [(16, "--discard"), (40, "")];

/// Bytes of the media: the namespaces, with the root, and the drives.
const NAMESPACES: [u64; 4] = [256 * MEBIBYTE, 24 * MEBIBYTE, 24 * MEBIBYTE, 24 * MEBIBYTE];
const DRIVES: [u64; 3] = [24 * MEBIBYTE; 3];
/// Microseconds that a medium takes for a request under load: so long that guests on an emulated CPU keep its queue full.
const LATENCY: u32 = 20_000;
/// The weight of those that guests wait for; guests have 256.
const WEIGHT: u32 = 2048;

impl Play for DiskStorm {
    const UP: &'static str =
        "on request: blkdom and four guests come up, one of them from a disk that it installed itself on";
    const FAILS: bool = true;
    const FAMILIES: &'static [Family<Self>] = &[Family { rows: Rows::All, cases: ON_REQUEST }];
    type Stage = StormStage;
    type Scene<'s> = Loaded<'s>;

    fn boot(row: Row, images: &Images) -> Result<StormStage> {
        let media = Media::new(&[NAMESPACES.as_slice(), &DRIVES].concat())?;
        // One namespace has large blocks.
        let block = |number| if number == 1 { 4096 } else { 512 };
        let disks = (0..NAMESPACES.len() + DRIVES.len()).map(|number| media.disk(number, block(number)));
        let mut namespaces = disks.collect::<Result<Vec<_>>>()?;
        let drives = namespaces.split_off(NAMESPACES.len());
        let stage = Stage::boot_with(row, images, Vec::new(), |config| {
            config.equipment = Equipment::Disks;
            config.controllers = vec![
                DiskController { kind: ControllerKind::Nvme, slot: 4, disks: namespaces },
                DiskController { kind: ControllerKind::Ahci, slot: 5, disks: drives },
            ];
        })?;
        Ok(StormStage { stage, media })
    }

    fn set(storm: &StormStage) -> Result<Loaded<'_>> {
        let lab = &storm.stage.lab;
        let mut rebuilt = std::fs::read(&storm.stage.images.blkdom)?;
        rebuild(&mut rebuilt)?;
        lab.put(REBUILT, 0o644, &rebuilt)?;
        let mut config = DriverDomainConfig::blkdom("blkdom");
        for controller in lab.controllers() {
            config = config.pci(&lab.hide(&controller.bdf())?);
        }
        let blkdom = DriverDomain::create(lab, &config)?;
        let (root, guests) = lab.with_console(&blkdom.name, guests(lab))?;
        // All share a CPU.
        for domain in ["0", &blkdom.name] {
            lab.must(&format!("xl sched-credit2 -d {domain} -w {WEIGHT}"))?;
        }
        Ok(Loaded { storm, blkdom, root, guests })
    }

    fn witness<'a>(scene: &'a Loaded<'_>) -> (&'a Lab, &'a str) {
        (&scene.storm.stage.lab, &scene.blkdom.name)
    }
}

fn guests(lab: &Lab) -> Result<(Guest<'_>, Vec<Guest<'_>>)> {
    let mut config = GuestConfig { memory: 192, ..GuestConfig::new("root") }.disk(&disk("xvda", "nvme0n1", "rw"));
    let installer = lab.create(&config)?;
    appear(&installer, "xvda")?;
    install::install(&installer)?;
    lab.must("xl destroy root")?;
    config.arguments = install::ROOT.to_owned();
    let root = lab.create(&config)?;
    install::has_root(&root)?;
    let mut guests = Vec::new();
    for Verifier { name, vcpus, disks, arguments } in GUESTS {
        let mut config = GuestConfig { memory: 320, vcpus, ..GuestConfig::new(name) };
        config.arguments = arguments.to_owned();
        for (device, target) in DEVICES.iter().zip(disks) {
            config = config.disk(&disk(device, target, "rw"));
        }
        let guest = lab.create(&config)?;
        for device in DEVICES {
            appear(&guest, device)?;
        }
        guests.push(guest);
    }
    Ok((root, guests))
}

const ON_REQUEST: &[Case<DiskStorm>] = &[
    Case {
        name: "on request: blkdom under load of four guests: 24 panics, 24 page faults, 2 hangs and 12 updates, and they see nothing",
        run: some,
    },
    Case {
        name: "on request: blkdom under load of four guests: 100 panics, 100 page faults, 20 hangs and 100 updates, and they see nothing",
        run: many,
    },
];

/// The image that is installed, one that differs from it, and one that fails on demand.
const IMAGE: &str = "/usr/lib/oxidom/blkdom";
const REBUILT: &str = "/tmp/rebuilt";
const FAULTY: &str = "/usr/lib/oxidom/blkdom-faulty";
/// Hypercalls between failures, on average.
const BETWEEN: u32 = 400;
/// Longer than any storm.
const SECONDS: u32 = 36_000;

/// How many of each.
struct Counts {
    panics: u32,
    pages: u32,
    hangs: u32,
    updates: u32,
}

fn some(scene: &Loaded<'_>) -> Result<String> {
    storm(scene, &Counts { panics: 24, pages: 24, hangs: 2, updates: 12 })
}

fn many(scene: &Loaded<'_>) -> Result<String> {
    storm(scene, &Counts { panics: 100, pages: 100, hangs: 20, updates: 100 })
}

fn storm(scene: &Loaded<'_>, counts: &Counts) -> Result<String> {
    let Loaded { storm: StormStage { stage, media }, blkdom, root, guests } = scene;
    let lab = &stage.lab;
    stage.images.faulty_blkdom.as_ref().context("the blkdom that fails on demand was not built")?;
    let nodes = || -> Result<String> {
        let nodes = |guest: &Guest<'_>| lab.must(&format!("xenstore-ls -f /local/domain/{}/device/vbd", guest.id()));
        guests.iter().chain([root]).map(nodes).collect()
    };
    let (before, mut resources) = (nodes()?, at_rest(lab, blkdom)?);
    let first = blkdom.pauses()?.len();
    start(root, guests)?;
    slow_down(media, LATENCY)?;
    let phases = weather(scene, counts);
    slow_down(media, 0)?;
    let phases = phases.with_context(|| guests.iter().chain([root]).map(complaints).collect::<String>())?;
    let operations = stop(root, guests)?;
    check_root(root)?;
    let after = nodes()?;
    ensure!(before == after, "the frontends' nodes were\n{before}and are\n{after}");
    let all = blkdom.pauses()?;
    let own: Vec<f64> = all.iter().skip(first).map(|pause| pause.own).collect();
    let whole: Vec<f64> = all.iter().skip(first).map(|pause| pause.whole).collect();
    resources.0.insert("lives".to_owned(), all.last().context("no life")?.life);
    given_back(lab, blkdom, &resources)?;
    Ok(format!(
        "{} lives, {operations} operations; inherited {}; own time {:.1} ms (median), {:.1} ms (most); pauses {:.1} and {:.1} ms",
        own.len(),
        phases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        median(&own),
        most(&own),
        median(&whole),
        most(&whole)
    ))
}

/// What a guest's load and its kernel say.
fn complaints(guest: &Guest<'_>) -> String {
    const SHORT: Duration = Duration::from_secs(60);
    let said = guest.shell("tail -n 2 /tmp/*.out; dmesg | tail -n 5", SHORT);
    format!("{} says:\n{}\n", guest.name(), said.map_or_else(|error| error.to_string(), |said| said.stdout))
}

/// Has the media take so long for a request.
fn slow_down(media: &Media, microseconds: u32) -> Result<()> {
    for number in 0..NAMESPACES.len() + DRIVES.len() {
        media.medium(number)?.slow_down(microseconds);
    }
    Ok(())
}

/// Begins the load: files that are written, synchronised, compared and replaced; and the verifying one.
fn start(root: &Guest<'_>, guests: &[Guest<'_>]) -> Result<()> {
    for guest in guests.iter().chain([root]) {
        guest.sh("rm -f /tmp/enough; dmesg -c >/dev/null")?;
    }
    let script = "{ mkdir -p /root/storm; n=0; while ! test -e /tmp/enough; do n=$((n+1)); file=/root/storm/$((n%8)); \
         dd if=/dev/urandom of=/tmp/new bs=64k count=8 2>/dev/null; \
         cp /tmp/new $file && sync && echo 3 >/proc/sys/vm/drop_caches && cmp /tmp/new $file || exit 1; done; echo done $n; }";
    root.start("files", script)?;
    for guest in guests {
        for (device, (lanes, more)) in DEVICES.iter().zip(LANES) {
            let verify =
                format!("blocks verify /dev/{device} --lanes {lanes} --seconds {SECONDS} --until /tmp/enough {more}");
            guest.start(device, &verify)?;
        }
    }
    Ok(())
}

/// Has blkdom fail, and replaces it.
fn weather(scene: &Loaded<'_>, counts: &Counts) -> Result<Vec<Phase>> {
    let Loaded { storm, blkdom, root, guests } = scene;
    let lab = &storm.stage.lab;
    let mut phases = Vec::new();
    let mut lines = blkdom.console()?.lines().count();
    let mut phase = |name| -> Result<()> {
        let console = blkdom.console()?;
        phases.push(Phase::of(name, console.lines().skip(lines))?);
        lines = console.lines().count();
        Ok(())
    };
    let ways = [("panic", counts.panics), ("page", counts.pages), ("hang", counts.hangs)];
    for (way, count) in ways.into_iter().filter(|(_, count)| *count > 0) {
        let lives = blkdom.lives()? + 1 + u64::from(count);
        lab.must(&format!("oxidom update blkdom {FAULTY} --words faults={way}:{BETWEEN}:{lives}"))?;
        wait_for(blkdom, lives, || guests.iter().chain([root]).try_for_each(is_content))?;
        phase(way)?;
    }
    lab.must(&format!("oxidom update blkdom {IMAGE} --words ''"))?;
    for turn in 0..counts.updates {
        let image = if turn % 4 < 2 { REBUILT } else { IMAGE };
        lab.must(&format!("oxidom update blkdom {image}"))?;
        tell(turn.into(), (turn + 1).into(), "updates", counts.updates.into());
    }
    phase(UPDATE)?;
    Ok(phases)
}

/// The name of the phase without failures.
const UPDATE: &str = "update";

/// What the lives of a phase inherited: requests, and the writes among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    name: &'static str,
    requests: u64,
    writes: u64,
    indirect_writes: u64,
}

impl Phase {
    /// By what blkdom's log says of each vbd that it takes over.
    fn of<'a>(name: &'static str, lines: impl Iterator<Item = &'a str>) -> Result<Self> {
        let mut phase = Self { name, requests: 0, writes: 0, indirect_writes: 0 };
        for line in lines {
            let Some((_, numbers)) = line.trim_end().split_once("; requests unanswered: ") else {
                continue;
            };
            let numbers: Vec<u64> =
                numbers.split(", ").filter_map(|part| part.rsplit(' ').next()?.parse().ok()).collect();
            let [requests, writes, indirect_writes] = numbers[..] else { bail!("blkdom says '{line}'") };
            phase.requests += requests;
            phase.writes += writes;
            phase.indirect_writes += indirect_writes;
        }
        // An update takes a while, in which guests get little of the CPU: they may wait for few requests when it comes to its end.
        let writes = phase.writes > 0 && phase.indirect_writes > 0;
        ensure!(phase.requests > 0 && (writes || name == UPDATE), "no life inherited what it is to show: {phase}");
        Ok(phase)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, requests, writes, indirect_writes } = self;
        write!(f, "{requests} requests ({name}), {writes} direct and {indirect_writes} indirect writes among them")
    }
}

/// Ends the load, which must have found all that it wrote; gives its operations.
fn stop(root: &Guest<'_>, guests: &[Guest<'_>]) -> Result<u64> {
    #[derive(Deserialize)]
    struct Verified {
        operations: u64,
    }
    for guest in guests.iter().chain([root]) {
        guest.sh("touch /tmp/enough")?;
    }
    let mut operations = 0;
    for guest in guests {
        for device in DEVICES {
            let said = guest.finish(device)?;
            // Lines of what discards come before.
            let last = said.lines().last().unwrap_or_default();
            let verified = serde_json::from_str::<Verified>(last);
            operations += verified.with_context(|| format!("{device} of {}: {last}", guest.name()))?.operations;
        }
    }
    let said = root.finish("files")?;
    ensure!(said.contains("done"), "the files of the guest with its root there are not what was written: {said}");
    guests.iter().chain([root]).try_for_each(is_content)?;
    Ok(operations)
}

/// Whether a guest's kernel complains of nothing. It does of an answer that no request had, and uses the disk no more then.
fn is_content(guest: &Guest<'_>) -> Result<()> {
    let said = guest.sh("dmesg | grep -iE 'i/o error|xvd|blkfront|vbd|ext4|jbd2' || true")?;
    ensure!(said.trim().is_empty(), "the kernel of {} says: {said}", guest.name());
    Ok(())
}

/// The root's file system must be clean.
fn check_root(root: &Guest<'_>) -> Result<()> {
    root.sh("sync; mount -o remount,ro / && fsck.ext4 -fn /dev/xvda >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }")
        .context("fsck")?;
    root.sh("mount -o remount,rw /").map(drop)
}
