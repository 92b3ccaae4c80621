//! Packages of Debian's suites: downloaded by a private apt, unpacked, and kept in the cache. Host.
//!
//! apt resolves, verifies and downloads, as it would for the host, but with state, cache and sources of our own. The mirror is
//! the one that the host's own apt uses. Once a week apt is asked anew; while it cannot be reached, the tree there is serves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::ProgressBar;

use crate::{apt, cache};

/// How long a tree serves until apt is asked whether its packages are still those of the suite.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long it serves on when apt could not be asked.
const RETRY: Duration = Duration::from_secs(24 * 60 * 60);
/// The age that a stamp is given then.
pub(crate) const PUT_OFF: Duration = FRESH.saturating_sub(RETRY);

/// Packages of Debian that are used together.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Its folder in the cache, and its name in messages.
    pub(crate) name: String,
    /// The suites that they come from. The last one's are preferred, and stand on the others.
    pub(crate) suites: &'static [&'static str],
    /// Their names; apt adds what they depend on.
    pub(crate) packages: Vec<String>,
}

/// How a selection becomes a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// Changes when what is unpacked, or how, changes.
    pub(crate) format: u32,
    /// Whether a file is unpacked, by its path.
    pub(crate) wanted: fn(&Path) -> bool,
    /// What is left to do in the tree then.
    pub(crate) finish: fn(&Path, &ProgressBar) -> Result<()>,
}

/// An unpacked selection: what is wanted of its packages, with `/bin`, `/sbin` and `/lib*` merged into `/usr`.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    /// The directory.
    pub(crate) path: PathBuf,
    /// Held by all that read the tree, so that nobody replaces it meanwhile.
    _lock: Arc<File>,
}

/// What the stamp beside a tree says of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves.
    Fresh,
    /// It serves, if apt cannot be asked for newer packages.
    Old,
    /// There is none, or one of another make.
    Missing,
}

/// Judges a tree by its stamp's text and age: the first line is the key, the others are the files of the packages.
pub(crate) fn state(stamp: Option<(&str, Duration)>, key: &str) -> State {
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

impl Selection {
    /// Where it is in the cache.
    pub(crate) fn base(&self) -> Result<PathBuf> {
        Ok(cache::directory()?.join(&self.name))
    }

    /// Finds the tree in the cache, makes it, or makes it anew when Debian has other packages. Says on the terminal what
    /// takes time.
    ///
    /// # Errors
    /// What could not be downloaded or unpacked, where there is no tree that would do.
    pub(crate) fn prepare(&self, recipe: Recipe) -> Result<Unpacked> {
        let base = self.base()?;
        let path = base.join("tree");
        let stamp = base.join("stamp");
        let key = format!("{} {} {}", recipe.format, self.suites.join(" "), self.packages.join(" "));
        let current = || {
            state(read_stamp(&stamp).filter(|_| path.exists()).as_ref().map(|(text, age)| (text.as_str(), *age)), &key)
        };
        let lock = cache::lock_shared(&self.name)?;
        if current() == State::Fresh {
            return Ok(Unpacked { path, _lock: Arc::new(lock) });
        }
        drop(lock);
        // Another lab may have been quicker.
        let lock = cache::lock(&self.name)?;
        match current() {
            State::Fresh => {}
            State::Missing => self.renew(recipe, &key)?,
            State::Old => {
                if let Err(error) = self.renew(recipe, &key) {
                    eprintln!(
                        "lab: {}: going on with the packages in the cache; whether there are newer ones cannot be told: {error:#}",
                        self.name
                    );
                    File::options().append(true).open(&stamp)?.set_modified(SystemTime::now() - PUT_OFF)?;
                }
            }
        }
        drop(lock);
        Ok(Unpacked { path, _lock: Arc::new(cache::lock_shared(&self.name)?) })
    }

    /// Asks apt for the packages, and makes the tree of them unless it is made of just these.
    fn renew(&self, recipe: Recipe, key: &str) -> Result<()> {
        let base = self.base()?;
        let archives = self.download()?;
        let names = archives.iter().filter_map(|path| path.file_name()?.to_str());
        let made = std::iter::once(key).chain(names).fold(String::new(), |text, line| text + line + "\n");
        let (stamp, tree) = (base.join("stamp"), base.join("tree"));
        if !(tree.exists() && fs::read_to_string(&stamp).is_ok_and(|found| found == made)) {
            self.unpack(recipe, &archives, &tree)?;
        }
        fs::write(stamp, made)?;
        Ok(())
    }

    /// Has apt resolve and download the packages, with all that they need; gives their files.
    pub(crate) fn download(&self) -> Result<Vec<PathBuf>> {
        let base = self.base()?;
        let archives = base.join("apt/cache/archives");
        fs::create_dir_all(archives.join("partial"))?;
        fs::create_dir_all(base.join("apt/state/lists/partial"))?;
        fs::write(base.join("apt/status"), "")?;
        fs::write(base.join("apt/sources.list"), sources(self.suites)?)?;
        let d = base.join("apt");
        let d = d.display();
        // Nothing of the host's apt is read but its proxy, which is a fact of the network.
        let proxy = proxy()?;
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
        let bar = apt::bar(&format!("{}: package lists", self.name));
        apt::tick(&bar);
        private_apt(&config, &["update"], &bar)?;
        let preferred = self.suites.last().context("packages of no suite")?;
        let with_packages = |arguments: &[&'static str]| -> Vec<&str> {
            let target = ["--target-release", preferred];
            arguments.iter().copied().chain(target).chain(self.packages.iter().map(String::as_str)).collect()
        };
        let lines = private_apt(&config, &with_packages(&["install", "--simulate"]), &bar)?;
        let wanted: BTreeSet<String> = lines.iter().filter_map(|line| archive_name(line)).collect();
        apt::say(&bar, &format!("{}: downloading packages of Debian", self.name));
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

    /// Unpacks what is wanted; the tree appears whole or not at all.
    fn unpack(&self, recipe: Recipe, archives: &[PathBuf], tree: &Path) -> Result<()> {
        let part = tree.with_extension("part");
        remove(&part)?;
        let bar = apt::bar(&format!("{}: unpacking packages", self.name));
        apt::tick(&bar);
        bar.set_length(archives.len() as u64);
        for archive in archives {
            unpack_package(archive, &part, recipe.wanted)
                .with_context(|| format!("unpacking {}", archive.display()))?;
            bar.inc(1);
        }
        (recipe.finish)(&part, &bar)?;
        // The old tree stays until the new one is whole.
        remove(tree)?;
        fs::rename(&part, tree)?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// The stamp's text and age; a stamp from the future is new.
pub(crate) fn read_stamp(stamp: &Path) -> Option<(String, Duration)> {
    let text = fs::read_to_string(stamp).ok()?;
    Some((text, fs::metadata(stamp).ok()?.modified().ok()?.elapsed().unwrap_or_default()))
}

/// The proxy of the host's apt, in lines of its configuration.
pub(crate) fn proxy() -> Result<String> {
    let output = Command::new("apt-config").args(["dump", "Acquire::http::Proxy"]).output()?;
    String::from_utf8(output.stdout).map_err(Into::into)
}

/// The mirror and the key ring for a private apt.
pub(crate) fn sources(suites: &[&str]) -> Result<String> {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    ensure!(Path::new(keyring).exists(), "{keyring} is missing; install the package debian-archive-keyring");
    let mirror = mirror()?;
    Ok(suites.iter().map(|suite| format!("deb [signed-by={keyring}] {mirror} {suite} main\n")).collect())
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
                "Inst qemu-system-x86 (1:11.1.3+ds-1~bpo13+1 Debian Backports:stable-backports [amd64])",
                Some("qemu-system-x86_1%3a11.1.3+ds-1~bpo13+1_amd64.deb"),
            ),
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
}
