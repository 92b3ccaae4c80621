//! A guest makes ext4, fills it, checks it, and what it read is what the medium holds: by every combination of features. Host.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::{Block, BlockScene, LARGE_BLOCKS, PLAIN, Place, SATA, SMALL};
use crate::cases::Case;
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] =
    &[Case { name: "ext4 made, filled and clean, and on the medium what the guest read", run: plain }];

/// After what reads the content that dom0 put on the volume.
pub(super) const COMBINATIONS: &[Case<Block>] =
    &[Case { name: "ext4 through every combination of blkfront's features", run: every_combination }];

/// What blkfront is told to use.
#[derive(Clone, Copy, Debug)]
struct Features {
    /// Segments of an indirect request; 0 for none.
    indirect: u32,
    persistent: bool,
    /// 2 to this power of pages.
    ring_order: u32,
    queues: u32,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { indirect, persistent, ring_order, queues } = self;
        write!(
            f,
            "indirect segments {indirect}, persistent grants {persistent}, 2^{ring_order} ring pages, {queues} queues"
        )
    }
}

/// As Linux has it if nobody asks for anything.
const USUAL: Features = Features { indirect: 32, persistent: true, ring_order: 0, queues: 4 };

/// Makes the guest's frontend anew with these features; it must have no disk.
fn load_frontend(scene: &BlockScene<'_>, features: Features) -> Result<()> {
    let Features { indirect, persistent, ring_order, queues } = features;
    let persistent = if persistent { "Y" } else { "N" };
    scene
        .a
        .sh(&format!(
            "modprobe -r xen-blkfront && modprobe xen-blkfront max_indirect_segments={indirect} feature_persistent={persistent} \
             max_ring_page_order={ring_order} max_queues={queues}"
        ))
        .map(drop)
}

/// Makes, fills and checks a file system on a place, and compares.
fn file_system(scene: &BlockScene<'_>, place: &Place) -> Result<()> {
    let Place { target, medium, start, length } = *place;
    let digest = scene.a.sh(
        "set -e; exec 2>&1; mkfs.ext4 -q /dev/xvdb; mount -t ext4 /dev/xvdb /mnt; cp /usr/bin/* /mnt 2>/dev/null || true
dd if=/dev/urandom of=/mnt/rest bs=64k 2>/dev/null || true
df /mnt | tail -n 1 | grep -q 100% || { df /mnt; exit 1; }
umount /mnt; fsck.ext4 -fn /dev/xvdb >/tmp/fsck || { cat /tmp/fsck; exit 1; }
dd if=/dev/null of=/dev/xvdb conv=notrunc,fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/xvdb",
    )?;
    let of_guest = digest.lines().last().unwrap_or_default().split_whitespace().next().unwrap_or_default();
    let durable = scene.block.media.digest(medium, start..start + length)?;
    ensure!(of_guest == durable, "of {target} the guest read {digest}, the medium holds {durable}");
    Ok(())
}

fn plain(scene: &BlockScene<'_>) -> Result<String> {
    for place in [&PLAIN, &LARGE_BLOCKS, &SATA] {
        scene.with_disk("xvdb", place.target, || file_system(scene, place))?;
    }
    Ok("NVMe with blocks of 512 and of 4096 bytes, and SATA".to_owned())
}

fn every_combination(scene: &BlockScene<'_>) -> Result<String> {
    let mut tried = 0;
    let result = (|| -> Result<()> {
        for features in combinations() {
            load_frontend(scene, features)?;
            for place in [&SMALL, &LARGE_BLOCKS] {
                let name = || format!("{}: {features}", place.target);
                scene
                    .with_disk("xvdb", place.target, || {
                        in_effect(scene, features)?;
                        file_system(scene, place)
                    })
                    .with_context(name)?;
                tried += 1;
            }
        }
        Ok(())
    })();
    let again = load_frontend(scene, USUAL);
    result?;
    again?;
    Ok(format!("{tried} of them"))
}

/// All of them, and the longest requests that there are.
fn combinations() -> Vec<Features> {
    let mut all = vec![Features { indirect: 256, queues: 1, ..USUAL }];
    for indirect in [0, 32] {
        for persistent in [true, false] {
            for ring_order in [0, 4] {
                for queues in [1, 4] {
                    all.push(Features { indirect, persistent, ring_order, queues });
                }
            }
        }
    }
    all
}

/// What was asked for must be what is used.
fn in_effect(scene: &BlockScene<'_>, features: Features) -> Result<()> {
    let node = |name| scene.frontend_node(&scene.a, "xvdb", name);
    let used = |text: String| text.parse::<u32>().unwrap_or_default();
    let persistent = node("feature-persistent")? == "1";
    ensure!(persistent == features.persistent, "persistent grants: {persistent}");
    let queues = used(node("multi-queue-num-queues")?).max(1);
    ensure!(queues == features.queues, "{queues} queues");
    let order = used(node("ring-page-order")?);
    ensure!(order == features.ring_order, "ring page order {order}");
    let segments = scene.a.sh("cat /sys/block/xvdb/queue/max_segments")?;
    let expected = if features.indirect == 0 { 11 } else { features.indirect };
    ensure!(segments.trim() == expected.to_string(), "{} segments", segments.trim());
    Ok(())
}
