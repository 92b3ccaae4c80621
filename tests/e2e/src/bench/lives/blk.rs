//! The ends of blkdom's lives, while a guest writes one block after the other. Host.
//!
//! The Linux driver domain's guest is spared something: its writes end before the domain is destroyed, and begin again when the disk is back.
//! With a write in flight, the disk was not back after six minutes.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::scratch::Scratch;
use lab::{Equipment, Guest, Row as Matrix};

use super::{End, LINUX, Mortal, Outcomes, Report};
use crate::bench::blk::{LINUX_SETUP, WAIT, client, controller, linux_disk};
use crate::bench::common::LinuxDriverDomain;
use crate::blocks::{self, Gaps};
use crate::driver_domain::DriverDomainConfig;
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

/// The driver domain.
pub(super) const NAME: &str = "blkdom";

/// The slots of the controllers: ours and the Linux driver domain's.
const SLOTS: [u8; 2] = [4, 5];
/// The guest's disks, likewise.
const DISKS: [&str; 2] = ["/dev/xvda", "/dev/xvdb"];
/// What the writes have before the end of a life and after it.
const AROUND: Duration = Duration::from_secs(2);

/// Adds the rows of these ends.
///
/// # Errors
/// What did not come up, or did not come back.
pub(super) fn run(
    row: Matrix,
    images: &Images,
    ends: &[End],
    runs: u32,
    progress: &dyn Fn(&str),
    report: &mut Report,
) -> Result<()> {
    progress("booting Xen, dom0 and two NVMe controllers");
    let drives = Scratch::new()?;
    let controllers = SLOTS.into_iter().map(|slot| controller(drives.path(), slot)).collect::<Result<_>>()?;
    let stage = Stage::boot_with(row, images, Vec::new(), |config| {
        config.controllers = controllers;
        config.equipment = Equipment::Disks;
        config.driver_root = true;
        config.memory = 4096;
    })?;
    let lab = &stage.lab;
    progress("starting the driver domains and the guest");
    let [ours, linuxs] = SLOTS.map(|slot| lab.hide(&format!("00:{slot:02x}.0")));
    let blkdom = Mortal::create(lab, &DriverDomainConfig::blkdom(NAME).pci(&ours?), &images.blkdom)?;
    let linux = LinuxDriverDomain { pci: vec![linuxs?], setup: LINUX_SETUP };
    linux.start(lab)?;
    let guest = client(lab, "")?;
    let bench = Bench { stage: &stage, blkdom, linux, guest, progress };
    let outcomes = bench.outcomes(ends, runs)?;
    for end in ends {
        type Figure = fn(&Gaps) -> Option<f64>;
        let figures: [(&str, &str, Figure); 2] = [
            ("longest time without a write", "ms", |gaps| Some(gaps.longest_gap_ms)),
            ("writes that failed", "writes", |gaps| Some(gaps.errors as f64)),
        ];
        for (what, unit, figure) in figures {
            outcomes.row(report, NAME, *end, (what, unit), figure);
        }
        outcomes.pauses_row(report, NAME, *end);
    }
    Ok(())
}

struct Bench<'s> {
    stage: &'s Stage,
    blkdom: Mortal<'s>,
    linux: LinuxDriverDomain,
    guest: Guest<'s>,
    progress: &'s dyn Fn(&str),
}

impl Bench<'_> {
    fn outcomes(&self, ends: &[End], runs: u32) -> Result<Outcomes<Gaps>> {
        let mut outcomes = Outcomes::default();
        for run in 1..=runs {
            let said = |what: String| (self.progress)(&format!("{what} ({run} of {runs})"));
            for end in [End::Never, End::Replacement].into_iter().filter(|end| ends.iter().any(|of| of.linux() == *end))
            {
                said(end.of(LINUX));
                outcomes.sides[1].push((end, self.outcome(1, end)?));
            }
            for end in ends {
                said(end.of(NAME));
                let lives = usize::from(*end != End::Never);
                let (outcome, pauses) = self.blkdom.pauses(lives, || self.outcome(0, *end))?;
                outcomes.sides[0].push((*end, outcome));
                outcomes.pauses.extend(pauses.into_iter().map(|pause| (*end, pause)));
            }
        }
        Ok(outcomes)
    }

    /// Ends a life while the guest writes.
    fn outcome(&self, side: usize, end: End) -> Result<Gaps> {
        let disk = DISKS.get(side).context("a disk")?;
        blocks::start_gaps(&self.guest, disk)?;
        sleep(AROUND);
        if end == End::Replacement {
            self.replace(disk)?
        } else {
            self.blkdom.end(end)?
        }
        sleep(AROUND);
        let gaps = blocks::stop_gaps(&self.guest)?;
        ensure!(gaps.writes > 0, "nothing was written: {gaps:?}");
        Ok(gaps)
    }

    /// The Linux driver domain is destroyed and created, and the guest has its disk on it again.
    fn replace(&self, disk: &str) -> Result<()> {
        let lab = &self.stage.lab;
        let name = self.guest.name();
        let vdev = disk.trim_start_matches("/dev/");
        blocks::hold_gaps(&self.guest)?;
        lab.must(&format!("xl destroy {LINUX}; xl block-detach {name} {vdev}"))?;
        self.linux.start(lab)?;
        self.guest.sh(&format!("for i in $(seq 1000); do test -e {disk} || exit 0; usleep 10000; done; exit 1"))?;
        lab.must(&format!("xl block-attach {name} '{}'", linux_disk()))?;
        self.guest.sh(&format!("{WAIT}\nappear {disk}"))?;
        blocks::resume_gaps(&self.guest)
    }
}
