//! QEMU, of Debian's backports: unpacked into the cache, and started by the loader of its own libraries, so that it runs beside those
//! of any host. Host.
//!
//! The lab has the same QEMU everywhere, and one with the devices that it needs: `igb` and `vfio-user-pci`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::suite::{Recipe, Selection, Unpacked};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// What QEMU loads when it is asked for some of its devices: modules of the very same build.
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
/// QEMU's firmware, and SeaBIOS.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// An unpacked QEMU. While it lives, nobody replaces the tree.
#[derive(Clone, Debug)]
pub struct Emulator {
    tree: Unpacked,
}

impl Emulator {
    /// Finds QEMU in the cache, or downloads and unpacks it. Says on the terminal what takes time.
    ///
    /// # Errors
    /// What could not be downloaded or unpacked, where there is no tree that would do.
    pub fn prepare() -> Result<Self> {
        const RECIPE: Recipe = Recipe { format: 1, wanted, finish: |tree, _| check(tree) };
        let selection = Selection {
            name: "qemu".to_owned(),
            suites: &["trixie", "trixie-backports"],
            packages: vec!["qemu-system-x86".to_owned()],
        };
        Ok(Self { tree: selection.prepare(RECIPE)? })
    }

    /// A command that starts QEMU, and dies with the thread that starts it.
    pub fn command(&self) -> Command {
        let path = |below: &str| self.tree.path.join(below);
        let mut command = dying_with_us(loader(&self.tree.path));
        command.arg("--library-path").arg(path(LIBRARIES)).arg(path(PROGRAM));
        for firmware in FIRMWARE {
            command.arg("-L").arg(path(firmware));
        }
        command.env("QEMU_MODULE_DIR", path(MODULES));
        command
    }
}

/// Makes a command die with the thread that starts it: `setpriv` is part of Debian's essential util-linux.
pub fn dying_with_us(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn loader(tree: &Path) -> PathBuf {
    tree.join(LIBRARIES).join(LOADER)
}

/// Whether the tree has what [`Emulator::command`] names.
fn check(tree: &Path) -> Result<()> {
    let files = [loader(tree), tree.join(PROGRAM), tree.join(MODULES)];
    for file in files.into_iter().chain(FIRMWARE.map(|firmware| tree.join(firmware))) {
        ensure!(file.exists(), "QEMU's packages hold no {}", file.display());
    }
    Ok(())
}

/// Whether a file of a package is QEMU's, or a library.
fn wanted(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let library = |name: &str| name.starts_with("lib") || name.starts_with("ld-");
    let needed = [MODULES, FIRMWARE[0], FIRMWARE[1]].iter().any(|folder| path.starts_with(folder));
    text == PROGRAM || needed || text.strip_prefix(LIBRARIES).is_some_and(|rest| library(rest.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_and_libraries_are_wanted_and_other_programs_are_not() {
        for path in [
            "usr/bin/qemu-system-x86_64",
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "usr/lib/x86_64-linux-gnu/libglib-2.0.so.0",
            "usr/lib/x86_64-linux-gnu/qemu/hw-usb-host.so",
            "usr/share/qemu/efi-e1000e.rom",
            "usr/share/seabios/bios-256k.bin",
        ] {
            assert!(wanted(Path::new(path)), "{path}");
        }
        for path in
            ["usr/bin/qemu-system-x86_64-microvm", "usr/share/doc/libc6/copyright", "usr/lib/x86_64-linux-gnu/gconv/x"]
        {
            assert!(!wanted(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_tree_without_firmware_is_none() {
        let tree = crate::scratch::Scratch::new().expect("the system has a place for it");
        for folder in [LIBRARIES, MODULES, "usr/bin", FIRMWARE[0]] {
            std::fs::create_dir_all(tree.path().join(folder)).expect("it can be written to");
        }
        for file in [loader(tree.path()), tree.path().join(PROGRAM)] {
            std::fs::write(file, "").expect("it can be written to");
        }
        let error = check(tree.path()).expect_err("it lacks SeaBIOS").to_string();
        assert!(error.contains("seabios"), "{error}");
        std::fs::create_dir_all(tree.path().join(FIRMWARE[1])).expect("it can be written to");
        check(tree.path()).expect("it is whole");
    }
}
