//! The rows of the matrix, and the Debian packages of a release, downloaded by a private apt and unpacked into the cache. Host.
//!
//! apt resolves, verifies and downloads, as it would for the host, but with state, cache and sources of our own. The mirror is
//! the one that the host's own apt uses. Once a week apt is asked anew; while it cannot be reached, the tree there is serves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::ProgressBar;

use crate::{apt, cache, kernel, modules};

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

    fn suite(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm",
            Self::Debian13 => "trixie",
        }
    }

    fn packages(self) -> Vec<String> {
        let xen = self.xen();
        let mut packages = vec![format!("xen-hypervisor-{xen}-amd64"), format!("xen-utils-{xen}")];
        packages.extend(["linux-image-amd64", "busybox-static", "libgcc-s1", "iproute2", "bash"].map(str::to_owned));
        packages.extend(["e2fsprogs", "fdisk", "lvm2", "util-linux"].map(str::to_owned));
        packages
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

/// Changes when what is unpacked, or how, changes.
const FORMAT: u32 = 4;

/// How long a tree serves until apt is asked whether its packages are still those of the suite.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long it serves on when apt could not be asked.
const RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// The unpacked packages of a release: what is needed of them, with `/bin`, `/sbin` and `/lib*` merged into `/usr`.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Of which release.
    pub release: Release,
    /// The directory.
    pub path: PathBuf,
    /// Held by all that read the tree, so that nobody replaces it meanwhile.
    _lock: Arc<File>,
}

/// What the stamp beside a tree says of it.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It serves.
    Fresh,
    /// It serves, if apt cannot be asked for newer packages.
    Old,
    /// There is none, or one of another make.
    Missing,
}

/// Judges a tree by its stamp's text and age: the first line is the key, the others are the files of the packages.
fn state(stamp: Option<(&str, Duration)>, key: &str) -> State {
    match stamp {
        Some((text, age)) if text.lines().next() == Some(key) => {
            if age < FRESH {
                State::Fresh
            } else {
                State::Old
            }
        }
        _ => State::Missing,
    }
}

impl Tree {
    /// Finds the release's tree in the cache, makes it, or makes it anew when Debian has other packages. Says on the terminal what
    /// takes time.
    ///
    /// # Errors
    /// What could not be downloaded or unpacked, where there is no tree that would do.
    pub fn prepare(release: Release) -> Result<Self> {
        let base = cache::directory()?.join(release.name());
        let path = base.join("tree");
        let stamp = base.join("stamp");
        let key = format!("{FORMAT} {} {}", release.suite(), release.packages().join(" "));
        let current = || {
            state(read_stamp(&stamp).filter(|_| path.exists()).as_ref().map(|(text, age)| (text.as_str(), *age)), &key)
        };
        let lock = cache::lock_shared(release.name())?;
        if current() == State::Fresh {
            return Ok(Self { release, path, _lock: Arc::new(lock) });
        }
        drop(lock);
        // Another lab may have been quicker.
        let lock = cache::lock(release.name())?;
        match current() {
            State::Fresh => {}
            State::Missing => renew(release, &base, &key)?,
            State::Old => {
                if let Err(error) = renew(release, &base, &key) {
                    eprintln!(
                        "lab: {release}: going on with the packages in the cache; whether there are newer ones cannot be told: {error:#}"
                    );
                    let next = SystemTime::now() - (FRESH - RETRY);
                    File::options().append(true).open(&stamp)?.set_modified(next)?;
                }
            }
        }
        drop(lock);
        Ok(Self { release, path, _lock: Arc::new(cache::lock_shared(release.name())?) })
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

/// The stamp's text and age; a stamp from the future is new.
fn read_stamp(stamp: &Path) -> Option<(String, Duration)> {
    let text = fs::read_to_string(stamp).ok()?;
    Some((text, fs::metadata(stamp).ok()?.modified().ok()?.elapsed().unwrap_or_default()))
}

/// Asks apt for the release's packages, and makes the tree of them unless it is made of just these.
fn renew(release: Release, base: &Path, key: &str) -> Result<()> {
    let archives = download(release, base, &release.packages())?;
    let names = archives.iter().filter_map(|path| path.file_name()?.to_str());
    let made = std::iter::once(key).chain(names).fold(String::new(), |text, line| text + line + "\n");
    let (stamp, tree) = (base.join("stamp"), base.join("tree"));
    if !(tree.exists() && fs::read_to_string(&stamp).is_ok_and(|found| found == made)) {
        unpack(&archives, &tree)?;
    }
    fs::write(stamp, made)?;
    Ok(())
}

/// The mirror and the key ring for a private apt.
fn sources(release: Release) -> Result<String> {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    ensure!(Path::new(keyring).exists(), "{keyring} is missing; install the package debian-archive-keyring");
    Ok(format!("deb [signed-by={keyring}] {} {} main\n", mirror()?, release.suite()))
}

/// Where the host's apt finds Debian's main archive, or `$OXIDOM_MIRROR`.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var("OXIDOM_MIRROR") {
        return Ok(mirror);
    }
    let format = "$(COMPONENT) $(RELEASE) $(ORIGIN)/$(LABEL) $(REPO_URI)";
    let output =
        Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output().context(
            "apt-get does not run: the lab is made of Debian packages and needs a Debian host, or a container of one",
        )?;
    let codename = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename =
        codename.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("none").to_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find_map(|line| {
        let [component, release, origin, uri] = line.splitn(4, ' ').collect::<Vec<_>>().try_into().ok()?;
        (component == "main" && (origin == "Debian/Debian" || release == codename)).then(|| uri.to_owned())
    });
    found.ok_or_else(|| anyhow!("apt knows no Debian main archive; set OXIDOM_MIRROR to the URI of one"))
}

/// Has apt resolve and download packages of the release, with all that they need; gives their files.
pub(crate) fn download(release: Release, base: &Path, packages: &[String]) -> Result<Vec<PathBuf>> {
    let archives = base.join("apt/cache/archives");
    fs::create_dir_all(archives.join("partial"))?;
    fs::create_dir_all(base.join("apt/state/lists/partial"))?;
    fs::write(base.join("apt/status"), "")?;
    fs::write(base.join("apt/sources.list"), sources(release)?)?;
    let d = base.join("apt");
    let d = d.display();
    // Nothing of the host's apt is read but its proxy, which is a fact of the network.
    let proxy = String::from_utf8(Command::new("apt-config").args(["dump", "Acquire::http::Proxy"]).output()?.stdout)?;
    let config = base.join("apt/apt.conf");
    fs::write(
        &config,
        format!(
            r#"Dir::State "{d}/state"; Dir::State::status "{d}/status"; Dir::Cache "{d}/cache";
Dir::Etc::SourceList "{d}/sources.list"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::Parts "/dev/null"; Dir::Etc::Main "/dev/null";
Dir::Etc::Preferences "/dev/null"; Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Install-Recommends "false"; APT::Sandbox::User ""; APT::Status-Fd "1";
APT::Update::Error-Mode "any"; Acquire::Languages "none"; Acquire::Retries "3"; Debug::NoLocking "true"; quiet "2";
{proxy}"#
        ),
    )?;
    let bar = apt::bar(&format!("{release}: package lists"));
    apt::tick(&bar);
    private_apt(&config, &["update"], &bar)?;
    let with_packages = |arguments: &[&'static str]| -> Vec<&str> {
        arguments.iter().copied().chain(packages.iter().map(String::as_str)).collect()
    };
    let lines = private_apt(&config, &with_packages(&["install", "--simulate"]), &bar)?;
    let wanted: BTreeSet<String> = lines.iter().filter_map(|line| archive_name(line)).collect();
    apt::say(&bar, &format!("{release}: downloading packages of Debian"));
    private_apt(&config, &with_packages(&["install", "--yes", "--download-only"]), &bar)?;
    bar.finish_and_clear();
    // What the suite had before must not end in the same tree.
    for entry in fs::read_dir(&archives)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".deb") && !wanted.contains(name.as_ref()) {
            fs::remove_file(&path)?;
        }
    }
    let files: Vec<_> = wanted.iter().map(|name| archives.join(name)).collect();
    let lost = files.iter().find(|file| !file.exists());
    ensure!(!wanted.is_empty() && lost.is_none(), "apt-get did not download what it said: {lost:?}");
    Ok(files)
}

/// The file that apt keeps a package in, from a line of its simulation: `Inst NAME (VERSION ORIGIN [ARCHITECTURE])`.
fn archive_name(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split(' ').next()?.replace(':', "%3a");
    let architecture = rest.split_once('[')?.1.split(']').next()?;
    Some(format!("{}_{version}_{architecture}.deb", name.split(':').next()?))
}

/// apt-get by the configuration of ours alone.
fn private_apt(config: &Path, arguments: &[&str], bar: &ProgressBar) -> Result<Vec<String>> {
    apt::run(Command::new("apt-get").env("APT_CONFIG", config).args(arguments), bar).with_context(|| {
        let what = arguments.first().unwrap_or(&"");
        format!("apt-get {what}; if the mirror lacks this suite, set OXIDOM_MIRROR to one that has it")
    })
}

/// Unpacks what is needed, then the hypervisor and the modules; the tree appears whole or not at all.
fn unpack(archives: &[PathBuf], tree: &Path) -> Result<()> {
    let part = tree.with_extension("part");
    remove(&part)?;
    let bar = apt::bar("unpacking packages");
    apt::tick(&bar);
    bar.set_length(archives.len() as u64);
    for archive in archives {
        unpack_package(archive, &part, wanted).with_context(|| format!("unpacking {}", archive.display()))?;
        bar.inc(1);
    }
    apt::say(&bar, "kernel and modules");
    let boot = part.join("boot");
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
    modules::decompress(&part)?;
    // The old tree stays until the new one is whole.
    remove(tree)?;
    fs::rename(&part, tree)?;
    bar.finish_and_clear();
    Ok(())
}

pub(crate) fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
}

pub(crate) fn unpack_package(archive: &Path, tree: &Path, wanted: fn(&Path) -> bool) -> Result<()> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("dpkg-deb does not run; install the package dpkg")?;
    let mut tar = tar::Archive::new(child.stdout.take().context("dpkg-deb's stdout")?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(path) = merged(&path).filter(|path| wanted(path)) else {
            continue;
        };
        let target = tree.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                fs::write(&target, content)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(entry.header().mode()? & 0o777 | 0o600))?;
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name()?.context("a link to nowhere")?;
                fs::remove_file(&target).ok();
                std::os::unix::fs::symlink(link, &target)?;
            }
            tar::EntryType::Link => {
                let link = entry.link_name()?.context("a link to nowhere")?;
                let source = merged(&link).with_context(|| format!("a link to {}", link.display()))?;
                fs::copy(tree.join(source), &target)?;
            }
            _ => {}
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("dpkg-deb ended with {status}");
    }
    Ok(())
}

/// The path in a merged `/usr`; none if it would leave the tree.
fn merged(path: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = path.components().filter(|part| *part != Component::CurDir).collect();
    if !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let path: PathBuf = parts.iter().collect();
    let first = parts.first()?.as_os_str().to_str()?;
    Some(if ["bin", "sbin", "lib", "lib64"].contains(&first) { Path::new("usr").join(path) } else { path })
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
    fn paths_are_merged_and_stay_inside() {
        assert_eq!(merged(Path::new("./lib/x")), Some(PathBuf::from("usr/lib/x")));
        assert_eq!(merged(Path::new("./usr/lib/x")), Some(PathBuf::from("usr/lib/x")));
        assert_eq!(merged(Path::new("./etc/../../x")), None);
        assert_eq!(merged(Path::new("/etc/x")), None);
    }

    #[test]
    fn a_tree_serves_a_week_and_then_until_apt_answers() {
        let day = Duration::from_secs(24 * 60 * 60);
        let text = "2 bookworm xen\nxen_1_amd64.deb\n";
        let key = "2 bookworm xen";
        assert_eq!(state(None, key), State::Missing);
        assert_eq!(state(Some((text, Duration::ZERO)), key), State::Fresh);
        assert_eq!(state(Some((text, 6 * day)), key), State::Fresh);
        assert_eq!(state(Some((text, 7 * day)), key), State::Old);
        // Of another make, it does not serve at any age.
        assert_eq!(state(Some((text, Duration::ZERO)), "3 bookworm xen"), State::Missing);
        assert_eq!(state(Some(("", Duration::ZERO)), key), State::Missing);
    }

    #[test]
    fn archives_are_named_as_apt_names_them() {
        let table = [
            ("Inst bash (5.2.15-2+b8 Debian:12.11/stable [amd64])", Some("bash_5.2.15-2+b8_amd64.deb")),
            (
                "Inst busybox-static (1:1.35.0-4+b4 Debian:12/stable [amd64]) []",
                Some("busybox-static_1%3a1.35.0-4+b4_amd64.deb"),
            ),
            ("Inst gcc-12-base (12.2.0-14 Debian:12/stable [amd64])", Some("gcc-12-base_12.2.0-14_amd64.deb")),
            (
                "Inst xen-utils-common (4.17 Debian:12/stable, Debian:12/proposed [all])",
                Some("xen-utils-common_4.17_all.deb"),
            ),
            ("Conf bash (5.2.15-2+b8 Debian:12.11/stable [amd64])", None),
        ];
        for (line, name) in table {
            assert_eq!(archive_name(line).as_deref(), name, "{line}");
        }
    }

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
