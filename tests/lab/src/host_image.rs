//! A whole Debian with Xen, as a disk in the cache: systemd, the distribution's kernel, hypervisor and boot loader. Host.
//!
//! mmdebstrap installs the packages, `mkfs.ext4 -d` makes a file system of them, so that nothing is mounted, and a first boot of the plain
//! kernel has GRUB install itself. Each machine writes to a layer of its own above that disk. The lab's agent is a service of the image; its
//! program comes by a second drive, with all else that a machine needs of the lab, so that the image outlives changes of the agent.

mod content;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use crate::dom0::{Dom0Died, Lab};
use crate::emulator::Emulator;
use crate::machine::{DiskController, Machine, MachineConfig, Nic, OwnDrive, Start};
use crate::packages::{Release, Row};
use crate::root::{self, Extra};
use crate::scratch::Scratch;
use crate::suite::{self, State};
use crate::{apt, cache, host};

/// Bytes of the disk, of which few are in use.
const DISK: u64 = 6 << 30;
/// Where its one partition begins: before it is room for GRUB.
const PARTITION: u64 = 1 << 20;
/// Bytes of the drive of the lab's files.
const FILES: &str = "512M";
/// How long the boot of the plain kernel and GRUB's installation may take.
const INSTALLATION: Duration = Duration::from_secs(600);
/// How long the boot loader, Xen and systemd may take until the agent speaks.
const BOOT: Duration = Duration::from_secs(400);
const MKFS: &str = "/usr/sbin/mkfs.ext4";

/// A whole Debian with Xen. While it lives, nobody replaces its disk.
#[derive(Clone, Debug)]
pub struct HostImage {
    disk: PathBuf,
    _lock: Arc<File>,
}

impl HostImage {
    /// Finds the release's disk in the cache or makes it, which takes minutes; anew when it is a week old and the mirror can be reached. Says on
    /// the terminal what takes time.
    ///
    /// # Errors
    /// What the host lacks, or what could not be downloaded or installed, where there is no disk that would do.
    pub fn prepare(release: Release) -> Result<Self> {
        host::provide(&[host::BOOT, host::HOST_IMAGE].concat())?;
        let name = format!("host-{}", release.name());
        let base = cache::directory()?.join(&name);
        let (disk, stamp) = (base.join("disk.raw"), base.join("stamp"));
        let key = content::key(release);
        let current = || {
            let found = suite::read_stamp(&stamp).filter(|_| disk.exists());
            suite::state(found.as_ref().map(|(text, age)| (text.as_str(), *age)), &key)
        };
        let mut lock = cache::lock_shared(&name)?;
        if current() != State::Fresh {
            drop(lock);
            // Another lab may have been quicker.
            let alone = cache::lock(&name)?;
            let state = current();
            if state != State::Fresh
                && let Err(error) = make(release, &base, &key)
            {
                if state == State::Missing {
                    return Err(error.context(format!("making a whole {release}")));
                }
                eprintln!(
                    "lab: {name}: going on with the image in the cache; a newer one could not be made: {error:#}"
                );
                File::options().append(true).open(&stamp)?.set_modified(SystemTime::now() - suite::PUT_OFF)?;
            }
            drop(alone);
            lock = cache::lock_shared(&name)?;
        }
        Ok(Self { disk, _lock: Arc::new(lock) })
    }

    /// Makes a layer above the disk, in which all that a machine writes stays.
    ///
    /// # Errors
    /// The complaint of `qemu-img`.
    pub fn layer(&self, path: &Path) -> Result<()> {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&self.disk).arg(path);
        run(&mut command)
    }
}

/// The machine that boots a [`HostImage`].
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The row of the matrix.
    pub row: Row,
    /// What [`HostImage::layer`] made.
    pub layer: PathBuf,
    /// What [`files_drive`] made.
    pub files: PathBuf,
    /// Memory, in MiB; 1024 of it are dom0's.
    pub memory: u32,
    /// NICs; the one in slot 2 is dom0's.
    pub nics: Vec<Nic>,
    /// Disk controllers beside that of dom0's drives.
    pub controllers: Vec<DiskController>,
}

/// Makes the drive that a machine has as `/mnt/lab`, of the agent and these files.
///
/// # Errors
/// Where it cannot be written.
pub fn files_drive(directory: &Path, files: &[Extra]) -> Result<PathBuf> {
    let (root, image) = (directory.join("files"), directory.join("files.img"));
    let agent = Extra { path: "lab-agent".to_owned(), mode: 0o755, content: fs::read(root::agent()?)? };
    for Extra { path, mode, content } in files.iter().chain([&agent]) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&root))?;
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))?;
    }
    run(Command::new(MKFS).args(["-q", "-F", "-L", "lab", "-d"]).arg(&root).arg(&image).arg(FILES))?;
    fs::remove_dir_all(root)?;
    Ok(image)
}

impl Lab {
    /// Boots a whole Debian by its own boot loader; returns when the lab's agent in it answers, which is before all of its services are up.
    /// A boot in which dom0 crashes before is tried again, as by [`Lab::boot`].
    ///
    /// # Errors
    /// The console's end where that does not come to pass.
    pub fn boot_host(config: &HostConfig) -> Result<Self> {
        let own = |image: &Path, format, read_only| OwnDrive { image: image.to_owned(), format, read_only };
        let machine = MachineConfig {
            start: Start::Drive,
            drives: vec![own(&config.layer, "qcow2", false), own(&config.files, "raw", true)],
            memory: config.memory,
            nics: config.nics.clone(),
            controllers: config.controllers.clone(),
            ..MachineConfig::default()
        };
        let emulator = Emulator::prepare()?;
        let boot = || Self::start(&emulator, config.row, machine.clone(), Scratch::new()?, BOOT);
        Self::insist(boot, Dom0Died::crashed)
    }
}

/// Makes the disk; it appears whole or not at all.
fn make(release: Release, base: &Path, key: &str) -> Result<()> {
    let part = base.join("part");
    suite::remove(&part)?;
    fs::create_dir_all(&part)?;
    let bar = apt::bar(&format!("{release}: installing a whole Debian with Xen"));
    apt::tick(&bar);
    install(release, &part, &bar)?;
    bar.set_position(50);
    apt::say(&bar, &format!("{release}: making its file system"));
    make_disk(&part)?;
    bar.set_position(70);
    apt::say(&bar, &format!("{release}: installing its boot loader"));
    install_boot_loader(&part)?;
    bar.finish_and_clear();
    fs::rename(part.join("disk.raw"), base.join("disk.raw"))?;
    suite::remove(&part)?;
    fs::write(base.join("stamp"), format!("{key}\n"))?;
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Has mmdebstrap install all packages, by `root.tar`.
fn install(release: Release, part: &Path, bar: &ProgressBar) -> Result<()> {
    fs::write(part.join("own.tar"), content::archive()?)?;
    let [suite] = release.suites() else { bail!("{release} is of more than one suite") };
    let mut command = Command::new("mmdebstrap");
    command
        .arg(if is_root() { "--mode=root" } else { "--mode=unshare" })
        .args(["--architectures=amd64", "--variant=important", "--format=tar"])
        .arg(format!("--include={}", content::PACKAGES.join(",")))
        // A proxy is a fact of the network.
        .args(suite::proxy()?.lines().map(|line| format!("--aptopt={line}")))
        .arg(format!("--customize-hook=tar-in {} /", part.join("own.tar").display()))
        .args(["--customize-hook=rm -f \"$1\"/etc/apt/apt.conf.d/99mmdebstrap", suite])
        .arg(part.join("root.tar"))
        .arg(suite::sources(&[suite])?.trim_end())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("mmdebstrap does not run")?;
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().context("mmdebstrap's stderr")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let Some(stage) = line.strip_prefix("I: ") {
            bar.set_message(format!("{release}: {stage}"));
        }
        said.push(line);
    }
    let status = child.wait()?;
    let end = said.get(said.len().saturating_sub(30)..).unwrap_or_default().join("\n");
    ensure!(status.success(), "mmdebstrap failed, {status}:\n{end}");
    Ok(())
}

/// Unpacks the tree as its owners' would be, takes kernel and initramfs out of it, and makes the file system. `/dev` is udev's.
const UNPACK: &str = "set -e; cd \"$1\"; mkdir root; tar -xf root.tar -C root --exclude='./dev/*'; rm root.tar
cp root/boot/vmlinuz-* vmlinuz; cp root/boot/initrd.img-* initrd; chmod 644 vmlinuz initrd
\"$2\" -q -F -L root -O ^metadata_csum_seed -E offset=$3 -d root disk.raw $4k; rm -rf root";

/// Makes `disk.raw` of `root.tar`, with one partition, beside the kernel and the initramfs of the tree.
fn make_disk(part: &Path) -> Result<()> {
    let disk = part.join("disk.raw");
    let mut file = File::create(&disk)?;
    file.set_len(DISK)?;
    // Without root, files have their owners in a user namespace of root's and the subordinate numbers.
    let mut command = if is_root() { Command::new("sh") } else { Command::new("unshare") };
    if !is_root() {
        command.args(["--map-root-user", "--map-auto", "sh"]);
    }
    command.args(["-c", UNPACK, "sh"]).arg(part).arg(MKFS);
    run(command.arg(PARTITION.to_string()).arg(((DISK - PARTITION) >> 10).to_string()))?;
    file.seek(SeekFrom::Start(446))?;
    file.write_all(&partition_table())?;
    Ok(())
}

/// The end of a master boot record: one bootable partition for Linux, none besides, and the record's signature.
fn partition_table() -> [u8; 66] {
    const SECTOR: u64 = 512;
    // Cylinders, heads and sectors as for what they cannot express.
    const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).to_le_bytes();
    let mut table = [0; 66];
    let entry: Vec<u8> =
        [&[0x80], &BEYOND[..], &[0x83], &BEYOND, &sectors(PARTITION), &sectors(DISK - PARTITION)].concat();
    let fields = entry.iter().enumerate().chain([(64, &0x55), (65, &0xaa)]);
    for (place, byte) in fields {
        if let Some(field) = table.get_mut(place) {
            *field = *byte;
        }
    }
    table
}

/// Boots the plain kernel with the tree's program for that, which has GRUB write to the disk and its menu to the file system.
fn install_boot_loader(part: &Path) -> Result<()> {
    let config = MachineConfig {
        start: Start::Kernel,
        drives: vec![OwnDrive { image: part.join("disk.raw"), format: "raw", read_only: false }],
        kernel: part.join("vmlinuz"),
        kernel_arguments: format!(
            "root=/dev/vda1 rw console=ttyS0 quiet cryptomgr.notests init={}",
            content::INSTALLER
        ),
        initramfs: Some(part.join("initrd")),
        memory: 1024,
        ..MachineConfig::default()
    };
    let machine = Machine::start(&Emulator::prepare()?, &config, Scratch::new()?)?;
    let said = machine.wait_for_any(&[content::INSTALLED, content::NOT_INSTALLED], INSTALLATION)?;
    ensure!(said.contains(content::INSTALLED), "GRUB was not installed; the console:\n{}", machine.console());
    machine.wait_end(Duration::from_secs(120)).map(drop)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed, {}: {}", output.status, said.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_has_one_partition_to_its_end() {
        let table = partition_table();
        assert_eq!(table[..8], [0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
        let word = |at: usize| u64::from(u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]));
        assert_eq!((word(8) * 512, (word(8) + word(12)) * 512), (PARTITION, DISK));
        assert!(table[16..64].iter().all(|byte| *byte == 0));
        assert_eq!(table[64..], [0x55, 0xaa]);
    }
}
