//! The rows of the matrix, and the tree of a release's packages that its domains are made of. Host.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

use crate::suite::{Recipe, Selection, Unpacked};
use crate::{apt, kernel, modules};

/// Which Debian the hypervisor, the toolstack and the kernel come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// Xen 4.17, Linux 6.1.
    Debian12,
    /// Xen 4.20, Linux 6.12.
    Debian13,
}

impl Release {
    /// The name in caches.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "debian12",
            Self::Debian13 => "debian13",
        }
    }

    /// The version of Xen, as it stands in names of packages.
    pub fn xen(self) -> &'static str {
        match self {
            Self::Debian12 => "4.17",
            Self::Debian13 => "4.20",
        }
    }

    /// Its suites.
    pub(crate) fn suites(self) -> &'static [&'static str] {
        match self {
            Self::Debian12 => &["bookworm"],
            Self::Debian13 => &["trixie"],
        }
    }

    /// What the lab's domains are made of.
    fn selection(self) -> Selection {
        let xen = self.xen();
        let mut packages = vec![format!("xen-hypervisor-{xen}-amd64"), format!("xen-utils-{xen}")];
        packages.extend(
            ["linux-image-amd64", "busybox-static", "libgcc-s1", "iproute2", "ethtool", "nftables", "bash"]
                .map(str::to_owned),
        );
        packages.extend(["e2fsprogs", "fdisk", "lvm2", "util-linux"].map(str::to_owned));
        Selection { name: self.name().to_owned(), suites: self.suites(), packages }
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the xenstore runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorePlace {
    /// In dom0: C xenstored.
    Daemon,
    /// In dom0: oxenstored, the one in OCaml that Debian's own script takes first.
    OcamlDaemon,
    /// In a domain of its own, built by `init-xenstore-domain`.
    Domain,
}

/// What kind of domain the Linux guests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestKind {
    /// `type = "pv"`.
    Pv,
    /// `type = "pvh"`: its pages, its page tables and its CPU are the hardware's affair; its vifs and vbds are the same.
    Pvh,
}

/// A row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Whose packages.
    pub release: Release,
    /// Which xenstore.
    pub store: StorePlace,
    /// Which guests.
    pub guests: GuestKind,
}

impl Row {
    /// Every row by its name.
    const NAMES: [(&str, Self); 10] = [
        ("debian12", Self::new(Release::Debian12, StorePlace::Daemon)),
        ("debian13", Self::new(Release::Debian13, StorePlace::Daemon)),
        ("debian12-oxenstored", Self::new(Release::Debian12, StorePlace::OcamlDaemon)),
        ("debian13-oxenstored", Self::new(Release::Debian13, StorePlace::OcamlDaemon)),
        ("debian12-stubdom", Self::new(Release::Debian12, StorePlace::Domain)),
        ("debian13-stubdom", Self::new(Release::Debian13, StorePlace::Domain)),
        ("debian12-pvh", Self::with_pvh_guests(Release::Debian12, StorePlace::Daemon)),
        ("debian13-pvh", Self::with_pvh_guests(Release::Debian13, StorePlace::Daemon)),
        ("debian12-stubdom-pvh", Self::with_pvh_guests(Release::Debian12, StorePlace::Domain)),
        ("debian13-stubdom-pvh", Self::with_pvh_guests(Release::Debian13, StorePlace::Domain)),
    ];

    /// The rows that are run where none is named.
    pub const MATRIX: [Self; 3] = [
        Self::new(Release::Debian12, StorePlace::Daemon),
        Self::new(Release::Debian13, StorePlace::Daemon),
        Self::new(Release::Debian13, StorePlace::Domain),
    ];

    /// The row of that release with that store and PV guests.
    pub const fn new(release: Release, store: StorePlace) -> Self {
        Self { release, store, guests: GuestKind::Pv }
    }

    /// The row of that release with that store and PVH guests.
    pub const fn with_pvh_guests(release: Release, store: StorePlace) -> Self {
        Self { guests: GuestKind::Pvh, ..Self::new(release, store) }
    }

    /// The name on command lines.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, row)| *row == self).map_or("", |(name, _)| name)
    }

    /// The version of Xen, as it stands in names of packages.
    pub fn xen(self) -> &'static str {
        self.release.xen()
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let row = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, row)| *row);
        row.ok_or_else(|| format!("no row '{name}'; there are {}", Self::NAMES.map(|(name, _)| name).join(", ")))
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a release becomes a tree.
const RECIPE: Recipe = Recipe { format: 7, wanted, finish };

/// The unpacked packages of a release: what is needed of them, with `/bin`, `/sbin` and `/lib*` merged into `/usr`.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Of which release.
    pub release: Release,
    /// The directory.
    pub path: PathBuf,
    _unpacked: Unpacked,
}

impl Tree {
    /// Finds the release's tree in the cache, makes it, or makes it anew when Debian has other packages. Says on the terminal what
    /// takes time.
    ///
    /// # Errors
    /// What could not be downloaded or unpacked, where there is no tree that would do.
    pub fn prepare(release: Release) -> Result<Self> {
        let unpacked = release.selection().prepare(RECIPE)?;
        Ok(Self { release, path: unpacked.path.clone(), _unpacked: unpacked })
    }

    /// Other packages of the same release, in a folder of their own.
    pub(crate) fn more(&self, packages: &[&str]) -> Selection {
        let name = format!("{}-more", self.release.name());
        let packages = packages.iter().map(|package| (*package).to_owned()).collect();
        Selection { name, packages, ..self.release.selection() }
    }

    /// The hypervisor, uncompressed, as QEMU wants it.
    pub fn hypervisor(&self) -> PathBuf {
        self.path.join("boot/xen")
    }

    /// The kernel, uncompressed: neither Xen nor `xl` has to do that under emulation.
    pub fn kernel(&self) -> PathBuf {
        self.path.join("boot/vmlinux")
    }

    /// The kernel as Debian packs it.
    pub fn packed_kernel(&self) -> PathBuf {
        self.path.join("boot/vmlinuz")
    }
}

/// Makes of the hypervisor, the kernel and the modules what boots without delay.
fn finish(tree: &Path, bar: &ProgressBar) -> Result<()> {
    apt::say(bar, "kernel and modules");
    let boot = tree.join("boot");
    for entry in fs::read_dir(&boot).context("no kernel among the packages")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("xen-") && name.ends_with(".gz") {
            let mut image = Vec::new();
            flate2::read::GzDecoder::new(fs::File::open(&path)?).read_to_end(&mut image)?;
            fs::write(boot.join("xen"), image)?;
        } else if name.starts_with("vmlinuz-") {
            fs::rename(&path, boot.join("vmlinuz"))?;
        }
    }
    ensure!(boot.join("xen").exists() && boot.join("vmlinuz").exists(), "the packages hold no hypervisor or no kernel");
    let kernel = kernel::extract(&fs::read(boot.join("vmlinuz"))?).context("Debian's kernel")?;
    fs::write(boot.join("vmlinux"), kernel)?;
    modules::decompress(tree)
}

/// Whether a file of a package can be of use in the lab: documentation, locales and most modules cannot.
pub(crate) fn wanted(path: &Path) -> bool {
    let text = path.to_string_lossy();
    if let Some(module) = text.strip_prefix("usr/lib/modules/").and_then(|rest| rest.split_once('/')) {
        return modules::wanted(module.1);
    }
    let prefixes =
        ["usr/bin/", "usr/sbin/", "usr/lib/x86_64-linux-gnu/lib", "usr/lib/x86_64-linux-gnu/ld-", "usr/lib64/ld-"];
    let more = ["usr/lib/xen-", "etc/xen/", "boot/vmlinuz-", "boot/xen-"];
    let never = text.contains("python") || text.contains("xen-shim") || text.ends_with(".efi");
    !never && prefixes.iter().chain(&more).any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolstack_is_wanted_and_manuals_are_not() {
        for path in [
            "usr/lib/xen-4.17/bin/xl",
            "usr/lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/modules/6.1/kernel/drivers/net/xen-netfront.ko",
        ] {
            assert!(wanted(Path::new(path)), "{path}");
        }
        for path in
            ["usr/share/doc/xen/x", "usr/lib/modules/6.1/kernel/drivers/gpu/drm/i915/i915.ko", "usr/bin/python3"]
        {
            assert!(!wanted(Path::new(path)), "{path}");
        }
    }
}
