//! PCI devices for driver domains: kept from dom0's drivers at boot, and given to pciback while the host runs. Host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::driver_configs::PciAddress;

/// Tells pciback at boot which devices it takes, before a driver does: `modprobe.d(5)`.
pub(crate) const HIDE_FILE: &str = "/etc/modprobe.d/oxidom-hide.conf";
/// pciback's name as a driver in sysfs (`xen_pcibk_pci_driver`).
const PCIBACK: &str = "pciback";

/// The text of [`HIDE_FILE`].
fn hide_text(devices: &BTreeSet<PciAddress>) -> String {
    let list: String = devices.iter().map(|device| format!("({device})")).collect();
    let head = "# Made by `oxidom hide` of the lines pci= in /etc/xen/oxidom: changes are lost.\n";
    if list.is_empty() { head.to_owned() } else { format!("{head}options xen-pciback hide={list}\n") }
}

/// Writes down which devices pciback takes at boot; says whether that differs from before.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn hide(devices: &BTreeSet<PciAddress>, file: &Path) -> Result<bool> {
    let text = hide_text(devices);
    let before = match fs::read_to_string(file) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    // No file and no device are the same.
    if before.as_deref() == Some(text.as_str()) || (before.is_none() && devices.is_empty()) {
        return Ok(false);
    }
    // A host that loses its power in the middle has the one or the other.
    let new = file.with_extension("conf.new");
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, file));
    written.with_context(|| format!("writing {}", file.display()))?;
    Ok(true)
}

/// Makes the initial RAM file systems anew, from which drivers are loaded before any file system is there.
///
/// # Errors
/// `update-initramfs` fails.
pub(crate) fn update_initramfs() -> Result<()> {
    let status = Command::new("update-initramfs").args(["-u", "-k", "all"]).status();
    let status = status.context("update-initramfs does not run: have your initramfs built anew by its own tool")?;
    ensure!(status.success(), "update-initramfs -u -k all: {status}");
    Ok(())
}

/// The host's PCI devices, by sysfs.
pub(crate) struct Sysfs {
    /// `/sys`.
    pub(crate) sys: PathBuf,
    /// `/proc/self/mountinfo` and `/proc/swaps`.
    pub(crate) mounts: PathBuf,
    /// See `mounts`.
    pub(crate) swaps: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self { sys: "/sys".into(), mounts: "/proc/self/mountinfo".into(), swaps: "/proc/swaps".into() }
    }
}

/// Where a device is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// pciback has it.
    Pciback,
    /// A driver of dom0's has it.
    Driver(String),
    /// No driver has it.
    Free,
}

impl Sysfs {
    fn device(&self, address: PciAddress) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address.to_string())
    }

    /// Where a device is.
    ///
    /// # Errors
    /// There is no such device.
    pub(crate) fn place(&self, address: PciAddress) -> Result<Place> {
        let device = self.device(address);
        ensure!(device.exists(), "this host has no PCI device {address}; `lspci -D` lists those it has");
        Ok(match fs::read_link(device.join("driver")).ok().as_deref().and_then(Path::file_name) {
            None => Place::Free,
            Some(name) if name == PCIBACK => Place::Pciback,
            Some(name) => Place::Driver(name.to_string_lossy().into_owned()),
        })
    }

    /// Refuses a device whose disks dom0 uses: to take it away would lose what is on them.
    ///
    /// # Errors
    /// The use of a disk.
    pub(crate) fn refuse_used(&self, address: PciAddress) -> Result<()> {
        for (disk, directory) in self.disks(&self.device(address)) {
            for (name, part) in parts(&disk, &directory) {
                if let Some(use_) = self.use_of(&name, &part) {
                    bail!(
                        "PCI device {address} is not taken from dom0: {name}, a disk of it, {use_}. \
                         A reboot keeps the device from dom0's drivers, unless dom0 needs it itself"
                    )
                }
            }
        }
        Ok(())
    }

    /// The disks of a device: directories that hold a `block`, as far down as there are real directories.
    fn disks(&self, device: &Path) -> BTreeMap<String, PathBuf> {
        let (mut disks, mut left) = (BTreeMap::new(), vec![(device.to_owned(), 0)]);
        while let Some((directory, depth)) = left.pop() {
            for (name, path) in directories(&directory) {
                if directory.file_name().is_some_and(|directory| directory == "block") || path.join("queue").exists() {
                    disks.insert(name, path);
                } else if depth < 10 {
                    left.push((path, depth + 1));
                }
            }
        }
        disks
    }

    /// How dom0 uses a disk or partition.
    fn use_of(&self, name: &str, directory: &Path) -> Option<String> {
        let number = fs::read_to_string(directory.join("dev")).unwrap_or_default();
        let number = number.trim();
        let mounts = fs::read_to_string(&self.mounts).unwrap_or_default();
        // `proc_pid_mountinfo(5)`: the third field is the device, the fifth the place. btrfs has numbers of its own, and its source behind ` - `.
        let is_source = |line: &str| {
            let source = line.split(" - ").nth(1).and_then(|behind| behind.split(' ').nth(1));
            source.and_then(|source| source.strip_prefix("/dev/")) == Some(name)
        };
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number) || is_source(line));
        if let Some(place) = mount.and_then(|line| line.split(' ').nth(4)) {
            return Some(format!("is mounted on {place}"));
        }
        let swaps = fs::read_to_string(&self.swaps).unwrap_or_default();
        if swaps.lines().any(|line| line.split([' ', '\t']).next() == Some(&format!("/dev/{name}"))) {
            return Some("is swapped to".into());
        }
        let holder = fs::read_dir(directory.join("holders")).ok()?.flatten().next()?;
        let holder = holder.file_name().to_string_lossy().into_owned();
        Some(format!("is a part of {holder} (`lsblk` shows it; `vgchange -an` ends a volume group of LVM)"))
    }
}

/// Directories in a directory, without those that are links.
fn directories(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    real.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

/// A disk and its partitions.
fn parts(name: &str, disk: &Path) -> Vec<(String, PathBuf)> {
    let partitions = directories(disk).into_iter().filter(|(_, path)| path.join("partition").exists());
    std::iter::once((name.to_owned(), disk.to_owned())).chain(partitions).collect()
}

#[cfg(test)]
mod tests;
