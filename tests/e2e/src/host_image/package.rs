//! The package in two builds: the one that was built, and one whose images differ. Host.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::rebuilt::rebuild;

/// The name of the package.
pub(super) const NAME: &str = "oxidom";
/// The two builds among the lab's files.
pub(super) const FIRST: &str = "first.deb";
pub(super) const SECOND: &str = "second.deb";
/// What the second one's version has more.
const LATER: &str = "+rebuilt";
/// The driver domains' images.
const IMAGES: [&str; 2] = ["usr/lib/oxidom/netdom", "usr/lib/oxidom/blkdom"];

/// A later version of the package, with images that do the same and differ in most pages of their text.
pub(super) fn rebuilt(package: &Path, directory: &Path) -> Result<Vec<u8>> {
    let (tree, later) = (directory.join("tree"), directory.join("later.deb"));
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&tree))?;
    for image in IMAGES {
        let path = tree.join(image);
        let mut bytes = fs::read(&path).with_context(|| format!("the package holds no {image}"))?;
        rebuild(&mut bytes).with_context(|| format!("{image} of the package"))?;
        fs::write(path, bytes)?;
    }
    let control = tree.join("DEBIAN/control");
    fs::write(&control, with_later_version(&fs::read_to_string(&control)?)?)?;
    // The sums were those of the images before.
    fs::remove_file(tree.join("DEBIAN/md5sums")).ok();
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&later))?;
    let bytes = fs::read(&later)?;
    fs::remove_dir_all(tree)?;
    fs::remove_file(later)?;
    Ok(bytes)
}

/// A control file with a version behind the one that it has.
fn with_later_version(control: &str) -> Result<String> {
    let mut found = false;
    let lines = control.lines().map(|line| {
        let is_version = line.starts_with("Version: ");
        found |= is_version;
        format!("{line}{}\n", if is_version { LATER } else { "" })
    });
    let text = lines.collect();
    ensure!(found, "the package has no version");
    Ok(text)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("dpkg-deb does not run")?;
    ensure!(output.status.success(), "dpkg-deb failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_is_behind_the_one_that_there_was() {
        let control = "Package: oxidom\nVersion: 0.2.0\nDescription: x\n Version: y\n";
        let later = "Package: oxidom\nVersion: 0.2.0+rebuilt\nDescription: x\n Version: y\n";
        assert_eq!(with_later_version(control).expect("it has a version"), later);
        assert!(with_later_version("Package: oxidom\n").is_err());
    }
}
