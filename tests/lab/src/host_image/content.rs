//! What a whole Debian is made of: its packages, and the files that make it one of the lab. Pure.

use anyhow::Result;

use crate::packages::Release;

/// Changes when the image is made in another way.
const FORMAT: u32 = 1;

/// The packages beside those that each Debian has.
pub(super) const PACKAGES: [&str; 6] =
    ["linux-image-amd64", "xen-system-amd64", "grub-pc", "ifupdown", "systemd-sysv", "dbus"];

/// Dom0's memory, in MiB.
pub(super) const DOM0_MEMORY: u32 = 1024;

/// The first program of the first boot, and its last words.
pub(super) const INSTALLER: &str = "/usr/local/sbin/lab-install";
pub(super) const INSTALLED: &str = "lab: the boot loader is installed";
pub(super) const NOT_INSTALLED: &str = "lab: the boot loader is not installed";

/// Timers and services that change files or take the CPU at their own time.
const MASKED: [&str; 9] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "logrotate.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
];

/// What an image is known by: it is made anew where this changes.
pub(super) fn key(release: Release) -> String {
    let text: String = files().into_iter().map(|(path, mode, text)| format!("{path} {mode:o} {text}")).collect();
    // A sum of the files' text is enough to tell one edition of this module from another.
    let sum =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{FORMAT} {} {} {} {sum:016x}", release.suites().join(" "), PACKAGES.join(" "), MASKED.join(" "))
}

/// Files with their modes and texts.
fn files() -> Vec<(&'static str, u32, String)> {
    let grub = format!(
        "GRUB_TIMEOUT=0\nGRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND=\"serial --unit=0 --speed=115200\"\n\
         GRUB_CMDLINE_LINUX_DEFAULT=\"\"\n\
         GRUB_CMDLINE_XEN=\"console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M\"\n\
         GRUB_CMDLINE_LINUX_XEN_REPLACE=\"console=hvc0 cryptomgr.notests\"\n"
    );
    let installer = format!(
        "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n\
         if grub-install --target=i386-pc /dev/vda && update-grub && grep -q multiboot2 /boot/grub/grub.cfg; then\n\
         \trm -f {INSTALLER}; sync; mount -o remount,ro /; echo '{INSTALLED}'\n\
         else\n\techo '{NOT_INSTALLED}'\nfi\n\
         echo o >/proc/sysrq-trigger; sleep 60\n"
    );
    let agent = "[Unit]\nDescription=The lab's agent\nRequiresMountsFor=/mnt/lab\n\n\
                 [Service]\nExecStart=/mnt/lab/lab-agent serve host\n";
    let login =
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200,38400,9600 - $TERM\n";
    let interfaces = "auto lo\niface lo inet loopback\n\nauto enp0s2\niface enp0s2 inet static\n\taddress 10.0.2.15/24\n\tgateway 10.0.2.2\n";
    let text = |text: &str| text.to_owned();
    vec![
        ("etc/hostname", 0o644, text("host\n")),
        ("etc/hosts", 0o644, text("127.0.0.1 localhost\n127.0.1.1 host\n")),
        ("etc/fstab", 0o644, text("LABEL=root / ext4 errors=remount-ro 0 1\nLABEL=lab /mnt/lab ext4 ro 0 0\n")),
        ("etc/network/interfaces", 0o644, text(interfaces)),
        ("etc/default/grub.d/lab.cfg", 0o644, grub),
        ("etc/systemd/system/lab-agent.service", 0o644, text(agent)),
        ("etc/systemd/system/serial-getty@hvc0.service.d/lab.conf", 0o644, text(login)),
        (INSTALLER.trim_start_matches('/'), 0o755, installer),
    ]
}

/// Those files, the service as one that starts, and what is masked, as a tar archive.
pub(super) fn archive() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), "mnt/lab", [].as_slice())?;
    for (path, mode, text) in files() {
        archive.append_data(&mut header(tar::EntryType::Regular, mode, text.len() as u64), path, text.as_bytes())?;
    }
    let wanted = [("multi-user.target.wants/lab-agent.service", "../lab-agent.service")];
    for (name, target) in wanted.into_iter().chain(MASKED.map(|unit| (unit, "/dev/null"))) {
        let path = format!("etc/systemd/system/{name}");
        archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)?;
    }
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_archive_has_each_file_and_starts_the_agent() {
        let bytes = archive().expect("a vector takes all");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut links = BTreeMap::new();
        let mut paths = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            if let Some(target) = entry.link_name().expect("a link") {
                links.insert(path.clone(), target.to_string_lossy().into_owned());
            }
            paths.push(path);
        }
        assert!(files().iter().all(|(path, ..)| paths.iter().any(|found| found == path)), "{paths:?}");
        assert_eq!(links["etc/systemd/system/multi-user.target.wants/lab-agent.service"], "../lab-agent.service");
        assert_eq!(links["etc/systemd/system/apt-daily.timer"], "/dev/null");
    }

    #[test]
    fn releases_have_keys_of_their_own() {
        assert_ne!(key(Release::Debian12), key(Release::Debian13));
        assert_eq!(key(Release::Debian12).lines().count(), 1);
    }
}
