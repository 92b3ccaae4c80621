//! What goes wrong beneath a drive: the guest sees it for that request alone, and others on the same controller go on. Host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::machine::Machine;
use medium::{Fault, Kind, Medium, Request};

use super::{Block, BlockScene, MEBIBYTE, PATIENCE, PLAIN, Place, SATA};
use crate::blocks;
use crate::cases::Case;
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] = &[
    Case { name: "a sector that cannot be read or written is an I/O error for whoever wants it", run: bad_sectors },
    Case { name: "a flush that fails twice and then does not is a flush", run: flushes },
    Case { name: "a controller that fails is reset, and no request is lost", run: fatal_status },
    Case { name: "a request that is never answered fails alone, and the controller is reset", run: silence },
];

/// After it, the drive's names are others.
pub(super) const LAST: &[Case<Block>] = &[Case { name: "a controller is taken away and given back", run: taken_away }];

/// A block of 4096 bytes of the volume that faults strike.
const BAD: u64 = 1024;

/// One direct read or write of a block; what `dd` says.
fn touch(scene: &BlockScene<'_>, write: bool, block: u64) -> Result<lab::Output> {
    scene.a.run(&if write {
        format!("dd if=/dev/urandom of=/dev/xvdb bs=4096 seek={block} count=1 conv=notrunc oflag=direct")
    } else {
        format!("dd if=/dev/xvdb of=/dev/null bs=4096 skip={block} count=1 iflag=direct")
    })
}

fn must_fail(scene: &BlockScene<'_>, write: bool) -> Result<()> {
    let output = touch(scene, write, BAD)?;
    ensure!(output.status != 0 && output.stdout.contains("Input/output error"), "the bad block: {}", output.stdout);
    Ok(())
}

fn must_work(scene: &BlockScene<'_>, write: bool, block: u64) -> Result<()> {
    touch(scene, write, block)?.success().map(drop)
}

/// The medium of a place.
fn medium<'s>(scene: &BlockScene<'s>, place: &Place) -> Result<&'s Medium> {
    scene.block.media.medium(place.medium)
}

/// A fault of the block.
fn fault(place: &Place, request: Request, kind: Kind, times: Option<u32>) -> Fault {
    let start = place.start + BAD * 4096;
    Fault { request, bytes: start..start + 4096, kind, times }
}

/// Runs `disturb` while the neighbour, on another volume of the drive, verifies all that it writes.
fn beside_a_neighbour<T>(scene: &BlockScene<'_>, disturb: impl FnOnce() -> Result<T>) -> Result<T> {
    scene.b.sh("rm -f /tmp/enough")?;
    scene.b.start("verify", "while ! test -e /tmp/enough; do blocks verify /dev/xvda --seconds 1 || exit 1; done")?;
    let result = disturb();
    scene.b.sh("touch /tmp/enough")?;
    let said = scene.b.finish("verify")?;
    let value = result?;
    ensure!(said.contains("operations") && !said.contains("error"), "the neighbour's disk: {said}");
    Ok(value)
}

fn bad_sectors(scene: &BlockScene<'_>) -> Result<String> {
    for place in [&PLAIN, &SATA] {
        let medium = medium(scene, place)?;
        scene.with_disk("xvdb", place.target, || {
            let result = beside_a_neighbour(scene, || {
                for (request, write) in [(Request::Read, false), (Request::Write, true)] {
                    medium.inject(fault(place, request, Kind::Error, None));
                    must_fail(scene, write).with_context(|| format!("{request:?}"))?;
                    must_work(scene, write, BAD - 1).context("the block before")?;
                    must_work(scene, write, BAD + 1).context("the block after")?;
                    must_work(scene, !write, BAD).context("what does not fail")?;
                    must_fail(scene, write).context("again")?;
                    medium.heal();
                    must_work(scene, write, BAD).context("mended")?;
                }
                Ok(())
            });
            medium.heal();
            result.with_context(|| place.target)
        })?;
    }
    Ok("NVMe and SATA".to_owned())
}

fn flushes(scene: &BlockScene<'_>) -> Result<String> {
    for place in [&PLAIN, &SATA] {
        let medium = medium(scene, place)?;
        scene.with_disk("xvdb", place.target, || {
            medium.inject(fault(place, Request::Flush, Kind::Error, Some(2)));
            let before = medium.counters().faults;
            let result = scene.a.sh("dd if=/dev/urandom of=/dev/xvdb bs=1M count=2 conv=notrunc,fsync");
            medium.heal();
            result?;
            ensure!(medium.counters().faults == before + 2, "the faults did not strike");
            let start = place.start;
            let durable = scene.block.media.digest(place.medium, start..start + 2 * MEBIBYTE)?;
            let read = scene.a.sh("dd if=/dev/xvdb bs=1M count=2 2>/dev/null | sha256sum")?;
            ensure!(read.starts_with(&durable), "it is not durable");
            Ok(())
        })?;
    }
    Ok("NVMe and SATA".to_owned())
}

/// Bus mastering taken from the controller makes its next look at the queues fail, which is fatal to it.
fn fatal_status(scene: &BlockScene<'_>) -> Result<String> {
    let controller = scene.lab.controllers().first().context("no controller")?.bdf();
    let command = |value: &str| {
        let file = format!("/sys/bus/pci/devices/0000:{controller}/config");
        scene.lab.must(&format!("printf '\\{value}' | dd of={file} bs=1 seek=4 conv=notrunc 2>/dev/null"))
    };
    let read =
        format!("dd if=/sys/bus/pci/devices/0000:{controller}/config bs=1 skip=4 count=1 2>/dev/null | od -An -to1");
    let usual = scene.lab.must(&read)?.trim().to_owned();
    scene.with_disk("xvdb", PLAIN.target, || {
        blocks::keep_busy(&scene.a, "/dev/xvdb")?;
        scene.lab.must("usleep 500000")?;
        command("002")?;
        scene.lab.must("sleep 1")?;
        command(&usual)?;
        scene.lab.wait_for_console("blkdom", "resetting it", PATIENCE)?;
        let load = blocks::stop_busy(&scene.a)?;
        blocks::verify(&scene.a, "/dev/xvdb", "--seconds 1")?;
        blocks::verify(&scene.b, "/dev/xvda", "--seconds 1")?;
        Ok(format!("the slowest operation {:.0} ms", load.max_us / 1e3))
    })
}

fn silence(scene: &BlockScene<'_>) -> Result<String> {
    let medium = medium(scene, &PLAIN)?;
    let said = scene.with_disk("xvdb", PLAIN.target, || {
        // Not the first time, nor when it is sent again after the reset.
        medium.inject(fault(&PLAIN, Request::Read, Kind::Silence, Some(2)));
        let said = beside_a_neighbour(scene, || {
            let read = format!("dd if=/dev/xvdb of=/dev/null bs=4096 skip={BAD} count=1 iflag=direct");
            scene.a.start("silent", &read)?;
            let over = AtomicBool::new(false);
            let machine = scene.lab.machine();
            thread::scope(|scope| {
                scope.spawn(|| answer_when_still(machine, medium, &over));
                let said = scene.a.finish("silent");
                over.store(true, Ordering::Relaxed);
                said
            })
        });
        medium.heal();
        must_work(scene, false, BAD)?;
        said
    })?;
    ensure!(said.contains("Input/output error"), "{said}");
    let console = scene.blkdom.console()?;
    ensure!(console.contains("aborting it") && console.contains("given up"), "it did not wait in vain");
    Ok("one I/O error".to_owned())
}

/// QEMU's drive, and QEMU with it, does not get through a reset before its medium has answered all. So the medium answers when QEMU
/// has asked nothing of it for some time, although a neighbour keeps it busy, and does not answer itself.
fn answer_when_still(machine: &Machine, medium: &Medium, over: &AtomicBool) {
    const STILL: Duration = Duration::from_secs(4);
    let (mut counters, mut since) = (medium.counters(), Instant::now());
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        if medium.counters() != counters {
            (counters, since) = (medium.counters(), Instant::now());
        } else if since.elapsed() >= STILL && !machine.answers(STILL) {
            medium.fail_unanswered();
        }
    }
}

fn taken_away(scene: &BlockScene<'_>) -> Result<String> {
    let controller = scene.lab.controllers().first().context("no controller")?.bdf();
    scene.with_disk("xvdb", PLAIN.target, || {
        scene.attach(&scene.a, "xvdc", SATA.target)?;
        let result = (|| {
            blocks::keep_busy(&scene.b, "/dev/xvda")?;
            scene.lab.must(&format!("xl pci-detach blkdom {controller}"))?;
            let said = scene.b.finish("busy")?;
            ensure!(said.contains("error"), "the neighbour went on: {said}");
            must_fail(scene, false)?;
            blocks::verify(&scene.a, "/dev/xvdc", "--seconds 1").context("a disk on the other controller")?;
            scene.lab.must(&format!("xl pci-attach blkdom {controller}"))?;
            scene.lab.wait_for_console("blkdom", "attach it anew", PATIENCE).context("the disks' fate is not told")?;
            // What was written before and never answered is not known: the administrator decides.
            for (guest, device, target) in [(&scene.a, "xvdb", PLAIN.target), (&scene.b, "xvda", "vg0/neighbour")] {
                scene.detach(guest, device)?;
                scene.attach(guest, device, target)?;
                blocks::verify(guest, &format!("/dev/{device}"), "--seconds 1")?;
            }
            Ok("disks on the other controller went on, those on this one work when attached anew".to_owned())
        })();
        scene.detach(&scene.a, "xvdc")?;
        result
    })
}
