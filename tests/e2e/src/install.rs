//! A Linux guest installs itself on a disk, and boots from it. Host.

use anyhow::{Context, Result};

use crate::traffic::Shell;

/// Makes a file system on the disk and copies the running root to it; says how many MiB that are.
const SCRIPT: &str = "set -e; test -b /dev/xvda || { echo no disk; exit 1; }
mkfs.ext4 -q /dev/xvda; mount -t ext4 /dev/xvda /mnt
for part in /*; do
    case $part in /dev|/lost+found|/mnt|/proc|/run|/sys|/tmp) mkdir -p /mnt$part ;; *) cp -a $part /mnt/ ;; esac
done
test -x /mnt/init; du -sm /mnt | cut -f1; umount /mnt";

/// For the command line of a kernel that is to have its root there.
pub(crate) const ROOT: &str = "lab.root=/dev/xvda";

/// Has a guest install itself on its `/dev/xvda`; gives the MiB that it takes.
///
/// # Errors
/// What did not work.
pub(crate) fn install(guest: &dyn Shell) -> Result<String> {
    let said = guest.sh(SCRIPT).context("installing")?;
    Ok(said.trim().to_owned())
}

/// The root of a guest must be that disk.
///
/// # Errors
/// It is another.
pub(crate) fn has_root(guest: &dyn Shell) -> Result<()> {
    guest.sh("grep '^/dev/xvda / ext4' /proc/mounts || { cat /proc/mounts; exit 1; }").map(drop)
}
