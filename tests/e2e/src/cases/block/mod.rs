//! The cases of blkdom: guests with disks on NVMe and AHCI, whose media are ours to damage. Host.

mod between;
mod faults;
mod hostile;
mod lifecycle;
mod lives;
mod many;
mod matrix;
mod names;
mod saved;
mod storm;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{ControllerKind, DiskController, Equipment, Guest, GuestConfig, Lab, Row};

pub use many::ManyDisks;
pub use storm::DiskStorm;

use super::{Family, ON_12, ON_13, Play, Rows, WITH_STUBDOM, at_rest, given_back};
use crate::driver_domain::{DriverDomain, DriverDomainConfig, Resources};
use crate::media::Media;
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

const FAMILIES: &[Family<Block>] = &[
    Family { rows: Rows::StoreInDom0, cases: matrix::CASES },
    Family { rows: Rows::StoreInDom0, cases: names::CASES },
    Family { rows: ON_12, cases: matrix::COMBINATIONS },
    Family { rows: Rows::StoreInDom0, cases: faults::CASES },
    Family { rows: ON_13, cases: lifecycle::MANY },
    Family { rows: Rows::StoreInDom0, cases: lifecycle::CASES },
    Family { rows: Rows::StoreInDom0, cases: lives::CASES },
    Family { rows: WITH_STUBDOM, cases: between::CASES },
    Family { rows: ON_12, cases: saved::CASES },
    Family { rows: WITH_STUBDOM, cases: hostile::CASES },
    Family { rows: Rows::StoreInDom0, cases: faults::LAST },
];

/// How long something may take on a slow machine that mostly takes a second.
const PATIENCE: Duration = Duration::from_secs(90);

const MEBIBYTE: u64 = 1 << 20;
/// Bytes of the media: the NVMe controller's two namespaces, the AHCI controller's two drives, and what each of the others has.
const MEDIA: [u64; 9] = [
    144 * MEBIBYTE,
    8 * MEBIBYTE,
    48 * MEBIBYTE,
    16 * MEBIBYTE,
    MEBIBYTE,
    2 * MEBIBYTE,
    48 * MEBIBYTE,
    16 * MEBIBYTE,
    16 * MEBIBYTE,
];
/// The controllers' slots: those of blkdom, two NVMe controllers for another, and for a third one of each kind.
const SLOTS: [u8; 6] = [4, 5, 8, 9, 10, 11];
/// Controllers of blkdom; those behind are for another.
const CONTROLLERS: usize = 2;

/// Where volumes are, in bytes of their medium.
struct Place {
    /// As a `target=` names it.
    target: &'static str,
    medium: usize,
    start: u64,
    length: u64,
}

/// A partition of the drive with blocks of 512 bytes, by its label.
const PLAIN: Place = Place { target: "PARTLABEL=vm1-root", medium: 0, start: MEBIBYTE, length: 16 * MEBIBYTE };
/// Another, half as large; dom0 has filled it.
const SMALL: Place = Place {
    target: "PARTUUID=0f0e0d0c-0b0a-4908-8706-050403020100",
    medium: 0,
    start: 17 * MEBIBYTE,
    length: 8 * MEBIBYTE,
};
/// The whole drive with blocks of 4096 bytes.
const LARGE_BLOCKS: Place = Place { target: "nvme0n2", medium: 1, start: 0, length: 8 * MEBIBYTE };
/// A whole SATA drive.
const SATA: Place = Place { target: "sdb", medium: 3, start: 0, length: 16 * MEBIBYTE };

/// What dom0 does with the disks while it has them, as an administrator would: partitions, a volume group, and content.
const PREPARATION: &str = r#"set -e
modprobe nvme; modprobe ahci; modprobe sd_mod; modprobe dm-mod
appear() { for i in $(seq 1000); do test -b $1 && return; usleep 10000; done; echo no $1; return 1; }
appear /dev/nvme0n1; appear /dev/nvme0n2; appear /dev/sda; appear /dev/sdb
# Newer kernels name namespaces in the order that they are found in.
until test "$(cat /sys/block/nvme0n1/nsid)" = 1; do
    rmmod nvme; modprobe nvme; appear /dev/nvme0n1; appear /dev/nvme0n2
done
sfdisk -q /dev/nvme0n1 <<END
label: gpt
start=1MiB, size=16MiB, name=vm1-root
start=17MiB, size=8MiB, name=vm2-root, uuid=0f0e0d0c-0b0a-4908-8706-050403020100
start=33MiB, size=64MiB, name=pv1, type=E6D6D379-F507-44C2-A23C-238F2A3DF928
start=97MiB, size=40MiB, name=pv2, type=E6D6D379-F507-44C2-A23C-238F2A3DF928
END
# Linux names drives in the order that they come up in.
sata=sda; if grep -q lab1-0 /sys/block/sdb/device/vpd_pg80; then sata=sdb; fi
sfdisk -q /dev/$sata <<END
label: dos
start=1MiB, size=8MiB, type=83
END
appear /dev/nvme0n1p4; appear /dev/${sata}1
lvm >/tmp/lvm.log 2>&1 <<END
pvcreate /dev/nvme0n1p3 /dev/nvme0n1p4
vgcreate vg0 /dev/nvme0n1p3 /dev/nvme0n1p4
lvcreate -y -Wn -n neighbour -L 16M vg0 /dev/nvme0n1p3
lvcreate -y -Wn -n striped -i 2 -I 64k -L 16M vg0
lvcreate -y -Wn -n filled -i 2 -I 64k -L 8M vg0
lvcreate -y -Wn -n growing -L 8M vg0 /dev/nvme0n1p3
END
test -b /dev/vg0/growing || cat /tmp/lvm.log
fill() { dd if=/boot/vmlinux of=$1 bs=1M skip=$2 count=8 conv=fsync 2>/dev/null; sha256sum $1; }
fill /dev/vg0/filled 0
fill /dev/nvme0n1p2 8
fill /dev/${sata}1 16
vgchange -q -q -an vg0 >/dev/null
keep() { for n in 3 4; do dd if=/dev/nvme0n1p$n of=/tmp/$1-$n bs=1M count=1 2>/dev/null; done; }
keep small
lvextend -q -q -L 16M vg0/growing >/dev/null
keep large
for n in 3 4; do dd if=/tmp/small-$n of=/dev/nvme0n1p$n bs=1M conv=fsync 2>/dev/null; done
sync"#;

/// Where the physical volumes begin, in bytes of their medium.
const PHYSICAL_VOLUMES: [(u8, u64); 2] = [(3, 33 * MEBIBYTE), (4, 97 * MEBIBYTE)];

/// The cases of blkdom.
pub struct Block;

/// A machine with disks that dom0 has prepared.
pub struct BlockStage {
    stage: Stage,
    /// After the machine, whose disks are on it.
    media: Media,
    /// Volumes that hold something, with its SHA-256.
    filled: Vec<(&'static str, String)>,
    /// What the volume group's metadata are when a volume has grown: where in the medium, and what.
    grown: Vec<(u64, Vec<u8>)>,
}

/// A blkdom with both controllers, and two guests.
pub struct BlockScene<'s> {
    block: &'s BlockStage,
    lab: &'s Lab,
    blkdom: DriverDomain<'s>,
    /// A guest of four CPUs without disks: cases attach them.
    a: Guest<'s>,
    /// A guest with a logical volume as `/dev/xvda`: the neighbour.
    b: Guest<'s>,
}

impl Play for Block {
    const UP: &'static str = "blkdom and two guests come up";
    const FAMILIES: &'static [Family<Self>] = FAMILIES;
    type Stage = BlockStage;
    type Scene<'s> = BlockScene<'s>;

    fn boot(row: Row, images: &Images) -> Result<BlockStage> {
        let media = Media::new(&MEDIA)?;
        let nvme = vec![media.disk(0, 512)?, media.disk(1, 4096)?];
        let sata = vec![media.disk(2, 512)?, media.disk(3, 512)?];
        let others = (media.disk(4, 512)?, media.disk(5, 512)?);
        let third = (vec![media.disk(6, 512)?, media.disk(7, 4096)?], vec![media.disk(8, 512)?]);
        let stage = Stage::boot_with(row, images, Vec::new(), |config| {
            config.equipment = Equipment::Disks;
            config.controllers = vec![
                DiskController { kind: ControllerKind::Nvme, slot: SLOTS[0], disks: nvme },
                DiskController { kind: ControllerKind::Ahci, slot: SLOTS[1], disks: sata },
                DiskController { kind: ControllerKind::Nvme, slot: SLOTS[2], disks: vec![others.0] },
                DiskController { kind: ControllerKind::Nvme, slot: SLOTS[3], disks: vec![others.1] },
                DiskController { kind: ControllerKind::Nvme, slot: SLOTS[4], disks: third.0 },
                DiskController { kind: ControllerKind::Ahci, slot: SLOTS[5], disks: third.1 },
            ];
        })?;
        // Dom0 is not to see them.
        for other in stage.lab.controllers().iter().skip(CONTROLLERS) {
            stage.lab.hide(&other.bdf())?;
        }
        let said = stage.lab.sh(PREPARATION)?;
        let filled = ["vg0/filled", SMALL.target, "SERIAL=lab1-0-part1"];
        let digests = said.lines().filter_map(|line| Some(line.split_once("  /dev/")?.0.to_owned()));
        let filled: Vec<_> = filled.into_iter().zip(digests).collect();
        ensure!(filled.len() == 3, "dom0 said of its preparation: {said}");
        let mut grown = Vec::new();
        for (partition, start) in PHYSICAL_VOLUMES {
            grown.push((start, stage.lab.get(&format!("/tmp/large-{partition}"))?));
        }
        Ok(BlockStage { stage, media, filled, grown })
    }

    fn set(block: &BlockStage) -> Result<BlockScene<'_>> {
        let lab = &block.stage.lab;
        let mut config = DriverDomainConfig::blkdom("blkdom");
        for controller in lab.controllers().iter().take(CONTROLLERS) {
            config = config.pci(&lab.hide(&controller.bdf())?);
        }
        let blkdom = DriverDomain::create(lab, &config)?;
        let (a, b) = lab.with_console(&blkdom.name, guests(lab))?;
        Ok(BlockScene { block, lab, blkdom, a, b })
    }

    fn witness<'a>(scene: &'a BlockScene<'_>) -> (&'a Lab, &'a str) {
        (scene.lab, &scene.blkdom.name)
    }
}

fn guests(lab: &Lab) -> Result<(Guest<'_>, Guest<'_>)> {
    // With the largest rings, a frontend sets aside pages by the hundred megabytes.
    let a = lab.create(&GuestConfig { memory: 512, vcpus: 4, ..GuestConfig::new("a") })?;
    let b = GuestConfig { memory: 160, ..GuestConfig::new("b").disk(&disk("xvda", "vg0/neighbour", "rw")) };
    let b = lab.create(&b)?;
    appear(&b, "xvda")?;
    Ok((a, b))
}

/// A `disk` of blkdom in `xl`'s words.
fn disk(device: &str, target: &str, access: &str) -> String {
    disk_of("blkdom", device, target, access)
}

/// The same of another blkdom.
fn disk_of(backend: &str, device: &str, target: &str, access: &str) -> String {
    format!("format=raw,vdev={device},access={access},backend={backend},backendtype=phy,target={target}")
}

/// Waits until a guest has a disk.
fn appear(guest: &Guest<'_>, device: &str) -> Result<()> {
    let wait = format!(
        "for i in $(seq 3000); do test -b /dev/{device} && test $(cat /sys/block/{device}/size) -gt 0 && exit; usleep 20000; done; \
         dmesg | tail -n 20; exit 1"
    );
    guest.sh(&wait).map(drop).with_context(|| format!("{} has no /dev/{device}", guest.name()))
}

/// The number of a device that `xl` calls `xvda` to `xvdp`: of the Xen virtual block device's major, 16 for each disk.
fn handle(device: &str) -> u32 {
    let letter = device.bytes().last().unwrap_or(b'a');
    (202 << 8) + 16 * u32::from(letter - b'a')
}

impl BlockScene<'_> {
    /// Attaches a disk, and waits until the guest has it.
    fn attach(&self, guest: &Guest<'_>, device: &str, target: &str) -> Result<()> {
        self.attach_as(guest, &disk(device, target, "rw"), device)
    }

    fn attach_as(&self, guest: &Guest<'_>, disk: &str, device: &str) -> Result<()> {
        self.lab.must(&format!("xl block-attach {} '{disk}'", guest.name()))?;
        appear(guest, device)
    }

    /// Detaches a disk, and waits until nothing of it is left.
    fn detach(&self, guest: &Guest<'_>, device: &str) -> Result<()> {
        let backend = self.blkdom.backend(guest.id(), handle(device));
        self.lab.must(&format!("xl block-detach {} {device}", guest.name()))?;
        self.lab.wait_until(&format!("! xenstore-exists {backend}"), PATIENCE)?;
        guest.sh(&format!(
            "for i in $(seq 3000); do test -e /sys/block/{device} || exit 0; usleep 20000; done; exit 1"
        ))?;
        Ok(())
    }

    /// Runs something with a disk attached to the guest `a`, and detaches it whatever came of that.
    fn with_disk<T>(&self, device: &str, target: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.attach(&self.a, device, target).with_context(|| format!("attaching {target}"))?;
        let result = run();
        let detached = self.detach(&self.a, device).with_context(|| format!("detaching {target}"));
        let value = result?;
        detached?;
        Ok(value)
    }

    /// The value of a node that the frontend of a disk has written; nothing where it has not.
    fn frontend_node(&self, guest: &Guest<'_>, device: &str, name: &str) -> Result<String> {
        let path = format!("/local/domain/{}/device/vbd/{}/{name}", guest.id(), handle(device));
        Ok(self.lab.run(&format!("xenstore-read {path} 2>/dev/null"))?.stdout.trim().to_owned())
    }

    fn at_rest(&self) -> Result<Resources> {
        at_rest(self.lab, &self.blkdom)
    }

    fn given_back(&self, before: &Resources) -> Result<()> {
        given_back(self.lab, &self.blkdom, before)
    }
}
