//! The files of a host, before a package was there and after it was purged. Host.

use anyhow::{Result, ensure};

use super::{APT, Host};

/// Makes a list of all files, with modes, owners, targets of links, and sums of what a package may change of others'; and of what each
/// initramfs holds. What changes on its own is left out.
const LIST: &str = r#"
cd /
find / -xdev \( -path /tmp -o -path /var/tmp -o -path /var/cache -o -path '/var/log/*' -o -path /var/lib/apt -o -path /root -o -path /lost+found \
    -o -path /var/lib/systemd/random-seed -o -path /var/lib/systemd/timers -o -path /var/lib/xen/userdata -o -path /var/lib/xen/save \
    -o -path '/var/lib/dpkg/*-old' -o -path /var/lib/xen/xenstore \) -prune -o -printf '%p %y %m %u:%g %l\n' | sort
find /etc /boot/grub /usr/lib/systemd /usr/lib/modprobe.d /usr/lib/modules-load.d -xdev -type f ! -path '/etc/ld.so.cache' -exec sha256sum {} + | sort -k 2
for image in /boot/initrd.img-*; do lsinitramfs -l $image | awk -v image=$image '{ print image, $1, $5, $9, $10, $11 }' | sort; done
"#;
/// Where the lists are: in a directory that they leave out.
const BEFORE: &str = "/var/tmp/lab-before";
const AFTER: &str = "/var/tmp/lab-after";

impl Host {
    fn list_files(&self, to: &str) -> Result<()> {
        let lab = self.lab()?;
        lab.put("/var/tmp/lab-list", 0o755, LIST.as_bytes())?;
        lab.run_for(&format!("sh /var/tmp/lab-list >{to}"), APT)?.success().map(drop)
    }

    /// Notes which files there are.
    pub(super) fn note_files(&self) -> Result<String> {
        self.list_files(BEFORE)?;
        let lines = self.lab()?.must(&format!("wc -l <{BEFORE}"))?;
        Ok(format!("{} lines", lines.trim()))
    }

    /// Just those that were noted must be there.
    pub(super) fn nothing_is_left(&self) -> Result<()> {
        self.list_files(AFTER)?;
        let differs = self.lab()?.run(&format!("diff {BEFORE} {AFTER}"))?;
        let shown: String = differs.stdout.lines().take(60).map(|line| format!("{line}\n")).collect();
        ensure!(differs.status == 0, "files before (<) and after (>):\n{shown}");
        Ok(())
    }
}
