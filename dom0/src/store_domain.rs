//! The xenstore's domain on Debian: two files say whether the host has it from its next boot on. Host.
//!
//! Debian's `/etc/init.d/xen` starts the program that `XENSTORED` names in `/etc/default/xen`. Xen's `launch-xenstore`, which builds the domain, reads
//! `/etc/default/xencommons`; nothing else of Debian's does (docs/XENSTORE-DEBIAN.md).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The weight of dom0 and of the store's domain: four times a guest's (docs/XENSTORE-DEBIAN.md, "Weights").
pub(crate) const WEIGHT: u32 = 1024;
/// What `launch-xenstore` is told.
const XENCOMMONS: &str = include_str!("../../build/xenstore-stubdom.xencommons");
/// The image, as those lines name it, below `/`.
pub(crate) const IMAGE: &str = "usr/lib/oxidom/xenstore-stubdom";
/// The line that has Debian's script start it.
const LINE: &str = "XENSTORED=/etc/xen/scripts/launch-xenstore";
/// Before a line that the store's domain has no use for, until it is disabled.
const KEPT: &str = "#oxidom# ";

/// A host's files.
pub(crate) struct StoreDomain {
    /// `/`.
    pub(crate) root: PathBuf,
}

impl Default for StoreDomain {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl StoreDomain {
    fn xen(&self) -> PathBuf {
        self.root.join("etc/default/xen")
    }

    fn xencommons(&self) -> PathBuf {
        self.root.join("etc/default/xencommons")
    }

    /// Whether the next boot has the store in its domain.
    pub(crate) fn is_enabled(&self) -> bool {
        let text = fs::read_to_string(self.xen()).unwrap_or_default();
        text.lines().rev().find(|line| line.trim_start().starts_with("XENSTORED=")).map(str::trim) == Some(LINE)
    }

    /// Has the next boot put the store into its domain.
    ///
    /// # Errors
    /// A file is missing, cannot be written, or says something that does not go with it.
    pub(crate) fn enable(&self) -> Result<()> {
        let image = self.root.join(IMAGE);
        ensure!(image.exists(), "{} is missing; the package oxidom has it", image.display());
        let launcher = self.root.join("etc/xen/scripts/launch-xenstore");
        ensure!(launcher.exists(), "{} is missing; Debian's package xen-utils-common has it", launcher.display());
        let xencommons = self.xencommons();
        match fs::read_to_string(&xencommons) {
            Ok(text) if !is_of_oxidom(&text) => bail!(
                "{} is there, and does not name /{IMAGE}; move it away, and call this again",
                xencommons.display()
            ),
            // An administrator may have changed the rest of it.
            Ok(_) => {}
            Err(_) => replace(&xencommons, XENCOMMONS)?,
        }
        let before = fs::read_to_string(self.xen()).unwrap_or_default();
        replace(&self.xen(), &enabled(&before))
    }

    /// Has the next boot start a daemon in dom0 again.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn disable(&self) -> Result<()> {
        let xencommons = self.xencommons();
        if fs::read_to_string(&xencommons).is_ok_and(|text| text == XENCOMMONS) {
            fs::remove_file(&xencommons).with_context(|| format!("removing {}", xencommons.display()))?;
        }
        match fs::read_to_string(self.xen()) {
            Ok(before) => replace(&self.xen(), &disabled(&before)),
            Err(_) => Ok(()),
        }
    }
}

fn is_of_oxidom(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("XENSTORE_DOMAIN_KERNEL=") && line.contains(IMAGE))
}

/// `/etc/default/xen` with the line, and without those that do not go with it.
fn enabled(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_other = line.trim() != LINE && line.trim_start().starts_with("XENSTORED=");
        let has_arguments = line
            .trim_start()
            .strip_prefix("XENSTORED_ARGS=")
            .is_some_and(|value| !value.trim().trim_matches(['"', '\'']).is_empty());
        let kept = if is_other || has_arguments { KEPT } else { "" };
        lines.push(format!("{kept}{line}"));
    }
    lines.retain(|line| line.trim() != LINE);
    lines.push(LINE.to_owned());
    lines.join("\n") + "\n"
}

/// `/etc/default/xen` as it was.
fn disabled(text: &str) -> String {
    let lines = text.lines().filter(|line| line.trim() != LINE).map(|line| line.strip_prefix(KEPT).unwrap_or(line));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Writes a file anew, with the mode that it had; nothing where it says that already. After a loss of power it is the one or the other.
fn replace(file: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(file).is_ok_and(|before| before == text) {
        return Ok(());
    }
    let new = file.with_extension("oxidom-new");
    let mode = fs::metadata(file).map(|metadata| metadata.permissions());
    let written = fs::write(&new, text)
        .and_then(|()| mode.map_or(Ok(()), |mode| fs::set_permissions(&new, mode)))
        .and_then(|()| fs::rename(&new, file));
    written.with_context(|| format!("writing {}; run this as root", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    struct Host(PathBuf);

    impl Host {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("oxidom-store-{name}-{}", std::process::id()));
            for directory in ["etc/default", "etc/xen/scripts", "usr/lib/oxidom"] {
                fs::create_dir_all(root.join(directory)).unwrap();
            }
            fs::write(root.join(IMAGE), "").unwrap();
            fs::write(root.join("etc/xen/scripts/launch-xenstore"), "").unwrap();
            Self(root)
        }

        fn store(&self) -> StoreDomain {
            StoreDomain { root: self.0.clone() }
        }

        fn xen(&self) -> String {
            fs::read_to_string(self.0.join("etc/default/xen")).unwrap()
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn it_is_enabled_and_disabled_without_a_trace() {
        let host = Host::new("trace");
        let before = "# XENSTORED=/x\nXENSTORED=/usr/sbin/oxenstored\nXENSTORED_ARGS='--trace'\nXENCONSOLED_ARGS=a\n";
        fs::write(host.0.join("etc/default/xen"), before).unwrap();
        assert!(!host.store().is_enabled());
        for _ in 0..2 {
            host.store().enable().unwrap();
            assert!(host.store().is_enabled());
        }
        let text = "# XENSTORED=/x\n#oxidom# XENSTORED=/usr/sbin/oxenstored\n#oxidom# XENSTORED_ARGS='--trace'\nXENCONSOLED_ARGS=a\n";
        assert_eq!(host.xen(), format!("{text}{LINE}\n"));
        fs::set_permissions(host.0.join("etc/default/xen"), fs::Permissions::from_mode(0o640)).unwrap();
        host.store().disable().unwrap();
        assert_eq!((host.xen().as_str(), host.store().is_enabled()), (before, false));
        // What changes nothing leaves the very file.
        let file = || fs::metadata(host.0.join("etc/default/xen")).unwrap();
        let inode = file().ino();
        host.store().disable().unwrap();
        assert_eq!((file().ino(), file().mode() & 0o777), (inode, 0o640));
        assert!(!host.0.join("etc/default/xencommons").exists());
    }

    #[test]
    fn a_xencommons_of_others_is_left_and_a_changed_one_kept() {
        let host = Host::new("others");
        let file = host.0.join("etc/default/xencommons");
        fs::write(&file, "XENSTORETYPE=daemon\n").unwrap();
        assert!(host.store().enable().is_err_and(|error| error.to_string().contains("move it away")));
        assert!(!host.0.join("etc/default/xen").exists());
        let changed = format!("{XENCOMMONS}XENSTORE_DOMAIN_SIZE=32\n");
        fs::write(&file, &changed).unwrap();
        host.store().enable().unwrap();
        host.store().disable().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    }

    #[test]
    fn empty_arguments_stay() {
        assert_eq!(
            enabled("XENSTORED_ARGS=\nXENSTORED_ARGS=\"\"\n"),
            format!("XENSTORED_ARGS=\nXENSTORED_ARGS=\"\"\n{LINE}\n")
        );
        assert_eq!(enabled(""), format!("{LINE}\n"));
    }
}
