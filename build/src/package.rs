//! `cargo xtask package`: Debian's package of the images, their configs and dom0's tool. Host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use lab::{cache, host};

use crate::{bill, images};

/// What `cargo xtask package` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The package's version, in place of the workspace's
    #[arg(long)]
    version: Option<String>,
    /// Leave lintian out
    #[arg(long)]
    no_lintian: bool,
}

/// The folder of the package, within the workspace.
const FOLDER: &str = "package";
/// The time that files have where git knows of none: 2026-01-01.
const EPOCH: &str = "1767225600";
const MAINTAINER: &str = "oxidom maintainers <maintainers@oxidom.invalid>";
/// Texts for `/usr/share/doc/oxidom`, beside all of `docs/`.
const TEXTS: [&str; 1] = ["README.md"];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let package = make(arguments.version.as_deref())?;
    if !arguments.no_lintian {
        check(&package)?;
    }
    let size = fs::metadata(&package)?.len();
    println!("dist/{}: {} KiB", file_name(&package)?, size.div_ceil(1024));
    println!("install it by: apt install ./dist/{}", file_name(&package)?);
    Ok(ExitCode::SUCCESS)
}

/// Builds the images, and the package of them, with the workspace's version or another; gives its file.
///
/// # Errors
/// What the host lacks, or does not build.
pub(crate) fn make(version: Option<&str>) -> Result<PathBuf> {
    host::provide(host::PACKAGE)?;
    images::build()?;
    build(version.unwrap_or(env!("CARGO_PKG_VERSION")))
}

/// Builds the package of what is in `dist/`; gives its file there.
fn build(version: &str) -> Result<PathBuf> {
    let place = cache::target_directory().join("package");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))?;
    }
    let source = place.join("oxidom");
    copy(&cache::workspace().join(FOLDER), &source)?;
    lay_out(&source.join("built"))?;
    let epoch = epoch();
    fs::write(source.join("debian/changelog"), changelog(version, &epoch)?)?;
    say(Command::new("dpkg-buildpackage")
        .args(["--build=binary", "--unsigned-changes", "--unsigned-buildinfo"])
        .env("SOURCE_DATE_EPOCH", &epoch)
        .current_dir(&source))?;
    let name = format!("oxidom_{version}_amd64.deb");
    let package = images::path(&name);
    fs::copy(place.join(&name), &package).with_context(|| format!("dpkg-buildpackage made no {name}"))?;
    let bill = format!("oxidom_{version}.cdx.json");
    fs::write(images::path(&bill), bill::make(version)?)?;
    let sums = Command::new("sha256sum").args([&name, &bill]).current_dir(images::directory()).output();
    fs::write(images::path("SHA256SUMS"), sums.context("sha256sum does not run")?.stdout)?;
    Ok(package)
}

/// Puts what was built where `debian/oxidom.install` looks for it.
fn lay_out(built: &Path) -> Result<()> {
    let place = |name: &str, path: &str, mode: u32| {
        let to = built.join(path);
        fs::create_dir_all(to.parent().unwrap_or(built))?;
        fs::copy(images::path(name), &to).with_context(|| format!("copying dist/{name}"))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(anyhow::Error::from)
    };
    for image in ["netdom", "blkdom", images::STORE] {
        place(image, &format!("lib/{image}"), 0o644)?;
    }
    for config in ["netdom.cfg", "blkdom.cfg"] {
        place(config, &format!("configs/{config}"), 0o644)?;
    }
    place(images::TOOL, "sbin/oxidom", 0o755)?;
    let (man, completions, docs) = (built.join("man"), built.join("completions"), built.join("docs"));
    for directory in [&man, &completions, &docs] {
        fs::create_dir_all(directory)?;
    }
    say(Command::new(images::path(images::TOOL)).arg("documents").arg(&man))?;
    for completion in ["oxidom.bash", "_oxidom", "oxidom.fish"] {
        fs::rename(man.join(completion), completions.join(completion))?;
    }
    for text in TEXTS {
        fs::copy(cache::workspace().join(text), docs.join(text))?;
    }
    copy(&cache::workspace().join("docs"), &docs)
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &to)?;
        } else {
            fs::copy(entry.path(), &to).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The time of the last commit, in seconds since 1970: files of the package have it, so that two builds of a commit are alike.
fn epoch() -> String {
    let told = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(cache::workspace()).output();
    let text = told.ok().and_then(|told| String::from_utf8(told.stdout).ok()).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() { EPOCH.to_owned() } else { text.to_owned() }
}

/// `debian/changelog`, which tells debhelper the version and the time.
fn changelog(version: &str, epoch: &str) -> Result<String> {
    let date = Command::new("date").args(["--utc", "--rfc-email", &format!("--date=@{epoch}")]).output();
    let date = String::from_utf8(date.context("date does not run")?.stdout)?;
    Ok(format!(
        "oxidom ({version}) unstable; urgency=medium\n\n  * See /usr/share/doc/oxidom.\n\n -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

/// Runs lintian; its errors are this command's.
fn check(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    let status = lintian.args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"]).arg(package).status();
    ensure!(status.context("lintian does not run")?.success(), "lintian reports errors");
    Ok(())
}

/// Runs a command that is to succeed, and shows what it says where it does not.
fn say(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{shown} does not run"))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}\n{text}", output.status);
    Ok(())
}

fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a file's name")
}
