//! Attacks on any backend, netdom's, blkdom's or Linux', each with its verdict. Host.
//!
//! A machine is booted with one driver domain, a neighbour that goes on meanwhile, and one attacker after the other. Linux' backends are
//! attacked in a driver domain of Debian's kernel, whose log is read as dom0's is.

use std::fmt;
use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::scratch::Scratch;
use lab::{ControllerKind, Disk, DiskController, Equipment, Guest, GuestConfig, Lab, Nic, Row};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{Attack, End, Needs, PATIENCE, Protocol, block, carries, judge, let_go, must_work, network, with_attacker};
use crate::bench::blk;
use crate::bench::common::{LINUX, LinuxDriverDomain};
use crate::bench::topology::LINUX_BRIDGE;
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage, vif};
use crate::traffic::{self, Shell};

/// What is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// netdom's vifs.
    Netdom,
    /// blkdom's vbds.
    Blkdom,
    /// Linux' netback.
    Netback,
    /// Linux' blkback.
    Blkback,
}

impl Backend {
    fn is_block(self) -> bool {
        matches!(self, Self::Blkdom | Self::Blkback)
    }

    fn is_linux(self) -> bool {
        matches!(self, Self::Netback | Self::Blkback)
    }

    /// The attacks that there are on it.
    pub fn attacks(self) -> Vec<Attack> {
        if self.is_block() { block::all() } else { network::all() }
    }
}

/// What one attacker does: attacks one after the other, and how it connects.
#[derive(Clone, Debug)]
pub struct Sortie {
    attacks: Vec<Attack>,
    /// More words of the image's command line.
    words: String,
    /// What a fuzzer's hostile guest did (`guests::tape`), in place of attacks.
    tape: Option<String>,
}

impl Sortie {
    /// One attack alone.
    pub fn single(attack: Attack) -> Self {
        Self { attacks: vec![attack], words: String::new(), tape: None }
    }

    /// What a fuzzer's hostile guest did.
    pub fn replay(tape: String) -> Self {
        Self { attacks: Vec::new(), words: String::new(), tape: Some(tape) }
    }

    /// Attacks by chance, the same for the same seed; what is random in them has that seed, too.
    pub fn random(backend: Backend, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut words = format!("seed={seed}");
        let (several, last): (Vec<Attack>, Vec<Attack>) = if backend.is_block() {
            for word in ["persistent", "narrow", "queues=2", "queues=4", "pages=2", "pages=16"] {
                if random.random_bool(0.3) && !words.contains(word.split('=').next().unwrap_or(word)) {
                    words = format!("{words} {word}");
                }
            }
            let floods = block::FLOODS.iter().filter(|attack| !ENDS.contains(&attack.name)).copied();
            (
                block::REQUESTS.iter().copied().chain(floods).collect(),
                [block::REQUESTS, block::FLOODS, block::OVERRUNS].concat(),
            )
        } else {
            let lasting = network::all().into_iter().filter(|attack| {
                attack.end == End::Borne && attack.protocol != Protocol::Open && !ENDS.contains(&attack.name)
            });
            let last = network::all().into_iter().filter(|attack| {
                !["rx-never-filled", "ring-never-granted", "channel-of-nobody"].contains(&attack.name)
            });
            (lasting.collect(), last.collect())
        };
        let mut attacks = Vec::new();
        for _ in 0..random.random_range(1..=4) {
            attacks.extend(several.choose(&mut random));
        }
        attacks.extend(last.choose(&mut random));
        Self { attacks, words, tape: None }
    }

    fn has(&self, needs: Needs) -> bool {
        self.attacks.iter().any(|attack| attack.needs == needs)
    }

    fn patience(&self) -> Duration {
        let lives = self.tape.iter().flat_map(|tape| tape.lines()).filter(|line| line.starts_with("life")).count();
        PATIENCE + LIFE * u32::try_from(lives).unwrap_or(u32::MAX)
    }

    /// What the protocol says of the whole, and how it ends with netdom or blkdom: as the last attack.
    fn expected(&self) -> (Protocol, End) {
        if self.tape.is_some() {
            return (Protocol::Open, End::Either);
        }
        self.attacks.last().map_or((Protocol::Allowed, End::Borne), |attack| (attack.protocol, attack.end))
    }
}

impl Sortie {
    /// Whether the device must work afterwards: where it was not `closed` and, of Linux' backends, all that was done is allowed. A tape ends with
    /// a proper connection, which works with netdom and blkdom; Linux' netback serves no vif again that it has halted.
    fn must_work(&self, backend: Backend, closed: bool) -> bool {
        if self.tape.is_some() {
            return !backend.is_linux();
        }
        let mut attacks = self.attacks.iter();
        let must = match backend.is_linux() {
            true => attacks.all(|attack| attack.protocol == Protocol::Allowed && !attack.never_ends()),
            false => must_work(&self.attacks),
        };
        must && !closed
    }
}

impl fmt::Display for Sortie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.attacks.iter().map(|attack| attack.name).collect();
        let names = if self.tape.is_some() { "the tape".to_owned() } else { names.join(",") };
        write!(f, "{names}")?;
        if self.has(Needs::ReadOnly) {
            write!(f, " (read-only)")?;
        }
        if self.words.is_empty() { Ok(()) } else { write!(f, " {}", self.words) }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was done.
    pub sortie: String,
    /// Why the device was closed; none where it goes on.
    pub closed: Option<String>,
    /// How the neighbour fared.
    pub neighbour: String,
    /// What the kernels' logs said meanwhile, each line behind its domain.
    pub logs: Vec<String>,
    /// What is not as the protocol wants it.
    pub wrong: Option<String>,
}

impl Verdict {
    /// Whether all is as it must be.
    pub fn is_right(&self) -> bool {
        self.wrong.is_none() && self.alarms().next().is_none()
    }

    /// What the kernels' logs say that is no mere report of a bad frontend.
    pub fn alarms(&self) -> impl Iterator<Item = &str> {
        self.logs.iter().map(String::as_str).filter(|line| ALARMS.iter().any(|word| line.contains(word)))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.wrong, &self.closed) {
            (Some(wrong), _) => write!(f, "WRONG: {}", wrong.lines().last().unwrap_or_default())?,
            (None, Some(reason)) => write!(f, "closed: {reason}")?,
            (None, None) => write!(f, "borne")?,
        }
        if !self.neighbour.is_empty() {
            write!(f, "; the neighbour: {}", self.neighbour)?;
        }
        self.alarms().try_for_each(|line| write!(f, "; ALARM in the log of {line}"))
    }
}

/// After these nothing else is made in reasonable time, or at all: who has sent a storm of events waits for each answer.
const ENDS: [&str; 3] = ["event-storm", "vanish", "rx-never-filled"];
/// Bytes of each of the two disks, the attacker's and the neighbour's.
const DISK: u64 = 16 << 20;
/// How long a backend may take to close a device after an attack is made.
const CLOSING: Duration = Duration::from_secs(10);
/// What Linux' backends say when they serve a frontend no longer, which they do not always say in the store.
const HALTED: [&str; 2] = ["disabling device", "Halting ring processing"];
/// blkback's word of a frontend that begins anew.
const BEGUN_ANEW: &str = "prepare for reconnect";
/// How long a life of a tape may take: a frontend that broke the protocol waits up to 16 s before it is served again.
const LIFE: Duration = Duration::from_secs(30);
/// Where dom0 has the tape of a fuzzer's hostile guest.
const TAPE: &str = "/run/hostile.tape";
/// Lines of a kernel's log with these tell of a fault of the kernel itself.
const ALARMS: [&str; 10] = [
    "BUG",
    "Oops",
    "WARNING:",
    "Call Trace",
    "lockup",
    "blocked for more than",
    "general protection",
    "refcount_t",
    "UBSAN",
    "KASAN",
];

/// A machine with the backend and a neighbour.
pub struct Battlefield {
    stage: Stage,
    backend: Backend,
    /// The disks, which outlive the machine.
    _disks: Option<Scratch>,
}

impl Battlefield {
    /// Boots the machine.
    ///
    /// # Errors
    /// What did not come up.
    pub fn boot(row: Row, images: &Images, backend: Backend) -> Result<Self> {
        let nics = if backend.is_block() { Vec::new() } else { vec![Nic::wired(0)] };
        let disks = if backend.is_block() { Some(Scratch::new()?) } else { None };
        let mut controllers = Vec::new();
        if let Some(directory) = &disks {
            let paths = ["attacker", "neighbour"].map(|name| directory.path().join(name));
            for path in &paths {
                File::create(path)?.set_len(DISK)?;
            }
            controllers.push(DiskController {
                kind: ControllerKind::Nvme,
                slot: 4,
                disks: paths.map(Disk::image).into(),
            });
        }
        let stage = Stage::boot_with(row, images, nics, |config| {
            config.controllers = controllers;
            config.driver_root = backend.is_linux();
            if backend.is_block() {
                config.equipment = Equipment::Disks;
            }
        })?;
        Ok(Self { stage, backend, _disks: disks })
    }

    /// Starts the driver domain and the neighbour.
    ///
    /// # Errors
    /// What did not come up.
    pub fn set(&self) -> Result<Scene<'_>> {
        let (lab, backend) = (&self.stage.lab, self.backend);
        let device = match backend.is_block() {
            true => lab.hide(&lab.controllers().first().context("the machine has no controller")?.bdf())?,
            false => lab.make_assignable(0)?,
        };
        let (domain, kernel) = match backend {
            Backend::Netdom => (DriverDomain::create(lab, &DriverDomainConfig::netdom("netdom").pci(&device))?, None),
            Backend::Blkdom => (DriverDomain::create(lab, &DriverDomainConfig::blkdom("blkdom").pci(&device))?, None),
            Backend::Netback | Backend::Blkback => {
                let block = backend.is_block();
                let setup = if block { blk::LINUX_SETUP } else { LINUX_BRIDGE };
                let (guest, took) = LinuxDriverDomain { pci: vec![device], setup }.start(lab)?;
                let kind = if block { "vbd" } else { "vif" };
                (DriverDomain::linux(lab, &guest, kind, took), Some(guest))
            }
        };
        let neighbour = if backend.is_block() {
            let disk = disk(backend, "rw", 2);
            let guest = lab.create(&GuestConfig { memory: 160, ..GuestConfig::new("neighbour").disk(&disk) })?;
            guest.sh("for i in $(seq 3000); do test -b /dev/xvda && exit; usleep 20000; done; exit 1")?;
            guest
        } else {
            self.stage.client("neighbour", &[vif(&domain.name, 1)])?
        };
        let scene = Scene { field: self, domain, kernel, neighbour };
        // What was said at the start is nobody's attack.
        scene.news()?;
        Ok(scene)
    }
}

/// The `number`th disk, in `xl`'s words.
fn disk(backend: Backend, access: &str, number: u32) -> String {
    let from = match backend.is_linux() {
        true => format!("backend={LINUX},backendtype=phy,script=block-plain,target=/dev/nvme0n{number}"),
        false => format!("backend=blkdom,backendtype=phy,target=nvme0n{number}"),
    };
    format!("format=raw,vdev=xvda,access={access},{from}")
}

/// What stands on the machine.
pub struct Scene<'s> {
    field: &'s Battlefield,
    domain: DriverDomain<'s>,
    /// Where it is Linux: the same, for its log.
    kernel: Option<Guest<'s>>,
    neighbour: Guest<'s>,
}

impl Scene<'_> {
    /// Has an attacker do its work, and judges what came of it.
    ///
    /// # Errors
    /// Where the lab itself fails.
    pub fn attack(&self, sortie: &Sortie) -> Result<Verdict> {
        let mut verdict = Verdict {
            sortie: sortie.to_string(),
            closed: None,
            neighbour: String::new(),
            logs: Vec::new(),
            wrong: None,
        };
        let made = self.made(sortie, &mut verdict);
        verdict.wrong = made.err().map(|error| format!("{error:#}"));
        verdict.logs.extend(self.news()?);
        Ok(verdict)
    }

    fn lab(&self) -> &Lab {
        &self.field.stage.lab
    }

    fn made(&self, sortie: &Sortie, verdict: &mut Verdict) -> Result<()> {
        let (lab, backend) = (self.lab(), self.field.backend);
        let names: Vec<_> = sortie.attacks.iter().map(|attack| attack.name).collect();
        let names = if sortie.tape.is_some() { "tape".to_owned() } else { names.join(",") };
        let (names, access) = (names, if sortie.has(Needs::ReadOnly) { "ro" } else { "rw" });
        let (devices, names, handle) = if backend.is_block() {
            (format!("disk = {:?}", [disk(backend, access, 1)]), format!("blk-{names}"), 202 << 8)
        } else {
            let mut vifs = vec![vif(&self.domain.name, 0x31)];
            if sortie.has(Needs::Helper) {
                vifs.push(vif(&self.domain.name, 0x32));
            }
            (format!("vif = {vifs:?}"), names, 0)
        };
        let devices = match &sortie.tape {
            Some(tape) => {
                lab.put(TAPE, 0o644, tape.as_bytes())?;
                format!("{devices}\nramdisk = \"{TAPE}\"")
            }
            None => devices,
        };
        let kind = if backend.is_linux() { "linux " } else { "" };
        let words = format!("{names} {kind}{} {}", sortie.words, network::witness(&self.field.stage.peer(0)));
        with_attacker(lab, &self.domain, &devices, &words, |id| {
            verdict.neighbour = self.beside_neighbour(|| let_go(lab, id, sortie.patience()))?;
            let device = self.domain.backend(id, handle);
            let (protocol, end) = sortie.expected();
            verdict.closed = match backend.is_linux() {
                true => self.judge_linux(&device, protocol, &mut verdict.logs)?,
                false => judge(lab, &self.domain, &device, end)?,
            };
            if sortie.must_work(backend, verdict.closed.is_some()) {
                carries(lab, id)?;
            }
            if sortie.has(Needs::Helper) {
                let helper = format!("{}/state", self.domain.backend(id, 1));
                ensure!(
                    lab.must(&format!("xenstore-read {helper}"))?.trim() == "4",
                    "the vif beside it was closed too"
                );
            }
            Ok(())
        })?;
        if !backend.is_block() {
            traffic::ping(&self.neighbour, &self.field.stage.peer(0), 20, 0, 56).context("after the attack")?;
        }
        Ok(())
    }

    /// Runs something while the neighbour is at work; gives what the neighbour saw.
    fn beside_neighbour(&self, run: impl FnOnce() -> Result<()>) -> Result<String> {
        if self.field.backend.is_block() {
            return Ok(format!("{} operations verified", block::beside_verification(&self.neighbour, run)?));
        }
        let ping: traffic::Ping = network::beside_pings(&self.neighbour, &self.field.stage.peer(0), run)?;
        Ok(format!("{} pings, the slowest {:.1} ms", ping.sent, ping.max_us / 1e3))
    }

    /// What Linux' backend made of it, by the store and by its log; held against the protocol.
    fn judge_linux(&self, device: &str, protocol: Protocol, logs: &mut Vec<String>) -> Result<Option<String>> {
        let start = Instant::now();
        let closed = loop {
            let news = self.news()?;
            // A ring that was halted and then begun anew is at work.
            let halted = news.iter().fold(None, |halted, line| match HALTED.iter().any(|word| line.contains(word)) {
                true => Some(line.clone()),
                false => halted.filter(|_| !line.contains(BEGUN_ANEW)),
            });
            logs.extend(news);
            let state = self.lab().run(&format!("xenstore-read {device}/state"))?.stdout;
            let ended = match state.trim() {
                state @ ("5" | "6") => Some(format!("state {state}")),
                // The toolstack has removed what was closed.
                state if state.parse::<u32>().is_err() => Some("its directory is gone".to_owned()),
                _ => None,
            };
            if let Some(reason) = halted.or(ended) {
                break Some(reason);
            }
            if protocol != Protocol::Broken || start.elapsed() > CLOSING {
                break None;
            }
            thread::sleep(Duration::from_millis(500));
        };
        match (protocol, &closed) {
            (Protocol::Allowed, Some(reason)) => anyhow::bail!("closed for what is allowed: {reason}"),
            (Protocol::Broken, None) => anyhow::bail!("not closed, though its rings cannot be believed"),
            _ => Ok(closed),
        }
    }

    /// What the kernels' logs say since they were last asked, with the domain before each line.
    fn news(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut take = |domain: &str, said: String| {
            lines.extend(said.lines().map(|line| format!("{domain}: {line}")));
        };
        take("dom0", self.lab().must("dmesg -c")?);
        if let Some(kernel) = &self.kernel {
            take(kernel.name(), kernel.must("dmesg -c")?);
        }
        Ok(lines)
    }
}
