//! What roots have for disks: the block tool, file systems, and in dom0 partitions and volume groups. Host.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;

use super::{add_programs, program};
use crate::cpio::Archive;
use crate::packages::Tree;

/// Loaded at a guest's start: `ext4` asks for a checksum that the kernel would load by `modprobe`.
pub(super) const GUEST_MODULES: [&str; 2] = ["crc32c_generic", "ext4"];
/// There for `modprobe`.
pub(super) const EXTRA_MODULES: [&str; 5] = ["ext4", "crc32c_generic", "ahci", "sd_mod", "dm-mod"];

/// No udev: LVM makes and removes its device nodes itself.
const LVM_CONFIG: &str =
    "devices { obtain_device_list_from_udev = 0 external_device_info_source = \"none\" use_devicesfile = 0 }
activation { udev_sync = 0 udev_rules = 0 verify_udev_operations = 1 monitoring = 0 }
backup { backup = 0 archive = 0 }
";

/// The block tool, built.
pub(super) fn tool() -> Result<PathBuf> {
    program("medium", "blocks")
}

/// The block tool with the program that it discards by, and what makes and checks an ext4.
pub(super) fn equip_guest(archive: &mut Archive, tree: &Tree) -> Result<()> {
    archive.file("usr/bin/blocks", 0o755, std::fs::read(tool()?)?);
    let programs = ["blkdiscard", "mke2fs", "e2fsck", "resize2fs"].map(|name| format!("usr/sbin/{name}"));
    add_programs(archive, &tree.path, &BTreeSet::from(programs))?;
    archive.link("usr/sbin/mkfs.ext4", "mke2fs").link("usr/sbin/fsck.ext4", "e2fsck");
    Ok(())
}

/// The same, and `sfdisk` and LVM.
pub(super) fn equip_dom0(archive: &mut Archive, tree: &Tree) -> Result<()> {
    equip_guest(archive, tree)?;
    let programs = ["sfdisk", "lvm", "dmsetup"].map(|name| format!("usr/sbin/{name}"));
    add_programs(archive, &tree.path, &BTreeSet::from(programs))?;
    for name in ["pvcreate", "vgcreate", "vgchange", "vgs", "lvcreate", "lvs", "lvextend", "lvremove"] {
        archive.link(&format!("usr/sbin/{name}"), "lvm");
    }
    archive.file("etc/lvm/lvm.conf", 0o644, LVM_CONFIG);
    Ok(())
}
